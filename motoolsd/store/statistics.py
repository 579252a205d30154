"""Counting what lookups came to, over restarts: hits, misses by reason, and what hits saved.

Layer: store. Imports history, outcomes, ownership and rows.
Invariant: no lookup causes a write of its own: what was counted in memory comes here in batches. Counts are kept by
hour for `HOURS_KEPT`, then by day and without the job.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from motoolsd.store.history import MissRow, reason_of_miss, record_misses
from motoolsd.store.outcomes import Applied, Change, Outcome
from motoolsd.store.ownership import WHERE_KEY, key_cells
from motoolsd.store.rows import TABLES, bytes_of, text_of
from motoolsd.wire.keys import Kind
from motoolsd.wire.reasons import Reason

HOURS_KEPT: Final = 24 * 30
DAYS_KEPT: Final = 400
HOUR_S: Final = 3_600

HITS: Final = "hits"
MISSES: Final = "misses"
REASON_PREFIX: Final = "misses:"
SECONDS_SAVED: Final = "seconds_saved"
COST_SAVED: Final = "cost_saved"
COST: Final = "cost"
"""The field of an entry's metadata that says what it cost."""

_COUNT_USE: Final = {
    kind: f"UPDATE {table} SET hits = hits + ?, last_used_at = ? WHERE {WHERE_KEY[kind]} RETURNING seconds, metadata"
    for kind, table in TABLES.items()
}
_ADD: Final = (
    "INSERT INTO motoolsd_counts (hour, audience, kind, name, value) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (hour, audience, kind, name) DO UPDATE SET value = value + excluded.value"
)

_metadata_decoder = msgspec.json.Decoder(dict[str, Any])


class MissedKey(NamedTuple):
    """A lookup that found nothing."""

    kind: Kind
    key: str
    missed_at: str
    is_mismatch: bool = False
    """Whether there is a value, but of another version."""
    times: int = 1
    inputs: bytes | None = None
    """What the key was made from, where it was told."""


class UseReport(Change, frozen=True, kw_only=True):
    """What the lookups of one audience came to since its last report."""

    hour: int
    """Since the epoch."""
    job: str = ""
    labels: str = "{}"
    """Canonical JSON."""
    hits: Mapping[Kind, Mapping[str, int]] = {}
    misses: tuple[MissedKey, ...] = ()
    unnamed: Mapping[Kind, int] = {}
    """Further misses, of which only the number is known."""
    inputs: Mapping[tuple[Kind, str], bytes] = {}
    """What keys were made from whose miss was reported before."""

    def apply(self, connection: sqlite3.Connection, now: str, /) -> Outcome:
        """Count the hits on their rows, and all of it by hour and audience."""
        audience = _audience(connection, self.job, self.labels)
        counts: dict[tuple[Kind, str], float] = {}
        for kind, hits in self.hits.items():
            saved = _count_hits(connection, kind, hits, now)
            counts[kind, HITS] = sum(hits.values())
            counts.update({(kind, name): value for name, value in saved.items() if value})
        rows = []
        for miss in self.misses:
            reason = Reason.OTHER_VERSION if miss.is_mismatch else reason_of_miss(connection, miss.kind, miss.key)
            for name in (MISSES, REASON_PREFIX + reason.value):
                counts[miss.kind, name] = counts.get((miss.kind, name), 0) + miss.times
            rows.append(MissRow(0, miss.kind, miss.key, reason.value, miss.inputs, audience, miss.missed_at))
        for kind, count in self.unnamed.items():
            counts[kind, MISSES] = counts.get((kind, MISSES), 0) + count
        if rows:
            record_misses(connection, rows)
        connection.executemany(
            "UPDATE motoolsd_misses SET inputs = ? WHERE kind = ? AND key = ? AND inputs IS NULL",
            [(made_from, kind.value, key) for (kind, key), made_from in self.inputs.items()],
        )
        connection.executemany(
            _ADD, [(self.hour, audience, kind.value, name, value) for (kind, name), value in counts.items()]
        )
        return Applied()


def _audience(connection: sqlite3.Connection, job: str, labels: str) -> int:
    names = (job, labels)
    connection.execute("INSERT OR IGNORE INTO motoolsd_audiences (job, labels) VALUES (?, ?)", names)
    (number,) = connection.execute("SELECT id FROM motoolsd_audiences WHERE job = ? AND labels = ?", names).fetchone()
    assert isinstance(number, int), "it is the row's number"
    return number


