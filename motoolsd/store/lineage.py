"""Finding one entry by what somebody calls it, and what it was made from or for.

Layer: store. Imports ownership, rows and wire.
Invariant: each function is one statement or one read transaction; what may be long is bounded by a limit.
"""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from motoolsd.store.ownership import WHERE_KEY, key_cells, paths_of
from motoolsd.store.rows import (
    KEY_COLUMNS,
    PAGE_COLUMNS,
    TABLES,
    VALUE_COLUMN,
    bytes_of,
    entry_cell,
    has_files,
    key_of,
    listed_row,
    optional_text,
    text_of,
)
from motoolsd.wire.entries import DatasetRow, EvalRow, ModelRow
from motoolsd.wire.keys import Kind


class Named(NamedTuple):
    """An entry, or the source of one that is none itself."""

    kind: Kind
    key: str
    value: bytes | None
    """None: there is no such entry."""
    detail: str = ""
    """Of an evaluation its task."""


_TASK: Final = {Kind.DATASET: "NULL", Kind.MODEL: "NULL", Kind.EVAL: "task_id"}
_NAMED: Final = {
    kind: f"SELECT {VALUE_COLUMN[kind]}, {_TASK[kind]}, {', '.join(KEY_COLUMNS[kind])} FROM {table}"
    for kind, table in TABLES.items()
}


def _select(connection: sqlite3.Connection, kind: Kind, condition: str, *parameters: object) -> list[Named]:
    rows = connection.execute(f"{_NAMED[kind]} {condition}", parameters).fetchall()
    return [Named(kind, key_of(kind, cells), bytes_of(value), text_of(task)) for value, task, *cells in rows]


def select_named(connection: sqlite3.Connection, kind: Kind, name: str, limit: int) -> list[Named]:
    """The entries of a kind that have a name as their key, value or number, the latest first."""
    value = VALUE_COLUMN[kind]
    exact, cells = f"{value} = ?", [name]
    if kind is Kind.EVAL:
        exact, cells = f"{exact} OR CAST(id AS TEXT) = ?", [name, name]
    try:
        own = key_cells(kind, name)
    except ValueError:
        own = ()
    if own:
        exact, cells = f"{exact} OR ({WHERE_KEY[kind]})", [*cells, *(cell or "" for cell in own)]
    return _select(connection, kind, f"WHERE {exact} ORDER BY rowid DESC LIMIT ?", *cells, limit)


def select_beginning(connection: sqlite3.Connection, kind: Kind, name: str, limit: int) -> list[Named]:
    """The entries of a kind whose key or value begins so, the latest first."""
    value = VALUE_COLUMN[kind]
    columns = [value] if kind is Kind.EVAL else [value, KEY_COLUMNS[kind][0]]
    begins = " OR ".join(f"substr({column}, 1, ?) = ?" for column in columns)
    return _select(
        connection, kind, f"WHERE {begins} ORDER BY rowid DESC LIMIT ?", *((len(name), name) * len(columns)), limit
    )


def select_row(connection: sqlite3.Connection, kind: Kind, key: str) -> DatasetRow | ModelRow | EvalRow | None:
    """An entry with all that its row says, and its files."""
    cells = connection.execute(
        f"SELECT {PAGE_COLUMNS[kind]} FROM {TABLES[kind]} WHERE {WHERE_KEY[kind]}", key_cells(kind, key)
    ).fetchone()
    if cells is None:
        return None
    row = listed_row(kind, cells)
    if has_files(cells):
        row.files = paths_of(connection, kind, entry_cell(kind, cells))
    return row


def select_sources(connection: sqlite3.Connection, kind: Kind, key: str) -> list[Named]:
    """What an entry was made from: the dataset of a model, the models of an evaluation; entries or not."""
    if kind is Kind.DATASET:
        return []
    if kind is Kind.MODEL:
        row = connection.execute("SELECT dataset_hash FROM trained_models WHERE cache_key = ?", (key,)).fetchone()
        dataset = None if row is None else optional_text(row[0])
        if dataset is None:
            return []
        found = _select(connection, Kind.DATASET, "WHERE dataset_hash = ?", dataset)
        return found or [Named(Kind.DATASET, dataset, None)]
    (model_id, *_) = key_cells(kind, key)
    return _select(connection, Kind.MODEL, "WHERE model_id = ? ORDER BY rowid", model_id)


def select_products(connection: sqlite3.Connection, kind: Kind, key: str, limit: int) -> list[Named]:
    """What was made from an entry: the models of a dataset, the evaluations of a model."""
    if kind is Kind.EVAL:
        return []
    if kind is Kind.DATASET:
        return _select(connection, Kind.MODEL, "WHERE dataset_hash = ? ORDER BY rowid LIMIT ?", key, limit)
    row = connection.execute("SELECT model_id FROM trained_models WHERE cache_key = ?", (key,)).fetchone()
    if row is None:
        return []
    # Bound as bytes it would equal no text.
    return _select(
        connection, Kind.EVAL, "WHERE model_id = CAST(? AS TEXT) ORDER BY rowid LIMIT ?", bytes_of(row[0]), limit
    )


def count_products(connection: sqlite3.Connection, kind: Kind, key: str) -> int:
    """How many entries were made from an entry."""
    if kind is Kind.EVAL:
        return 0
    statement = (
        "SELECT count(*) FROM trained_models WHERE dataset_hash = ?"
        if kind is Kind.DATASET
        else "SELECT count(*) FROM eval_results"
        " WHERE model_id = (SELECT model_id FROM trained_models WHERE cache_key = ?)"
    )
    (count,) = connection.execute(statement, (key,)).fetchone()
    assert isinstance(count, int), "a count"
    return count
