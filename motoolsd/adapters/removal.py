"""Freeing the room of a directory with everything in it.

Layer: adapters. Imports descent, renaming and core.
Invariant: a walk by descriptors, so many at a time and no more; it follows nothing, crosses no mount, and removes links
themselves. What lies too deep is moved up into the directory that goes, and removed from there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from motoolsd.adapters.descent import NOTHING_THERE, Descent, change_mode, described, look
from motoolsd.adapters.renaming import rename
from motoolsd.core.ports import TreeError

LEVELS_MAX: Final = 32
"""Directories held open at a time, with two descriptors each."""
PASSES_MAX: Final = 100_000
"""How often a directory is read anew because something is left in it: where others fill it as fast, this is the end."""
STEP_FILES: Final = 256
_DIRECTORY_WEIGHT: Final = 4
"""A step is taken after so many files, or a fourth as many directories."""
_NOT_EMPTY: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})


class _Level:
    """An open directory, emptied entry by entry."""

    __slots__ = ("descriptor", "entries", "is_kept", "name", "passes")

    def __init__(self, name: bytes, descriptor: int) -> None:
        self.name = name
        self.descriptor = descriptor
        self.passes = 0
        self.is_kept = False
        """Whether something in it cannot be removed, so that it stays, too."""
        try:
            self.entries = os.scandir(descriptor)
        except OSError:
            os.close(descriptor)
            raise

    def rewind(self) -> None:
        self.entries.close()
        self.passes += 1
        self.entries = os.scandir(self.descriptor)

    def is_at(self, found: os.stat_result | None) -> bool:
        """Whether it is this directory that was found."""
        return found is not None and os.path.samestat(found, os.fstat(self.descriptor))

    def close(self) -> None:
        self.entries.close()
        os.close(self.descriptor)


class TreeRemoval:
    """The removal of one directory. Used once."""

    def __init__(
        self,
        descent: Descent,
        parent: int,
        *,
        above: bytes,
        step: Callable[[int], None],
        is_stopped: Callable[[], bool],
    ) -> None:
        """Remove nothing yet.

        Args:
            descent: the way from one directory to the next.
            parent: the directory that what goes lies in; its descriptor stays the caller's.
            above: that directory's path, for messages.
            step: called with the number of removed entries, every few hundred of them.
            is_stopped: asked as often.
        """
        self._descent = descent
        self._parent = parent
        self._above = above
        self._step = step
        self._asked = is_stopped
        self._levels: list[_Level] = []
        self._removed = 0
        self._since_step = 0
        self._stopped = False
        self._moved_up = False
        self._moves = 0
        self.refused: TreeError | None = None
        """Why something stays; the first of these."""

    def remove(self, name: bytes) -> bool:
        """Remove a directory of the parent; harmless if it is gone.

        Returns:
            Whether it came to its end, though it may have left something; False if it was stopped.
        """
        self._stopped = self._asked()
        try:
            for _ in range(PASSES_MAX):
                self._meet_directory(name)
                while self._levels and not self._stopped:
                    self._empty(self._levels[-1])
                # Others may have put something else in its place, that is met now.
                if self._stopped or self.refused is not None or look(self._parent, name) is None:
                    break
                self._go_by(_DIRECTORY_WEIGHT)
        finally:
            for level in self._levels:
                level.close()
        return not self._stopped

    def _empty(self, level: _Level) -> None:
        """Remove entries up to the next directory, which is entered, or to the end, where this one is left."""
        try:
            for entry in level.entries:
                name = os.fsencode(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    self._meet_directory(name)
                    return
                self._unlink(level, name)
                if self._stopped:
                    return
        except OSError as error:
            self._keep(b"", error)
        self._leave(level)

    def _meet_directory(self, name: bytes) -> None:
        parent = self._levels[-1].descriptor if self._levels else self._parent
        try:
            descriptor = self._enter(parent, name)
        except OSError as error:
            if error.errno not in NOTHING_THERE:
                self._remove_unread(parent, name, error)
            elif not self._levels and error.errno != errno.ENOENT:
                self._unlink(None, name)
            # Else it is gone, or was replaced: then its directory is not empty at the end, and read anew.
            return
        if len(self._levels) < LEVELS_MAX:
            self._levels.append(_Level(name, descriptor))
            return
        self._moves += 1
        try:
            rename(parent, name, self._levels[0].descriptor, b"deep-%d" % self._moves)
            self._moved_up = True
        except FileExistsError:
            # It is met again when its directory is read anew, and gets another name.
            pass
        except OSError as error:
            if error.errno not in NOTHING_THERE:
                self._keep(name, error)
        finally:
            os.close(descriptor)

    def _enter(self, parent: int, name: bytes) -> int:
        """Open a directory, giving us the permissions that emptying and moving it take."""
        try:
            descriptor = self._descent.enter(parent, name)
        except PermissionError:
            self._unlock(parent, name)
            descriptor = self._descent.enter(parent, name)
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            # Not ours: whether we may empty it all the same shows when we try.
            with suppress(OSError):
                os.fchmod(descriptor, mode | stat.S_IRWXU)
        return descriptor

    def _unlock(self, parent: int, name: bytes) -> None:
        handle = self._descent.point_at(parent, name)
        try:
            change_mode(handle, stat.S_IMODE(os.fstat(handle).st_mode) | stat.S_IRWXU)
        finally:
            os.close(handle)

    def _remove_unread(self, parent: int, name: bytes, error: OSError) -> None:
        """A directory that cannot be entered goes only if it is empty; nothing mounted goes by that."""
        try:
            os.rmdir(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except OSError:
            self._keep(name, error)
            return
        self._count(_DIRECTORY_WEIGHT)

    def _unlink(self, level: _Level | None, name: bytes) -> None:
        try:
            os.unlink(name, dir_fd=self._parent if level is None else level.descriptor)
        except (FileNotFoundError, IsADirectoryError):
            # Gone, or replaced by a directory: that is met when this one is read anew.
            return
        except OSError as error:
            self._keep(name, error)
            return
        self._count(1)

    def _leave(self, level: _Level) -> None:
        """Remove what was emptied; read it anew if it is not empty, or got what lay too deep."""
        is_first = level is self._levels[0]
        if is_first and self._moved_up and level.passes < PASSES_MAX:
            self._moved_up = False
            level.rewind()
            return
        parent = self._parent if is_first else self._levels[-2].descriptor
        if not level.is_kept and not self._remove_emptied(parent, level):
            level.rewind()
            self._go_by(_DIRECTORY_WEIGHT)
            return
        self._levels.pop().close()
        if level.is_kept and self._levels:
            self._levels[-1].is_kept = True

    def _remove_emptied(self, parent: int, level: _Level) -> bool:
        """Whether there is nothing more to do in a directory; False if something has come into it."""
        try:
            os.rmdir(level.name, dir_fd=parent)
        except OSError as error:
            if error.errno in _NOT_EMPTY and level.passes < PASSES_MAX:
                # Or else another has come into its place, that is met when the one above is read anew.
                return not level.is_at(look(parent, level.name))
            if error.errno not in NOTHING_THERE:
                self._keep(b"", error)
        else:
            self._count(_DIRECTORY_WEIGHT)
        return True

    def _keep(self, name: bytes, error: OSError) -> None:
        """Remember that something stays, and go on with the rest."""
        names = [level.name for level in self._levels]
        if self._levels:
            self._levels[-1].is_kept = True
        if self.refused is None:
            path = b"/".join([self._above, *names, *([name] if name else [])])
            reason = described(path, error).reason
            self.refused = TreeError(path, f"it cannot be removed: {reason}; what could be is gone")

    def _count(self, weight: int) -> None:
        self._removed += 1
        self._go_by(weight)

    def _go_by(self, weight: int) -> None:
        self._since_step += weight
        if self._since_step >= STEP_FILES:
            self._since_step = 0
            self._step(self._removed)
            self._stopped = self._asked()
