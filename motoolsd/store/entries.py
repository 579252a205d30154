"""Changes of entries that are not their values: whether they count, how large they are, who protects them.

Layer: store. Imports outcomes, ownership and rows.
Invariant: a change of whether an entry counts names its key, so that its slot moves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from motoolsd.core.deadlines import Moment, unpacked
from motoolsd.core.guards import MISSING, Guard
from motoolsd.store.outcomes import Applied, Change, Key, Outcome, StoredEntry
from motoolsd.store.ownership import (
    ENTRY_COLUMN,
    GUARD_COLUMNS,
    WHERE_KEY,
    OwnedFile,
    as_name,
    guard_of,
    key_cells,
    own_files,
)
from motoolsd.store.rows import KEY_COLUMNS, TABLES, VALUE_COLUMN, Cell, bytes_of, key_of, text_of
from motoolsd.wire.keys import Kind
from motoolsd.wire.sizes import EntrySize


class SetVoid(Change, frozen=True):
    """Let entries miss though they have a row."""

    entries: tuple[Key, ...]
    reason: str
    detail: str | None = None

    @property
    def keys(self) -> Collection[Key]:
        """Those."""
        return self.entries

    def apply(self, connection: sqlite3.Connection, now: str, /) -> Outcome:
        """Mark what is not marked yet."""
        removed = []
        for kind, key in self.entries:
            marked = connection.execute(
                f"UPDATE {TABLES[kind]} SET void_since = ?, void_reason = ?, void_detail = ?"
                f" WHERE {WHERE_KEY[kind]} AND void_since IS NULL",
                (now, self.reason, self.detail, *key_cells(kind, key)),
            )
            if marked.rowcount:
                removed.append((kind, key))
        return Applied(removed=removed, number=len(removed))


class Voidable(NamedTuple):
    """An entry, and why it misses; None: it does not."""

    key: str
    void_reason: str | None


def select_voidable(connection: sqlite3.Connection, kind: Kind, row_numbers: Sequence[int]) -> list[Voidable]:
    """The entries with these row numbers; without those that went."""
    rows = connection.execute(
        f"SELECT void_since, void_reason, {', '.join(KEY_COLUMNS[kind])} FROM {TABLES[kind]}"
        " WHERE rowid IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode(list(row_numbers)).decode(),),
    )
    return [Voidable(key_of(kind, cells), None if since is None else text_of(reason)) for since, reason, *cells in rows]


class ClearVoid(Change, frozen=True):
    """Let entries count again that missed for one reason."""

    entries: tuple[Key, ...]
    reason: str

    @property
    def keys(self) -> Collection[Key]:
        """Those."""
        return self.entries

    def apply(self, connection: sqlite3.Connection, _now: str, /) -> Outcome:
        """Take the mark away where the reason is still that one."""
        stored: list[StoredEntry] = []
        guards: dict[Key, Guard] = {}
        for kind, key in self.entries:
            row = connection.execute(
                f"UPDATE {TABLES[kind]} SET void_since = NULL, void_reason = NULL, void_detail = NULL"
                f" WHERE {WHERE_KEY[kind]} AND void_reason = ? RETURNING {VALUE_COLUMN[kind]}, {GUARD_COLUMNS[kind]}",
                (*key_cells(kind, key), self.reason),
            ).fetchone()
            if row is not None:
                stored.append((kind, key, bytes_of(row[0])))
                if (guard := guard_of(connection, kind, row[1:])) is not None:
                    guards[kind, key] = guard
        return Applied(stored=stored, guards=guards, number=len(stored))


class RecordSizes(Change, frozen=True):
    """Write down what a scan measured: sizes of owned paths, and of the entries that own them."""

    files: tuple[tuple[Kind, str, OwnedFile], ...]

    def apply(self, connection: sqlite3.Connection, _now: str, /) -> Outcome:
        """Set the figures of the paths, then the sums of their entries."""
        for kind, key, file in self.files:
            if (entry := _entry_of(connection, kind, key)) is None:
                continue
            name = as_name(entry)
            connection.execute(
                "UPDATE motoolsd_files SET size_bytes = ?, allocated_bytes = ?"
                " WHERE kind = ? AND entry = ? AND path = ?",
                (file.size_bytes, file.allocated_bytes, kind.value, name, file.path),
            )
            connection.execute(
                f"UPDATE {TABLES[kind]} SET (size_bytes, allocated_bytes) ="
                " (SELECT sum(size_bytes), sum(allocated_bytes) FROM motoolsd_files WHERE kind = ? AND entry = ?)"
                f" WHERE {ENTRY_COLUMN[kind]} = ?",
                (kind.value, name, name),
            )
        return Applied(number=len(self.files))


class Adopt(Change, frozen=True):
    """Make files that were found where an entry's would be those of the entry, if it has none."""

    files: tuple[tuple[Kind, str, OwnedFile], ...]

    @property
    def keys(self) -> Collection[Key]:
        """Those of the entries: what they depend on changes."""
        return [(kind, key) for kind, key, _ in self.files]

    def apply(self, connection: sqlite3.Connection, _now: str, /) -> Outcome:
        """Own what is not owned, and tell the guards."""
        stored: list[StoredEntry] = []
        guards: dict[Key, Guard] = {}
        for kind, key, file in self.files:
            row = connection.execute(
                f"SELECT {VALUE_COLUMN[kind]}, expires_at, version, void_since FROM {TABLES[kind]}"
                f" WHERE {WHERE_KEY[kind]} AND files = 0",
                key_cells(kind, key),
            ).fetchone()
            if row is None:
                continue
            own_files(connection, kind, key, [file])
            if row[3] is None:
                stored.append((kind, key, bytes_of(row[0])))
                guard = guard_of(connection, kind, (_entry_of(connection, kind, key), 1, *row[1:3]))
                assert guard is not None, "it owns a file"
                guards[kind, key] = guard
        return Applied(stored=stored, guards=guards, number=len(stored))


