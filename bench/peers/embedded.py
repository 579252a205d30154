"""Stores that live inside the asking process: diskcache and LMDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.keys import stored
from bench.peers.protocol import Session, missing_modules
from bench.peers.servers import temporary_directory

LMDB_SIZE_BYTES = 1 << 30
"""Of the map: address space, not disk."""
LOCK_TIMEOUT_S = 60.0


class DiskCacheFiles:
    """A directory of diskcache."""

    directory: Path

    def available(self) -> str | None:
        """Whether it is installed."""
        return missing_modules("diskcache")

    @contextmanager
    def serve(self, entries: int) -> Iterator[None]:
        """Make and fill it."""
        import diskcache

        with temporary_directory() as self.directory:
            with diskcache.Cache(str(self.directory)) as cache, cache.transact():
                for key, value in stored(entries):
                    cache.set(key, value)
            yield


class DiskCache:
    """diskcache as it comes."""

    name = "diskcache"
    durability = "crash of the process only: write-ahead log, synchronous=NORMAL"
    remembers = False

    def __init__(self) -> None:
        """With a directory of its own."""
        self.store = DiskCacheFiles()

    def available(self) -> str | None:
        """As its files."""
        return None

    def connect(self) -> Session:
        """Open the directory."""
        import diskcache

        cache = diskcache.Cache(str(self.store.directory), timeout=LOCK_TIMEOUT_S)

        def compute_once(key: str, compute: Callable[[], str]) -> str:
            value: str | None = cache.get(key)
            if value is None:
                with diskcache.Lock(cache, f"lock:{key}", expire=LOCK_TIMEOUT_S):
                    value = cache.get(key)
                    if value is None:
                        value = compute()
                        cache.set(key, value)
            return value

        return Session(get=cache.get, put=cache.set, close=cache.close, compute_once=compute_once)


class LmdbFiles:
    """A directory of LMDB."""

    directory: Path

    def available(self) -> str | None:
        """Whether it is installed."""
        return missing_modules("lmdb")

    @contextmanager
    def serve(self, entries: int) -> Iterator[None]:
        """Make and fill it."""
        import lmdb

        with temporary_directory() as self.directory:
            with (
                lmdb.open(str(self.directory), map_size=LMDB_SIZE_BYTES) as environment,
                environment.begin(write=True) as transaction,
            ):
                for key, value in stored(entries):
                    transaction.put(key.encode(), value.encode())
            yield


class Lmdb:
    """LMDB in process: the data is mapped, a lookup is a walk through memory; it syncs each transaction."""

    name = "lmdb"
    durability = "disk: fsync of every transaction"
    remembers = False

    def __init__(self) -> None:
        """With a directory of its own."""
        self.store = LmdbFiles()

    def available(self) -> str | None:
        """As its files."""
        return None

    def connect(self) -> Session:
        """Map the file."""
        import lmdb

        environment = lmdb.open(str(self.store.directory), map_size=LMDB_SIZE_BYTES)
        begin = environment.begin

        def get(key: str) -> str | None:
            with begin() as transaction:
                value: bytes | None = transaction.get(key.encode())
            return None if value is None else value.decode()

        def get_many(keys: list[str]) -> list[str | None]:
            with begin() as transaction:
                values = [transaction.get(key.encode()) for key in keys]
            return [None if value is None else value.decode() for value in values]

        def put(key: str, value: str) -> None:
            with begin(write=True) as transaction:
                transaction.put(key.encode(), value.encode())

        return Session(get=get, put=put, get_many=get_many, close=environment.close)
