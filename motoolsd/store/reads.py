"""Reading: functions that run in the thread of a read-only connection, one hop each.

Layer: store. Imports rows.
Invariant: each function is one read transaction.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from motoolsd.core.guards import DAMAGED, Guard
from motoolsd.store.ownership import GUARD_COLUMNS, WHERE_KEY, guard_of, key_cells, paths_of
from motoolsd.store.rows import (
    KEY_COLUMNS,
    PAGE_COLUMNS,
    TABLES,
    VALUE_COLUMN,
    Cell,
    bytes_of,
    entry_cell,
    has_files,
    is_damaged,
    key_of,
    listed_row,
    text_of,
)
from motoolsd.wire.entries import DatasetRow, EvalRow, ModelRow
from motoolsd.wire.keys import Kind

logger = logging.getLogger(__name__)


FROM_START: Final = -(2**63)
"""Where a listing begins: below every row number that somebody may have written by hand."""


class Slice(NamedTuple):
    """Some rows for the index, and where the next slice begins; None after the last."""

    entries: list[tuple[str, bytes]]
    next_after: int | None
    guards: Mapping[str, Guard] = {}


class ListingPage(NamedTuple):
    """Some rows for a listing, and where the next page begins; None after the last."""

    rows: Sequence[DatasetRow | ModelRow | EvalRow]
    next_after: int | None


class NumberedPage(NamedTuple):
    """Some rows that were asked for by their numbers, and how many of the numbers are done."""

    rows: Sequence[DatasetRow | ModelRow | EvalRow]
    num_done: int


class Filter(NamedTuple):
    """What a listing is narrowed to; None matches everything."""

    model_id: str | None = None
    task_id: str | None = None


class Values(NamedTuple):
    """The values of those keys that have one, and what those of them depend on that depend on something."""

    found: dict[str, bytes]
    guards: dict[str, Guard]


# A row that is void misses, whatever it holds.
_ONE_ROW = {
    kind: f"SELECT {VALUE_COLUMN[kind]}, checksum, {GUARD_COLUMNS[kind]} FROM {TABLES[kind]}"
    f" WHERE {WHERE_KEY[kind]} AND void_since IS NULL"
    for kind in Kind
}


def _sound(kind: Kind, key: str, value: bytes, checksum: bytes | float | None) -> bool:
    if not is_damaged(key, value, checksum):
        return True
    logger.error("damaged row: %s %r does not fit its checksum; it is answered as a miss", kind.value, key[:200])
    return False


def select_value(connection: sqlite3.Connection, kind: Kind, key: str) -> bytes | None:
    """The value of a key, if it has a sound row."""
    row = _sound_row(connection, kind, key)
    return None if row is None else bytes_of(row[0])


def _sound_row(connection: sqlite3.Connection, kind: Kind, key: str) -> Sequence[Cell] | None:
    row: Sequence[Cell] | None = connection.execute(_ONE_ROW[kind], key_cells(kind, key)).fetchone()
    return None if row is None or not _sound(kind, key, bytes_of(row[0]), row[1]) else row


def select_values(connection: sqlite3.Connection, kind: Kind, keys: Sequence[str]) -> Values:
    """The values of those keys that have a sound row."""
    found = Values({}, {})
    connection.execute("BEGIN")
    try:
        for key in keys:
            if (row := _sound_row(connection, kind, key)) is not None:
                found.found[key] = bytes_of(row[0])
                if (guard := guard_of(connection, kind, row[2:])) is not None:
                    found.guards[key] = guard
    finally:
        if connection.in_transaction:  # a failing disk ends it by itself
            connection.execute("ROLLBACK")
    return found


def select_slice(connection: sqlite3.Connection, kind: Kind, after: int, limit: int) -> Slice:
    """Rows for the index, in the order of their row numbers."""
    columns = ", ".join(KEY_COLUMNS[kind])
    connection.execute("BEGIN")
    try:
        rows = connection.execute(
            f"SELECT rowid, {VALUE_COLUMN[kind]}, checksum, void_since, {GUARD_COLUMNS[kind]}, {columns}"
            f" FROM {TABLES[kind]} WHERE rowid > ? ORDER BY rowid LIMIT ?",
            (after, limit),
        ).fetchall()
        entries = []
        guards = {}
        for _rowid, value, checksum, void_since, entry, files, expires, version, *cells in rows:
            key = key_of(kind, cells)
            if void_since is not None or not _sound(kind, key, bytes_of(value), checksum):
                continue
            entries.append((key, bytes_of(value)))
            if files or expires is not None or version is not None:
                guard = guard_of(connection, kind, (entry, files, expires, version))
                guards.update({key: guard} if guard is not None else {})
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return Slice(entries, rows[-1][0] if len(rows) == limit else None, guards)


def select_page(
    connection: sqlite3.Connection, kind: Kind, only: Filter, after: int, *, rows_max: int, size_bytes: int
) -> ListingPage:
    """Rows for a listing, in the order in which they were first stored, at least one if any is left."""
    conditions = ["rowid > ?"]
    parameters: list[int | str] = [after]
    # The model id of a model is its value, of an evaluation a part of its key; both columns have the same name.
    for column, wanted in (("model_id", only.model_id), ("task_id", only.task_id)):
        if wanted is not None:
            conditions.append(f"{column} = ?")
            parameters.append(wanted)
    cursor = connection.execute(
        f"SELECT {PAGE_COLUMNS[kind]} FROM {TABLES[kind]} WHERE {' AND '.join(conditions)} ORDER BY rowid", parameters
    )
    page: list[DatasetRow | ModelRow | EvalRow] = []
    size = 0
    try:
        last = after
        for cells in cursor:
            size += sum(len(cell) for cell in cells if isinstance(cell, bytes))
            # Ends before the row that would be too much: with it, the page might not fit into a frame.
            if page and (len(page) >= rows_max or size > size_bytes):
                return ListingPage(page, last)
            page.append(_with_files(connection, kind, listed_row(kind, cells), cells))
            last = cells[0]
    finally:
        cursor.close()
    return ListingPage(page, None)


def select_numbered(
    connection: sqlite3.Connection, kind: Kind, row_numbers: Sequence[int], *, rows_max: int, size_bytes: int
) -> NumberedPage:
    """The first of the rows with these numbers, in this order, at least one if any is left; without those that went."""
    part = row_numbers[:rows_max]
    found = connection.execute(
        f"SELECT {PAGE_COLUMNS[kind]} FROM {TABLES[kind]} WHERE rowid IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode(part).decode(),),
    ).fetchall()
    cells_of = {cells[0]: cells for cells in found}
    page: list[DatasetRow | ModelRow | EvalRow] = []
    size = 0
    for count, number in enumerate(part):
        if (cells := cells_of.get(number)) is None:
            continue
        size += sum(len(cell) for cell in cells if isinstance(cell, bytes))
        if page and size > size_bytes:
            return NumberedPage(page, count)
        page.append(_with_files(connection, kind, listed_row(kind, cells), cells))
    return NumberedPage(page, len(part))


def _with_files(
    connection: sqlite3.Connection, kind: Kind, row: DatasetRow | ModelRow | EvalRow, cells: Sequence[Cell]
) -> DatasetRow | ModelRow | EvalRow:
    if has_files(cells):
        row.files = paths_of(connection, kind, entry_cell(kind, cells))
    return row


def select_counts(connection: sqlite3.Connection) -> dict[Kind, int]:
    """How many rows each kind has."""
    counts = {}
    for kind, table in TABLES.items():
        (counts[kind],) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return counts


class DamagedPart(NamedTuple):
    """The keys of damaged rows among some, and after which row number the next stand."""

    rows: int
    keys: list[str]
    next_after: int | None


def select_damaged(connection: sqlite3.Connection, kind: Kind, after: int, limit: int) -> DamagedPart:
    """Which of some rows do not fit their checksum; those that miss for that already are left out."""
    columns = ", ".join(KEY_COLUMNS[kind])
    rows = connection.execute(
        f"SELECT rowid, {VALUE_COLUMN[kind]}, checksum, void_reason IS ?, {columns} FROM {TABLES[kind]}"
        " WHERE rowid > ? ORDER BY rowid LIMIT ?",
        (DAMAGED, after, limit),
    ).fetchall()
    damaged = [
        key
        for _, value, checksum, is_known, *cells in rows
        if not is_known and is_damaged(key := key_of(kind, cells), bytes_of(value), checksum)
    ]
    return DamagedPart(len(rows), damaged, rows[-1][0] if len(rows) == limit else None)


def select_integrity(connection: sqlite3.Connection) -> list[str]:
    """What SQLite itself finds wrong with the file; empty if nothing."""
    found = [text_of(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
    return [] if found == ["ok"] else found
