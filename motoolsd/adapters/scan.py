"""What takes how much room, and what belongs to nobody: one walk through the whole cache directory.

Layer: adapters. Imports descent, walk and core.
Invariant: nothing counts as an orphan that an entry owns, that lies in what an entry owns, or that holds what an entry
owns, whether or not the latter is there; nor what could not be looked at to its end.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from motoolsd.adapters.descent import DATABASE_FILES, Descent, look, seen_as
from motoolsd.adapters.walk import BLOCK_SIZE_BYTES, DIRECTORY, REGULAR, TYPE_MASK, Level, Pending, Tally, Walk
from motoolsd.core.files import Measured, Orphan, Scan, Seen
from motoolsd.wire.names import FILE_CATEGORIES, STAGING, TRASH
from motoolsd.wire.sizes import Size

DATABASE_CATEGORY: Final = "database"
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_new_tuple = tuple.__new__
"""A named tuple made of the one that is there: its own constructor costs twice as much."""
_NONE: Final[dict[str, bytes]] = {}


class OrphanTally(Tally):
    """What one orphan takes."""

    __slots__ = ("path", "seen")

    def __init__(self, path: str, found: os.stat_result) -> None:
        """Count nothing but itself."""
        super().__init__(max(found.st_mtime_ns, found.st_ctime_ns))
        self.path = path
        self.seen: Seen = seen_as(found)


class Owned:
    """Which paths entries own, by the directory they lie in."""

    def __init__(self, paths: Iterable[bytes]) -> None:
        """Sort them."""
        self._by_directory: dict[str, dict[str, bytes]] = {}
        names = self._by_directory
        for path in paths:
            # Spelled as scandir spells names.
            directory, _, name = path.decode(_ENCODING, _ERRORS).rpartition("/")
            try:
                names[directory][name] = path
            except KeyError:
                names[directory] = {name: path}
        for directory in list(names):
            above = directory
            while (above := above.rpartition("/")[0]) and above not in names:
                names[above] = {}

    def in_directory(self, place: str) -> dict[str, bytes]:
        """Name -> path of what is owned right in a directory."""
        return self._by_directory.get(place, _NONE)

    def is_above(self, place: str) -> bool:
        """Whether something in or below a directory is owned."""
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
            found.categories[category] = self._walk_category(Pending(category.encode(), None, category))
        found.categories[DATABASE_CATEGORY] = database_size(self._descent)
        for category in (TRASH, STAGING):
            found.categories[category] = self._walk_category(Pending(category.encode(), Tally(), None))
        found.owned.update((path, tally.measured) for path, tally in self._tallies.items())
        found.orphan_size = self._orphans.size
        found.files = self._walk.files
        found.is_whole = not self._walk.stopped
        return found

    def _walk_category(self, pending: Pending) -> Size:
        total = Tally()
        self._walk.run(self._descent.root, pending, total)
        return total.size

    def _sort(self, chunk: list[os.DirEntry[str]], level: Level) -> None:
        """Tell whose each entry is, in a directory where they may be of several owners, or of none."""
        assert level.place is not None
        names = self._owned.in_directory(level.place)
        measured = self._found.owned
        files = size_bytes = blocks = 0
        for entry in chunk:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError as error:
                self._walk.miss(error, level.tally)
                continue
            owned = names.get(name := entry.name)
            if owned is not None and found.st_nlink == 1 and found.st_mode & TYPE_MASK == REGULAR:
                # By far the most of what there is: it is not worth a call.
                size, room = found.st_size, found.st_blocks
                changed_ns, written_ns = found.st_ctime_ns, found.st_mtime_ns
                newest_ns = changed_ns if changed_ns > written_ns else written_ns  # noqa: FURB136 - half as fast
                measured[owned] = _new_tuple(Measured, (size, room * BLOCK_SIZE_BYTES, 1, newest_ns))
                files += 1
                size_bytes += size
                blocks += room
            elif found.st_mode & TYPE_MASK == DIRECTORY:
                self._sort_directory(level, name, owned, found)
            else:
                self._sort_file(level, name, owned, found)
        self._walk.total.add(files, size_bytes, blocks)
        self._walk.files += files

    def _sort_directory(self, level: Level, name: str, owned: bytes | None, found: os.stat_result) -> None:
        path = f"{level.place}/{name}"
        newest_ns = max(found.st_mtime_ns, found.st_ctime_ns)
        tally = level.tally
        if owned is not None:
            tally = self._tallies[owned] = Tally(newest_ns)
        elif tally is not None:
            tally.newest_ns = max(tally.newest_ns, newest_ns)
        elif not self._owned.is_above(path):
            tally = OrphanTally(path, found)
        place = path if self._owned.is_above(path) else None
        self._walk.note(level, found, Pending(os.fsencode(name), tally, place))

    def _sort_file(self, level: Level, name: str, owned: bytes | None, found: os.stat_result) -> None:
        size_bytes = blocks = files = 0
        if found.st_mode & TYPE_MASK == REGULAR and (found.st_nlink == 1 or self._walk.is_first_link(found)):
            size_bytes, blocks, files = found.st_size, found.st_blocks, 1
            self._walk.total.add(1, size_bytes, blocks)
            self._walk.files += 1
        newest_ns = max(found.st_mtime_ns, found.st_ctime_ns)
        if owned is not None:
            self._found.owned[owned] = Measured(size_bytes, blocks * BLOCK_SIZE_BYTES, files, newest_ns)
        elif level.tally is not None:
            level.tally.add(files, size_bytes, blocks)
            level.tally.newest_ns = max(level.tally.newest_ns, newest_ns)
        elif not self._owned.is_above(path := f"{level.place}/{name}"):
            self._found.orphan_count += 1
            self._orphans.add(files, size_bytes, blocks)
            if len(self._found.orphans) < self._orphans_max:
                measured = Measured(size_bytes, blocks * BLOCK_SIZE_BYTES, files, newest_ns)
                self._found.orphans.append(Orphan(path.encode(_ENCODING, _ERRORS), seen_as(found), measured))

    def _on_left(self, tally: Tally) -> None:
        """Count an orphan that was walked to its end."""
        if not isinstance(tally, OrphanTally) or not tally.is_whole:
            return
        self._found.orphan_count += 1
        self._orphans.add(tally.files, tally.size_bytes, tally.blocks)
        if len(self._found.orphans) < self._orphans_max:
            path = tally.path.encode(_ENCODING, _ERRORS)
            self._found.orphans.append(Orphan(path, tally.seen, tally.measured))


def database_size(descent: Descent) -> Size:
    """What cache.db and its companions take: they are only looked at, see `Descent.open_file`.

    Raises:
        OSError: they cannot be looked at.
    """
    total = Tally()
    for name in DATABASE_FILES:
        found = look(descent.root, name)
        if found is not None and stat.S_ISREG(found.st_mode):
            total.add(1, found.st_size, found.st_blocks)
    return total.size
