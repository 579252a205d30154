"""Owned paths as a scan compares them: all of them, as they stand in the database, without what is seldom needed.

Layer: store. Imports ownership and rows.
Invariant: a row stays the tuple that SQLite gave: there may be a million, and nearly all are only compared.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Final, NamedTuple, TypeAlias

from motoolsd.store.ownership import ENTRY_COLUMN, as_name
from motoolsd.store.rows import KEY_COLUMNS, TABLES, Cell, bytes_of, key_of
from motoolsd.wire.keys import Kind

Holding: TypeAlias = tuple[Cell, bytes, int | None, int | None, bytes | None]
"""The entry as motoolsd_files names it, the path, its size, what it occupies, and why the entry is void."""
ENTRY: Final = 0
PATH: Final = 1
SIZE: Final = 2
ROOM: Final = 3
VOID: Final = 4


class HoldingsPage(NamedTuple):
    """Some of them, and after which the next begins; None after the last."""

    items: list[Holding]
    next_after: tuple[object, bytes] | None


def select_holdings(
    connection: sqlite3.Connection, kind: Kind, after: tuple[object, bytes] | None, limit: int
) -> HoldingsPage:
    """Owned paths of one kind, in the order of their entries."""
    begins = "" if after is None else " AND (f.entry, f.path) > (?, ?)"
    rows: list[Holding] = connection.execute(
        f"SELECT f.entry, f.path, f.size_bytes, f.allocated_bytes, t.void_reason FROM motoolsd_files f"
        f" JOIN {TABLES[kind]} t ON t.{ENTRY_COLUMN[kind]} = f.entry"
        f" WHERE f.kind = ? AND t.files > 0{begins} ORDER BY f.entry, f.path LIMIT ?",
        (kind.value, *(after or ()), limit),
    ).fetchall()
    if len(rows) < limit:
        return HoldingsPage(rows, None)
    return HoldingsPage(rows, (as_name(rows[-1][ENTRY]), bytes_of(rows[-1][PATH])))


def select_keys_of(connection: sqlite3.Connection, kind: Kind, entries: Collection[Cell]) -> dict[Cell, str]:
    """The keys of entries that are named as in motoolsd_files; those that are gone are left out."""
    keys = {}
    statement = f"SELECT {', '.join(KEY_COLUMNS[kind])} FROM {TABLES[kind]} WHERE {ENTRY_COLUMN[kind]} = ?"
    for entry in entries:
        if (cells := connection.execute(statement, (as_name(entry),)).fetchone()) is not None:
            keys[entry] = key_of(kind, cells)
    return keys