class SetPin(Change, frozen=True, kw_only=True):
    """Protect entries, or not any more."""

    kinds: tuple[Kind, ...]
    name: str
    """A key, a value, or the number of an evaluation."""
    is_pinned: bool
    reason: str | None = None
    until: Moment | None = None

    def apply(self, connection: sqlite3.Connection, _now: str, /) -> Outcome:
        """Mark all that have the name; how many there are."""
        until = None if self.until is None else self.until.packed()
        count = 0
        for kind in self.kinds:
            where, cells = named(kind, self.name)
            count += connection.execute(
                f"UPDATE {TABLES[kind]} SET pinned = ?, pin_reason = ?, pinned_until = ? WHERE {where}",
                (self.is_pinned, self.reason, until, *cells),
            ).rowcount
        return Applied(number=count)


class EndPins(Change, frozen=True):
    """Take away the pins whose time is over."""

    now: Moment

    def apply(self, connection: sqlite3.Connection, _now: str, /) -> Outcome:
        """Look at all; how many there were."""
        count = 0
        for kind, table in TABLES.items():
            for (rowid,) in select_ended_pins(connection, kind, self.now):
                connection.execute(
                    f"UPDATE {table} SET pinned = 0, pin_reason = NULL, pinned_until = NULL WHERE rowid = ?", (rowid,)
                )
                count += 1
        return Applied(number=count)


def select_ended_pins(connection: sqlite3.Connection, kind: Kind, now: Moment) -> list[tuple[int]]:
    """Row numbers of the entries whose pin's time is over."""
    rows = connection.execute(
        f"SELECT rowid, pinned_until FROM {TABLES[kind]} WHERE pinned != 0 AND pinned_until IS NOT NULL"
    ).fetchall()
    ends = ((rowid, unpacked(until) if isinstance(until, bytes) else None) for rowid, until in rows)
    return [(rowid,) for rowid, end in ends if end is not None and end.is_over(now)]


