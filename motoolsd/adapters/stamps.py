"""The file of stamps: slot numbers in memory that every client maps.

Layer: adapters. Imports directory, core and wire.
Invariant: the file keeps its inode, is never truncated, and has all of its blocks: a client that has mapped it can read
it for as long as it likes. Only the daemon may write it, and only the holder of the lock gets here.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from typing import NamedTuple

from motoolsd.adapters.directory import CacheDirectory
from motoolsd.core.errors import StartFailed
from motoolsd.core.sizes import BLOCK_SIZE_BYTES
from motoolsd.wire.keys import STAMPS_SIZE_BYTES
from motoolsd.wire.names import STAMPS

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


class Stamps(NamedTuple):
    """The mapped file."""

    numbers: memoryview[int]
    """`SLOT_COUNT` unsigned 64-bit numbers, writable."""
    device: int
    inode: int

    @property
    def identity(self) -> tuple[int, int]:
        """What a client compares with what its path leads to."""
        return self.device, self.inode


def map_stamps(directory: CacheDirectory) -> Stamps | None:
    """Make the file if there is none, and map it.

    Returns:
        The numbers as they stand in the file; None where a new file cannot be made for want of room. Clients ask the
        daemon at every lookup then.

    Raises:
        StartFailed: there is something that cannot be mapped. Clients may have mapped it, and would go on to believe
            what they remember: better no daemon than one that cannot tell them of a change.
    """
    path = os.path.join(directory.path, STAMPS)
    try:
        _make_if_missing(directory)
    except OSError as error:
        if error.errno in _NO_ROOM:
            directory.notes.append(f"{path} cannot be made ({error.strerror}): clients cannot remember what they asked")
            return None
        raise _cannot_use(path, error.strerror) from error
    try:
        return _map(directory, path)
    except (OSError, ValueError) as error:
        raise _cannot_use(path, str(error)) from error


def _make_if_missing(directory: CacheDirectory) -> None:
    """Make the file whole under another name: under its own it always has all of its blocks."""
    try:
        os.stat(STAMPS, dir_fd=directory.descriptor, follow_symlinks=False)
    except FileNotFoundError:
        pass
    else:
        return
    made = f"{STAMPS}.new"
    descriptor = os.open(made, _FLAGS | os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=directory.descriptor)
    try:
        os.posix_fallocate(descriptor, 0, STAMPS_SIZE_BYTES)
        os.rename(made, STAMPS, src_dir_fd=directory.descriptor, dst_dir_fd=directory.descriptor)
    except OSError:
        os.unlink(made, dir_fd=directory.descriptor)
        raise
    finally:
        os.close(descriptor)


def _map(directory: CacheDirectory, path: str) -> Stamps:
    reading = os.open(STAMPS, _FLAGS | os.O_RDONLY, dir_fd=directory.descriptor)
    try:
        found = os.fstat(reading)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_size < STAMPS_SIZE_BYTES:
            raise _cannot_use(path, f"it is no file of {STAMPS_SIZE_BYTES} bytes of ours")
        # Read-only, so that nobody else's slip changes it; a daemon that is not root cannot open it then, either.
        os.fchmod(reading, 0o600)
        writing = os.open(f"/proc/self/fd/{reading}", os.O_CLOEXEC | os.O_RDWR)
        try:
            _fill_holes(writing)
            mapped = mmap.mmap(writing, STAMPS_SIZE_BYTES)
        finally:
            os.close(writing)
            os.fchmod(reading, 0o400)
    finally:
        os.close(reading)
    return Stamps(memoryview(mapped).cast("Q"), found.st_dev, found.st_ino)


def _fill_holes(descriptor: int) -> None:
    """A file that came from a backup may have holes, and one in a full disk is a SIGBUS."""
    try:
        os.posix_fallocate(descriptor, 0, STAMPS_SIZE_BYTES)
    except OSError as error:
        # A full XFS refuses also where nothing is missing.
        is_whole = os.fstat(descriptor).st_blocks * BLOCK_SIZE_BYTES >= STAMPS_SIZE_BYTES
        if error.errno not in _NO_ROOM or not is_whole:
            raise


def _cannot_use(path: str, reason: str | None) -> StartFailed:
    return StartFailed(f"{path} cannot be used: {reason}. Stop the jobs that use this directory, remove it, try again")
