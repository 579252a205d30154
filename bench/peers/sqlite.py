"""SQLite without a daemon: a connection a call, as the older package did, and a connection that is kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bench.keys import stored
from bench.peers.protocol import Session
from bench.peers.servers import temporary_directory

LOCK_TIMEOUT_S = 60.0
"""The older package waited 5 s and then failed with "database is locked"; a benchmark wants it to finish."""

SELECT = "SELECT file_id FROM dataset_files WHERE dataset_hash = ?"
REPLACE = "INSERT OR REPLACE INTO dataset_files VALUES (?, ?)"


class OlderFile:
    """The older package's cache.db."""

    database: Path

    def __init__(self, journal_mode: str) -> None:
        """`delete` or `wal`."""
        self._journal_mode = journal_mode

    def available(self) -> str | None:
        """It always is."""
        return None

    @contextmanager
    def serve(self, entries: int) -> Iterator[None]:
        """Make its table and fill it."""
        with temporary_directory() as directory:
            self.database = directory / "cache.db"
            with closing(sqlite3.connect(self.database)) as connection:
                connection.execute(f"PRAGMA journal_mode = {self._journal_mode}")
                connection.execute("CREATE TABLE dataset_files (dataset_hash TEXT PRIMARY KEY, file_id TEXT NOT NULL)")
                connection.executemany(REPLACE, stored(entries))
                connection.commit()
            yield


class OlderWay:
    """The daemon-less package: every call opens cache.db, runs one statement, and closes it.

    Its files have SQLite's default mode: opening one costs less than on a write-ahead log, writing more.
    """

    name = "older way"
    durability = "disk: rollback journal, synchronous=FULL"
    remembers = False

    def __init__(self) -> None:
        """With a file of its own."""
        self.store = OlderFile("delete")

    def available(self) -> str | None:
        """It always is."""
        return None

    def connect(self) -> Session:
        """Nothing is kept but the path."""
        return Session(get=self._get, put=self._put, close=lambda: None)

    def _get(self, key: str) -> str | None:
        with closing(sqlite3.connect(self.store.database, timeout=LOCK_TIMEOUT_S)) as connection:
            row = connection.execute(SELECT, (key,)).fetchone()
        return None if row is None else str(row[0])

    def _put(self, key: str, value: str) -> None:
        with closing(sqlite3.connect(self.store.database, timeout=LOCK_TIMEOUT_S)) as connection:
            connection.execute(REPLACE, (key, value))
            connection.commit()


class OlderWayOnLog(OlderWay):
    """The same on a file that somebody turned to a write-ahead log."""

    name = "older way, WAL"
    durability = "disk: write-ahead log, synchronous=FULL"

    def __init__(self) -> None:
        """With a file of its own."""
        super().__init__()
        self.store = OlderFile("wal")


class KeptConnection:
    """SQLite as well as it goes without a daemon: a write-ahead log, and one connection for the process's life."""

    name = "sqlite3, kept"
    durability = "disk: write-ahead log, synchronous=FULL"
    remembers = False

    def __init__(self) -> None:
        """With a file of its own."""
        self.store = OlderFile("wal")

    def available(self) -> str | None:
        """It always is."""
        return None

    def connect(self) -> Session:
        """Connect once."""
        connection = sqlite3.connect(self.store.database, timeout=LOCK_TIMEOUT_S, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")

        def get(key: str) -> str | None:
            row = connection.execute(SELECT, (key,)).fetchone()
            return None if row is None else str(row[0])

        def get_many(keys: list[str]) -> list[str | None]:
            places = ", ".join("?" * len(keys))
            statement = f"SELECT dataset_hash, file_id FROM dataset_files WHERE dataset_hash IN ({places})"  # noqa: S608 - question marks
            found = dict(connection.execute(statement, keys).fetchall())
            return [found.get(key) for key in keys]

        def put(key: str, value: str) -> None:
            connection.execute(REPLACE, (key, value))

        return Session(get=get, put=put, get_many=get_many, close=connection.close)
