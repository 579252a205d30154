"""The ballast: a file with all of its blocks, and spare inodes, to be let go of when a disk is full.

Layer: adapters. Imports directory, descent and core.
Invariant: it never fails who asks for it: where it cannot be made, there is none.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Final

from motoolsd.adapters.descent import described, look
from motoolsd.adapters.directory import CacheDirectory
from motoolsd.core.sizes import BLOCK_SIZE_BYTES
from motoolsd.wire.names import BALLAST, BALLAST_SPARES

_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_MAKING: Final = f"{BALLAST}.new"


class BallastFile:
    """The ballast of one cache directory. Fulfils core.ports.Ballast: every method blocks, threads may share it."""

    def __init__(self, directory: CacheDirectory) -> None:
        """Touch nothing yet."""
        self._root = directory.descriptor

    def held_bytes(self) -> int | None:
        """What it takes on the disk; None if there is none."""
        try:
            found = look(self._root, BALLAST)
        except OSError:
            return None
        if found is None or not stat.S_ISREG(found.st_mode):
            return None
        return int(found.st_blocks) * BLOCK_SIZE_BYTES

    def free_bytes(self) -> int:
        """What the disk has left for this user."""
        try:
            disk = os.fstatvfs(self._root)
        except OSError as error:
            raise described(BALLAST.encode(), error) from error
        return disk.f_bavail * disk.f_frsize

    def make(self, size_bytes: int) -> None:
        """Make it under another name, whole, and then under its own."""
        try:
            self._make(size_bytes)
        except OSError as error:
            with suppress(OSError):
                os.unlink(_MAKING, dir_fd=self._root)
            raise described(BALLAST.encode(), error) from error

    def _make(self, size_bytes: int) -> None:
        with suppress(FileNotFoundError):
            os.unlink(_MAKING, dir_fd=self._root)  # a kill has left it
        descriptor = os.open(_MAKING, _FLAGS, 0o600, dir_fd=self._root)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
        finally:
            os.close(descriptor)
        for name in BALLAST_SPARES:
            with suppress(FileExistsError):
                os.close(os.open(name, _FLAGS, 0o600, dir_fd=self._root))
        os.rename(_MAKING, BALLAST, src_dir_fd=self._root, dst_dir_fd=self._root)

    def _shrink(self, keep: float) -> bool:
        try:
            descriptor = os.open(BALLAST, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._root)
        except OSError:
            return False
        try:
            os.ftruncate(descriptor, int(os.fstat(descriptor).st_size * keep))
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def release(self, *, keep: float = 0.0) -> bool:
        """Let go of it, or of a part; whether there was anything to let go of."""
        # Cut first: XFS frees the blocks of what is unlinked some time later.
        released = self._shrink(keep)
        for name in BALLAST_SPARES if keep and released else (BALLAST, *BALLAST_SPARES):
            with suppress(OSError):
                os.unlink(name, dir_fd=self._root)
                released = True
        if released:
            # A journal keeps freed blocks until it has written that they are free.
            with suppress(OSError):
                os.fsync(self._root)
        return released
