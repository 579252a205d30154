"""The open database: one writer, some readers, and what happens when the writer must be replaced."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from motoolsd.core.errors import NoRoom, StorageFailed
from motoolsd.core.guards import Guard
from motoolsd.store import commits
from motoolsd.store import store as store_module
from motoolsd.store.commits import CommitUnknown
from motoolsd.store.connection import open_connection
from motoolsd.store.reads import FROM_START, Filter
from motoolsd.store.store import MARGIN_BYTES, Store, open_store
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import Cleared
from tests.samples import applied, as_retry, clear, commit, execute, publication, put_dataset, query


def size_of(path: str) -> int:
    """Bytes of a file."""
    return Path(path).stat().st_size


def files_of(database: str) -> list[str]:
    """The database's files."""
    return sorted(path.name for path in Path(database).parent.glob("cache.db*"))


async def test_what_was_committed_is_read(store: Store) -> None:
    """Values, slices, pages and counts see a commit as soon as it returned."""
    await commit(store, put_dataset("d", b"file"))
    assert (await store.values(Kind.DATASET, ["d", "e"])).found == {"d": b"file"}
    assert (await store.slice(Kind.DATASET, FROM_START, 10)).entries == [("d", b"file")]
    page = await store.page(Kind.DATASET, Filter(), FROM_START, rows_max=10, size_bytes=1000)
    assert [row.value for row in page.rows] == [b"file"]
    assert await store.counts() == {Kind.DATASET: 1, Kind.MODEL: 0, Kind.EVAL: 0}


async def test_retry_after_a_restart_is_answered_alike(database: str) -> None:
    """The reply stands in the database: a client may retry at the next daemon."""
    request = clear(Kind.DATASET)
    async with open_store(database, synchronous="FULL") as store:
        await commit(store, put_dataset("a"), put_dataset("b"), request)
    async with open_store(database, synchronous="FULL") as store:
        await commit(store, put_dataset("c"))
        (outcome,) = await commit(store, as_retry(request))
        assert applied(outcome).reply == Cleared(datasets=2)
        assert await store.counts() == {Kind.DATASET: 1, Kind.MODEL: 0, Kind.EVAL: 0}


async def test_closing_leaves_one_file(database: str) -> None:
    """After the last connection nothing but cache.db is left: the log is emptied and removed."""
    async with open_store(database, synchronous="FULL") as store:
        await commit(store, put_dataset("a"))
        assert size_of(f"{database}-wal") > 0
    assert files_of(database) == ["cache.db"]


async def test_closing_ends_every_thread(database: str) -> None:
    """A connection left open would keep the process from ending."""
    before = threading.active_count()
    async with open_store(database, synchronous="FULL"):
        assert threading.active_count() > before
    assert threading.active_count() == before


