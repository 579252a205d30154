"""Putting another database into the place of cache.db, so that a kill leaves the old one or the new one, whole.

Two names, cache.db and cache.db-wal, cannot change in one step, and either with the other's partner would be damage. So
the new file first gets a name that says what is to be done, `cache.db.restored-<time>`: from then on whoever holds the
lock next finishes it, before anybody opens a database. (A redo log of one record.)

Layer: adapters. Imports backups, descent, directory, renaming, core and wire.
Invariant: nothing is removed but what was never whole. What was in the place stays as `cache.db.replaced-<time>`, with
its write-ahead log under the name that SQLite looks for.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from motoolsd.adapters.backups import COMPANIONS, remove_draft
from motoolsd.adapters.descent import describing, look
from motoolsd.adapters.directory import CacheDirectory
from motoolsd.adapters.renaming import rename
from motoolsd.core.points import reached
from motoolsd.wire.names import DATABASE

DRAFT: Final = f"{DATABASE}.restoring".encode()
"""Not whole yet, or not known to be."""
DECIDED_PREFIX: Final = f"{DATABASE}.restored-"
ASIDE_PREFIX: Final = f"{DATABASE}.replaced-"


def begin_replacement(directory: CacheDirectory) -> str:
    """Make an empty file for the new database; its path. The caller holds the lock.

    Raises:
        TreeError: it cannot be made.
    """
    with describing(DRAFT):
        remove_draft(directory.descriptor, DRAFT)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        os.close(os.open(DRAFT, flags, 0o600, dir_fd=directory.descriptor))
    return os.path.join(directory.path, os.fsdecode(DRAFT))


def abandon_replacement(directory: CacheDirectory) -> None:
    """Remove what is not decided; harmless if there is nothing."""
    with suppress(OSError):
        remove_draft(directory.descriptor, DRAFT)


def decide_replacement(directory: CacheDirectory, now: str) -> None:
    """Bring the new database to the disk, and from here on it is to be in place. `finish_replacement` is to follow.

    Args:
        directory: whose lock is held.
        now: `20260131T235959Z`, for the name of what is set aside.

    Raises:
        TreeError: the disk refused.
    """
    with describing(DRAFT):
        descriptor = os.open(DRAFT, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory.descriptor)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        reached("restore: copied")
        names = os.listdir(directory.descriptor)
        number, stamp = 1, now
        while any(name.startswith(ASIDE_PREFIX + stamp) for name in names):
            number += 1
            stamp = f"{now}.{number}"
        rename(directory.descriptor, DRAFT, directory.descriptor, f"{DECIDED_PREFIX}{stamp}".encode())
        os.fsync(directory.descriptor)
    reached("restore: decided")


def finish_replacement(directory: CacheDirectory) -> bytes | None:
    """Do what was decided, by this process or by one that was killed since. The caller holds the lock.

    Returns:
        The path of what was in the place before; None if nothing was to be done. Nothing need lie there, if nothing did
        before.

    Raises:
        TreeError: it cannot be done; it is tried again by the next who calls.
    """
    root = directory.descriptor
    with describing(DATABASE.encode()):
        # What was not decided counts for nothing.
        remove_draft(root, DRAFT)
        decided = sorted(name for name in os.listdir(root) if name.startswith(DECIDED_PREFIX))
        aside: bytes | None = None
        for name in decided:
            aside = f"{ASIDE_PREFIX}{name.removeprefix(DECIDED_PREFIX)}".encode()
            for companion in COMPANIONS:
                _set_aside(root, f"{DATABASE}{companion}".encode(), aside + companion.encode())
            os.fsync(root)
            reached("restore: set aside")
            rename(root, name.encode(), root, DATABASE.encode())
            os.fsync(root)
            reached("restore: in place")
    return None if aside is None else os.path.join(os.fsencode(directory.path), aside)


def _set_aside(root: int, name: bytes, aside: bytes) -> None:
    if look(root, name) is not None:
        rename(root, name, root, aside)
        reached("restore: setting aside")
