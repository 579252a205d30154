"""Clearing: what goes, what stays, and what is remembered of it."""

from __future__ import annotations

import sqlite3

import msgspec
import pytest

from motoolsd.store import clearing
from motoolsd.store.commits import commit_batch
from motoolsd.store.entries import SetPin
from motoolsd.store.history import select_gone
from motoolsd.store.outcomes import Applied, Outcome
from motoolsd.store.reads import select_counts
from motoolsd.store.writes import BatchItem
from motoolsd.wire.cleaning import Protected
from motoolsd.wire.filters import Filters
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.messages import PROTECTED_NAMED_MAX, Clear, ClearAll, Cleared
from tests.samples import (
    NOW,
    applied,
    clear,
    clear_all,
    committed,
    put_dataset,
    put_evals,
    put_model,
)


def commit(raw: sqlite3.Connection, *items: BatchItem) -> list[Outcome]:
    """One batch."""
    return list(commit_batch(raw, items, NOW, "cache.db"))


def datasets(raw: sqlite3.Connection) -> dict[bytes, bytes]:
    """What is stored."""
    return dict(raw.execute("SELECT dataset_hash, file_id FROM dataset_files").fetchall())


def pin(raw: sqlite3.Connection, *names: str, reason: str | None = None) -> None:
    """Pin datasets."""
    committed(raw, *[SetPin(kinds=(Kind.DATASET,), name=name, is_pinned=True, reason=reason) for name in names])


def test_clear_takes_what_matches_everything(raw: sqlite3.Connection) -> None:
    """Filters narrow; None matches all, an empty list nothing; what went is told by key."""
    commit(raw, put_evals({"t1": b"1", "t2": b"2"}, model_id="m1"), put_evals({"t1": b"3"}, model_id="m2"))
    (nothing,) = commit(raw, clear(Kind.EVAL, model_ids=[]))
    assert applied(nothing).reply == Cleared(evals=0)
    (some,) = commit(raw, clear(Kind.EVAL, model_ids=["m1", "m2"], task_ids=["t1"]))
    assert applied(some).reply == Cleared(evals=2)
    assert set(applied(some).removed) == {(Kind.EVAL, eval_key(m, "t1", "inspect", None)) for m in ("m1", "m2")}
    (everything,) = commit(raw, clear(Kind.EVAL))
    assert applied(everything).reply == Cleared(evals=1)
    assert applied(everything).removed == [(Kind.EVAL, eval_key("m1", "t2", "inspect", None))]