@pytest.mark.parametrize("free_bytes", [4_096, MARGIN_BYTES])
async def test_checkpoint_that_has_no_room_for_all_moves_nothing(
    store: Store, database: str, monkeypatch: pytest.MonkeyPatch, free_bytes: int
) -> None:
    """Half of one empties no log, and takes the room that a clean-up needs; what is free counts with a margin."""
    await store.checkpoint(truncate=True)
    await commit(store, put_dataset("d", b"x" * 100_000))
    before = size_of(database)
    disk = os.statvfs(database)
    with monkeypatch.context() as full:
        found = os.statvfs_result((4_096, 4_096, disk.f_blocks, *[free_bytes // 4_096] * 2, *disk[5:]))
        full.setattr(os, "statvfs", lambda _path: found)
        with pytest.raises(NoRoom, match="cannot grow"):
            await store.checkpoint(truncate=True)
    assert size_of(database) == before
    await store.checkpoint(truncate=True)
    assert size_of(database) > before


async def test_checkpoint_empties_the_log(store: Store, database: str) -> None:
    """With `truncate`, the log's file is empty afterwards."""
    await commit(store, put_dataset("a"))
    await store.checkpoint(truncate=False)
    await store.checkpoint(truncate=True)
    assert size_of(f"{database}-wal") == 0


@pytest.mark.parametrize(("name", "is_replaced"), [("SQLITE_IOERR_FSYNC", True), ("SQLITE_IOERR_WRITE", False)])
async def test_log_is_not_synced_again_by_whoever_failed_to_sync_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, *, name: str, is_replaced: bool
) -> None:
    """After a checkpoint whose sync failed, later commits go to the disk by another descriptor; nothing is lost."""
    await commit(store, put_dataset("a"))
    before = store._writer  # noqa: SLF001 - which connection it is, nobody else can tell

    class FailingConnection:
        """A checkpoint in it fails."""

        def execute(self, _sql: str) -> None:
            """Fail."""
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = name
            raise error

    real: Any = store_module._checkpoint  # noqa: SLF001 - its errors are what is tried here
    monkeypatch.setattr(store_module, "_can_grow", lambda *_: True)
    monkeypatch.setattr(
        store_module, "_checkpoint", lambda _raw, mode, database: real(FailingConnection(), mode, database)
    )
    with pytest.raises(StorageFailed, match=name):
        await store.checkpoint(truncate=False)
    monkeypatch.undo()
    assert (store._writer is not before) is is_replaced  # noqa: SLF001
    await commit(store, put_dataset("b"))
    await store.checkpoint(truncate=True)
    assert (await store.values(Kind.DATASET, ["a", "b"])).found.keys() == {"a", "b"}


async def test_own_commits_are_no_outside_change(store: Store) -> None:
    """The number is asked for on the writer's connection, where our own commits do not move it."""
    assert not await store.changed_outside()
    await commit(store, put_dataset("a"))
    await store.checkpoint(truncate=True)
    assert not await store.changed_outside()


async def test_outside_change_is_seen_once(store: Store, database: str) -> None:
    """Another program's commit is reported by the next question, and by that alone."""
    execute(database, "INSERT INTO dataset_files (dataset_hash, file_id) VALUES ('d', 'x');")
    assert await store.changed_outside()
    assert not await store.changed_outside()


async def test_replaced_writer_counts_as_an_outside_change(store: Store, database: str) -> None:
    """While the writer was replaced nobody watched: an edit in between must not stay unseen."""
    await store.reopen_writer()
    assert await store.changed_outside()
    assert not await store.changed_outside()


async def test_writer_is_reopened_by_whoever_needs_it(
    store: Store, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it cannot be opened again, requests fail with the reason, until it can; several at once open one."""
    await commit(store, put_dataset("a"))
    opened: list[bool] = []
    real_open = open_connection

    def refuse(*args: object, **kwargs: object) -> object:
        raise StorageFailed("no such luck")

    def count(database: str, *, read_only: bool, synchronous: str = "FULL") -> object:
        opened.append(read_only)
        return real_open(database, read_only=read_only, synchronous=synchronous)

    monkeypatch.setattr(store_module, "open_connection", refuse)
    with pytest.raises(StorageFailed, match="no such luck"):
        await store.reopen_writer()
    with pytest.raises(StorageFailed, match="no such luck"):
        await commit(store, put_dataset("b"))
    monkeypatch.setattr(store_module, "open_connection", count)
    async with anyio.create_task_group() as group:
        group.start_soon(store.changed_outside)
        group.start_soon(commit, store, put_dataset("c"))
        group.start_soon(lambda: store.checkpoint(truncate=False))
    assert opened == [False]
    assert set((await store.values(Kind.DATASET, ["a", "b", "c"])).found) == {"a", "c"}


async def test_reopening_waits_for_the_call_on_its_way(store: Store) -> None:
    """A connection is never closed under a caller."""
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(commit, store, put_dataset(f"d{number}"))
                group.start_soon(store.reopen_writer)
                group.start_soon(store.changed_outside)
    assert (await store.counts())[Kind.DATASET] == 20


async def test_durability_takes_its_turn_with_commits(store: Store) -> None:
    """It changes between two transactions, and a writer that is replaced later keeps it."""

    def synchronous(raw: sqlite3.Connection) -> int:
        return int(raw.execute("PRAGMA synchronous").fetchone()[0])

    async with anyio.create_task_group() as group:
        group.start_soon(commit, store, put_dataset("a"))
        group.start_soon(store.set_durability, "NORMAL")
        group.start_soon(commit, store, put_dataset("b"))
    assert await store._write(synchronous) == 1  # noqa: SLF001 - what is in force, not what was asked for
    await store.reopen_writer()
    assert await store._write(synchronous) == 1  # noqa: SLF001


async def test_locked_database_is_said(store: Store, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that holds a transaction open makes writes fail with its remedy, and nothing else."""

    def short_wait(raw: sqlite3.Connection) -> None:
        raw.execute("PRAGMA busy_timeout = 1")

    await store._write(short_wait)  # noqa: SLF001 - five seconds are too long for a test
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        (refused,) = await commit(store, put_dataset("a"))
        assert isinstance(refused, StorageFailed)
        assert "end its transaction" in refused.message
        other.execute("ROLLBACK")
    applied((await commit(store, put_dataset("a")))[0])


async def test_readers_go_on_while_the_writer_commits(store: Store) -> None:
    """A read never waits for a write: it has a connection of its own."""
    release = threading.Event()

    def slow(_raw: sqlite3.Connection) -> None:
        release.wait(5)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(store._write, slow)  # noqa: SLF001 - a commit that waits for its disk
            await anyio.wait_all_tasks_blocked()
            assert (await store.values(Kind.DATASET, ["a"])).found == {}
            release.set()


async def test_cancelled_reader_is_given_back(store: Store) -> None:
    """Callers that leave early do not use the readers up."""
    release = threading.Event()

    def slow(_raw: sqlite3.Connection) -> None:
        release.wait(5)

    with anyio.fail_after(5):
        for _ in range(store_module.READERS * 2):
            with anyio.move_on_after(0.01):
                await store.read(slow)
        release.set()
        assert (await store.values(Kind.DATASET, ["a"])).found == {}


async def test_log_that_cannot_be_emptied_does_not_keep_the_daemon_from_ending(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is lost by it: it is logged, and every connection is closed all the same."""
    before = threading.active_count()

    def fail(_raw: sqlite3.Connection, _mode: str, _database: str) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with caplog.at_level(logging.ERROR):
        async with open_store(database, synchronous="FULL") as store:
            await commit(store, put_dataset("a"))
            monkeypatch.setattr(store_module, "_checkpoint", fail)
    assert "was not emptied" in caplog.text
    assert threading.active_count() == before
    assert query(database, "SELECT dataset_hash FROM dataset_files") == [("a",)]


async def test_killed_daemon_loses_nothing(database: str, tmp_path: Path) -> None:
    """What was committed is read from the log that a killed process left beside the database."""
    async with open_store(database, synchronous="FULL") as store:
        await commit(store, put_dataset("a"))
        copy = tmp_path / "copy.db"
        for suffix in ("", "-wal"):
            shutil.copy(f"{database}{suffix}", f"{copy}{suffix}")
    async with open_store(str(copy), synchronous="FULL") as store:
        assert (await store.values(Kind.DATASET, ["a"])).found == {"a": b"file"}


async def test_integrity_of_a_whole_database_has_no_findings(store: Store) -> None:
    """While it is open, and written to."""
    await commit(store, put_dataset("a"))
    assert await store.integrity() == []


async def test_what_a_value_depends_on_is_read_with_it(store: Store) -> None:
    """In one transaction, on a reader's connection."""
    await commit(store, publication(put_dataset("a"), b"datasets/a"), put_dataset("b"))
    found = await store.values(Kind.DATASET, ["a", "b"])
    assert (set(found.found), found.guards) == ({"a", "b"}, {"a": Guard((b"datasets/a",))})


async def test_nobody_uses_a_connection_whose_commit_failed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that has waited for its turn comes before the recovery: it gets another connection."""
    await commit(store, put_dataset("a"))
    before = store._writer  # noqa: SLF001 - whether it is the same connection shows nowhere else
    used: list[object] = []

    def fail(*_: object) -> None:
        raise CommitUnknown(StorageFailed("no", outcome_known=False))

    with monkeypatch.context() as failing:
        failing.setattr(commits, "commit_waiting", fail)
        with pytest.raises(CommitUnknown):
            await store.commit_waiting(cast("Any", None))
    await store.checkpoint(truncate=False)
    used.append(store._writer)  # noqa: SLF001
    assert used != [before]
    await commit(store, put_dataset("b"))
