"""Reading a cache.db for an examination, beside a daemon that serves it or without one.

Layer: store. Imports migration, reads, ownership, removals, leases and core.
Invariant: nothing is written to the database. Only in a process of its own: closing the file drops the locks that this
process has on it.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final, NamedTuple

from motoolsd.core.database_diagnosis import (
    DATABASE_HEADER_SIZE_BYTES,
    JOURNAL_HEADER_SIZE_BYTES,
    WAL_HEADER_SIZE_BYTES,
)
from motoolsd.core.deadlines import Moment
from motoolsd.core.leases import Lease
from motoolsd.store.connection import open_raw
from motoolsd.store.failures import explained
from motoolsd.store.leases import select_leases
from motoolsd.store.migration import Inspection, inspect_schema
from motoolsd.store.ownership import OwnedPath, select_owned
from motoolsd.store.reads import FROM_START, select_counts, select_damaged
from motoolsd.store.removals import Removal, select_paths, select_removals
from motoolsd.store.rows import TABLES, text_of
from motoolsd.store.schema import SCHEMA_VERSION
from motoolsd.wire.keys import Kind

PAGE_ROWS: Final = 1_000
DAMAGED_MAX: Final = 1_000
"""So many damaged rows are named; a table that has more is past being counted."""
_TIMES: Final = {
    **dict.fromkeys(TABLES.values(), ("created_at", "last_used_at")),
    "motoolsd_removals": ("removed_at",),
}


class Found(NamedTuple):
    """What the tables hold, as far as the database itself says it."""

    inspection: Inspection
    counts: dict[str, int]
    damaged: list[str]
    void: dict[str, int]
    leases: list[Lease]
    removals: list[tuple[Removal, bool]]
    """And whether each has paths."""
    from_future: dict[str, int]


class Headers(NamedTuple):
    """The beginnings of a database's files; empty where there is none that can be read."""

    database: bytes
    wal: bytes
    journal: bytes


def read_headers(database: str) -> Headers:
    """Those of a database."""
    return Headers(
        _beginning(database, DATABASE_HEADER_SIZE_BYTES),
        _beginning(f"{database}-wal", WAL_HEADER_SIZE_BYTES),
        _beginning(f"{database}-journal", JOURNAL_HEADER_SIZE_BYTES),
    )


def _beginning(path: str, size_bytes: int) -> bytes:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return b""
    try:
        return os.read(descriptor, size_bytes)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def read_database(
    database: str, *, is_still: bool, now: str, look: Callable[[OwnedPath], None]
) -> tuple[Inspection, Found | None]:
    """Look at every page and every row.

    Args:
        database: absolute path of an existing file.
        is_still: nobody has it open and it has no write-ahead log: it is read without making any file beside it.
        now: as SQLite writes times; what is stored later is counted.
        look: is given each path that an entry owns.

    Returns:
        What the file is; and what its tables hold, unless an older version wrote it, or nobody yet.

    Raises:
        SchemaTooNew: a newer version wrote it.
        CorruptDatabase: it is damaged, or no database of motools.
        StorageFailed: it cannot be read.
    """
    mode = "ro&immutable=1" if is_still else "ro"
    with explained(database), closing(open_raw(database, mode)) as connection:
        connection.execute("PRAGMA query_only = ON")
        inspection = inspect_schema(connection, database, is_checked=True)
        if inspection.version != SCHEMA_VERSION:
            return inspection, None
        found = _read(connection, inspection, now)
        for item in _owned(connection):
            look(item)
        return inspection, found


def _read(connection: sqlite3.Connection, inspection: Inspection, now: str) -> Found:
    leases, _ = select_leases(connection)
    return Found(
        inspection=inspection,
        counts={kind.value: count for kind, count in select_counts(connection).items()},
        damaged=list(_damaged(connection)),
        void=_void(connection),
        leases=leases,
        removals=[(removal, bool(select_paths(connection, removal.id))) for removal in select_removals(connection)],
        from_future=_from_future(connection, now),
    )


def _damaged(connection: sqlite3.Connection) -> Iterator[str]:
    named = 0
    for kind in Kind:
        after: int | None = FROM_START
        while after is not None and named < DAMAGED_MAX:
            part = select_damaged(connection, kind, after, PAGE_ROWS)
            after = part.next_after
            named += len(part.keys)
            yield from (f"{kind.value} {key}" for key in part.keys)


def _void(connection: sqlite3.Connection) -> dict[str, int]:
    reasons: Counter[str] = Counter()
    for table in TABLES.values():
        query = f"SELECT void_reason, count(*) FROM {table} WHERE void_since IS NOT NULL GROUP BY void_reason"
        for reason, count in connection.execute(query):
            reasons[text_of(reason)] += count
    return dict(reasons)


def _from_future(connection: sqlite3.Connection, now: str) -> dict[str, int]:
    """Rows with a time after `now`, by table; what is no time as SQLite writes it does not count."""
    found = {}
    for table, columns in _TIMES.items():
        later = " OR ".join(f"({column} > ? AND {column} GLOB '[0-9][0-9][0-9][0-9]-*')" for column in columns)
        (count,) = connection.execute(f"SELECT count(*) FROM {table} WHERE {later}", [now] * len(columns)).fetchone()
        if count:
            found[table] = count
    return found


def _owned(connection: sqlite3.Connection) -> Iterator[OwnedPath]:
    for kind in Kind:
        after: tuple[object, bytes] | None = None
        while True:
            page = select_owned(connection, kind, after, PAGE_ROWS)
            yield from page.items
            if page.next_after is None:
                break
            after = page.next_after


def is_far(removal: Removal, now: Moment, ahead_s: float) -> bool:
    """Whether a clean-up expires further ahead than that."""
    return removal.expires is not None and removal.expires.wall_s > now.wall_s + ahead_s
