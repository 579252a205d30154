"""What is asked, by how many, and of whom: descriptions, no code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from bench.keys import Distribution


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One kind of work, for every peer alike."""

    name: str
    says: str
    """One sentence, for the report."""
    processes: tuple[int, ...]
    peers: tuple[str, ...]
    asks: Literal["hits", "misses"] = "hits"
    distribution: Distribution = "uniform"
    writes_percent: int = 0
    batch: int = 1
    """Keys in one question."""
    tasks: int = 1
    """Tasks that share one client, in each process."""
    questions: int = 1_024
    """Prepared for each process; they come round again."""
    slices: float = 1.0
    """How many times as long as others it is measured."""


DURABLE: Final = ("motoolsd, cold", "redis, AOF always", "lmdb", "sqlite3, kept", "older way", "older way, WAL")
BLOCKING: Final = (
    "motoolsd, warm",
    "motoolsd, cold",
    "redis",
    "memcached",
    "diskcache",
    "lmdb",
    "sqlite3, kept",
    "older way",
    "older way, WAL",
)
LOOKING: Final = (*BLOCKING, "motoolsd, labelled", "motoolsd async, warm", "redis.asyncio")
SOME, MANY = 8, 32
SCALING: Final = (1, SOME, MANY)

WORKLOADS: Final = (
    Workload(
        name="hits",
        says="Lookups of keys that are there, each as likely as the others.",
        processes=SCALING,
        peers=LOOKING,
    ),
    Workload(
        name="batch",
        says="A hundred keys in one question; keys a second, latencies of the whole question.",
        processes=(1,),
        peers=("motoolsd, cold", "motoolsd, warm", "redis", "memcached", "lmdb", "sqlite3, kept"),
        batch=100,
    ),
    Workload(
        name="misses",
        says="Lookups of keys that are not there.",
        processes=SCALING,
        peers=LOOKING,
        asks="misses",
    ),
    Workload(
        name="hits-zipfian",
        says="Lookups of keys that are there, a few of them most of the time.",
        processes=SCALING,
        peers=BLOCKING,
        distribution="zipfian",
    ),
    Workload(
        name="misses-zipfian",
        says="Lookups of keys that are not there, a few of them most of the time.",
        processes=SCALING,
        peers=BLOCKING,
        asks="misses",
        distribution="zipfian",
    ),
    Workload(
        name="mixed",
        says="Nine lookups to one write of a new value under a key that others look up, zipfian.",
        processes=(SOME, MANY),
        peers=(*BLOCKING, "redis, AOF always"),
        distribution="zipfian",
        writes_percent=10,
    ),
    Workload(
        name="writes",
        says="New entries, each as durable as the peer's line above says before the next is written.",
        processes=(SOME, MANY),
        peers=(*DURABLE, "motoolsd, normal", "motoolsd, bare", "motoolsd, labelled", "diskcache"),
        writes_percent=100,
        slices=2.0,
    ),
    Workload(
        name="tasks",
        says="Hits by 64 tasks of one process that share one client.",
        processes=(1,),
        peers=("motoolsd async, warm", "motoolsd async, cold", "redis.asyncio", "redis.asyncio, one connection"),
        tasks=64,
    ),
)
BY_NAME: Final = {workload.name: workload for workload in WORKLOADS}

AMONG_MANY: Final = Workload(
    name="million",
    says="One million entries against ten thousand: round trips, hits; and what the daemon needs to have them.",
    processes=(SOME,),
    peers=("motoolsd, cold",),
    questions=8_192,
)
"""Asks for so many different keys that the processor's caches are of no more help than they would be in real use."""
