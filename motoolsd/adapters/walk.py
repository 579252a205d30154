"""Walking through a tree and adding up what lies in it.

Layer: adapters. Imports descent, status and core.
Invariant: every entry is looked at once and none is opened but directories; descriptors and memory are bounded, however
deep or wide the tree is. The loops are written for speed: measure against `du -s` (`python -m bench`, workload
`sizes`) before making them prettier.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from itertools import islice
from typing import Final, NamedTuple

from motoolsd.adapters.descent import Descent
from motoolsd.adapters.status import CHUNK_NAMES, POSITIONS, Status, Statuses
from motoolsd.core.files import Measured
from motoolsd.wire.sizes import Size

BLOCK_SIZE_BYTES: Final = 512
"""The unit of st_blocks, whatever the file system's own block size."""
STEP_FILES: Final = 256
_DIRECTORY_WEIGHT: Final = 4
"""A step is taken after so many entries, or a fourth as many directories."""
LEVELS_HELD_MAX: Final = 128
"""Directories deeper than this give up their descriptor while one of theirs is walked."""
PENDING_MAX: Final = 4096
"""So many directories of one directory are noted before its next entries are read."""

_OPEN_PARENT: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_WAY_ON: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSYS})
"""These say nothing of the directory: the walk cannot go on."""

NS: Final = 1_000_000_000
TYPE_MASK: Final = 0o170000
REGULAR: Final = stat.S_IFREG
DIRECTORY: Final = stat.S_IFDIR


class Tally:
    """A sum that grows."""

    __slots__ = ("blocks", "files", "is_whole", "newest_ns", "size_bytes")

    def __init__(self, newest_ns: int = 0) -> None:
        """Nothing counted yet."""
        self.size_bytes = 0
        self.blocks = 0
        self.files = 0
        self.newest_ns = newest_ns
        self.is_whole = True
        """Whether everything that lies there could be looked at."""

    def add(self, files: int, size_bytes: int, blocks: int) -> None:
        """Count some files."""
        self.files += files
        self.size_bytes += size_bytes
        self.blocks += blocks

    @property
    def measured(self) -> Measured:
        """The sum as decisions take it."""
        return Measured(self.size_bytes, self.blocks * BLOCK_SIZE_BYTES, self.files, self.newest_ns)

    @property
    def size(self) -> Size:
        """The sum as messages take it."""
        return Size(self.size_bytes, self.blocks * BLOCK_SIZE_BYTES)


class Pending(NamedTuple):
    """A directory to be walked."""

    name: bytes
    tally: Tally | None
    """What its files count for; None: each is sorted by itself."""
    place: bytes | None
    """Its path, where what lies in it is to be sorted; None: all of it counts for the tally."""


