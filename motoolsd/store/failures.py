"""What an error of sqlite3 means to the one who asked.

Layer: store. Imports core.errors.
Invariant: no bare sqlite3 error leaves this room.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from motoolsd.core.errors import CorruptDatabase, RequestError, StorageFailed

_REMEDIES = {
    "SQLITE_FULL": "the disk is full: free some space, then retry",
    "SQLITE_BUSY": "another program holds cache.db locked: end its transaction, then retry",
    "SQLITE_LOCKED": "another program holds cache.db locked: end its transaction, then retry",
    "SQLITE_READONLY": "cache.db cannot be written: check its permissions and that the disk is not read-only",
    "SQLITE_CANTOPEN": "cache.db cannot be opened: check the permissions of the cache directory",
    "SQLITE_IOERR": "the disk reported an error: see the kernel log (dmesg)",
    "SQLITE_TOOBIG": "a value is larger than SQLite allows",
}
_DAMAGE = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})


def corrupt(database: str, reason: str) -> CorruptDatabase:
    """The refusal of a damaged file, with what to do."""
    message = (
        f"{database} is damaged or no cache database ({reason}). Nothing was changed. If the disk reports errors "
        f"(dmesg), mend that first: the file may be whole. Else put a backup in its place (cache.db.*.bak beside it), "
        f"save what can be read with `sqlite3 {database} .recover`, or move the file away to start an empty cache"
    )
    return CorruptDatabase(message)


def explain(error: sqlite3.Error, database: str, *, outcome_known: bool = True) -> RequestError:
    """The typed error for one of sqlite3."""
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    family = "_".join(str(name).split("_")[:2])
    # A write of unknown outcome says so whatever its cause: its caller must know that a retry is called for.
    if family in _DAMAGE and outcome_known:
        return corrupt(database, str(error))
    remedy = _REMEDIES.get(family, "see motoolsd.log")
    state = "" if outcome_known else "; whether the write was applied is unknown, and retrying it is safe"
    return StorageFailed(f"{error} ({name}): {remedy}{state}", outcome_known=outcome_known)


def unusable(database: str, error: OSError) -> StorageFailed:
    """The refusal of a file that the system does not let us use."""
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
