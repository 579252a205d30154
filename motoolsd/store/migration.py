"""Take a cache.db from whatever it is to today's schema, or refuse it untouched.

Layer: store. Imports schema, connection and failures.
Invariant: looked at read-only first; a file that is refused is not written to. An old file is copied before its
migration, and migrates in one transaction or not at all.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import NamedTuple

from motoolsd.core.errors import CorruptDatabase, SchemaTooNew
from motoolsd.store.connection import open_raw
from motoolsd.store.failures import corrupt, explained
from motoolsd.store.schema import MIGRATIONS, OLD_TABLES, SCHEMA_VERSION, VERSION_0

QUICK_CHECK_SIZE_MAX_BYTES = 64 * 1024 * 1024
"""Larger files are checked row by row as they are read: a full check would hold up the start for seconds."""


class Inspection(NamedTuple):
    """What a file holds."""

    version: int
    tables: frozenset[str]


def prepare_database(database: str) -> str | None:
    """Create, check and migrate the file.

    Args:
        database: absolute path; made with mode 0600 if it is missing.

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
        with closing(open_raw(database, "rw")) as connection:
            _migrate(connection, found.version)
    return backup


def _create_if_missing(database: str) -> None:
    try:
        descriptor = os.open(database, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise sqlite3.OperationalError(f"unable to open {database}: {error.strerror}") from error
    os.close(descriptor)


def _inspect(database: str) -> Inspection:
    with closing(open_raw(database, "ro")) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            message = (
                f"{database} has schema {version}; this motoolsd knows schemas up to {SCHEMA_VERSION}. It was left "
                "untouched. Upgrade with `pip install --upgrade motoolsd`"
            )
            raise SchemaTooNew(message, version=version, supported=SCHEMA_VERSION)
        tables = frozenset(
            name.decode()
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        )
        if os.path.getsize(database) <= QUICK_CHECK_SIZE_MAX_BYTES:
            _quick_check(connection, database)
        if version == 0:
            _check_old_tables(connection, database, tables)
        return Inspection(version, tables)


def _quick_check(connection: sqlite3.Connection, database: str) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != b"ok":
        raise corrupt(database, verdict.decode(errors="replace").replace("\n", " "))


def _check_old_tables(connection: sqlite3.Connection, database: str, tables: frozenset[str]) -> None:
    if tables and not tables & OLD_TABLES.keys():
        message = (
            f"{database} is a database of another program (tables {', '.join(sorted(tables)[:5])}). Nothing was changed. "
            "Choose another directory with --cache-dir or MOTOOLS_CACHE_DIR"
        )
        raise CorruptDatabase(message)
    for table in tables & OLD_TABLES.keys():
        columns = {row[1].decode() for row in connection.execute(f"PRAGMA table_info({table})")}
        missing = OLD_TABLES[table] - columns
        if missing:
            raise corrupt(database, f"table {table} has no column {', '.join(sorted(missing))}")


def _back_up(database: str, version: int) -> str:
    """A whole copy beside the file, on disk before anything is changed; an unfinished one of an earlier try is replaced."""
    target = f"{database}.schema-{version}.bak"
    number = 1
    while os.path.exists(target):
        number += 1
        target = f"{database}.schema-{version}.{number}.bak"
    partial = f"{target}.partial"
    if os.path.lexists(partial):
        os.unlink(partial)
    with closing(open_raw(database, "ro")) as connection:
        connection.execute("VACUUM INTO ?", (partial,))
    _sync_path(partial)
    os.rename(partial, target)
    _sync_path(os.path.dirname(database))
    return target


def _sync_path(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN EXCLUSIVE")
    try:
        if version == 0:
            for statement in VERSION_0:
                connection.execute(statement)
        for step in range(version + 1, SCHEMA_VERSION + 1):
            for statement in MIGRATIONS[step]:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
