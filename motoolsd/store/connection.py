"""aiosqlite connections: how they are opened, and one function run in one hop.

Layer: store. Imports failures.
Invariant: the only place that uses aiosqlite's private `_execute`, `_conn` and `_thread`; tests watch them. A batch
that took three hops into the connection's thread (BEGIN, rows, COMMIT) took twice as long as one hop.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

import aiosqlite
import anyio
import anyio.to_thread

from motoolsd.store.failures import explained

P = ParamSpec("P")
T = TypeVar("T")

SQLITE_VERSION = sqlite3.sqlite_version
BUSY_TIMEOUT_S = 5.0
"""How long SQLite waits for a lock that another program holds on cache.db."""
AUTOCHECKPOINT_PAGES = 20_000
"""A backstop: checkpoints are made when the daemon is idle. At 1000 pages commits stall for 10 ms."""
JOURNAL_SIZE_MAX_BYTES = 64 * 1024 * 1024


class Connection:
    """One aiosqlite connection, used by one task at a time."""

    def __init__(self, connection: aiosqlite.Connection, database: str) -> None:
        """Wrap an open connection to the file `database`."""
        self._connection = connection
        self.database = database

    async def call(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function(connection, ...)` in the connection's thread, in one hop.

        Cancellation: the caller leaves, the function runs to its end all the same.

        Raises:
            RequestError: the function raised an error of sqlite3.
        """
        with explained(self.database):
            raw = self._connection._conn  # noqa: SLF001 - the one hop; see the module's text
            run: Callable[..., Awaitable[T]] = self._connection._execute  # noqa: SLF001 - as above
            return await run(function, raw, *args, **kwargs)


def _uri(database: str, mode: str) -> str:
    # As bytes: the name of a directory need not be UTF-8.
    return f"file:{quote(os.fsencode(database))}?mode={mode}"


def open_raw(database: str, mode: str) -> sqlite3.Connection:
    """A plain connection, for the check and the migration before the daemon serves."""
    connection = sqlite3.connect(
        _uri(database, mode), uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S, check_same_thread=False
    )
    connection.text_factory = bytes
    return connection


@asynccontextmanager
async def open_connection(database: str, *, read_only: bool, synchronous: str = "FULL") -> AsyncIterator[Connection]:
    """Open the one writer, or a reader.

    Args:
        database: absolute path of an existing file.
        read_only: a reader, which can change nothing.
        synchronous: `FULL` or `NORMAL`.

    Resources: closed when the block is left, with cancellation held off: an open aiosqlite connection keeps the
    process from ending.
    """
    connection = aiosqlite.connect(
        _uri(database, "ro" if read_only else "rw"),
        uri=True,
        isolation_level=None,
        timeout=BUSY_TIMEOUT_S,
        cached_statements=256,
    )
    with explained(database):
        await _connect(connection)
    try:
        opened = Connection(connection, database)
        await opened.call(_configure_reader if read_only else _configure_writer, synchronous)
        yield opened
    finally:
        with anyio.CancelScope(shield=True), explained(database):
            await connection.close()


async def _connect(connection: aiosqlite.Connection) -> None:
    try:
        await connection
    except BaseException:
        # aiosqlite tells its thread to end and does not wait: it would report that to a loop that is closed by then.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(connection._thread.join)  # noqa: SLF001 - see the module's text
        raise


def _configure(connection: sqlite3.Connection) -> None:
    # Values may be file names that are no UTF-8: everything is read as the bytes that it is.
    connection.text_factory = bytes
    connection.execute("PRAGMA mmap_size = 0")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")


def _configure_reader(connection: sqlite3.Connection, _synchronous: str) -> None:
    _configure(connection)
    connection.execute("PRAGMA query_only = ON")
    # The first read opens the write-ahead log, by its path: better now than when somebody has moved the directory.
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _configure_writer(connection: sqlite3.Connection, synchronous: str) -> None:
    _configure(connection)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {AUTOCHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_SIZE_MAX_BYTES}")