class Level:
    """An open directory, and what of it is still to be walked."""

    __slots__ = ("descriptor", "entries", "identity", "is_read", "pending", "place", "tally")

    def __init__(self, descriptor: int, tally: Tally | None, place: bytes | None) -> None:
        """Begin to read an open directory, which is closed if that fails."""
        self.descriptor = descriptor
        self.identity = (0, 0)
        """Device and inode, once the descriptor is given up (-1)."""
        self.tally = tally
        self.place = place
        self.pending: list[Pending] = []
        self.is_read = False
        try:
            # By the descriptor itself, the names would come as text, to be turned back into bytes one by one.
            self.entries = os.scandir(b"/proc/self/fd/%d" % descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno == errno.ENOENT:
                raise OSError(errno.ENOSYS, "/proc is not mounted") from error
            raise

    def close(self) -> None:
        """Let go of everything."""
        if not self.is_read:
            self.end_reading()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def give_up(self) -> None:
        """Close the descriptor, remembering what it led to."""
        found = os.fstat(self.descriptor)
        self.identity = (found.st_dev, found.st_ino)
        os.close(self.descriptor)
        self.descriptor = -1

    def end_reading(self) -> None:
        """There is nothing more in it."""
        self.entries.close()
        self.is_read = True


Sort = Callable[[list[bytes], Level], None]


class Walk:
    """One walk: each inode counts once in all of it. Used by one thread."""

    def __init__(
        self,
        descent: Descent,
        *,
        step: Callable[[int], None] = lambda _files: None,
        is_stopped: Callable[[], bool] = lambda: False,
        sort: Sort | None = None,
        on_left: Callable[[Tally], None] = lambda _tally: None,
    ) -> None:
        """Count nothing yet.

        Args:
            descent: the way from one directory to the next.
            step: called with the number of files so far, every few hundred entries.
            is_stopped: asked as often.
            sort: takes the names in directories that have a place, once `statuses` tells of them.
            on_left: called when everything that counts for a tally was counted.
        """
        self.descent = descent
        self.files = 0
        self.stopped = is_stopped()
        self.total = Tally()
        """What everything counts for, besides."""
        self._step = step
        self._is_stopped = is_stopped
        self._sort = sort
        self._on_left = on_left
        self._since_step = 0
        self._linked: set[tuple[int, int]] = set()
        self.statuses = Statuses()

    def run(self, parent: int, pending: Pending, total: Tally) -> None:
        """Walk a directory of an open one; nothing is counted if it is none.

        Raises:
            OSError: the walk cannot go on: no descriptors or memory are left, or what it is in was moved away.
        """
        self.total = total
        levels: list[Level] = []
        try:
            self._meet(levels, self.descent.enter, parent, pending)
            while levels and not self.stopped:
                level = levels[-1]
                if level.pending:
                    self._meet(levels, self.descent.enter_on_mount, level.descriptor, level.pending.pop())
                elif not level.is_read:
                    self._read(level, is_deep=len(levels) >= LEVELS_HELD_MAX)
                else:
                    self._leave(levels)
        finally:
            for level in levels:
                level.close()

    def _meet(self, levels: list[Level], enter: Callable[[int, bytes], int], parent: int, pending: Pending) -> None:
        """Enter a directory; what cannot be entered counts nothing."""
        self._go_by(_DIRECTORY_WEIGHT)
        try:
            level = Level(enter(parent, pending.name), pending.tally, pending.place)
        except OSError as error:
            if error.errno in _NO_WAY_ON:
                raise
            self.miss(error, pending.tally)
            return
        levels.append(level)
        self._read(level, is_deep=len(levels) >= LEVELS_HELD_MAX)
        if len(levels) > LEVELS_HELD_MAX:
            levels[-2].give_up()

    def miss(self, error: OSError, tally: Tally | None) -> None:
        """Something could not be looked at. If it is only gone, nothing is missing."""
        if error.errno != errno.ENOENT and tally is not None:
            tally.is_whole = False

    def _leave(self, levels: list[Level]) -> None:
        level = levels.pop()
        above = levels[-1] if levels else None
        try:
            if above is not None and above.descriptor < 0:
                self._return_to(above, level.descriptor)
        except OSError as error:
            if error.errno in _NO_WAY_ON:
                raise
            self._lose(levels, error)
        finally:
            level.close()
        if level.tally is not None and (above is None or above.tally is not level.tally):
            self._on_left(level.tally)

    def _return_to(self, above: Level, descriptor: int) -> None:
        """Open the directory above again. Only if it is the one we came from: else the tree was moved meanwhile."""
        parent = os.open("..", _OPEN_PARENT, dir_fd=descriptor)
        found = os.fstat(parent)
        if (found.st_dev, found.st_ino) != above.identity:
            os.close(parent)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        above.descriptor = parent

    def _lose(self, levels: list[Level], error: OSError) -> None:
        """The way up was cut off: what is left of the directories that were on it is missed."""
        while levels[-1].descriptor < 0:
            level = levels.pop()
            self.miss(error, level.tally)
            level.close()
        self.miss(error, levels[-1].tally)

    def _read(self, level: Level, *, is_deep: bool) -> None:
        """Read entries until there are no more, or directories enough to go on with."""
        read = self._count if level.place is None or self._sort is None else self._sort
        try:
            while not self.stopped:
                names = [entry.name for entry in islice(level.entries, CHUNK_NAMES)]
                self.statuses.look_at(level.descriptor, names)
                read(names, level)
                self._go_by(len(names))
                if len(names) < CHUNK_NAMES:
                    level.end_reading()
                    return
                # Where descriptors are given up, a reader would keep one: all is read at once.
                if len(level.pending) > PENDING_MAX and not is_deep:
                    return
        except OSError as error:
            if error.errno in _NO_WAY_ON:
                raise
            self.miss(error, level.tally)
            level.end_reading()

    def _count(self, names: list[bytes], level: Level) -> None:
        """Count everything for the level's tally."""
        tally = level.tally
        assert tally is not None
        files = size_bytes = blocks = 0
        newest_s, newest_ns = divmod(tally.newest_ns, NS)
        rows = self.statuses.dated()
        for name, position, row in zip(names, POSITIONS, rows, strict=False):
            links, mode, size, room, changed_s, changed_ns, written_s, written_ns = row
            if changed_s > newest_s or (changed_s == newest_s and changed_ns > newest_ns):
                newest_s, newest_ns = changed_s, changed_ns
            if written_s > newest_s or (written_s == newest_s and written_ns > newest_ns):
                newest_s, newest_ns = written_s, written_ns
            if links != 1 or mode & TYPE_MASK != REGULAR:
                self._count_other(name, position, level)
                continue
            files += 1
            size_bytes += size
            blocks += room
        tally.newest_ns = newest_s * NS + newest_ns
        tally.add(files, size_bytes, blocks)
        self.add(files, size_bytes, blocks)

    def _count_other(self, name: bytes, position: int, level: Level) -> None:
        """As `_count`, of what is no regular file, or one with several names."""
        found = self.statuses.status(position)
        kind = found.st_mode & TYPE_MASK
        if kind == DIRECTORY:
            self.note(level, found, Pending(name, level.tally, None))
        elif kind == REGULAR and self.is_first_link(found):
            assert level.tally is not None
            level.tally.add(1, found.st_size, found.st_blocks)
            self.add(1, found.st_size, found.st_blocks)
        elif position in self.statuses.errors:
            self.miss(self.statuses.errors[position], level.tally)

    def add(self, files: int, size_bytes: int, blocks: int) -> None:
        """Count some files for the whole."""
        self.total.add(files, size_bytes, blocks)
        self.files += files

    def note(self, level: Level, found: Status, pending: Pending) -> None:
        """Walk a directory that was met, once it is its turn; not if it lies on another file system."""
        if found.st_dev == self.descent.device:
            level.pending.append(pending)
        elif pending.tally is not None:
            pending.tally.is_whole = False

    def is_first_link(self, found: Status) -> bool:
        """Whether this inode has not been met in this walk under another name."""
        known = len(self._linked)
        self._linked.add((found.st_dev, found.st_ino))
        return len(self._linked) > known

    def _go_by(self, weight: int) -> None:
        self._since_step += weight
        if self._since_step >= STEP_FILES:
            self._since_step = 0
            self._step(self.files)
            self.stopped = self._is_stopped()