def named(kind: Kind, name: str) -> tuple[str, tuple[str | None, ...]]:
    """The condition for the entries of a kind that a name means: by key, by value, an evaluation also by its number."""
    where = f"{VALUE_COLUMN[kind]} = ?"
    cells: tuple[str | None, ...] = (name,)
    try:
        own = key_cells(kind, name)
    except ValueError:
        return (f"{where} OR CAST(id AS TEXT) = ?", (*cells, name))
    return (f"{where} OR ({WHERE_KEY[kind]})", (*cells, *own))


def _entry_of(connection: sqlite3.Connection, kind: Kind, key: str) -> Cell:
    """How motoolsd_files names an entry; None if there is none."""
    if kind is not Kind.EVAL:
        return key.encode()
    found = connection.execute(f"SELECT id FROM eval_results WHERE {WHERE_KEY[kind]}", key_cells(kind, key)).fetchone()
    return None if found is None else found[0]


ADOPTABLE_MAX = 5_000


def select_adoptable_logs(
    connection: sqlite3.Connection, prefixes: Sequence[bytes], after: int, limit: int = ADOPTABLE_MAX
) -> tuple[list[tuple[str, bytes]], int | None]:
    """Evaluations without files whose log's path begins so; and after which number the next stand."""
    likely = " OR ".join(["(log_file_path >= CAST(? AS TEXT) AND log_file_path < CAST(? AS TEXT))"] * len(prefixes))
    bounds = [bound for prefix in prefixes for bound in (prefix, prefix + b"\xff")]
    rows = connection.execute(
        f"SELECT id, log_file_path, {', '.join(KEY_COLUMNS[Kind.EVAL])} FROM eval_results"
        f" WHERE id > ? AND files = 0 AND void_since IS NULL AND ({likely}) ORDER BY id LIMIT ?",
        (after, *bounds, limit),
    ).fetchall()
    found = [(key_of(Kind.EVAL, cells), bytes_of(path)) for _, path, *cells in rows]
    return found, rows[-1][0] if len(rows) == limit else None


def select_named(connection: sqlite3.Connection, kind: Kind, names: Sequence[str]) -> dict[str, str]:
    """Which of these names have an entry without files: datasets by their hash, models by their id. Name to key."""
    column = "dataset_hash" if kind is Kind.DATASET else "model_id"
    rows = connection.execute(
        f"SELECT {column}, {KEY_COLUMNS[kind][0]} FROM {TABLES[kind]}"
        f" WHERE {column} IN (SELECT value FROM json_each(?)) AND files = 0",
        (msgspec.json.encode(list(names)).decode(),),
    )
    return {text_of(name): text_of(key) for name, key in rows}


def select_dangling_count(connection: sqlite3.Connection) -> int:
    """How many entries miss because a file of theirs is gone."""
    counts = [
        connection.execute(f"SELECT count(*) FROM {table} WHERE void_reason = ?", (MISSING,)).fetchone()[0]
        for table in TABLES.values()
    ]
    return sum(counts)


def select_largest(connection: sqlite3.Connection, count: int) -> list[EntrySize]:
    """The entries whose files take most, the largest first."""
    found = []
    for kind, table in TABLES.items():
        keys = ", ".join(KEY_COLUMNS[kind])
        rows = connection.execute(
            f"SELECT {VALUE_COLUMN[kind]}, size_bytes, allocated_bytes, {keys} FROM {table}"
            " WHERE size_bytes > 0 ORDER BY size_bytes DESC LIMIT ?",
            (count,),
        )
        found += [
            EntrySize(
                kind=kind.value,
                key=key_of(kind, cells),
                value=bytes_of(value),
                size_bytes=size,
                allocated_bytes=room or 0,
            )
            for value, size, room, *cells in rows
        ]
    return sorted(found, key=lambda entry: -entry.size_bytes)[:count]
