"""Why keys have no entry, and the latest misses: bounded, and never an error."""

from __future__ import annotations

import sqlite3

import pytest

from motoolsd.core.guards import DAMAGED, EXPIRED, MISSING
from motoolsd.store import history
from motoolsd.store.entries import SetVoid
from motoolsd.store.history import (
    ALL_KEYS,
    INVALIDATED,
    Bury,
    Gone,
    MissRow,
    Void,
    bury,
    reason_of_miss,
    record_misses,
    select_gone,
    select_misses,
    select_void,
)
from motoolsd.wire.fields import Outcome
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.reasons import Reason
from tests.samples import NOW, clear, clear_all, committed, put_dataset, put_evals

STAMP = "2026-01-31T23:59:59.123Z"
LATER = "2026-02-01 00:00:00.000"
WHO = b"origin-of-tests."
EVAL_KEY = eval_key("m", "t", "inspect", None)


def miss(key: str, reason: Reason = Reason.NEVER_COMPUTED) -> MissRow:
    """A miss of a dataset."""
    return MissRow(0, Kind.DATASET, key, reason.value, b'{"dataset_hash":"d"}', 7, NOW)


def count(raw: sqlite3.Connection, table: str) -> int:
    """Rows."""
    ((number,),) = raw.execute(f"SELECT count(*) FROM {table}").fetchall()
    assert isinstance(number, int)
    return number


def test_reason_is_remembered_with_who_and_when(raw: sqlite3.Connection) -> None:
    """For the kind and key that it was of, and no other."""
    committed(raw, Bury(((Kind.MODEL, "k"), (Kind.MODEL, "l")), Reason.EVICTED, "50 GB", WHO))
    for key in ("k", "l"):
        assert select_gone(raw, Kind.MODEL, key) == Gone("evicted", "50 GB", WHO, STAMP)
    assert select_gone(raw, Kind.MODEL, "m") is None
    assert select_gone(raw, Kind.DATASET, "k") is None


def test_latest_reason_counts(raw: sqlite3.Connection) -> None:
    """One for each key: it was evicted, computed again, then cleared."""
    bury(raw, [(Kind.MODEL, "k")], Reason.EVICTED, NOW, detail="50 GB", origin=WHO)
    bury(raw, [(Kind.MODEL, "k")], Reason.CLEARED, LATER)
    assert select_gone(raw, Kind.MODEL, "k") == Gone("cleared", None, None, "2026-02-01T00:00:00.000Z")
    assert count(raw, "motoolsd_gone") == 1


def test_cleared_table_is_only_a_guess(raw: sqlite3.Connection) -> None:
    """Of a key that was removed after it, it is known again."""
    bury(raw, [(Kind.MODEL, "before")], Reason.EVICTED, NOW)
    bury(raw, [(Kind.MODEL, ALL_KEYS)], Reason.CLEARED, NOW, origin=WHO)
    bury(raw, [(Kind.MODEL, "after")], Reason.EVICTED, NOW)
    guess = Gone("cleared", None, WHO, STAMP, is_certain=False)
    assert select_gone(raw, Kind.MODEL, "before") == select_gone(raw, Kind.MODEL, "any") == guess
    assert select_gone(raw, Kind.MODEL, "after") == Gone("evicted", None, None, STAMP)
    assert select_gone(raw, Kind.DATASET, "any") is None


