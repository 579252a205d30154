"""Counts of lookups are added up by hour and audience, and folded when they are old."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import msgspec
import pytest

from motoolsd.store.entries import SetVoid
from motoolsd.store.history import Bury, select_misses
from motoolsd.store.statistics import (
    COST_SAVED,
    DAYS_KEPT,
    HITS,
    HOURS_KEPT,
    MISSES,
    REASON_PREFIX,
    SECONDS_SAVED,
    Counted,
    FoldCounts,
    MissedKey,
    UseReport,
    cost_of,
    select_audience,
    select_counts_since,
)
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.reasons import Reason
from tests.samples import NOW, committed, put_dataset, put_evals, put_model
from tests.signing import key_of_model

HOUR = 24 * 20_000
"""The first of a day."""
ANN = '{"owner":"ann"}'
MODEL = key_of_model({"epochs": 1})
EVAL = eval_key("m", "t", "inspect", None)


def report(raw: sqlite3.Connection, hour: int = HOUR, **values: Any) -> None:  # noqa: ANN401 - whatever UseReport has
    """Write down what somebody's lookups came to."""
    committed(raw, UseReport(hour=hour, **values))


def sums(raw: sqlite3.Connection, hour: int = 0, job: str | None = None) -> dict[str, float]:
    """All counts of datasets by name, whoever asked."""
    found: dict[str, float] = {}
    for one in select_counts_since(raw, hour, job):
        if one.kind is Kind.DATASET:
            found[one.name] = found.get(one.name, 0) + one.value
    return found


def rows(raw: sqlite3.Connection) -> list[tuple[int, float]]:
    """Hour and value of every count."""
    return raw.execute("SELECT hour, value FROM motoolsd_counts ORDER BY hour, audience").fetchall()


def missed(key: str, kind: Kind = Kind.DATASET, **values: Any) -> MissedKey:  # noqa: ANN401 - as above
    """A miss."""
    return MissedKey(kind, key, NOW, **values)


def test_hits_are_counted_on_their_rows(raw: sqlite3.Connection) -> None:
    """Of every kind; a second report is added."""
    committed(raw, put_dataset("d"), put_model(epochs=1), put_evals({"t": b"/log"}))
    hits = {Kind.DATASET: {"d": 2}, Kind.MODEL: {MODEL: 3}, Kind.EVAL: {EVAL: 4}}
    for _ in range(2):
        report(raw, hits=hits)
    for table, count in (("dataset_files", 4), ("trained_models", 6), ("eval_results", 8)):
        assert raw.execute(f"SELECT hits, last_used_at FROM {table}").fetchall() == [(count, NOW.encode())]
    assert {(one.kind, one.name, one.value) for one in select_counts_since(raw, 0, None)} == {
        (Kind.DATASET, HITS, 4),
        (Kind.MODEL, HITS, 6),
        (Kind.EVAL, HITS, 8),
    }


def test_hits_of_what_is_gone_or_nobodys_are_no_error(raw: sqlite3.Connection) -> None:
    """They were hits all the same; the rows of others are not touched."""
    committed(raw, put_dataset("d"))
    report(raw, hits={Kind.DATASET: {"gone": 2, "d": 1}, Kind.EVAL: {"no key": 1, EVAL: 1}})
    assert raw.execute("SELECT hits FROM dataset_files").fetchall() == [(1,)]
    assert sums(raw) == {HITS: 3}


@pytest.mark.parametrize(
    ("metadata", "cost"),
    [
        (b'{"cost": 0.5}', 0.5),
        (b'{"cost": 2, "loss": 0.1}', 2.0),
        (b'{"cost": -1}', 0.0),
        (b'{"cost": true}', 0.0),
        (b'{"cost": "1"}', 0.0),
        (b'{"loss": 1}', 0.0),
        (b"[1]", 0.0),
        (b"{", 0.0),
        (b"\xff", 0.0),
        (7.5, 0.0),
        (None, 0.0),
    ],
)
def test_cost_is_what_metadata_say(metadata: bytes | float | None, cost: float) -> None:
    """A number that is no less than 0; whatever else stands there costs nothing, and is no error."""
    assert cost_of(metadata) == cost


def test_each_hit_saves_what_the_entry_took(raw: sqlite3.Connection) -> None:
    """Entries of which it is not known save nothing, and so does what somebody wrote there by hand."""
    put = msgspec.structs.replace(put_dataset("d"), seconds=3.0, metadata=b'{"cost":0.5}')
    committed(raw, put, put_dataset("unknown"), put_dataset("by hand"))
    raw.execute("UPDATE dataset_files SET seconds = 'long', metadata = '{' WHERE dataset_hash = 'by hand'")
    report(raw, hits={Kind.DATASET: {"d": 2, "unknown": 5, "by hand": 5}})
    assert sums(raw) == {HITS: 12, SECONDS_SAVED: 6.0, COST_SAVED: 1.0}


def test_misses_are_counted_by_their_reason(raw: sqlite3.Connection) -> None:
    """As it stands when they are written down; each as often as it missed, and those without a name too."""
    committed(raw, put_dataset("expired"), Bury(((Kind.DATASET, "evicted"),), Reason.EVICTED))
    committed(raw, SetVoid(((Kind.DATASET, "expired"),), "expired"))
    report(
        raw,
        misses=(missed("expired", times=3), missed("evicted"), missed("never"), missed("other", is_mismatch=True)),
        unnamed={Kind.DATASET: 10},
    )
    assert sums(raw) == {
        MISSES: 16,
        REASON_PREFIX + "expired": 3,
        REASON_PREFIX + "evicted": 1,
        REASON_PREFIX + "never_computed": 1,
        REASON_PREFIX + "other_version": 1,
    }
    assert [(one.key, one.reason) for one in select_misses(raw, 10)] == [
        ("other", "other_version"),
        ("never", "never_computed"),
        ("evicted", "evicted"),
        ("expired", "expired"),
    ]


