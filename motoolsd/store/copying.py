"""Whole copies of a database: making one beside running writers, and looking whether one can be used.

Layer: store. Imports connection, failures, migration, nearest, reads and rows.
Invariant: a copy shows one moment: all of a transaction, or nothing of it. Row numbers stay what they are, which VACUUM
INTO would not promise. What is copied from is only read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final, NamedTuple

from motoolsd.core.errors import CorruptDatabase
from motoolsd.store.connection import open_raw
from motoolsd.store.failures import explained
from motoolsd.store.migration import inspect_schema
from motoolsd.store.rows import TABLES
from motoolsd.wire.keys import Kind

STEP_PAGES: Final = 2_000
"""Copied between two looks whether to go on: 8 MiB."""
CHECK_STEP: Final = 100_000
"""Instructions of SQLite's machine between two such looks while a copy is checked: some milliseconds."""
TOKEN_JUMP: Final = 2**32
"""Tokens are counted on from here after a restore: none that was granted since the copy was made is granted again."""


class Stopped(Exception):
    """Nobody wants the copy any more."""


class Fingerprint(NamedTuple):
    """Two of them differ if entries, pins, marks or the trash do. Uses that are counted leave it as it is."""

    text: str
    is_empty: bool
    """Whether there is nothing to lose."""
    size_bytes: int
    """What a copy takes."""


class Contents(NamedTuple):
    """What a database holds."""

    version: int
    """Of its schema."""
    counts: dict[Kind, int]


def copy_database(
    source: str,
    target: str,
    *,
    is_stopped: Callable[[], bool] = lambda: False,
    step: Callable[[int, int], None] = lambda _done, _total: None,
) -> Contents:
    """Copy a database while others may write to it, and check the copy. Blocks: for a worker thread.

    Args:
        source: path of the database.
        target: path of an empty file that nobody else uses. It is not brought to the disk yet.
        is_stopped: looked at after each step.
        step: told how many pages of how many are copied.

    Returns:
        What the copy holds.

    Raises:
        Stopped: it was stopped; the target is worthless then, as after any other error.
        SchemaTooNew, CorruptDatabase: the source is no sound database of ours.
        StorageFailed: it cannot be read, or the copy not written: the disk is full.
    """

    def told(_status: int, remaining: int, total: int) -> None:
        if is_stopped():
            raise Stopped
        step(total - remaining, total)

    with explained(source), closing(open_raw(source, "ro")) as reading, closing(open_raw(target, "rw")) as writing:
        # Brought to the disk once, by whoever gives it its name; a copy that breaks off is thrown away.
        writing.execute("PRAGMA synchronous = OFF")
        # Held over all steps: else each write meanwhile would make the copy begin anew.
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
        reading.backup(writing, pages=STEP_PAGES, progress=told)
        reading.execute("ROLLBACK")
        # One plain file, which can be read where nothing can be written.
        writing.execute("PRAGMA journal_mode = DELETE")
    return inspect_copy(target, is_stopped=is_stopped)


def inspect_copy(path: str, *, is_stopped: Callable[[], bool] = lambda: False) -> Contents:
    """What a copy holds, once it is found whole. Blocks.

    Raises:
        Stopped: it was stopped.
        SchemaTooNew, CorruptDatabase: it is no sound database of ours.
        StorageFailed: it cannot be read.
    """
    with explained(path), closing(open_raw(path, "ro")) as connection, _stoppable(connection, is_stopped):
        found = inspect_schema(connection, path, is_checked=True)
        return Contents(found.version, _counts(connection, found.tables))


def glance(path: str) -> Contents:
    """What a database holds, without looking at all of it. Blocks.

    Raises:
        SchemaTooNew, CorruptDatabase: it is no database of ours.
        StorageFailed: it cannot be read.
    """
    with explained(path), closing(open_raw(path, "ro")) as connection:
        found = inspect_schema(connection, path, is_checked=False)
        if not found.tables:
            raise CorruptDatabase(f"{path} is empty: it holds no table")
        return Contents(found.version, _counts(connection, found.tables))


@contextmanager
def _stoppable(connection: sqlite3.Connection, is_stopped: Callable[[], bool]) -> Iterator[None]:
    connection.set_progress_handler(is_stopped, CHECK_STEP)
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname == "SQLITE_INTERRUPT":
            raise Stopped from error
        raise


def _counts(connection: sqlite3.Connection, tables: frozenset[str]) -> dict[Kind, int]:
    counts = dict.fromkeys(Kind, 0)
    for kind, table in TABLES.items():
        if table in tables:  # the older package made a table when it was first used
            (counts[kind],) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return counts


def count_on(path: str, *, removals_min: int) -> None:
    """Let a copy that is to be put into place count on where nothing was counted before. Blocks.

    Tokens of leases and numbers of removals were given out since it was made; an owner may still hold such a token, and
    such a removal lie in the trash.

    Args:
        path: of the copy.
        removals_min: the highest number of a removal that is known.

    Raises:
        StorageFailed: it cannot be written.
    """
    with explained(path), closing(open_raw(path, "rw")) as connection:
        (has_sequence,) = connection.execute(
            "SELECT count(*) FROM sqlite_master WHERE name = 'motoolsd_leases' OR name = 'motoolsd_removals'"
        ).fetchone()
        if not has_sequence:
            return
        connection.execute("BEGIN IMMEDIATE")
        for table, least, more in (("motoolsd_leases", 0, TOKEN_JUMP), ("motoolsd_removals", removals_min, 0)):
            found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
            number = max(0 if found is None else int(found[0]), least) + more
            connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, number))
        connection.execute("COMMIT")


def select_fingerprint(connection: sqlite3.Connection) -> Fingerprint:
    """What entries, pins, marks and the trash look like now."""
    parts: list[object] = []
    rows = 0
    for table in TABLES.values():
        found = connection.execute(
            "SELECT count(*), max(rowid), sum(checksum), count(checksum), max(created_at), sum(pinned != 0),"
            f" count(void_since), sum(length(labels)), sum(length(version)) FROM {table}"
        ).fetchone()
        rows += found[0]
        parts.extend(found)
    removals, *more = connection.execute("SELECT count(*), max(id) FROM motoolsd_removals").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_size_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    text = " ".join(map(str, [*parts, removals, *more]))
    return Fingerprint(text, rows + removals == 0, pages * page_size_bytes)
