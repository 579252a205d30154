"""Reading what a clean-up may take.

Layer: store. Imports core.retention, ownership and rows.
Invariant: each function is one read transaction, or a page of one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from motoolsd.core.deadlines import Moment, unpacked
from motoolsd.core.guards import MISSING
from motoolsd.core.retention import Candidate, EntryName, OwnedRoom
from motoolsd.core.where import parse_where
from motoolsd.store.conditions import Parameter
from motoolsd.store.filtering import compiled
from motoolsd.store.ownership import ENTRY_COLUMN, WHERE_KEY, as_name, key_cells, select_owners
from motoolsd.store.rows import (
    KEY_COLUMNS,
    STORED_AT,
    TABLES,
    USED_AT,
    VALUE_COLUMN,
    Cell,
    bytes_of,
    key_of,
    one_of,
    optional_text,
    text_of,
)
from motoolsd.wire.cleaning import Criteria
from motoolsd.wire.keys import Kind


def select_candidate_rows(
    connection: sqlite3.Connection, kind: Kind, criteria: Criteria, now: Moment, limit: int
) -> list[tuple[str, int]]:
    """Entries of one kind that fit: when each was last used, and its row number; the least recently used first."""
    conditions, parameters = _conditions(kind, criteria, now)
    return _select_rows(connection, kind, conditions, parameters, limit)


def _select_rows(
    connection: sqlite3.Connection, kind: Kind, conditions: str, parameters: Sequence[Parameter], limit: int
) -> list[tuple[str, int]]:
    rows = connection.execute(
        f"SELECT {USED_AT} AS used_at, rowid FROM {TABLES[kind]} WHERE {conditions} ORDER BY used_at, rowid LIMIT ?",
        (*parameters, limit),
    ).fetchall()
    return [(text_of(used_at), rowid) for used_at, rowid in rows]


def select_made_rows(
    connection: sqlite3.Connection, kind: Kind, source: Kind, keys: Sequence[str], limit: int
) -> list[tuple[str, int]]:
    """Entries of one kind that were made from others, as `select_candidate_rows`.

    Args:
        connection: to read with.
        kind: models or evaluations.
        source: what they were made from, of a kind before theirs.
        keys: of those.
        limit: no more than so many.
    """
    condition, parameter = one_of("dataset_hash" if source is Kind.DATASET else "cache_key", keys)
    if kind is Kind.EVAL:
        condition = f"model_id IN (SELECT model_id FROM {TABLES[Kind.MODEL]} WHERE {condition})"
    return _select_rows(connection, kind, condition, [parameter], limit)


def select_candidates(
    connection: sqlite3.Connection, kind: Kind, row_numbers: Sequence[int], now: Moment
) -> dict[int, Candidate]:
    """The entries with these row numbers; those that went meanwhile are left out."""
    keys = ", ".join(KEY_COLUMNS[kind])
    connection.execute("BEGIN")
    try:
        rows = connection.execute(
            f"SELECT rowid, {ENTRY_COLUMN[kind]}, {VALUE_COLUMN[kind]}, created_at, {USED_AT}, files, pinned,"
            f" pin_reason, pinned_until, void_reason, {keys} FROM {TABLES[kind]}"
            " WHERE rowid IN (SELECT value FROM json_each(?))",
            (msgspec.json.encode(list(row_numbers)).decode(),),
        ).fetchall()
        return {row[0]: _candidate(connection, kind, row[1:], now) for row in rows}
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _conditions(kind: Kind, criteria: Criteria, now: Moment) -> tuple[str, list[Parameter]]:
    """The condition for rows that fit; dangling ones fit whatever their age."""
    wanted: list[str] = []
    parameters: list[Parameter] = []
    key_column = "dataset_hash" if kind is Kind.DATASET else "cache_key"
    filters = ((key_column, criteria.keys), ("model_id", criteria.model_ids), ("task_id", criteria.task_ids))
    for column, values in filters:
        if values is not None:
            condition, parameter = one_of(column, values)
            wanted.append(condition)
            parameters.append(parameter)
    for column, age_s in ((STORED_AT, criteria.older_than_s), (USED_AT, criteria.unused_for_s)):
        if age_s is not None:
            wanted.append(f"{column} <= ?")
            parameters.append(_text(now.wall_s - age_s))
    if criteria.to_bytes is not None:
        wanted.append("files > 0")
    if criteria.filters is not None and kind in criteria.kinds:
        conditions = [parse_where(text, kind, now.wall_s) for text in criteria.filters.where]
        fits, others = compiled(kind, criteria.filters, conditions, now)
        wanted.append(f"({fits})")
        parameters += others
    fits = " AND ".join(wanted) or "1"
    if kind not in criteria.kinds:
        fits, parameters = "0", []
    if criteria.dangling:
        return f"({fits}) OR void_reason = ?", [*parameters, MISSING]
    return fits, parameters


def _text(wall_s: float) -> str:
    """As time stamps stand in rows; what lies before all of them, where the age is longer than time."""
    return datetime.fromtimestamp(max(wall_s, 0.0), UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _candidate(connection: sqlite3.Connection, kind: Kind, row: Sequence[Cell], now: Moment) -> Candidate:
    entry, value, created_at, used_at, files, pinned, pin_reason, pinned_until, void_reason, *cells = row
    owned = _files(connection, kind, entry) if files else ()
    return Candidate(
        kind,
        key_of(kind, cells),
        (kind, entry),
        bytes_of(value),
        optional_text(created_at),
        optional_text(used_at),
        owned,
        _pin(pinned, pin_reason, pinned_until, now),
        optional_text(void_reason),
    )


def _files(connection: sqlite3.Connection, kind: Kind, entry: Cell) -> tuple[OwnedRoom, ...]:
    rows = connection.execute(
        "SELECT path, size_bytes, allocated_bytes FROM motoolsd_files WHERE kind = ? AND entry = ? ORDER BY path",
        (kind.value, as_name(entry)),
    )
    return tuple(OwnedRoom(bytes_of(path), size or 0, room or 0) for path, size, room in rows)


def _pin(pinned: Cell, reason: Cell, until: Cell, now: Moment) -> str | None:
    """Why an entry is pinned; None if it is not, or not any more."""
    if not pinned:
        return None
    end = unpacked(until) if isinstance(until, bytes) else None
    if end is not None and end.is_over(now):
        return None
    ends = "" if end is None else f" until {end.text}"
    said = text_of(reason)
    return f"pinned{ends}: {said}" if said else f"pinned{ends}"


def select_owner_names(connection: sqlite3.Connection, paths: Sequence[bytes]) -> dict[bytes, list[EntryName]]:
    """Of each path the entries that own it, or something above or below it."""
    found = select_owners(connection, paths)
    return {path: [(owner.kind, owner.entry) for owner in owners] for path, owners in zip(paths, found, strict=True)}


def select_made_from(connection: sqlite3.Connection, kind: Kind, key: str) -> list[tuple[Kind, str]]:
    """What an entry was made from: a model's dataset; an evaluation's models, and theirs."""
    if kind is Kind.DATASET:
        return []
    if kind is Kind.EVAL:
        (model_id, *_) = key_cells(kind, key)
        models = connection.execute("SELECT cache_key FROM trained_models WHERE model_id = ?", (model_id,)).fetchall()
        found = [(Kind.MODEL, text_of(cell)) for (cell,) in models]
        return [*found, *(made for model in found for made in select_made_from(connection, *model))]
    row = connection.execute(
        f"SELECT dataset_hash FROM trained_models WHERE {WHERE_KEY[Kind.MODEL]}", key_cells(kind, key)
    ).fetchone()
    return [] if row is None or row[0] is None else [(Kind.DATASET, text_of(row[0]))]


def select_pinned(connection: sqlite3.Connection, now: Moment) -> dict[tuple[Kind, str], str]:
    """Pinned entries, and why."""
    found = {}
    for kind, table in TABLES.items():
        keys = ", ".join(KEY_COLUMNS[kind])
        rows = connection.execute(f"SELECT pin_reason, pinned_until, {keys} FROM {table} WHERE pinned != 0").fetchall()
        for reason, until, *cells in rows:
            if (why := _pin(1, reason, until, now)) is not None:
                found[kind, key_of(kind, cells)] = why
    return found
