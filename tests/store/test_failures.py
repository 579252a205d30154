"""Every family of SQLite's errors becomes one of ours, with what to do about it."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import NoReturn

import pytest

from motoolsd.core.errors import CorruptDatabase, NoRoom, ReadOnlyDisk, StorageFailed
from motoolsd.store.failures import explain, explained


def sqlite_error(name: str, kind: type[sqlite3.Error] = sqlite3.OperationalError) -> sqlite3.Error:
    """An error as the sqlite3 module raises it."""
    error = kind("something went wrong")
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("SQLITE_BUSY", "another program"),
        ("SQLITE_BUSY_SNAPSHOT", "another program"),
        ("SQLITE_LOCKED_SHAREDCACHE", "another program"),
        ("SQLITE_READONLY_DBMOVED", "permissions"),
        ("SQLITE_CANTOPEN_ISDIR", "permissions of the cache directory"),
        ("SQLITE_IOERR_FSYNC", "dmesg"),
        ("SQLITE_TOOBIG", "larger"),
        ("SQLITE_CONSTRAINT_UNIQUE", "motoolsd.log"),
        ("SQLITE_NOMEM", "motoolsd.log"),
    ],
)
def test_each_family_says_what_to_do(name: str, remedy: str) -> None:
    """Extended codes count to their family; the error's name and its remedy stand in the text."""
    failure = explain(sqlite_error(name), "/c/cache.db")
    assert type(failure) is StorageFailed
    assert failure.outcome_known
    assert name in failure.message
    assert remedy in failure.message


@pytest.mark.parametrize("outcome_known", [True, False])
def test_full_disk_is_told_with_the_command_to_type(outcome_known: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Of everything a disk may do, people can mend this themselves."""
    failure = explain(sqlite_error("SQLITE_FULL"), "/c/cache.db", outcome_known=outcome_known)
    assert type(failure) is NoRoom
    assert failure.outcome_known is outcome_known
    assert "`motools cache trash empty`" in failure.message


@pytest.mark.parametrize("name", ["SQLITE_CANTOPEN", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_WRITE"])
def test_what_sqlite_keeps_to_itself_is_looked_for_on_the_disk(
    name: str, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No inode, no room, or a file system that takes no writes: SQLite says the same of all."""
    database = str(short_dir / "cache.db")
    disk = os.statvfs(short_dir)
    assert type(explain(sqlite_error(name), database)) is StorageFailed

    def with_figures(*figures: int) -> os.statvfs_result:
        return os.statvfs_result((*disk[:3], *figures, *disk[8:]))

    for found in (with_figures(9, 9, disk.f_files, 0, 0), with_figures(1, 1, disk.f_files, 9, 9)):
        monkeypatch.setattr(os, "statvfs", lambda _path, found=found: found)
        assert type(explain(sqlite_error(name), database)) is NoRoom

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "utime", refuse)
    failure = explain(sqlite_error(name), database)
    assert type(failure) is ReadOnlyDisk
    assert "read-only" in failure.message


@pytest.mark.parametrize("name", ["SQLITE_CORRUPT", "SQLITE_CORRUPT_INDEX", "SQLITE_NOTADB"])
def test_damage_is_told_apart_and_never_repaired(name: str) -> None:
    """A damaged file is named with the ways out; a disk that reports errors is suspected first."""
    failure = explain(sqlite_error(name, sqlite3.DatabaseError), "/c/cache.db")
    assert type(failure) is CorruptDatabase
    assert failure.message.startswith("/c/cache.db is damaged")
    assert failure.message.index("dmesg") < failure.message.index("backup")


@pytest.mark.parametrize("name", ["SQLITE_IOERR_FSYNC", "SQLITE_FULL", "SQLITE_CORRUPT"])
def test_unknown_outcome_is_said_whatever_the_cause(name: str) -> None:
    """A write that may have been applied always fails as such, so that its client retries."""
    failure = explain(sqlite_error(name), "/c/cache.db", outcome_known=False)
    assert isinstance(failure, StorageFailed)
    assert not failure.outcome_known
    assert failure.to_failure().detail == {"outcome_known": False}
    assert "retrying it is safe" in failure.message


def test_error_without_a_code_is_explained_too() -> None:
    """Errors that the sqlite3 module raises by itself have no name of SQLite's."""
    assert "ProgrammingError" in explain(sqlite3.ProgrammingError("closed"), "/c/cache.db").message


def test_no_bare_error_leaves_the_block() -> None:
    """Inside `explained`, errors of sqlite3 and of the system become ours; others pass."""
    with pytest.raises(StorageFailed, match="full"), explained("/c/cache.db"):
        raise sqlite_error("SQLITE_FULL")
    with pytest.raises(StorageFailed, match="Permission denied"), explained("/c/cache.db"):
        raise PermissionError(13, "Permission denied")
    with pytest.raises(ZeroDivisionError), explained("/c/cache.db"):
        raise ZeroDivisionError
