"""What stat(2) says of many names of one directory at a time.

Layer: adapters. Imports nothing of motoolsd.
Invariant: names are looked up in an open directory and no link is followed; what cannot be looked at has no type (mode
0), and its error is kept. (Measured: a scan by os.DirEntry.stat takes a fourth longer, most of it for making Python
objects that nobody asks for.)
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from itertools import repeat
from struct import Struct
from typing import Final, NamedTuple

CHUNK_NAMES: Final = 256
"""So many names are looked at in one go."""
POSITIONS: Final = range(CHUNK_NAMES)

_STATUS_SIZE_BYTES: Final = 256
"""Of `struct statx`, which is the same on every architecture: see statx(2), Linux 4.11."""
_BRIEF: Final = Struct("=16xI8xH10xQQ200x")
"""Links, mode, size, blocks."""
_DATED: Final = Struct("=16xI8xH10xQQ40xqI4xqI132x")
"""The same, then the seconds and nanoseconds of ctime and mtime."""
_WHOLE: Final = Struct("=16xI8xH2xQQQ40xqI4xqI12xII112x")
"""Links, mode, inode, size, blocks, ctime and mtime as above, the device's major and minor number."""
_FLAGS: Final = 0x100 | 0x800
"""AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT."""
_BASIC_STATS: Final = 0x7FF
_NS: Final = 1_000_000_000

_statx = getattr(ctypes.CDLL(None), "statx", None)
"""None: a C library without it (before glibc 2.28)."""


class Status(NamedTuple):
    """What is asked of a file, under the names that os.stat_result has for it."""

    st_mode: int
    st_nlink: int
    st_ino: int
    st_dev: int
    st_size: int
    st_blocks: int
    st_mtime_ns: int
    st_ctime_ns: int


class Statuses:
    """A buffer for what is said of some names. Used by one thread."""

    def __init__(self) -> None:
        """Nothing was looked at yet."""
        self._buffer = ctypes.create_string_buffer(CHUNK_NAMES * _STATUS_SIZE_BYTES)
        part = ctypes.c_char * _STATUS_SIZE_BYTES
        self._parts = [part.from_buffer(self._buffer, position * _STATUS_SIZE_BYTES) for position in POSITIONS]
        self._statx = _statx
        self.errors: dict[int, OSError] = {}
        """By position: why something could not be looked at."""

    def look_at(self, directory: int, names: list[bytes]) -> None:
        """Look at names of an open directory, at most `CHUNK_NAMES`; what was there before is overwritten."""
        self.errors.clear()
        if self._statx is None:
            for position, name in enumerate(names):
                self._look_again(directory, position, name)
            return
        # Run by C alone. It says only whether it worked; where it did not, the reason is asked for again.
        failed = list(map(self._statx, repeat(directory), names, repeat(_FLAGS), repeat(_BASIC_STATS), self._parts))
        if any(failed):
            for position in [position for position, result in enumerate(failed) if result]:
                self._look_again(directory, position, names[position])

    def _look_again(self, directory: int, position: int, name: bytes) -> None:
        place = position * _STATUS_SIZE_BYTES
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            self.errors[position] = error
            _WHOLE.pack_into(self._buffer, place, *repeat(0, 11))
            return
        # An older kernel, or a container's filter that does not know the call: it is not tried again.
        self._statx = None
        _WHOLE.pack_into(
            self._buffer,
            place,
            found.st_nlink,
            found.st_mode,
            found.st_ino,
            found.st_size,
            found.st_blocks,
            *divmod(found.st_ctime_ns, _NS),
            *divmod(found.st_mtime_ns, _NS),
            os.major(found.st_dev),
            os.minor(found.st_dev),
        )

    def brief(self) -> Iterator[tuple[int, int, int, int]]:
        """Links, mode, size and blocks of one name after the other; more than there were names."""
        return _BRIEF.iter_unpack(self._buffer)

    def dated(self) -> Iterator[tuple[int, int, int, int, int, int, int, int]]:
        """As `brief`, then seconds and nanoseconds of the ctime and of the mtime."""
        return _DATED.iter_unpack(self._buffer)

    def status(self, position: int) -> Status:
        """All that is known of a name."""
        links, mode, inode, size, blocks, changed_s, changed_ns, written_s, written_ns, major, minor = (
            _WHOLE.unpack_from(self._buffer, position * _STATUS_SIZE_BYTES)
        )
        return Status(
            mode,
            links,
            inode,
            os.makedev(major, minor),
            size,
            blocks,
            written_s * _NS + written_ns,
            changed_s * _NS + changed_ns,
        )