def test_large_clear_does_not_name_its_keys(raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million keys would take memory and time to be taken out one by one: what is in memory is read anew instead."""
    monkeypatch.setattr(clearing, "REMOVED_MAX", 2)
    commit(raw, put_evals(dict.fromkeys("abc", b"1"), model_id="m1"), put_evals({"a": b"3"}, model_id="m2"))
    (outcome,) = commit(raw, clear(Kind.EVAL, model_ids=["m1"]))
    assert applied(outcome) == Applied(reply=Cleared(evals=3), is_large=True)
    (outcome,) = commit(raw, clear(Kind.EVAL, model_ids=["m2"]))
    assert applied(outcome).removed == [(Kind.EVAL, eval_key("m2", "a", "inspect", None))]


def test_clear_by_a_key_with_a_nul_takes_that_row_alone(raw: sqlite3.Connection) -> None:
    """SQLite's json_each cuts a text at a NUL: what follows it must not be lost, or another row would go."""
    commit(raw, put_dataset("a"), put_dataset("a\0b"), put_dataset("a\0c"))
    (outcome,) = commit(raw, clear(Kind.DATASET, keys=["a\0b"]))
    assert applied(outcome).removed == [(Kind.DATASET, "a\0b")]
    assert datasets(raw).keys() == {b"a", b"a\0c"}


PINNED_D = Protected(kind="dataset", key="d", why="pinned: of the paper")


@pytest.mark.parametrize(
    ("request_", "cleared"),
    [
        (clear(Kind.DATASET), {"datasets": 1}),
        (clear(Kind.DATASET, keys=["d", "e"]), {"datasets": 1}),
        (clear_all(), {"datasets": 1, "models": 1}),
    ],
)
def test_clear_spares_what_is_pinned_and_names_it(
    raw: sqlite3.Connection, request_: Clear | ClearAll, cleared: dict[str, int]
) -> None:
    """The others go; memory is told by key, or to look again, but never that the table is empty."""
    commit(raw, put_dataset("d"), put_dataset("e"), put_model("d"))
    pin(raw, "d", reason="of the paper")
    (outcome,) = commit(raw, request_)
    assert applied(outcome).reply == Cleared(**cleared, num_protected=1, protected=[PINNED_D])
    assert datasets(raw).keys() == {b"d"}
    assert applied(outcome).emptied == ()
    assert (Kind.DATASET, "e") in applied(outcome).removed
    assert (Kind.DATASET, "d") not in applied(outcome).removed


@pytest.mark.parametrize("request_", [clear(Kind.DATASET, force=True), clear(Kind.DATASET, keys=["d"], force=True)])
def test_force_takes_what_is_pinned(raw: sqlite3.Connection, request_: Clear) -> None:
    """And says nothing of it."""
    commit(raw, put_dataset("d"))
    pin(raw, "d")
    assert applied(commit(raw, request_)[0]).reply == Cleared(datasets=1)
    assert datasets(raw) == {}


def test_force_takes_everything(raw: sqlite3.Connection) -> None:
    """Of all kinds: the tables are empty, and memory is told so."""
    commit(raw, put_dataset("d"), put_model("d"))
    pin(raw, "d")
    (outcome,) = commit(raw, clear_all(force=True))
    assert applied(outcome).reply == Cleared(datasets=1, models=1)
    assert {kind for kind, _ in applied(outcome).removed} == {Kind.DATASET, Kind.MODEL}


def test_large_table_is_emptied_as_a_whole(raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is told that it is empty, not what was in it; and it is remembered that all of it was cleared."""
    monkeypatch.setattr(clearing, "REMOVED_MAX", 1)
    commit(raw, *[put_dataset(name) for name in "abc"])
    (outcome,) = commit(raw, clear(Kind.DATASET))
    assert applied(outcome) == Applied(reply=Cleared(datasets=3), emptied=(Kind.DATASET,))
    gone = select_gone(raw, Kind.DATASET, "a")
    assert gone is not None
    assert (gone.reason, gone.is_certain) == ("cleared", False)


def test_what_was_cleared_is_remembered_by_its_key(raw: sqlite3.Connection) -> None:
    """With whoever did it; another key's history is not touched."""
    commit(raw, put_dataset("a"))
    commit(raw, msgspec.structs.replace(clear(Kind.DATASET), origin=b"origin-of-ours.."))
    gone = select_gone(raw, Kind.DATASET, "a")
    assert gone is not None
    assert (gone.reason, gone.origin, gone.is_certain) == ("cleared", b"origin-of-ours..", True)
    assert select_gone(raw, Kind.DATASET, "b") is None


def family(raw: sqlite3.Connection) -> None:
    """Two datasets, each with a model and its evaluation."""
    commit(
        raw,
        *[put_dataset(name) for name in ("d1", "d2")],
        put_model("d1", b"m1"),
        put_model("d2", b"m2"),
        put_evals({"t": b"1"}, model_id="m1"),
        put_evals({"t": b"2"}, model_id="m2"),
    )


@pytest.mark.parametrize(
    ("request_", "cleared", "left"),
    [
        (clear(Kind.DATASET, keys=["d1"]), Cleared(datasets=1), [1, 2, 2]),
        (clear(Kind.DATASET, keys=["d1"], downstream=True), Cleared(datasets=1, models=1, evals=1), [1, 1, 1]),
        (clear(Kind.MODEL, model_ids=["m2"], downstream=True), Cleared(models=1, evals=1), [2, 1, 1]),
        (clear(Kind.MODEL, filters=Filters(datasets=["d1"])), Cleared(models=1), [2, 1, 2]),
        (clear(Kind.EVAL, filters=Filters(datasets=["d1"])), Cleared(evals=1), [2, 2, 1]),
        (clear(Kind.EVAL, filters=Filters(where=["task_id=t", "model_id=m2"])), Cleared(evals=1), [2, 2, 1]),
        (clear(Kind.MODEL, filters=Filters(where=["config.lr>5"])), Cleared(), [2, 2, 2]),
        (clear(Kind.DATASET, filters=Filters(older_than_s=86_400)), Cleared(), [2, 2, 2]),
        (clear(Kind.DATASET, filters=Filters(), downstream=True), Cleared(datasets=2, models=2, evals=2), [0, 0, 0]),
    ],
)
def test_filters_choose_and_downstream_takes_what_was_made(
    raw: sqlite3.Connection, request_: Clear, cleared: Cleared, left: list[int]
) -> None:
    """All of it in one transaction; memory is told every key."""
    family(raw)
    (outcome,) = commit(raw, request_)
    assert applied(outcome).reply == cleared
    assert len(applied(outcome).removed) == cleared.datasets + cleared.models + cleared.evals
    assert list(select_counts(raw).values()) == left


def test_what_was_made_from_a_pinned_entry_stays_with_it(raw: sqlite3.Connection) -> None:
    """What is spared is not torn from what was made from it; and a pinned product stays alone."""
    family(raw)
    pin(raw, "d1")
    raw.execute("UPDATE eval_results SET pinned = 1 WHERE model_id = 'm2'")
    (outcome,) = commit(raw, clear(Kind.DATASET, downstream=True))
    assert applied(outcome).reply.num_protected == 2  # type: ignore[union-attr]
    assert raw.execute("SELECT model_id FROM trained_models").fetchall() == [(b"m1",)]
    assert len(raw.execute("SELECT id FROM eval_results").fetchall()) == 2


def test_pin_of_what_does_not_match_is_not_named(raw: sqlite3.Connection) -> None:
    """Only what would have gone is."""
    commit(raw, put_dataset("d"), put_dataset("e"))
    pin(raw, "d")
    assert applied(commit(raw, clear(Kind.DATASET, keys=["e"]))[0]).reply == Cleared(datasets=1)


def test_only_the_first_of_many_pinned_entries_are_named(raw: sqlite3.Connection) -> None:
    """All are counted; the reply stays small."""
    names = [f"d{number}" for number in range(PROTECTED_NAMED_MAX + 5)]
    commit(raw, *map(put_dataset, names))
    raw.execute("UPDATE dataset_files SET pinned = 1")
    reply = applied(commit(raw, clear(Kind.DATASET))[0]).reply
    assert isinstance(reply, Cleared)
    assert (reply.datasets, reply.num_protected, len(reply.protected)) == (0, len(names), PROTECTED_NAMED_MAX)


def test_large_clear_spares_what_is_pinned(raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where keys are not named."""
    monkeypatch.setattr(clearing, "REMOVED_MAX", 1)
    commit(raw, *[put_dataset(name) for name in "abcd"])
    pin(raw, "b")
    (outcome,) = commit(raw, clear(Kind.DATASET, keys=list("abcd")))
    assert applied(outcome).is_large
    assert datasets(raw).keys() == {b"b"}
