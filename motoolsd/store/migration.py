"""Take a cache.db from whatever it is to today's schema, or refuse it untouched.

Layer: store. Imports schema, connection and failures.
Invariant: looked at read-only first; a file that is refused is not written to. An old file is copied before its
migration, and migrates in one transaction or not at all.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from motoolsd.core.errors import CorruptDatabase, SchemaTooNew
from motoolsd.store.connection import open_raw
from motoolsd.store.failures import corrupt, explained
from motoolsd.store.schema import MIGRATIONS, OLD_TABLES, OWNERS_SINCE, SCHEMA_VERSION, TABLES_OF, VERSION_0

QUICK_CHECK_SIZE_MAX_BYTES = 64 * 1024 * 1024
"""Larger files are checked row by row as they are read: a full check would hold up the start for seconds."""


class Inspection(NamedTuple):
    """What a file holds."""

    version: int
    tables: frozenset[str]


def prepare_database(database: str, unowned: Sequence[bytes] = ()) -> str | None:
    """Create, check and migrate the file.

    Args:
        database: absolute path; made with mode 0600 if it is missing.
        unowned: what lies under runs/ now: remembered by the migration that first tells owners, for good.

    Returns:
        The path of the backup copy, if there was something to migrate.

    Raises:
        SchemaTooNew: a newer version wrote it.
        CorruptDatabase: it is damaged, or no database of motools.
        StorageFailed: it cannot be read or written, the disk is full.
    """
    with explained(database):
        _create_if_missing(database)
        found = _inspect(database)
        if found.version == SCHEMA_VERSION:
            return None
        backup = _back_up(database, found.version) if found.tables else None
        try:
            with closing(open_raw(database, "rw")) as connection:
                _migrate(connection, found.version, unowned)
        except BaseException:
            # The file is what it was. Every further try would leave one more copy, until the disk is full.
            if backup is not None:
                Path(backup).unlink()
            raise
    return backup


def _create_if_missing(database: str) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(database, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise corrupt(database, "it is no regular file")
    finally:
        os.close(descriptor)


def _inspect(database: str) -> Inspection:
    try:
        return _inspect_as(database, "ro")
    except sqlite3.OperationalError as error:
        if not str(error.sqlite_errorname).startswith("SQLITE_READONLY"):
            raise
        # A program died inside a transaction and left its journal; SQLite undoes that before it lets anybody read,
        # and has to write for it. Every other program that opens the file does the same.
        return _inspect_as(database, "rw")


def _inspect_as(database: str, mode: str) -> Inspection:
    with closing(open_raw(database, mode)) as connection:
        is_small = Path(database).stat().st_size <= QUICK_CHECK_SIZE_MAX_BYTES
        return inspect_schema(connection, database, is_checked=is_small)


def inspect_schema(connection: sqlite3.Connection, database: str, *, is_checked: bool) -> Inspection:
    """What an open file holds; nothing is changed.

    Args:
        connection: to it, read-only is enough.
        database: its path, for messages.
        is_checked: whether SQLite is to look at every page, which takes seconds where there are many.

    Raises:
        SchemaTooNew: a newer version wrote it.
        CorruptDatabase: it is damaged, or no database of motools.
        sqlite3.Error: it cannot be read.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    tables = frozenset(name.decode(errors="replace") for (name,) in found)
    _check_identity(database, version, tables)
    if is_checked:
        _quick_check(connection, database)
    _check_columns(connection, database, version, tables)
    return Inspection(version, tables)


def _check_identity(database: str, version: int, tables: frozenset[str]) -> None:
    """Whose file it is; the tables say it, because other programs number their schemas too."""
    if tables and not tables & OLD_TABLES.keys():
        message = (
            f"{database} is a database of another program (tables {', '.join(sorted(tables)[:5])}). Nothing was "
            "changed. Choose another directory with --cache-dir or MOTOOLS_CACHE_DIR"
        )
        raise CorruptDatabase(message)
    if version > SCHEMA_VERSION:
        message = (
            f"{database} has schema {version}; this motoolsd knows schemas up to {SCHEMA_VERSION}. It was left "
            "untouched. Upgrade with `pip install --upgrade motoolsd`"
        )
        raise SchemaTooNew(message, version=version, supported=SCHEMA_VERSION)
    if version < 0:
        raise corrupt(database, f"its schema has the number {version}")


def _quick_check(connection: sqlite3.Connection, database: str) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != b"ok":
        raise corrupt(database, verdict.decode(errors="replace").replace("\n", " "))


def _check_columns(connection: sqlite3.Connection, database: str, version: int, tables: frozenset[str]) -> None:
    # An old file may lack a table that was never used; it is added. A file of ours has them all.
    wanted = {table: OLD_TABLES[table] for table in tables & OLD_TABLES.keys()} if version == 0 else TABLES_OF[version]
    for table, needed in wanted.items():
        columns = {row[1].decode(errors="replace") for row in connection.execute(f"PRAGMA table_info({table})")}
        if missing := needed - columns:
            raise corrupt(database, f"table {table} has no column {', '.join(sorted(missing))}")


def _back_up(database: str, version: int) -> str:
    """A whole copy beside the file, on disk before anything is changed."""
    target = Path(f"{database}.schema-{version}.bak")
    number = 1
    while target.exists():
        number += 1
        target = Path(f"{database}.schema-{version}.{number}.bak")
    partial = Path(f"{target}.partial")
    partial.unlink(missing_ok=True)  # an earlier try was killed
    try:
        with closing(open_raw(database, "ro")) as connection:
            connection.execute("VACUUM INTO CAST(? AS TEXT)", (os.fsencode(partial),))
        _sync_path(partial)
        partial.rename(target)
        _sync_path(target.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return str(target)


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _migrate(connection: sqlite3.Connection, version: int, unowned: Sequence[bytes]) -> None:
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN EXCLUSIVE")
    try:
        statements = list(VERSION_0) if version == 0 else []
        for step in range(version + 1, SCHEMA_VERSION + 1):
            statements.extend(MIGRATIONS[step])
        for statement in statements:
            connection.execute(statement)
        if version < OWNERS_SINCE:
            connection.executemany("INSERT INTO motoolsd_unowned (path) VALUES (?)", [(path,) for path in unowned])
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
