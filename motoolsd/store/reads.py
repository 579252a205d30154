"""Reading: functions that run in the thread of a read-only connection, one hop each.

Layer: store. Imports rows.
Invariant: each function is one read transaction.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

from motoolsd.store.rows import (
    KEY_COLUMNS,
    PAGE_COLUMNS,
    TABLES,
    VALUE_COLUMN,
    bytes_of,
    is_damaged,
    key_of,
    listed_row,
)
from motoolsd.wire.entries import DatasetRow, EvalRow, ModelRow
from motoolsd.wire.keys import Kind, parse_eval_key

logger = logging.getLogger(__name__)


FROM_START: Final = -(2**63)
"""Where a listing begins: below every row number that somebody may have written by hand."""


class Slice(NamedTuple):
    """Some rows for the index, and where the next slice begins; None after the last."""

    entries: list[tuple[str, bytes]]
    next_after: int | None


class ListingPage(NamedTuple):
    """Some rows for a listing, and where the next page begins; None after the last."""

    rows: Sequence[DatasetRow | ModelRow | EvalRow]
    next_after: int | None


class Filter(NamedTuple):
    """What a listing is narrowed to; None matches everything."""

    model_id: str | None = None
    task_id: str | None = None


_ONE_ROW = {
    Kind.DATASET: "SELECT file_id, checksum FROM dataset_files WHERE dataset_hash = ?",
    Kind.MODEL: "SELECT model_id, checksum FROM trained_models WHERE cache_key = ?",
    Kind.EVAL: "SELECT log_file_path, checksum FROM eval_results WHERE model_id = ? AND task_id = ?"
    " AND backend_type = ? AND ifnull(inspect_kwargs_hash, '') = ifnull(?, '')",
}


def key_cells(kind: Kind, key: str) -> tuple[str | None, ...]:
    """The key as the parameters of a statement.

    Raises:
        ValueError: an evaluation's key that nothing of ours made.
    """
    if kind is not Kind.EVAL:
        return (key,)
    identity = parse_eval_key(key)
    return (identity.model_id, identity.task_id, identity.backend_type, identity.kwargs_hash)


def _sound(kind: Kind, key: str, value: bytes, checksum: bytes | float | None) -> bool:
    if not is_damaged(key, value, checksum):
        return True
    logger.error("damaged row: %s %r does not fit its checksum; it is answered as a miss", kind.value, key[:200])
    return False


def select_value(connection: sqlite3.Connection, kind: Kind, key: str) -> bytes | None:
    """The value of a key, if it has a sound row."""
    row = connection.execute(_ONE_ROW[kind], key_cells(kind, key)).fetchone()
    if row is None or not _sound(kind, key, bytes_of(row[0]), row[1]):
        return None
    return bytes_of(row[0])


def select_values(connection: sqlite3.Connection, kind: Kind, keys: Sequence[str]) -> dict[str, bytes]:
    """The values of those keys that have a sound row."""
    found: dict[str, bytes] = {}
    connection.execute("BEGIN")
    try:
        for key in keys:
            if (value := select_value(connection, kind, key)) is not None:
                found[key] = value
    finally:
        if connection.in_transaction:  # a failing disk ends it by itself
            connection.execute("ROLLBACK")
    return found


def select_slice(connection: sqlite3.Connection, kind: Kind, after: int, limit: int) -> Slice:
    """Rows for the index, in the order of their row numbers."""
    columns = ", ".join(KEY_COLUMNS[kind])
    rows = connection.execute(
        f"SELECT rowid, {VALUE_COLUMN[kind]}, checksum, {columns} FROM {TABLES[kind]}"
        " WHERE rowid > ? ORDER BY rowid LIMIT ?",
        (after, limit),
    ).fetchall()
    entries = []
    for _rowid, value, checksum, *cells in rows:
        key = key_of(kind, cells)
        if _sound(kind, key, bytes_of(value), checksum):
            entries.append((key, bytes_of(value)))
    return Slice(entries, rows[-1][0] if len(rows) == limit else None)


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
            page.append(listed_row(kind, cells))
            last = cells[0]
    finally:
        cursor.close()
    return ListingPage(page, None)


def select_counts(connection: sqlite3.Connection) -> dict[Kind, int]:
    """How many rows each kind has."""
    counts = {}
    for kind, table in TABLES.items():
        (counts[kind],) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return counts
