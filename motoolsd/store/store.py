"""The open database: one writer, some readers.

Layer: store. Imports commits, connection, leases and reads.
Invariant: every method is one hop into one connection's thread; only the writer's methods change anything.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Concatenate, ParamSpec, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from motoolsd.core.errors import NoRoom, RequestError
from motoolsd.core.leases import Lease
from motoolsd.store import commits, reads, writes
from motoolsd.store.commits import CommitUnknown, Source
from motoolsd.store.connection import Connection, open_connection
from motoolsd.store.failures import explain
from motoolsd.store.leases import select_leases
from motoolsd.store.reads import Filter, ListingPage, Slice, Values
from motoolsd.wire.keys import Kind

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

READERS = 2
"""Read-only connections: one long listing does not hold up lookups that go to SQLite."""

MARGIN_BYTES = 1 << 20
"""More than what a checkpoint writes must be free for it: XFS counts as free what it needs for its own trees."""

FAILED_SYNCS = frozenset({"SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC"})


class _SyncFailed(Exception):
    """A checkpoint's sync failed: nothing is lost, and this connection is not to be used again."""

    def __init__(self, failure: RequestError) -> None:
        """Keep what is said of it."""
        super().__init__(failure.message)
        self.failure = failure


class Store:
    """cache.db while the daemon runs. Made by `open_store`."""

    def __init__(self, database: str, synchronous: str) -> None:
        """Not usable before `open_store` has entered it."""
        self._database = database
        self._synchronous = synchronous
        self._writer: Connection | None = None
        self._is_suspect = False
        """Whether its last commit, of unknown outcome, lets nobody use it again."""
        # One task at a time: a connection must not be replaced while a call is on its way to it.
        self._writer_lock = anyio.Lock(fast_acquire=True)
        self._data_version: int | None = None
        self._writer_stack = AsyncExitStack()
        self._idle_readers: MemoryObjectReceiveStream[Connection]
        self._returned_readers: MemoryObjectSendStream[Connection]
        self._returned_readers, self._idle_readers = anyio.create_memory_object_stream[Connection](READERS)

    @property
    def database(self) -> str:
        """Absolute path of cache.db."""
        return self._database

    async def commit_waiting(self, source: Source) -> None:
        """Commit what waits, batch after batch. Only the writer task calls this, shielded.

        Args:
            source: where batches come from, and who is told what became of them, both in the connection's thread.

        Raises:
            CommitUnknown: the COMMIT of the batch taken last failed; call `reopen_writer` before anything else.
            RequestError: the connection cannot be opened again; nothing was taken.
        """
        async with self._writer_lock:
            writer = await self._usable_writer()
            try:
                await writer.call(commits.commit_waiting, source, self._database)
            except CommitUnknown:
                # Whoever waits for the lock has it before the connection is replaced: a checkpoint would sync what
                # could not be synced.
                self._is_suspect = True
                raise

    async def forget_old_replies(self, now: str) -> None:
        """Drop stored replies that are older than any retry."""
        await self._write(writes.forget_old_replies, now)

    async def changed_outside(self) -> bool:
        """Whether another program has changed cache.db since the last call, or since the writer was opened.

        It must be asked on the writer's connection: on any other, the number moves with our own commits.
        """
        version = await self._write(_read_data_version)
        # Unknown after the writer was replaced: what happened meanwhile was not watched, so it counts as a change.
        is_changed = version != self._data_version
        self._data_version = version
        return is_changed

    async def checkpoint(self, *, truncate: bool) -> None:
        """Move the write-ahead log into the database; with `truncate`, empty its file too.

        Where a sync fails, the writer is replaced before anybody commits: Linux says of a failed write-back once, and
        the next sync of the same descriptor would be believed.

        Raises:
            NoRoom: the database has no room to grow by what the log holds; nothing was moved.
            RequestError: it cannot be moved; the log keeps all that it holds.
        """
        async with self._writer_lock:
            writer = await self._usable_writer()
            try:
                await writer.call(_checkpoint, "TRUNCATE" if truncate else "PASSIVE", self._database)
            except _SyncFailed as error:
                await self._open_writer()
                raise error.failure from error

    async def set_durability(self, synchronous: str) -> None:
        """Change `PRAGMA synchronous` from the next transaction on; it takes its turn with the commits.

        Raises:
            RequestError: it could not be changed; the old one stands.
        """
        await self._write(_set_synchronous, synchronous)
        self._synchronous = synchronous

    async def reopen_writer(self) -> None:
        """Replace the writing connection after a commit of unknown outcome: its state is not to be trusted.

        Raises:
            RequestError: it cannot be opened; the next write tries again.
        """
        async with self._writer_lock:
            await self._open_writer()

    async def values(self, kind: Kind, keys: Sequence[str]) -> Values:
        """The values of those keys that have a row that counts."""
        return await self.read(reads.select_values, kind, keys)

    async def slice(self, kind: Kind, after: int, limit: int) -> Slice:
        """Rows for the index, after a row number."""
        return await self.read(reads.select_slice, kind, after, limit)

    async def page(self, kind: Kind, only: Filter, after: int, *, rows_max: int, size_bytes: int) -> ListingPage:
        """Rows for a listing, after a row number."""
        return await self.read(reads.select_page, kind, only, after, rows_max=rows_max, size_bytes=size_bytes)

    async def leases(self) -> tuple[list[Lease], int]:
        """All leases, and the largest token there ever was."""
        return await self.read(select_leases)

    async def integrity(self) -> list[str]:
        """What SQLite finds wrong with the whole file; empty if nothing. Takes seconds on a large one."""
        return await self.read(reads.select_integrity)

    async def counts(self) -> dict[Kind, int]:
        """How many rows each kind has."""
        return await self.read(reads.select_counts)

    async def _write(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        async with self._writer_lock:
            writer = await self._usable_writer()
            return await writer.call(function, *args, **kwargs)

    async def _usable_writer(self) -> Connection:
        return self._writer if self._writer is not None and not self._is_suspect else await self._open_writer()

    async def _open_writer(self) -> Connection:
        self._data_version = None
        try:
            await self._close_writer()
        except RequestError as error:
            # It was given up because it does not work; that it cannot be closed either stops nothing.
            logger.warning("the old writing connection was not closed cleanly: %s", error.message)
        opened = open_connection(self._database, read_only=False, synchronous=self._synchronous)
        self._writer = await self._writer_stack.enter_async_context(opened)
        self._is_suspect = False
        return self._writer

    async def read(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """One of this room's `select_*` functions, on a read-only connection.

        Cancellation: the caller leaves at once; the function ends in its thread.

        Raises:
            RequestError: the database cannot be read.
        """
        reader = await self._idle_readers.receive()
        try:
            return await reader.call(function, *args, **kwargs)
        finally:
            # Cannot be full: there are as many places as readers.
            self._returned_readers.send_nowait(reader)

    def _add_reader(self, reader: Connection) -> None:
        self._returned_readers.send_nowait(reader)

    async def _close_writer(self) -> None:
        self._writer = None
        stack, self._writer_stack = self._writer_stack, AsyncExitStack()
        await stack.aclose()


@asynccontextmanager
async def open_store(database: str, *, synchronous: str) -> AsyncIterator[Store]:
    """Open a prepared cache.db.

    Args:
        database: absolute path; `prepare_database` has seen it.
        synchronous: `FULL` or `NORMAL`.

    Resources: leaving the block closes the readers, empties the write-ahead log, then closes the writer, in this
    order: a reader that is still open would keep the log from being emptied.
    """
    store = Store(database, synchronous)
    try:
        await store.changed_outside()  # opens the writer, and remembers what it finds
        async with AsyncExitStack() as readers:
            for _ in range(READERS):
                reader = await readers.enter_async_context(open_connection(database, read_only=True))
                store._add_reader(reader)  # noqa: SLF001 - this function is the constructor's other half
            yield store
    finally:
        with anyio.CancelScope(shield=True):
            await _close(store)


async def _close(store: Store) -> None:
    try:
        await store.checkpoint(truncate=True)
        await store._close_writer()  # noqa: SLF001 - as above
    except RequestError as error:
        # Nothing is lost by it: the log stays beside the database, and the next start reads it.
        logger.error("the write-ahead log was not emptied: %s", error.message)
    finally:
        await store._close_writer()  # noqa: SLF001 - again, if the first did not come so far
        store._returned_readers.close()  # noqa: SLF001
        store._idle_readers.close()  # noqa: SLF001


def _read_data_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)


def _checkpoint(connection: sqlite3.Connection, mode: str, database: str) -> None:
    if not _can_grow(connection, database):
        # Half a checkpoint empties no log, and takes the room that a clean-up may need to be written down.
        cause = "cache.db cannot grow, so the write-ahead log stays as it is"
        raise NoRoom(cause)
    try:
        connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", None) in FAILED_SYNCS:
            raise _SyncFailed(explain(error, database)) from error
        raise


def _can_grow(connection: sqlite3.Connection, database: str) -> bool:
    """Whether there is room for all pages that the file does not have yet."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    try:
        disk = os.statvfs(os.path.dirname(database))
        has_bytes = os.stat(database).st_size
    except OSError:
        return True  # somebody has moved the directory; what is open can be written all the same
    grows_bytes = pages * page_bytes - has_bytes
    return bool(grows_bytes <= 0 or grows_bytes + MARGIN_BYTES <= disk.f_bavail * disk.f_frsize)


def _set_synchronous(connection: sqlite3.Connection, synchronous: str) -> None:
    connection.execute(f"PRAGMA synchronous = {synchronous}")
