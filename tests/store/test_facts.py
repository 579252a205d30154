"""Facts, uses and what lay there before: remembered over a restart, and absent where they cannot be read."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from motoolsd.core.leases import Process
from motoolsd.core.protection import InUse
from motoolsd.store.facts import (
    LAST_SCAN,
    DropUses,
    SaveUse,
    SetFact,
    select_fact,
    select_unowned,
    select_uses,
)
from motoolsd.store.migration import prepare_database
from motoolsd.store.store import open_store
from motoolsd.wire.keys import Kind, eval_key
from tests.samples import commit, committed, execute

HERE = Process(pid=42, start_time=7, boot_id="boot")
USE = InUse(b"use-1", ((Kind.MODEL, "k"), (Kind.EVAL, eval_key("m", "t\0", "b", None))), HERE)
OTHER = InUse(b"use-2", ((Kind.MODEL, "k"),), Process(pid=43, start_time=8, boot_id="boot"))


def uses(raw: sqlite3.Connection) -> dict[bytes, tuple[set[tuple[Kind, str]], Process]]:
    """All uses, in whatever order their entries come."""
    return {use.use_id: (set(use.entries), use.process) for use in select_uses(raw)}


def test_fact_is_what_was_said_last(raw: sqlite3.Connection) -> None:
    """Bytes, as they were; nothing is known before."""
    assert select_fact(raw, LAST_SCAN) is None
    committed(raw, SetFact(LAST_SCAN, b"one"), SetFact("other", b""))
    committed(raw, SetFact(LAST_SCAN, b"\xff\0two"))
    assert select_fact(raw, LAST_SCAN) == b"\xff\0two"
    assert select_fact(raw, "other") == b""


def test_time_of_the_migration_is_a_fact(raw: sqlite3.Connection) -> None:
    """Rows of the older package count as stored then."""
    since = select_fact(raw, "since")
    assert since is not None
    assert len(since) == len("2026-01-31 23:59:59")


def test_uses_are_read_as_they_were_saved(raw: sqlite3.Connection) -> None:
    """Several may hold the same entry; asking again is one use."""
    committed(raw, SaveUse(USE), SaveUse(OTHER), SaveUse(USE))
    assert uses(raw) == {use.use_id: (set(use.entries), use.process) for use in (USE, OTHER)}


def test_use_that_is_over_is_forgotten_alone(raw: sqlite3.Connection) -> None:
    """Those of others last; one that is none is no error."""
    committed(raw, SaveUse(USE), SaveUse(OTHER))
    committed(raw, DropUses((b"use-1", b"never was")))
    assert uses(raw).keys() == {b"use-2"}
    committed(raw, DropUses(()))
    assert uses(raw).keys() == {b"use-2"}


@pytest.mark.parametrize(
    "spoil",
    [
        "process = x'c1'",
        "process = x''",
        "process = 7",
        "kind = 'song' || key",
        "kind = 7",
        "key = CAST(x'ff' AS TEXT)",
    ],
)
def test_damaged_use_is_left_out_and_said(
    raw: sqlite3.Connection, database: str, caplog: pytest.LogCaptureFixture, spoil: str
) -> None:
    """The daemon starts all the same, and the other uses protect."""
    committed(raw, SaveUse(InUse(USE.use_id, USE.entries[:1], HERE)), SaveUse(OTHER))
    execute(database, f"UPDATE motoolsd_uses SET {spoil} WHERE use_id = CAST('use-1' AS BLOB);")
    with caplog.at_level(logging.ERROR):
        assert uses(raw).keys() == {b"use-2"}
    assert "damaged use" in caplog.text


def test_use_that_is_damaged_in_part_protects_the_rest(raw: sqlite3.Connection, database: str) -> None:
    """One row of it says nothing of the others."""
    committed(raw, SaveUse(USE))
    execute(database, "UPDATE motoolsd_uses SET kind = 'song' WHERE kind = 'eval';")
    assert uses(raw) == {USE.use_id: ({(Kind.MODEL, "k")}, HERE)}


async def test_facts_and_uses_outlive_the_daemon(database: str) -> None:
    """They stand in the database before anybody is answered."""
    async with open_store(database, synchronous="FULL") as store:
        await commit(store, SaveUse(USE), SetFact("f", b"v"))
    async with open_store(database, synchronous="FULL") as store:
        (use,) = await store.read(select_uses)
        assert (use.use_id, use.process, set(use.entries)) == (USE.use_id, HERE, set(USE.entries))
        assert await store.read(select_fact, "f") == b"v"


async def test_what_lay_there_before_is_remembered_for_good(tmp_path: Path) -> None:
    """From the migration that first tells owners; a later start adds nothing."""
    database = str(tmp_path / "cache.db")
    prepare_database(database, [b"runs/a", b"runs/caf\xe9\n"])
    prepare_database(database, [b"runs/new"])
    async with open_store(database, synchronous="FULL") as store:
        assert await store.read(select_unowned) == {b"runs/a", b"runs/caf\xe9\n"}
