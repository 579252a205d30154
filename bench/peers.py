"""What is measured: each peer stores file ids under dataset hashes, as jobs would with it.

Every adapter opens its store the way its users do, and proves that its answers are right before it is timed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Protocol

from motools.cache import CacheUtils, SyncCache

LOCK_TIMEOUT_S = 60.0
"""The older package waited 5 s and then failed with "database is locked"; a benchmark wants it to finish."""


class Session(Protocol):
    """One process's use of a peer."""

    def get(self, key: str) -> str | None:
        """Look one key up."""
        ...

    def put(self, key: str, value: str) -> None:
        """Store one value; durable when it returns."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class Peer(Protocol):
    """A way to share answers between processes."""

    name: str
    durability: str

    def prepare(self, directory: Path, entries: dict[str, str]) -> None:
        """Make the store and fill it."""
        ...

    def open(self, directory: Path) -> Session:
        """Begin to use it, in a process of its own."""
        ...

    def finish(self, directory: Path) -> None:
        """Stop whatever runs for it."""
        ...


class OlderWay:
    """The daemon-less package: every call opens cache.db, runs one statement, and closes it.

    Its files have SQLite's default mode: opening one costs less than on a write-ahead log, writing more.
    """

    name = "older way"
    durability = "rollback journal, synchronous=FULL, a connection a call"
    journal_mode = "delete"

    def prepare(self, directory: Path, entries: dict[str, str]) -> None:
        """Create the older package's table and fill it."""
        with closing(sqlite3.connect(directory / "cache.db")) as connection:
            connection.execute(f"PRAGMA journal_mode = {self.journal_mode}")
            connection.execute("CREATE TABLE dataset_files (dataset_hash TEXT PRIMARY KEY, file_id TEXT NOT NULL)")
            connection.executemany("INSERT INTO dataset_files VALUES (?, ?)", entries.items())
            connection.commit()

    def open(self, directory: Path) -> Session:
        """Only the path is kept."""
        return _OlderWaySession(directory / "cache.db")

    def finish(self, directory: Path) -> None:
        """Nothing runs."""


class OlderWayOnLog(OlderWay):
    """The same on a file that somebody turned to a write-ahead log."""

    name = "older, WAL"
    durability = "write-ahead log, synchronous=FULL, a connection a call"
    journal_mode = "wal"


class _OlderWaySession:
    def __init__(self, database: Path) -> None:
        self._database = database

    def get(self, key: str) -> str | None:
        with closing(sqlite3.connect(self._database, timeout=LOCK_TIMEOUT_S)) as connection:
            row = connection.execute("SELECT file_id FROM dataset_files WHERE dataset_hash = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, key: str, value: str) -> None:
        with closing(sqlite3.connect(self._database, timeout=LOCK_TIMEOUT_S)) as connection:
            connection.execute("INSERT OR REPLACE INTO dataset_files VALUES (?, ?)", (key, value))
            connection.commit()

    def close(self) -> None:
        """Nothing is open."""


class Motools:
    """The blocking client over the daemon, one connection a process."""

    name = "motoolsd"
    durability = "write-ahead log, synchronous=FULL, group commit"

    def prepare(self, directory: Path, entries: dict[str, str]) -> None:
        """Start the daemon and fill the cache."""
        with SyncCache(directory) as cache:
            for key, value in entries.items():
                cache.set_file_id(key, value)

    def open(self, directory: Path) -> Session:
        """Connect."""
        return _MotoolsSession(SyncCache(directory))

    def finish(self, directory: Path) -> None:
        """Stop the daemon."""
        from motools.cache.control import stop_daemon

        stop_daemon(str(directory))


class _MotoolsSession:
    def __init__(self, cache: SyncCache) -> None:
        self._cache = cache
        self.get: Callable[[str], str | None] = cache.get_file_id
        self.put: Callable[[str, str], None] = cache.set_file_id

    def close(self) -> None:
        self._cache.close()


PEERS: dict[str, Callable[[], Peer]] = {make.name: make for make in (OlderWay, OlderWayOnLog, Motools)}


def prove_right(peer: Peer, directory: Path) -> None:
    """Check that a peer's answers are right, from two sessions.

    Raises:
        AssertionError: one is not.
    """
    with closing(peer.open(directory)) as first, closing(peer.open(directory)) as second:
        assert first.get("proof: missing") is None, f"{peer.name} finds what is not there"
        first.put("proof", "one")
        assert second.get("proof") == "one", f"{peer.name} does not show what another process stored"
        second.put("proof", "two")
        assert first.get("proof") == "two", f"{peer.name} shows an old value"
    if isinstance(peer, Motools):
        assert CacheUtils(directory).get_stats().num_datasets > 0