def _count_hits(connection: sqlite3.Connection, kind: Kind, hits: Mapping[str, int], now: str) -> dict[str, float]:
    """Count on the rows; what the hits saved."""
    seconds = cost = 0.0
    for key, count in hits.items():
        try:
            cells = key_cells(kind, key)
        except ValueError:
            # Clients report what they have used; a key that is none has no row to count in.
            continue
        for took, metadata in connection.execute(_COUNT_USE[kind], (count, now, *cells)).fetchall():
            # RETURNING gives a REAL that is a whole number as an int (SQLite 3.40).
            seconds += count * took if isinstance(took, int | float) else 0.0
            cost += count * cost_of(metadata) if metadata is not None else 0.0
    return {SECONDS_SAVED: seconds, COST_SAVED: cost}


def cost_of(metadata: bytes | float | None) -> float:
    """What an entry cost, as its metadata say; 0 where they do not."""
    try:
        cost = _metadata_decoder.decode(bytes_of(metadata)).get(COST)
    except msgspec.MsgspecError:
        return 0.0
    return float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) and cost >= 0 else 0.0


class FoldCounts(Change, frozen=True):
    """Keep by day, and without the job, what is older than `HOURS_KEPT`; drop what is older than `DAYS_KEPT`."""

    hour: int
    """Now."""

    def apply(self, connection: sqlite3.Connection, _now: str, /) -> Outcome:
        """Fold all that is due."""
        old = self.hour - HOURS_KEPT
        rows = connection.execute(
            "SELECT c.hour / 24 * 24, a.labels, c.kind, c.name, sum(c.value) FROM motoolsd_counts c"
            " JOIN motoolsd_audiences a ON a.id = c.audience WHERE c.hour < ? AND (a.job != '' OR c.hour % 24 != 0)"
            " GROUP BY 1, 2, 3, 4",
            (old,),
        ).fetchall()
        if rows:
            connection.execute(
                "DELETE FROM motoolsd_counts WHERE hour < ? AND (hour % 24 != 0"
                " OR audience IN (SELECT id FROM motoolsd_audiences WHERE job != ''))",
                (old,),
            )
            connection.executemany(
                _ADD,
                [
                    (hour, _audience(connection, "", text_of(labels)), text_of(kind), text_of(name), value)
                    for hour, labels, kind, name, value in rows
                ],
            )
        connection.execute("DELETE FROM motoolsd_counts WHERE hour < ?", (self.hour - DAYS_KEPT * 24,))
        connection.execute(
            "DELETE FROM motoolsd_audiences WHERE id NOT IN (SELECT audience FROM motoolsd_counts)"
            " AND id NOT IN (SELECT audience FROM motoolsd_misses WHERE audience IS NOT NULL)"
        )
        return Applied(number=len(rows))


class Counted(NamedTuple):
    """A sum of counts."""

    kind: Kind
    job: str
    labels: dict[str, str]
    name: str
    value: float


_labels_decoder = msgspec.json.Decoder(dict[str, str])


def select_counts_since(connection: sqlite3.Connection, hour: int, job: str | None) -> list[Counted]:
    """Sums by kind, audience and name, of all hours from one on, of one job or all."""
    rows = connection.execute(
        "SELECT c.kind, a.job, a.labels, c.name, sum(c.value) FROM motoolsd_counts c"
        " JOIN motoolsd_audiences a ON a.id = c.audience"
        " WHERE c.hour >= ? AND (? IS NULL OR a.job = ?) GROUP BY c.kind, a.id, c.name",
        (hour, job, job),
    ).fetchall()
    return [
        Counted(Kind(text_of(kind)), text_of(job), _labels(labels), text_of(name), value)
        for kind, job, labels, name, value in rows
    ]


def _labels(cell: bytes | float | None) -> dict[str, str]:
    try:
        return _labels_decoder.decode(bytes_of(cell))
    except msgspec.MsgspecError:
        return {}


def select_audience(connection: sqlite3.Connection, number: int) -> tuple[str, dict[str, str]]:
    """The job and the labels of an audience; empty if it is gone."""
    row = connection.execute("SELECT job, labels FROM motoolsd_audiences WHERE id = ?", (number,)).fetchone()
    return ("", {}) if row is None else (text_of(row[0]), _labels(row[1]))
