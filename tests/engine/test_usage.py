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
