"""Who is measured. Each adapter uses its store the way its users do."""

from __future__ import annotations

from typing import Final

from bench.peers.embedded import DiskCache, Lmdb
from bench.peers.memcached import Memcached
from bench.peers.motools import AsyncCold, AsyncWarm, Bare, Cold, Labelled, Normal, Warm
from bench.peers.protocol import AsyncSession, Peer, Session, Store
from bench.peers.redis import Redis, RedisAsync, RedisAsyncSingle, RedisOnDisk
from bench.peers.sqlite import KeptConnection, OlderWay, OlderWayOnLog

__all__ = ["PEERS", "AsyncSession", "Peer", "Session", "Store"]

_ALL: Final[tuple[Peer, ...]] = (
    Warm(),
    Cold(),
    Normal(),
    Bare(),
    Labelled(),
    AsyncWarm(),
    AsyncCold(),
    Redis(),
    RedisOnDisk(),
    RedisAsync(),
    RedisAsyncSingle(),
    Memcached(),
    DiskCache(),
    Lmdb(),
    KeptConnection(),
    OlderWay(),
    OlderWayOnLog(),
)
PEERS: Final[dict[str, Peer]] = {peer.name: peer for peer in _ALL}
