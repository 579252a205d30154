"""What an error of sqlite3 means to the one who asked.

Layer: store. Imports core.errors.
Invariant: no bare sqlite3 error leaves this room.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from motoolsd.core.errors import CorruptDatabase, NoRoom, ReadOnlyDisk, RequestError, StorageFailed

_REMEDIES = {
    "SQLITE_BUSY": "another program holds cache.db locked: end its transaction, then retry",
    "SQLITE_LOCKED": "another program holds cache.db locked: end its transaction, then retry",
    "SQLITE_READONLY": "cache.db cannot be written: check its permissions and that the disk is not read-only",
    "SQLITE_CANTOPEN": "cache.db cannot be opened: check the permissions of the cache directory",
    "SQLITE_IOERR": "the disk reported an error: see the kernel log (dmesg)",
    "SQLITE_TOOBIG": "a value is larger than SQLite allows",
}
_DAMAGE = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})
_AMBIGUOUS = frozenset({"SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_IOERR"})
"""SQLite keeps to itself what the system said: that is looked for on the disk."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_ROOM_BYTES = 64 * 1024
"""What SQLite needs to open a database: less than that is no room."""


def corrupt(database: str, reason: str) -> CorruptDatabase:
    """The refusal of a damaged file, with what to do."""
    message = (
        f"{database} is damaged or no cache database ({reason}). Nothing was changed. If the disk reports errors "
        "(dmesg), mend that first: the file may be whole. Else put the newest backup in its place with "
        "`motools cache restore-backup` (--list shows all), save what can be read with "
        f"`sqlite3 {database} .recover`, or move the file away to start an empty cache"
    )
    return CorruptDatabase(message)


def explain(error: sqlite3.Error, database: str, *, outcome_known: bool = True) -> RequestError:
    """The typed error for one of sqlite3."""
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    family = "_".join(str(name).split("_")[:2])
    # A write of unknown outcome says so whatever its cause: its caller must know that a retry is called for.
    if family in _DAMAGE and outcome_known:
        return corrupt(database, str(error))
    if (known := _on_disk(family, name, database, outcome_known=outcome_known)) is not None:
        return known
    remedy = _REMEDIES.get(family, "see motoolsd.log")
    state = "" if outcome_known else "; whether the write was applied is unknown, and retrying it is safe"
    return StorageFailed(f"{error} ({name}): {remedy}{state}", outcome_known=outcome_known)


def is_undone(error: sqlite3.Error, database: str) -> bool:
    """Whether a COMMIT that failed so has stored nothing for sure.

    In a write-ahead log a transaction counts from the last of its frames on. Where a frame found no room, that one was
    not written (SQLite writes nothing behind it: `SQLITE_POWERSAFE_OVERWRITE`), and SQLite has rolled back.
    """
    name = getattr(error, "sqlite_errorname", None)
    if name == "SQLITE_FULL":
        return True
    return name == "SQLITE_IOERR_WRITE" and _is_read_only(os.path.dirname(database))


def _on_disk(family: str, name: object, database: str, *, outcome_known: bool) -> StorageFailed | None:
    """The refusal that the disk's state explains; None if it does not."""
    if family == "SQLITE_FULL":
        return NoRoom(str(name), outcome_known=outcome_known)
    if family not in _AMBIGUOUS:
        return None
    directory = os.path.dirname(database)
    if _is_read_only(directory):
        return ReadOnlyDisk(str(name), outcome_known=outcome_known)
    if family != "SQLITE_READONLY" and _has_no_room(directory):
        return NoRoom(str(name), outcome_known=outcome_known)
    return None


def _is_read_only(directory: str) -> bool:
    """Whether the file system takes no writes: statvfs does not say so of one that the kernel has stopped."""
    try:
        found = os.stat(directory)
        os.utime(directory, ns=(found.st_atime_ns, found.st_mtime_ns))
    except OSError as error:
        return error.errno == errno.EROFS
    return False


def _has_no_room(directory: str) -> bool:
    try:
        disk = os.statvfs(directory)
    except OSError:
        return False
    return (disk.f_files > 0 and disk.f_favail == 0) or disk.f_bavail * disk.f_frsize < _ROOM_BYTES


def unusable(database: str, error: OSError) -> StorageFailed:
    """The refusal of a file that the system does not let us use."""
    if error.errno in _NO_ROOM:
        return NoRoom(str(error.strerror))
    if error.errno == errno.EROFS:
        return ReadOnlyDisk(str(error.strerror))
    message = f"{database} cannot be used: {error.strerror}. Check its permissions, and those of its directory"
    return StorageFailed(message)


@contextmanager
def explained(database: str) -> Iterator[None]:
    """Turn errors of sqlite3, and of the system, inside the block into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise explain(error, database) from error
    except OSError as error:
        raise unusable(database, error) from error
