"""Redis over a Unix socket, through redis-py with hiredis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.keys import stored
from bench.peers.protocol import AsyncSession, Session, missing_modules
from bench.peers.servers import missing_command, run_server, temporary_directory

LOCK_TIMEOUT_S = 30.0


class RedisServer:
    """A redis-server of our own."""

    address: Path

    def __init__(self, *options: str) -> None:
        """Options of its command line, on persistence."""
        self._options = options

    def available(self) -> str | None:
        """Whether server and client are installed."""
        return missing_command("redis-server", "redis-server") or missing_modules("redis", "hiredis")

    @contextmanager
    def serve(self, entries: int) -> Iterator[None]:
        """Start it and fill it."""
        import redis

        with temporary_directory() as directory:
            self.address = directory / "redis.sock"
            listen = ["--port", "0", "--unixsocket", str(self.address), "--dir", str(directory), "--save", ""]
            with run_server(["redis-server", *listen, *self._options], self.address):
                with redis.Redis(unix_socket_path=str(self.address)) as client:
                    client.mset(dict(stored(entries)))
                yield


IN_MEMORY = RedisServer("--appendonly", "no")
ON_DISK = RedisServer("--appendonly", "yes", "--appendfsync", "always")


class Redis:
    """The blocking client, one connection a process; nothing is written to disk."""

    name = "redis"
    durability = "none: memory, appendonly off"
    remembers = False
    store = IN_MEMORY

    def available(self) -> str | None:
        """As the server."""
        return None

    def connect(self) -> Session:
        """Connect."""
        import redis

        client = redis.Redis(unix_socket_path=str(self.store.address), decode_responses=True)

        def compute_once(key: str, compute: Callable[[], str]) -> str:
            value: str | None = client.get(key)
            if value is None:
                with client.lock(f"lock:{key}", timeout=LOCK_TIMEOUT_S):
                    value = client.get(key)
                    if value is None:
                        value = compute()
                        client.set(key, value)
            return value

        return Session(
            get=client.get, put=client.set, get_many=client.mget, close=client.close, compute_once=compute_once
        )


class RedisOnDisk(Redis):
    """The same, every write on disk before it is answered."""

    name = "redis, AOF always"
    durability = "disk: appendonly, appendfsync always"
    store = ON_DISK


class RedisAsync:
    """The asyncio client with its pool: as many connections as tasks ask at once."""

    name = "redis.asyncio"
    durability = Redis.durability
    remembers = False
    store = IN_MEMORY
    is_single = False

    def available(self) -> str | None:
        """As the server."""
        return None

    def connect(self) -> AsyncSession:
        """Connect on first use."""
        import redis.asyncio

        client = redis.asyncio.Redis(
            unix_socket_path=str(self.store.address), decode_responses=True, single_connection_client=self.is_single
        )
        return AsyncSession(get=client.get, put=client.set, close=client.aclose)


class RedisAsyncSingle(RedisAsync):
    """The same over one connection."""

    name = "redis.asyncio, one connection"
    is_single = True
