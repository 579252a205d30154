"""The latest plans are kept, with what came of them."""

from __future__ import annotations

import sqlite3

import msgspec
import pytest

from motoolsd.core.deadlines import Moment
from motoolsd.core.errors import EntryNotFound
from motoolsd.core.files import Seen
from motoolsd.core.retention import Plan, PlannedItem, PlannedPath
from motoolsd.store.plans import PLANS_MAX, PLANS_MIN, KeptPlan, SavePlan, packed_outcome, select_plan
from motoolsd.store.removals import BeginRemoval, DropRemoval, SetRemovalState, State, select_removal_of
from motoolsd.wire.cleaning import ORPHAN, Cleaned, Criteria, Kept, Protected
from motoolsd.wire.keys import Kind
from tests.samples import committed, execute

SEEN = Seen(2**40, 2**63, is_directory=True, size_bytes=4096, mtime_ns=-1)
PLAN = Plan(
    "p1",
    Moment("boot", 1.5, 2.5),
    Criteria(kinds=(Kind.MODEL, Kind.EVAL), model_ids=["m\0"], to_bytes=7, force=True),
    [
        PlannedItem("model", "k", b"\xff", None, (PlannedPath(b"runs/\xff", SEEN, 1, 2),), "why", 3, 4),
        PlannedItem(ORPHAN, "runs/b"),
    ],
    [Protected(kind="model", key="l", why="pinned")],
    [Kept(path=b"runs/\xfe", why="owned")],
    "models",
)
DONE = Cleaned(removal_id=1, models=1, freed_bytes=5, left=[Kept(path=b"runs/\xff", why="busy")])


def planned(number: int) -> SavePlan:
    """One of many."""
    return SavePlan(msgspec.structs.replace(PLAN, plan_id=f"p{number}"))


def test_plan_is_read_as_it_was_made(raw: sqlite3.Connection) -> None:
    """To the last byte of a path and bit of an inode: exactly that is carried out."""
    committed(raw, SavePlan(PLAN))
    assert select_plan(raw, "p1") == KeptPlan(PLAN, None)


def test_unknown_plan_is_not_found(raw: sqlite3.Connection) -> None:
    """With the way to a new one."""
    with pytest.raises(EntryNotFound, match=r"there is no plan p1: .*--dry-run"):
        select_plan(raw, "p1")


def test_only_the_latest_plans_are_kept(raw: sqlite3.Connection) -> None:
    """The oldest goes for a new one."""
    committed(raw, *map(planned, range(PLANS_MAX + 2)))
    assert kept_plans(raw) == [f"p{number}" for number in range(2, PLANS_MAX + 2)]


def test_plan_of_a_job_beside_many_others_is_kept(raw: sqlite3.Connection) -> None:
    """Thirty jobs that clean up at once: for ten minutes, each finds its own; after that the latest are left."""
    committed(raw, *map(planned, range(30)))
    assert len(kept_plans(raw)) == 30
    raw.execute("UPDATE motoolsd_plans SET made_at = datetime(made_at, '-601 seconds')")
    committed(raw, planned(30))
    assert kept_plans(raw) == [f"p{number}" for number in range(31 - PLANS_MIN, 31)]


def kept_plans(raw: sqlite3.Connection) -> list[str]:
    """The oldest first."""
    return [name.decode() for (name,) in raw.execute("SELECT id FROM motoolsd_plans ORDER BY rowid")]


@pytest.mark.parametrize("column", ["plan", "outcome"])
@pytest.mark.parametrize("spoilt", ["x'c1'", "x''", "'text'"])
def test_damaged_plan_is_not_found(raw: sqlite3.Connection, database: str, column: str, spoilt: str) -> None:
    """It is never carried out in part."""
    committed(raw, SavePlan(PLAN))
    execute(database, f"UPDATE motoolsd_plans SET {column} = {spoilt};")
    with pytest.raises(EntryNotFound, match="cannot be read"):
        select_plan(raw, "p1")


def test_outcome_is_told_of_the_plan_that_was_carried_out(raw: sqlite3.Connection) -> None:
    """Also when nothing of it lies in the trash any more; of other plans nothing is known."""
    committed(raw, planned(1), planned(2))
    (begun,) = committed(raw, BeginRemoval("p1", "why", None))
    committed(raw, SetRemovalState(begun.number, State.TRASHED, packed_outcome(DONE)))
    assert select_plan(raw, "p1").outcome == DONE
    assert select_plan(raw, "p2").outcome is None
    committed(raw, SetRemovalState(begun.number, State.PURGING), DropRemoval(begun.number))
    assert select_plan(raw, "p1").outcome == DONE
    assert select_removal_of(raw, "p1") is None


def test_undone_plan_can_be_carried_out_again(raw: sqlite3.Connection) -> None:
    """What came of it came to nothing."""
    committed(raw, SavePlan(PLAN))
    (begun,) = committed(raw, BeginRemoval("p1", "why", None))
    committed(raw, SetRemovalState(begun.number, State.TRASHED, packed_outcome(DONE)))
    committed(raw, DropRemoval(begun.number, is_undone=True))
    assert select_plan(raw, "p1").outcome is None
