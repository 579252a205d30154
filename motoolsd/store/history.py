"""What became of keys that have no entry: cleared, evicted, failed; and the latest misses.

Layer: store. Imports outcomes, rows and wire.
Invariant: bounded: the oldest goes for the newest. What stands here explains, and decides nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from motoolsd.core.guards import DAMAGED, EXPIRED, MISSING
from motoolsd.store.outcomes import Applied, Change, Key, Outcome
from motoolsd.store.ownership import WHERE_KEY, key_cells
from motoolsd.store.rows import TABLES, optional_text, text_of, timestamp
from motoolsd.wire.fields import Outcome as Result
from motoolsd.wire.keys import Kind
from motoolsd.wire.reasons import Reason

GONE_MAX: Final = 100_000
MISSES_MAX: Final = 1_000
ALL_KEYS: Final = ""
"""Stands for every key of a kind, where a whole table was cleared."""

INVALIDATED: Final = "invalidated"
_REASON_OF: Final[dict[str, Reason]] = {
    MISSING: Reason.FILE_GONE,
    EXPIRED: Reason.EXPIRED,
    DAMAGED: Reason.DAMAGED,
    INVALIDATED: Reason.INVALIDATED,
    Result.FAILED.value: Reason.FAILED,
    Result.REFUSED.value: Reason.REFUSED,
    Result.PARTIAL.value: Reason.PARTIAL,
}
"""What a row's `void_reason` means to whoever missed."""


class Gone(NamedTuple):
    """Why a key has no entry any more, or got none."""

    reason: str
    detail: str | None
    origin: bytes | None
    """Who did it."""
    gone_at: str
    is_certain: bool = True
    """Whether the key itself is known to have had an entry; else everything of its kind was cleared."""


class Why(NamedTuple):
    """Why entries are removed, and by whom."""

    reason: Reason = Reason.CLEARED
    detail: str | None = None
    origin: bytes | None = None


class Void(NamedTuple):
    """Why an entry misses though it has a row."""

    reason: Reason
    since: str | None
    detail: str | None


class MissRow(NamedTuple):
    """One of the latest misses."""

    number: int
    kind: Kind
    key: str
    reason: str
    inputs: bytes | None
    audience: int | None
    missed_at: str


def bury(
    connection: sqlite3.Connection,
    entries: Iterable[Key],
    reason: Reason,
    now: str,
    *,
    detail: str | None = None,
    origin: bytes | None = None,
) -> None:
    """Remember why keys have no entry, inside an open transaction."""
    connection.executemany(
        "INSERT OR REPLACE INTO motoolsd_gone (kind, key, reason, detail, origin, gone_at) VALUES (?, ?, ?, ?, ?, ?)",
        [(kind.value, key, reason.value, detail, origin, now) for kind, key in entries],
    )
    connection.execute(
        "DELETE FROM motoolsd_gone WHERE number <= (SELECT max(number) FROM motoolsd_gone) - ? AND key != ''",
        (GONE_MAX,),
    )


class Bury(Change, frozen=True):
    """Remember why keys have no entry."""

    entries: tuple[Key, ...]
    reason: Reason
    detail: str | None = None
    origin: bytes | None = None

    def apply(self, connection: sqlite3.Connection, now: str, /) -> Outcome:
        """Add it."""
        bury(connection, self.entries, self.reason, now, detail=self.detail, origin=self.origin)
        return Applied()


def select_gone(connection: sqlite3.Connection, kind: Kind, key: str) -> Gone | None:
    """Why a key has no entry, as far as it is remembered."""
    row = connection.execute(
        "SELECT reason, detail, origin, gone_at, key FROM motoolsd_gone WHERE kind = ? AND key IN (?, ?)"
        " ORDER BY number DESC LIMIT 1",
        (kind.value, key, ALL_KEYS),
    ).fetchone()
    if row is None:
        return None
    reason, detail, origin, gone_at, name = row
    is_certain = text_of(name) != ALL_KEYS
    return Gone(text_of(reason), optional_text(detail), origin, timestamp(gone_at) or "", is_certain)


def select_void(connection: sqlite3.Connection, kind: Kind, key: str) -> Void | None:
    """Why a key misses though it has a row; None if it has none, or hits."""
    row = connection.execute(
        f"SELECT void_reason, void_since, void_detail FROM {TABLES[kind]}"
        f" WHERE {WHERE_KEY[kind]} AND void_since IS NOT NULL",
        key_cells(kind, key),
    ).fetchone()
    if row is None:
        return None
    reason, since, detail = row
    return Void(_REASON_OF.get(text_of(reason), Reason.INVALIDATED), timestamp(since), optional_text(detail))


def reason_of_miss(connection: sqlite3.Connection, kind: Kind, key: str) -> Reason:
    """Why a key missed a moment ago, in a word; one that was computed since had not been."""
    try:
        void = select_void(connection, kind, key)
    except ValueError:
        return Reason.NEVER_COMPUTED  # no key of ours
    if void is not None:
        return void.reason
    gone = select_gone(connection, kind, key)
    return Reason(gone.reason) if gone is not None and gone.is_certain else Reason.NEVER_COMPUTED


def record_misses(connection: sqlite3.Connection, misses: Sequence[MissRow]) -> None:
    """Remember misses, inside an open transaction; their numbers are given here."""
    connection.executemany(
        "INSERT INTO motoolsd_misses (kind, key, reason, inputs, audience, missed_at) VALUES (?, ?, ?, ?, ?, ?)",
        [(one.kind.value, one.key, one.reason, one.inputs, one.audience, one.missed_at) for one in misses],
    )
    connection.execute(
        "DELETE FROM motoolsd_misses WHERE number <= (SELECT max(number) FROM motoolsd_misses) - ?", (MISSES_MAX,)
    )


def select_misses(connection: sqlite3.Connection, limit: int) -> list[MissRow]:
    """The latest misses, the last first."""
    rows = connection.execute(
        "SELECT number, kind, key, reason, inputs, audience, missed_at FROM motoolsd_misses"
        " ORDER BY missed_at DESC, number DESC LIMIT ?",
        (limit,),
    ).fetchall()
    return [
        MissRow(number, Kind(text_of(kind)), text_of(key), text_of(reason), inputs, audience, timestamp(at) or "")
        for number, kind, key, reason, inputs, audience, at in rows
    ]
