"""Lookups are counted in memory, for each audience, and written in batches."""

from __future__ import annotations

import pytest

from motoolsd.engine.usage import INPUTS_KEPT, MISSES_KEPT, Audience, UsageCounts
from motoolsd.store.statistics import UseReport
from motoolsd.wire.keys import Kind
from tests.fakes import FakeClock

ANN = Audience("job-1", '{"owner":"ann"}')


@pytest.fixture
def counts() -> UsageCounts:
    """Room for ten entries."""
    return UsageCounts(10, FakeClock())


def taken(counts: UsageCounts) -> UseReport:
    """What the next tally has to tell."""
    report = counts.take()
    assert report is not None
    return report


def test_hits_add_up_by_kind_and_key(counts: UsageCounts) -> None:
    """And misses by key, with the moment of the first."""
    tally = counts.tally(ANN)
    tally.count(Kind.DATASET, ["a", "b"], [b"1", None])
    tally.count(Kind.DATASET, ["a", "b"], [b"1", None])
    tally.count(Kind.MODEL, ["a"], [b"m"])
    report = taken(counts)
    assert (report.job, report.labels) == ANN
    assert report.hits == {Kind.DATASET: {"a": 2}, Kind.MODEL: {"a": 1}}
    assert [(miss.kind, miss.key, miss.times) for miss in report.misses] == [(Kind.DATASET, "b", 2)]
    assert counts.take() is None


def test_audiences_are_told_apart(counts: UsageCounts) -> None:
    """Each connection's lookups are reported for whom it asks."""
    counts.tally(ANN).count(Kind.DATASET, ["a"], [b"1"])
    counts.tally(Audience("job-2")).count(Kind.DATASET, ["a"], [b"1"])
    assert {taken(counts).job, taken(counts).job} == {"job-1", "job-2"}
    assert counts.take() is None


def test_who_missed_first_is_reported_first(counts: UsageCounts) -> None:
    """The latest misses stand in their order, and what somebody else tells of one comes behind it."""
    jobs = ["job-1", "job-2", "job-3"]
    for job in jobs:
        counts.tally(Audience(job)).count(Kind.DATASET, [job], [None])
    assert [taken(counts).job for _ in jobs] == jobs


def test_different_entries_are_bounded() -> None:
    """Above the limit new entries are not counted, known ones are; taking makes room."""
    counts = UsageCounts(2, FakeClock())
    tally = counts.tally(ANN)
    tally.count(Kind.DATASET, ["a", "b", "c", "a"], [b"1"] * 4)
    was_full = counts.is_full
    assert taken(counts).hits == {Kind.DATASET: {"a": 2, "b": 1}}
    assert (was_full, counts.is_full) == (True, False)
    tally.count(Kind.DATASET, ["c"], [b"1"])
    assert taken(counts).hits == {Kind.DATASET: {"c": 1}}


def test_fullness_lasts_until_every_tally_is_taken() -> None:
    """Taking one says nothing of another."""
    counts = UsageCounts(1, FakeClock())
    for audience in (ANN, Audience("job-2")):
        counts.tally(audience).count(Kind.DATASET, ["a"], [b"1"])
    fullness = []
    for _ in range(2):
        counts.take()
        fullness.append(counts.is_full)
    assert fullness == [True, False]


def test_what_others_have_counted_is_added(counts: UsageCounts) -> None:
    """A client's own memory answers, and says so afterwards: both counts are one."""
    tally = counts.tally(ANN)
    tally.count(Kind.DATASET, ["a"], [b"1"])
    tally.add(Kind.DATASET, {"a": 1000, "b": 2})
    tally.add(Kind.MODEL, {"a": 3})
    assert taken(counts).hits == {Kind.DATASET: {"a": 1001, "b": 2}, Kind.MODEL: {"a": 3}}


def test_what_others_have_counted_is_bounded_too() -> None:
    """However many entries a client names: above the limit known ones are counted on, and it is time to write."""
    counts = UsageCounts(2, FakeClock())
    tally = counts.tally(ANN)
    tally.add(Kind.DATASET, {"a": 1})
    was_full = counts.is_full
    tally.add(Kind.DATASET, {"b": 1, "c": 1, "a": 1})
    assert (was_full, counts.is_full) == (False, True)
    assert taken(counts).hits == {Kind.DATASET: {"a": 2, "b": 1}}
    assert not counts.is_full


def test_misses_of_a_flood_are_counted_without_their_names(counts: UsageCounts) -> None:
    """The keys of the first are kept, of the others the number."""
    counts.tally(ANN).count(Kind.MODEL, [f"k{number}" for number in range(MISSES_KEPT + 7)], [None] * (MISSES_KEPT + 7))
    report = taken(counts)
    assert (len(report.misses), dict(report.unnamed)) == (MISSES_KEPT, {Kind.MODEL: 7})


def test_inputs_go_with_their_miss_or_alone(counts: UsageCounts) -> None:
    """They come after the miss, perhaps after it was written; so many are kept, and no more."""
    tally = counts.tally(ANN)
    tally.count(Kind.MODEL, ["k"], [None])
    tally.explain(Kind.MODEL, {"k": b"{}", "earlier": b"[]"})
    report = taken(counts)
    assert report.misses[0].inputs == b"{}"
    assert dict(report.inputs) == {(Kind.MODEL, "earlier"): b"[]"}
    tally.explain(Kind.MODEL, {f"k{number}": b"{}" for number in range(INPUTS_KEPT + 1)})
    assert len(taken(counts).inputs) == INPUTS_KEPT


def test_a_silent_tally_is_never_reported(counts: UsageCounts) -> None:
    """Asking why is no lookup."""
    counts.silent.count(Kind.DATASET, ["a", "b"], [b"1", None])
    assert counts.take() is None
