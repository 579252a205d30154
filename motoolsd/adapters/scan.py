"""What takes how much room, and what belongs to nobody: one walk through the whole cache directory.

Layer: adapters. Imports descent, status, walk and core.
Invariant: nothing counts as an orphan that an entry owns, that lies in what an entry owns, or that holds what an entry
owns, whether or not the latter is there; nor what could not be looked at to its end.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from motoolsd.adapters.descent import DATABASE_FILES, NOTHING_THERE, Descent, look, seen_as
from motoolsd.adapters.status import POSITIONS, Status
from motoolsd.adapters.walk import BLOCK_SIZE_BYTES, DIRECTORY, REGULAR, TYPE_MASK, Level, Pending, Tally, Walk
from motoolsd.core.files import Measured, Orphan, Scan
from motoolsd.wire.names import BACKUPS, BALLAST, DATABASE, FILE_CATEGORIES, STAGING, TRASH
from motoolsd.wire.sizes import Size

DATABASE_CATEGORY: Final = "database"
_NOTHING: Final[dict[bytes, bytes | None]] = {}
_NOBODY: Final = b""
"""Stands for the path of what neither is owned nor holds anything owned."""


class OrphanTally(Tally):
    """What one orphan directory takes."""

    __slots__ = ("found", "path")

    def __init__(self, path: bytes, found: Status) -> None:
        """Count nothing but itself."""
        super().__init__(max(found.st_mtime_ns, found.st_ctime_ns))
        self.path = path
        self.found = found


class Owned:
    """Which paths entries own, by the directory they lie in."""

    def __init__(self, paths: Iterable[bytes]) -> None:
        """Sort them."""
        names: dict[bytes, dict[bytes, bytes | None]] = {}
        for path in paths:
            directory, _, name = path.rpartition(b"/")
            try:
                names[directory][name] = path
            except KeyError:
                names[directory] = {name: path}
        for directory in list(names):
            above, _, name = directory.rpartition(b"/")
            while above:
                names.setdefault(above, {}).setdefault(name, None)
                above, _, name = above.rpartition(b"/")
        self._by_directory = names

    def in_directory(self, place: bytes) -> dict[bytes, bytes | None]:
        """What there is right in a directory: the path of what is owned; None of what something owned lies below."""
        return self._by_directory.get(place, _NOTHING)

    def is_above(self, place: bytes) -> bool:
        """Whether something below a directory is owned."""
        return place in self._by_directory


class Scanner:
    """One scan. Used once, by one thread."""

    def __init__(
        self,
        descent: Descent,
        owned: Sequence[bytes],
        *,
        orphans_max: int,
        step: Callable[[int], None],
        is_stopped: Callable[[], bool],
    ) -> None:
        """Count nothing yet. See core.ports.FileTree.scan."""
        self._descent = descent
        self._owned = Owned(owned)
        self._orphans_max = orphans_max
        self._walk = Walk(descent, step=step, is_stopped=is_stopped, sort=self._sort, on_left=self._on_left)
        self._tallies: dict[bytes, Tally] = {}
        self._orphans = Tally()
        """What all of them take, listed or not."""
        self._found = Scan()

    def run(self) -> Scan:
        """Walk everything.

        Raises:
            OSError: the walk cannot go on.
        """
        found = self._found
        for category in FILE_CATEGORIES:
            found.categories[category] = self._walk_category(Pending(category.encode(), None, category.encode()))
        found.categories[DATABASE_CATEGORY] = database_size(self._descent)
        for category in (TRASH, STAGING):
            found.categories[category] = self._walk_category(Pending(category.encode(), Tally(), None))
        found.categories[BALLAST] = _size(self._descent, (BALLAST,))
        found.owned.update((path, tally.size) for path, tally in self._tallies.items())
        found.orphan_size = self._orphans.size
        found.files = self._walk.files
        found.is_whole = not self._walk.stopped
        return found

    def _walk_category(self, pending: Pending) -> Size:
        total = Tally()
        self._walk.run(self._descent.root, pending, total)
        return total.size

    def _sort(self, names: list[bytes], level: Level) -> None:
        """Tell whose each entry is, in a directory where they may be of several owners, or of none."""
        assert level.place is not None
        owner_of = self._owned.in_directory(level.place).get
        sizes = self._found.owned
        statuses = self._walk.statuses
        files = size_bytes = blocks = 0
        for name, position, (links, mode, size, room) in zip(names, POSITIONS, statuses.brief(), strict=False):
            owned = owner_of(name, _NOBODY)
            if links != 1 or mode & TYPE_MASK != REGULAR:
                self._sort_other(level, name, owned, position)
                continue
            files += 1
            size_bytes += size
            blocks += room
            if owned:
                # By far the most of what there is: it is not worth a call.
                sizes[owned] = Size(size, room * BLOCK_SIZE_BYTES)
            else:
                self._sort_file(level, name, owned, position, (1, size, room))
        self._walk.add(files, size_bytes, blocks)

    def _sort_other(self, level: Level, name: bytes, owned: bytes | None, position: int) -> None:
        """As `_sort`, of what is no regular file, or one with several names: under the second it is only seen."""
        found = self._walk.statuses.status(position)
        kind = found.st_mode & TYPE_MASK
        if kind == DIRECTORY:
            self._sort_directory(level, name, owned, found)
        elif kind == REGULAR and self._walk.is_first_link(found):
            self._walk.add(1, found.st_size, found.st_blocks)
            self._sort_file(level, name, owned, position, (1, found.st_size, found.st_blocks))
        elif position in self._walk.statuses.errors:
            self._walk.miss(self._walk.statuses.errors[position], level.tally)
        else:
            self._sort_file(level, name, owned, position, (0, 0, 0))

    def _sort_directory(self, level: Level, name: bytes, owned: bytes | None, found: Status) -> None:
        assert level.place is not None
        path = level.place + b"/" + name
        newest_ns = max(found.st_mtime_ns, found.st_ctime_ns)
        tally = level.tally
        if owned:
            tally = self._tallies[owned] = Tally(newest_ns)
        elif tally is not None:
            tally.newest_ns = max(tally.newest_ns, newest_ns)
        elif owned is not None:
            tally = OrphanTally(path, found)
        place = path if self._owned.is_above(path) else None
        self._walk.note(level, found, Pending(name, tally, place))

    def _sort_file(
        self, level: Level, name: bytes, owned: bytes | None, position: int, counts: tuple[int, int, int]
    ) -> None:
        """Count a file (files, bytes, blocks) for whom it belongs to."""
        if owned:
            self._found.owned[owned] = Size(counts[1], counts[2] * BLOCK_SIZE_BYTES)
        elif level.tally is not None:
            found = self._walk.statuses.status(position)
            level.tally.add(*counts)
            level.tally.newest_ns = max(level.tally.newest_ns, found.st_mtime_ns, found.st_ctime_ns)
        elif owned is not None:
            assert level.place is not None
            self._orphans.add(*counts)
            self._found.orphan_count += 1
            if len(self._found.orphans) < self._orphans_max:
                found = self._walk.statuses.status(position)
                newest_ns = max(found.st_mtime_ns, found.st_ctime_ns)
                measured = Measured(counts[1], counts[2] * BLOCK_SIZE_BYTES, counts[0], newest_ns)
                self._found.orphans.append(Orphan(level.place + b"/" + name, seen_as(found), measured))

    def _on_left(self, tally: Tally) -> None:
        """Count an orphan directory that was walked to its end."""
        if not isinstance(tally, OrphanTally) or not tally.is_whole:
            return
        self._orphans.add(tally.files, tally.size_bytes, tally.blocks)
        self._found.orphan_count += tally.files > 0
        if len(self._found.orphans) < self._orphans_max:
            self._found.orphans.append(Orphan(tally.path, seen_as(tally.found), tally.measured))


def database_size(descent: Descent) -> Size:
    """What cache.db takes, with its companions and all copies: they are only looked at, see `Descent.open_file`.

    Raises:
        OSError: they cannot be looked at.
    """
    total = Tally()
    copies = [name for name in os.listdir(descent.root) if name.startswith(f"{DATABASE}.")]
    _add_files(total, descent.root, [*DATABASE_FILES, *copies])
    try:
        with descent.opened((BACKUPS.encode(),)) as backups:
            _add_files(total, backups, os.listdir(backups))
    except OSError as error:
        if error.errno not in NOTHING_THERE:
            raise
    return total.size


def _size(descent: Descent, names: Iterable[str]) -> Size:
    total = Tally()
    _add_files(total, descent.root, names)
    return total.size


def _add_files(total: Tally, directory: int, names: Iterable[str]) -> None:
    for name in names:
        found = look(directory, name)
        if found is not None and stat.S_ISREG(found.st_mode):
            total.add(1, found.st_size, found.st_blocks)
