"""Letting staged content appear under its path, whole and on disk, or not at all.

Layer: adapters. Imports descent, removal, renaming and core.
Invariant: content is on disk before it has its name, and the name before it counts. The staged name is given up last:
what a kill leaves behind is known by it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from contextlib import suppress
from typing import Final

from motoolsd.adapters.descent import Descent, describing, look, split
from motoolsd.adapters.removal import TreeRemoval
from motoolsd.adapters.renaming import rename
from motoolsd.core.ports import PathMissing, TreeError
from motoolsd.wire.names import DATASETS, STAGING

STAGING_NAME: Final = STAGING.encode()
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV})
"""A file system without hard links, a file that has its share of them, or is not ours to link."""


class Publication:
    """From staging to paths, for one cache directory. Threads may share one."""

    def __init__(self, descent: Descent) -> None:
        """Nothing is made before it is needed."""
        self._descent = descent
        # Between comparing what a path has and removing it, no other publication may come into its place.
        self._lock = threading.Lock()

    def publish(self, staged: bytes, path: bytes) -> bool:
        """Give staged content its path. See core.ports.FileTree.publish."""
        parents, name = split(path)
        shown = _shown(staged)
        with describing(shown), self._descent.opened((STAGING_NAME,)) as staging:
            self._bring_to_disk(staging, staged)
            with describing(path), self._descent.opened(parents, make=True) as target:
                with self._lock:
                    is_new = _appear(staging, staged, target, name)
                os.fsync(target)
        return is_new

    def _bring_to_disk(self, staging: int, staged: bytes) -> None:
        found = look(staging, staged)
        if found is None or not stat.S_ISREG(found.st_mode):
            raise PathMissing(_shown(staged), "no file is staged under this name")
        descriptor = self._descent.open_file(staging, staged)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def withdraw(self, staged: bytes, path: bytes) -> None:
        """Undo `publish`. See core.ports.FileTree.withdraw."""
        parents, name = split(path)
        _shown(staged)
        try:
            with (
                describing(path),
                self._descent.opened((STAGING_NAME,)) as staging,
                self._descent.opened(parents) as target,
                self._lock,
            ):
                if _is_same_file(look(staging, staged), look(target, name)):
                    os.unlink(name, dir_fd=target)
                    os.fsync(target)
        except PathMissing:
            # Nothing was published, or it is gone already.
            pass
        self.unstage(staged)

    def unstage(self, staged: bytes) -> None:
        """Remove a staged name, whatever it stands for; harmless if it is gone."""
        shown = _shown(staged)
        try:
            with describing(shown), self._descent.opened((STAGING_NAME,)) as staging:
                try:
                    os.unlink(staged, dir_fd=staging)
                except IsADirectoryError:
                    self._remove_directory(staging, staged)
        except PathMissing:
            pass

    def _remove_directory(self, staging: int, staged: bytes) -> None:
        removal = TreeRemoval(
            self._descent, staging, above=STAGING_NAME, step=lambda _removed: None, is_stopped=lambda: False
        )
        removal.remove(staged)
        if removal.refused is not None:
            raise removal.refused

    def abandoned(self) -> list[tuple[bytes, bytes | None]]:
        """What nobody holds locked. See core.ports.FileTree.abandoned."""
        found: list[tuple[bytes, bytes | None]] = []
        try:
            with describing(STAGING_NAME), self._descent.opened((STAGING_NAME,)) as staging:
                for name in map(os.fsencode, os.listdir(staging)):
                    status = look(staging, name)
                    if status is not None and not self._is_locked(staging, name, status):
                        found.append((name, self._published(status)))
        except PathMissing:
            pass
        return found

    def _is_locked(self, staging: int, name: bytes, status: os.stat_result) -> bool:
        """Whether the process that staged a file still lives; what is no file, nobody has staged."""
        if not stat.S_ISREG(status.st_mode):
            return False
        try:
            descriptor = self._descent.open_file(staging, name)
        except OSError:
            # It is gone by now; or it cannot be told, and stays.
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _published(self, status: os.stat_result) -> bytes | None:
        """The path among the datasets that is another name of a staged file."""
        if not stat.S_ISREG(status.st_mode) or status.st_nlink == 1:
            return None
        datasets = DATASETS.encode()
        try:
            with self._descent.opened((datasets,)) as parent, os.scandir(parent) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    if entry.inode() == status.st_ino and _is_same_file(status, look(parent, name)):
                        return datasets + b"/" + name
        except PathMissing:
            pass
        return None


def _shown(staged: bytes) -> bytes:
    """The path of a staged name.

    Raises:
        TreeError: it is no plain name.
    """
    path = STAGING_NAME + b"/" + staged
    if staged in (b"", b".", b"..") or b"/" in staged or b"\0" in staged:
        raise TreeError(path, "that is no name in staging")
    return path


def _is_same_file(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    if one is None or other is None or not stat.S_ISREG(one.st_mode):
        return False
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _appear(staging: int, staged: bytes, target: int, name: bytes) -> bool:
    """Give the staged file its second name; whether that was free."""
    try:
        os.link(staged, name, src_dir_fd=staging, dst_dir_fd=target, follow_symlinks=False)
        return True
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _move(staging, staged, target, name)
    ours = os.stat(staged, dir_fd=staging, follow_symlinks=False)
    # Of two names of one file, rename would leave both: then there is nothing to do.
    if not _is_same_file(ours, look(target, name)):
        _replace(staging, staged, target, name, inode=ours.st_ino)
    return False


def _replace(staging: int, staged: bytes, target: int, name: bytes, *, inode: int) -> None:
    """Rename another name of the staged file over what is there: whoever looks sees the old or the new, whole."""
    second = b".second-%d" % inode
    with suppress(FileNotFoundError):
        # A kill has left it.
        os.unlink(second, dir_fd=staging)
    try:
        os.link(staged, second, src_dir_fd=staging, dst_dir_fd=staging, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        second = staged
    try:
        os.rename(second, name, src_dir_fd=staging, dst_dir_fd=target)
    except OSError:
        if second != staged:
            os.unlink(second, dir_fd=staging)
        raise


def _move(staging: int, staged: bytes, target: int, name: bytes) -> bool:
    """Where there are no hard links: its only name moves."""
    try:
        rename(staging, staged, target, name)
        return True
    except FileExistsError:
        os.rename(staged, name, src_dir_fd=staging, dst_dir_fd=target)
        return False