def test_history_is_bounded(raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go; that a whole table was cleared stays."""
    monkeypatch.setattr(history, "GONE_MAX", 3)
    bury(raw, [(Kind.MODEL, ALL_KEYS)], Reason.CLEARED, NOW)
    for number in range(10):
        bury(raw, [(Kind.DATASET, f"d{number}")], Reason.EVICTED, NOW)
    kept = [number for number in range(10) if select_gone(raw, Kind.DATASET, f"d{number}")]
    assert kept == [7, 8, 9]
    gone = select_gone(raw, Kind.MODEL, "k")
    assert gone is not None
    assert not gone.is_certain


def test_what_is_removed_again_and_again_is_as_young_as_the_last_time(
    raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not go with the oldest, and takes one place."""
    monkeypatch.setattr(history, "GONE_MAX", 3)
    for number in range(10):
        bury(raw, [(Kind.DATASET, "again"), (Kind.DATASET, f"d{number}")], Reason.EVICTED, NOW)
    assert select_gone(raw, Kind.DATASET, "again") is not None


def test_clears_are_remembered_by_key(raw: sqlite3.Connection) -> None:
    """Those that took something; what was not there was not cleared."""
    committed(raw, put_dataset("d"), put_evals({"t": b"/log"}))
    committed(raw, clear(Kind.DATASET, keys=["d", "none"]), clear_all())
    for kind, key in ((Kind.DATASET, "d"), (Kind.EVAL, EVAL_KEY)):
        assert select_gone(raw, kind, key) == Gone("cleared", None, None, STAMP)
    assert select_gone(raw, Kind.DATASET, "none") is None
    assert count(raw, "motoolsd_gone") == 2


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (MISSING, Reason.FILE_GONE),
        (EXPIRED, Reason.EXPIRED),
        (DAMAGED, Reason.DAMAGED),
        (INVALIDATED, Reason.INVALIDATED),
        (Outcome.FAILED.value, Reason.FAILED),
        (Outcome.REFUSED.value, Reason.REFUSED),
        (Outcome.PARTIAL.value, Reason.PARTIAL),
        ("what a later version says", Reason.INVALIDATED),
    ],
)
def test_row_that_misses_says_why(raw: sqlite3.Connection, stored: str, reason: Reason) -> None:
    """In the words that everybody knows, whatever its row says; one that hits says nothing."""
    committed(raw, put_dataset("d"), put_dataset("sound"), put_evals({"t": b"/log"}))
    committed(raw, SetVoid(((Kind.DATASET, "d"), (Kind.EVAL, EVAL_KEY)), stored, "in words"))
    for kind, key in ((Kind.DATASET, "d"), (Kind.EVAL, EVAL_KEY)):
        assert select_void(raw, kind, key) == Void(reason, STAMP, "in words")
        assert reason_of_miss(raw, kind, key) is reason
    assert select_void(raw, Kind.DATASET, "sound") is select_void(raw, Kind.DATASET, "none") is None


def test_reason_of_a_miss_is_what_is_known(raw: sqlite3.Connection) -> None:
    """A row before the history, the history before nothing; a guess is none, and neither is a key of nobody."""
    committed(raw, put_dataset("d"))
    bury(raw, [(Kind.DATASET, "d"), (Kind.DATASET, "gone")], Reason.EVICTED, NOW)
    bury(raw, [(Kind.MODEL, ALL_KEYS)], Reason.CLEARED, NOW)
    committed(raw, SetVoid(((Kind.DATASET, "d"),), EXPIRED))
    said = [
        reason_of_miss(raw, kind, key)
        for kind, key in (
            (Kind.DATASET, "d"),
            (Kind.DATASET, "gone"),
            (Kind.DATASET, "never"),
            (Kind.MODEL, "perhaps"),
            (Kind.EVAL, "no key of ours"),
        )
    ]
    never = Reason.NEVER_COMPUTED
    assert said == [Reason.EXPIRED, Reason.EVICTED, never, never, never]


def test_latest_misses_come_first(raw: sqlite3.Connection) -> None:
    """With all that was said of them, and no more than asked for."""
    record_misses(raw, [miss("a"), miss("b", Reason.EVICTED)])
    record_misses(raw, [miss("a")])
    found = select_misses(raw, 10)
    assert [(one.key, one.reason) for one in found] == [
        ("a", "never_computed"),
        ("b", "evicted"),
        ("a", "never_computed"),
    ]
    assert found[0] == miss("a")._replace(number=3, missed_at=STAMP)
    assert select_misses(raw, 2) == found[:2]


def test_misses_are_bounded(raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go, also where more come at once than are kept."""
    monkeypatch.setattr(history, "MISSES_MAX", 3)
    record_misses(raw, [miss(f"d{number}") for number in range(5)])
    assert [one.key for one in select_misses(raw, 10)] == ["d4", "d3", "d2"]
    record_misses(raw, [miss("d5")])
    assert [one.key for one in select_misses(raw, 10)] == ["d5", "d4", "d3"]
    assert count(raw, "motoolsd_misses") == 3
