"""Hits are counted in memory and written in batches."""

from __future__ import annotations

from motoolsd.engine.usage import UsageCounts
from motoolsd.store.writes import Usage
from motoolsd.wire.keys import Kind


def test_only_hits_are_counted() -> None:
    """Misses leave no trace; hits add up by kind and key."""
    counts = UsageCounts(10)
    counts.count(Kind.DATASET, ["a", "b"], [b"1", None])
    counts.count(Kind.DATASET, ["a"], [b"1"])
    counts.count(Kind.MODEL, ["a"], [b"m"])
    assert counts.take(Kind.DATASET) == Usage(Kind.DATASET, {"a": 2})
    assert counts.take(Kind.DATASET) is None
    assert counts.take(Kind.MODEL) == Usage(Kind.MODEL, {"a": 1})


def test_different_entries_are_bounded() -> None:
    """Above the limit new entries are not counted, known ones are; taking makes room."""
    counts = UsageCounts(2)
    counts.count(Kind.DATASET, ["a", "b", "c", "a"], [b"1"] * 4)
    was_full = counts.is_full
    assert counts.take(Kind.DATASET) == Usage(Kind.DATASET, {"a": 2, "b": 1})
    assert (was_full, counts.is_full) == (True, False)
    counts.count(Kind.DATASET, ["c"], [b"1"])
    assert counts.take(Kind.DATASET) == Usage(Kind.DATASET, {"c": 1})


def test_fullness_lasts_until_every_full_kind_is_taken() -> None:
    """Taking one kind says nothing of another."""
    counts = UsageCounts(1)
    counts.count(Kind.DATASET, ["a"], [b"1"])
    counts.count(Kind.MODEL, ["a"], [b"1"])
    fullness = []
    for kind in (Kind.DATASET, Kind.MODEL):
        counts.take(kind)
        fullness.append(counts.is_full)
    assert fullness == [True, False]


def test_what_others_have_counted_is_added() -> None:
    """A client's own memory answers, and says so afterwards: both counts are one."""
    counts = UsageCounts(10)
    counts.count(Kind.DATASET, ["a"], [b"1"])
    counts.add(Kind.DATASET, {"a": 1000, "b": 2})
    counts.add(Kind.MODEL, {"a": 3})
    assert counts.take(Kind.DATASET) == Usage(Kind.DATASET, {"a": 1001, "b": 2})
    assert counts.take(Kind.MODEL) == Usage(Kind.MODEL, {"a": 3})
    assert counts.take(Kind.EVAL) is None


def test_what_others_have_counted_is_bounded_too() -> None:
    """However many entries a client names: above the limit known ones are counted on, and it is time to write."""
    counts = UsageCounts(2)
    counts.add(Kind.DATASET, {"a": 1})
    was_full = counts.is_full
    counts.add(Kind.DATASET, {"b": 1, "c": 1, "a": 1})
    assert (was_full, counts.is_full) == (False, True)
    assert counts.take(Kind.DATASET) == Usage(Kind.DATASET, {"a": 2, "b": 1})
    assert not counts.is_full


def test_adding_nothing_makes_nothing_full() -> None:
    """Nor does it take back that another kind is."""
    counts = UsageCounts(1)
    counts.add(Kind.DATASET, {})
    assert not counts.is_full
    counts.add(Kind.DATASET, {"a": 1})
    counts.add(Kind.MODEL, {})
    assert counts.is_full
