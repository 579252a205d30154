"""Into the trash and back, by renaming.

Layer: adapters. Imports descent, renaming and core.
Invariant: what is moved is what the plan saw, or it is put back; nothing is ever replaced.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from motoolsd.adapters.descent import Descent, LinkInTheWay, change_mode, describing, look, seen_as, split
from motoolsd.adapters.renaming import rename
from motoolsd.core.files import Seen
from motoolsd.core.ports import PathChanged, PathMissing, TreeError
from motoolsd.wire.names import TRASH

TRASH_NAME = TRASH.encode()
NUMBER_DIGITS_MAX = 18
SPARE_NAMES_MAX = 10
SPARE_NAME_SIZE_BYTES = 200
"""So much of a name is kept in a spare one: with the rest it stays below the limit of 255."""


class Trash:
    """`trash/<removal>/<number>` of one cache directory."""

    def __init__(self, descent: Descent) -> None:
        """Nothing is made before it is needed."""
        self._descent = descent

    def move(self, path: bytes, removal: int, number: int, seen: Seen) -> None:
        """Rename a path into the trash. See core.ports.FileTree.move_to_trash."""
        try:
            self._move(path, removal, number, seen)
        except LinkInTheWay as error:
            if self.holds(removal, number):
                raise PathMissing(path, "it is in the trash already") from error
            raise

    def _move(self, path: bytes, removal: int, number: int, seen: Seen) -> None:
        parents, name = split(path)
        with describing(path, strictly=True), self._descent.opened(parents) as source:
            self._check(path, look(source, name), seen)
            try:
                with self._descent.opened(_place_of(removal), make=True) as target:
                    try:
                        self._rename(source, name, target, _name_of(number))
                    except FileExistsError as error:
                        reason = f"its place trash/{removal}/{number} is taken: remove what is there"
                        raise TreeError(path, reason) from error
                    _check_arrived(_Move(path, source, name, target, removal, number), seen)
            except FileExistsError as error:
                reason = f"the trash, or trash/{removal}, is a link or no directory: remove it"
                raise TreeError(path, reason) from error

    def _check(self, path: bytes, found: os.stat_result | None, seen: Seen) -> None:
        if found is None:
            raise PathMissing(path, "there is nothing at this path")
        if seen_as(found) != seen:
            raise PathChanged(path, "it is not what was seen there")
        if seen.is_directory and found.st_dev != self._descent.device:
            raise TreeError(path, "it lies on another file system")

    def holds(self, removal: int, number: int) -> bool:
        """Whether something lies at a number."""
        try:
            with describing(_path_of(removal)), self._descent.opened(_place_of(removal)) as directory:
                return look(directory, _name_of(number)) is not None
        except PathMissing:
            return False

    def move_back(self, removal: int, number: int, path: bytes) -> None:
        """Rename from the trash to a path. See core.ports.FileTree.move_back."""
        parents, name = split(path)
        with describing(path, strictly=True), self._descent.opened(_place_of(removal)) as source:
            if look(source, _name_of(number)) is None:
                raise PathMissing(path, f"there is nothing at trash/{removal}/{number}")
            with self._descent.opened(parents, make=True) as target:
                self._rename(source, _name_of(number), target, name)

    def _rename(self, source: int, name: bytes, target: int, new_name: bytes) -> None:
        try:
            rename(source, name, target, new_name)
        except PermissionError:
            found = look(source, name)
            if found is None or not stat.S_ISDIR(found.st_mode):
                raise
            # A directory gets another parent only if it may be written itself: read-only ones are, for as long.
            with self._writable(source, name):
                rename(source, name, target, new_name)

    @contextmanager
    def _writable(self, parent: int, name: bytes) -> Iterator[None]:
        handle = self._descent.point_at(parent, name)
        try:
            mode = stat.S_IMODE(os.fstat(handle).st_mode)
            change_mode(handle, mode | stat.S_IWUSR)
            try:
                yield
            finally:
                change_mode(handle, mode)
        finally:
            os.close(handle)

    def sync(self, removal: int, paths: Sequence[bytes]) -> None:
        """Bring renames to the disk. See core.ports.FileTree.sync_trash."""
        for parents in sorted({split(path)[0] for path in paths}):
            self._sync_directory(parents)
        self._sync_directory(_place_of(removal))
        self._sync_directory((TRASH_NAME,))

    def _sync_directory(self, names: tuple[bytes, ...]) -> None:
        try:
            with describing(b"/".join(names)), self._descent.opened(names) as directory:
                os.fsync(directory)
        except PathMissing:
            # It went into the trash itself, or nothing was moved: there is nothing to bring to the disk.
            pass

    def discard(self, removal: int) -> bool:
        """Remove the directory of a removal, if it is empty. See core.ports.FileTree.discard."""
        try:
            with describing(_path_of(removal)), self._descent.opened((TRASH_NAME,)) as trash:
                os.rmdir(b"%d" % removal, dir_fd=trash)
        except PathMissing:
            return True
        except TreeError:
            return False
        return True

    def removals(self) -> list[int]:
        """The removals that have a directory here."""
        try:
            with describing(TRASH_NAME), self._descent.opened((TRASH_NAME,)) as trash, os.scandir(trash) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except PathMissing:
            return []
        # What is no number as we write it is not ours: 07, digits of another script, more than a row's number can be.
        numbers = (name for name in names if name.isdecimal() and len(name) <= NUMBER_DIGITS_MAX)
        return sorted(int(name) for name in numbers if str(int(name)) == name)


class _Move:
    """A rename into the trash that may have to be undone."""

    def __init__(self, path: bytes, source: int, name: bytes, target: int, removal: int, number: int) -> None:
        self.path = path
        self.source = source
        self.name = name
        self.target = target
        self.removal = removal
        self.number = number

    def undo(self) -> bytes:
        """Put back what arrived, under its name or, if that is taken by now, next to it; the name it has now."""
        spare = b"%s.put-back-%d-%d" % (self.name[:SPARE_NAME_SIZE_BYTES], self.removal, self.number)
        spares = [b"%s-%d" % (spare, count) for count in range(SPARE_NAMES_MAX)]
        for name in (self.name, *spares):
            try:
                rename(self.target, _name_of(self.number), self.source, name)
            except FileExistsError:
                continue
            return name
        raise TreeError(self.path, f"trash/{self.removal}/{self.number} is not what was seen, and cannot be put back")


def _check_arrived(move: _Move, seen: Seen) -> None:
    """Compare once more: between looking and renaming, others may have changed what the name stands for."""
    arrived = look(move.target, _name_of(move.number))
    if arrived is None:
        raise PathChanged(move.path, "it vanished while it was moved")
    if seen_as(arrived) != seen:
        name = move.undo()
        where = "" if name == move.name else f", now as {name.decode('utf-8', 'backslashreplace')}"
        raise PathChanged(move.path, f"something else came into its place, and was put back{where}")


def _place_of(removal: int) -> tuple[bytes, bytes]:
    return TRASH_NAME, b"%d" % removal


def _path_of(removal: int) -> bytes:
    return b"/".join(_place_of(removal))


def _name_of(number: int) -> bytes:
    return b"%d" % number