def test_misses_name_who_asked_and_with_what(raw: sqlite3.Connection) -> None:
    """The inputs may come with the miss, or later; they never replace what was told before."""
    report(raw, job="slurm:1", labels=ANN, misses=(missed("a", inputs=b"1"), missed("b")))
    found = select_misses(raw, 10)
    assert {one.key: one.inputs for one in found} == {"a": b"1", "b": None}
    for one in found:
        assert one.audience is not None
        assert select_audience(raw, one.audience) == ("slurm:1", {"owner": "ann"})
    report(raw, inputs={(Kind.DATASET, "a"): b"2", (Kind.DATASET, "b"): b"3", (Kind.MODEL, "b"): b"4"})
    assert {one.key: one.inputs for one in select_misses(raw, 10)} == {"a": b"1", "b": b"3"}


def test_counts_are_kept_by_hour_job_and_labels(raw: sqlite3.Connection) -> None:
    """Chosen by time and job; one audience is one row of names, however often it reports."""
    committed(raw, put_dataset("d"))
    for hour in (HOUR, HOUR + 1):
        for job, labels in (("slurm:1", ANN), ("slurm:1", "{}"), ("", "{}")):
            for _ in range(2):
                report(raw, hour, job=job, labels=labels, hits={Kind.DATASET: {"d": 1}})
    assert raw.execute("SELECT count(*) FROM motoolsd_audiences").fetchall() == [(3,)]
    assert len(rows(raw)) == 6
    found = sorted(select_counts_since(raw, 0, None), key=lambda one: (one.job, len(one.labels)))
    assert found == [
        Counted(Kind.DATASET, job, labels, HITS, 4)
        for job, labels in (("", {}), ("slurm:1", {}), ("slurm:1", {"owner": "ann"}))
    ]
    assert sums(raw, HOUR + 1) == {HITS: 6}
    assert sums(raw, HOUR + 2) == {}
    assert (sums(raw, job="slurm:1"), sums(raw, job=""), sums(raw, job="slurm")) == ({HITS: 8}, {HITS: 4}, {})


def test_damaged_labels_count_as_none(raw: sqlite3.Connection) -> None:
    """Somebody edited them by hand; an audience that is gone is nobody."""
    report(raw, job="slurm:1", labels=ANN, unnamed={Kind.DATASET: 1}, misses=(missed("a"),))
    raw.execute("UPDATE motoolsd_audiences SET labels = '{'")
    assert [one.labels for one in select_counts_since(raw, 0, None)] == [{}] * 2
    (miss,) = select_misses(raw, 1)
    assert miss.audience is not None
    assert select_audience(raw, miss.audience) == ("slurm:1", {})
    raw.execute("DELETE FROM motoolsd_audiences")
    assert select_audience(raw, miss.audience) == ("", {})


def test_counts_are_there_when_the_database_is_opened_again(raw: sqlite3.Connection, database: str) -> None:
    """By another connection."""
    report(raw, misses=(missed("a"),))
    with closing(sqlite3.connect(database)) as other:
        other.text_factory = bytes
        assert sums(other) == sums(raw) == {MISSES: 1, REASON_PREFIX + "never_computed": 1}


def fold(raw: sqlite3.Connection, hour: int) -> int:
    """Fold at that hour; how many rows it made."""
    (outcome,) = committed(raw, FoldCounts(hour))
    return outcome.number


def test_old_counts_are_folded_by_day_and_labels(raw: sqlite3.Connection) -> None:
    """What is younger stays as it is; a day that is folded bit by bit comes to one row."""
    for hour in range(48):
        for job in ("slurm:1", "slurm:2"):
            report(raw, HOUR + hour, job=job, labels=ANN, unnamed={Kind.DATASET: 1})
    assert fold(raw, HOUR + HOURS_KEPT) == 0
    assert len(rows(raw)) == 96
    fold(raw, HOUR + HOURS_KEPT + 5)
    assert rows(raw)[0] == (HOUR, 10.0)
    assert len(rows(raw)) == 1 + 96 - 10
    assert sums(raw, job="slurm:1") == {MISSES: 43}
    fold(raw, HOUR + HOURS_KEPT + 30)
    assert rows(raw)[:2] == [(HOUR, 48.0), (HOUR + 24, 12.0)]
    fold(raw, HOUR + HOURS_KEPT + 48)
    assert rows(raw) == [(HOUR, 48.0), (HOUR + 24, 48.0)]
    assert fold(raw, HOUR + HOURS_KEPT + 48) == 0
    assert rows(raw) == [(HOUR, 48.0), (HOUR + 24, 48.0)]
    assert sums(raw) == {MISSES: 96}
    assert {(one.job, one.labels["owner"]) for one in select_counts_since(raw, 0, None)} == {("", "ann")}


def test_very_old_counts_go_with_audiences_that_nothing_names(raw: sqlite3.Connection) -> None:
    """Those of misses that are listed stay."""
    report(raw, HOUR, job="old", unnamed={Kind.DATASET: 1})
    report(raw, HOUR, job="listed", misses=(missed("a"),))
    late = HOUR + (DAYS_KEPT + 1) * 24
    report(raw, late, job="new", unnamed={Kind.DATASET: 1})
    fold(raw, late)
    assert sums(raw) == {MISSES: 1}
    assert set(raw.execute("SELECT job FROM motoolsd_audiences")) == {(b"listed",), (b"new",)}
    (miss,) = select_misses(raw, 10)
    assert miss.audience is not None
    assert select_audience(raw, miss.audience) == ("listed", {})
