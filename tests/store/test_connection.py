"""Connections: their settings, one hop into their thread, and the private calls of aiosqlite that this takes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Awaitable, Callable

import aiosqlite
import anyio
import pytest

from motoolsd.core.errors import StorageFailed
from motoolsd.store.connection import AUTOCHECKPOINT_PAGES, JOURNAL_SIZE_MAX_BYTES, open_connection
from motoolsd.wire.keys import Kind


def pragma(connection: sqlite3.Connection, name: str) -> object:
    """What a setting is."""
    row = connection.execute(f"PRAGMA {name}").fetchone()
    return None if row is None else row[0]


COMMON = {"trusted_schema": 0, "cell_size_check": 1, "mmap_size": 0}
WRITER = {"journal_mode": b"wal", "synchronous": 2, "query_only": 0, "wal_autocheckpoint": AUTOCHECKPOINT_PAGES}


async def test_writer_has_its_settings(database: str) -> None:
    """WAL, synchronous=FULL, no memory mapping, rare automatic checkpoints: in force, not only asked for."""
    async with open_connection(database, read_only=False) as connection:
        for name, value in (COMMON | WRITER | {"journal_size_limit": JOURNAL_SIZE_MAX_BYTES}).items():
            assert await connection.call(pragma, name) == value, name


async def test_durability_can_be_normal(database: str) -> None:
    """With `durability = "normal"` the writer runs with synchronous=NORMAL."""
    async with open_connection(database, read_only=False, synchronous="NORMAL") as connection:
        assert await connection.call(pragma, "synchronous") == 1


async def test_reader_can_change_nothing(database: str) -> None:
    """A reader is read-only twice over: by its mode, and by query_only."""
    async with open_connection(database, read_only=True) as connection:
        for name, value in (COMMON | {"query_only": 1}).items():
            assert await connection.call(pragma, name) == value, name
        await connection.call(sqlite3.Connection.execute, "PRAGMA query_only = OFF")
        with pytest.raises(StorageFailed, match="readonly"):
            await connection.call(sqlite3.Connection.execute, "DELETE FROM dataset_files")


async def test_one_call_is_one_hop(database: str) -> None:
    """All of a function runs in the connection's own thread, and its value comes back."""
    async with open_connection(database, read_only=True) as connection:
        threads = [await connection.call(lambda _raw: threading.current_thread()) for _ in range(2)]
    assert threads[0] is threads[1] is not threading.current_thread()


async def test_missing_file_is_not_made(tmp_path: object) -> None:
    """Opening never creates: only `prepare_database` does. Nor does a failed opening leave its thread behind."""
    before = threading.active_count()
    with pytest.raises(StorageFailed, match="cannot be opened"):
        async with open_connection(f"{tmp_path}/cache.db", read_only=False):
            pass
    assert threading.active_count() <= before + 1  # anyio's own worker thread may wait for work


async def test_cancelled_block_closes_the_connection(database: str) -> None:
    """Its thread ends with the block, also when that is cancelled: an open one would keep the process alive."""
    before = threading.active_count()
    with anyio.CancelScope() as scope:
        async with open_connection(database, read_only=False):
            scope.cancel()
            await anyio.sleep_forever()
    assert threading.active_count() == before


async def test_aiosqlite_has_the_private_calls_that_we_use(database: str) -> None:
    """Contract with aiosqlite: `_conn` is the sqlite3 connection, `_execute` runs a function in its thread."""
    async with aiosqlite.connect(database) as connection:
        assert isinstance(connection._conn, sqlite3.Connection)  # noqa: SLF001 - the contract under test
        execute: Callable[..., Awaitable[object]] = connection._execute  # noqa: SLF001
        assert await execute(lambda one, *, two: (one, two), 1, two=Kind.MODEL) == (1, Kind.MODEL)
        assert await execute(threading.current_thread) is not threading.current_thread()
        with pytest.raises(ZeroDivisionError):
            await execute(lambda: 1 / 0)


async def test_aiosqlite_runs_a_cancelled_call_to_its_end(database: str) -> None:
    """Contract with aiosqlite: a caller that leaves stops nothing, and the next call waits for its turn."""
    release, done = threading.Event(), []

    def slow(_raw: sqlite3.Connection) -> None:
        release.wait(5)
        done.append("slow")

    with anyio.fail_after(5):
        async with open_connection(database, read_only=True) as connection:
            with anyio.move_on_after(0.01):
                await connection.call(slow)
            release.set()
            await connection.call(lambda _raw: done.append("next"))
    assert done == ["slow", "next"]
