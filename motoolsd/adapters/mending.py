"""What can be mended in a cache directory without a daemon.

Layer: adapters. Imports directory, examination, lock and core.
Invariant: nothing of the database is touched, nothing of an entry removed. What a daemon may be using is removed only
while its lock keeps daemons away.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Final

from motoolsd.adapters.directory import CacheDirectory
from motoolsd.adapters.examination import look_at_file, look_at_place, names_under_construction, users_of
from motoolsd.adapters.lock import keep_daemons_away
from motoolsd.core.diagnosis import (
    OTHERS_WRITE,
    SOCKET_MODE,
    STAMPS_MODE,
    FileFacts,
    FileKind,
    is_usable_as_stamps,
    named,
)
from motoolsd.core.errors import StartFailed
from motoolsd.wire.names import CONFIG, DATABASE, LOCK, LOG, SOCKET, STAMPS, START_LOCK

WATCHED: Final = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", SOCKET, LOCK, START_LOCK, LOG, STAMPS, CONFIG)
"""Names that nobody else may write."""


def watched_files(directory: CacheDirectory) -> list[FileFacts]:
    """Those of them that are there."""
    return [found for name in WATCHED if (found := look_at_file(directory, name)) is not None]


def take_away_permissions(directory: CacheDirectory) -> list[str]:
    """Let nobody else write the directory and its files, nor connect to its socket; what was done.

    Raises:
        OSError: it is not ours, or the file system is read-only.
    """
    done = []
    mode = stat.S_IMODE(os.fstat(directory.descriptor).st_mode)
    if mode & OTHERS_WRITE:
        os.fchmod(directory.descriptor, mode & ~OTHERS_WRITE)
        done.append(f"the directory has mode {mode & ~OTHERS_WRITE:o}, it had {mode:o}")
    for file in watched_files(directory):
        wanted = _wanted_mode(file)
        if file.mode != wanted:
            _change_mode(directory, file, wanted)
            done.append(f"{file.name} has mode {wanted:o}, it had {file.mode:o}")
    return done


def _wanted_mode(file: FileFacts) -> int:
    if file.kind is FileKind.LINK:
        # It has no permissions of its own.
        return file.mode
    if file.kind is FileKind.SOCKET:
        return SOCKET_MODE
    return STAMPS_MODE if file.name == STAMPS else file.mode & ~OTHERS_WRITE


def _change_mode(directory: CacheDirectory, file: FileFacts, mode: int) -> None:
    # By descriptor: what was looked at, whatever the name leads to by now.
    descriptor = os.open(file.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.descriptor)
    try:
        if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
            os.chmod(f"/proc/self/fd/{descriptor}", mode)
    finally:
        os.close(descriptor)


def remove_leftovers(directory: CacheDirectory) -> list[str]:
    """Remove the socket of a dead daemon, and what it was making; what was done.

    Raises:
        AlreadyRunning: a daemon lives.
        StartFailed: the lock cannot be taken.
        OSError: it cannot be removed.
    """
    with keep_daemons_away(directory):
        names = names_under_construction(directory)
        found = look_at_file(directory, SOCKET)
        if found is not None and found.kind is FileKind.SOCKET:
            names.append(SOCKET)
        return _remove(directory, names)


def remove_stamps(directory: CacheDirectory) -> list[str]:
    """Remove a file of stamps that no daemon could map, if nobody has it mapped; what was done.

    Raises:
        AlreadyRunning: a daemon lives.
        StartFailed: the lock cannot be taken; or somebody has it mapped, and would go on to believe what it remembers.
        OSError: it cannot be removed.
    """
    with keep_daemons_away(directory):
        found = look_at_file(directory, STAMPS)
        if found is None or is_usable_as_stamps(look_at_place(directory.path), found):
            return []
        if users := users_of(directory, STAMPS):
            jobs = named([str(pid) for pid in users])
            raise StartFailed(f"{STAMPS} is mapped by jobs (pid {jobs}): stop them first")
        if found.kind not in (FileKind.FILE, FileKind.LINK):
            raise StartFailed(f"{STAMPS} is a {found.kind}: look at it, and remove it yourself")
        return _remove(directory, [STAMPS])


def _remove(directory: CacheDirectory, names: Sequence[str]) -> list[str]:
    for name in names:
        os.unlink(name, dir_fd=directory.descriptor)
    return [f"removed {name}" for name in names]
