"""Going down the tree by directory descriptors.

Layer: adapters. Imports status, core and wire.
Invariant: one component at a time, never through a link, never onto another mount or file system. Whatever others do to
the tree meanwhile, a descriptor made here leads to a directory that was below the root when it was opened.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from motoolsd.adapters.status import Status
from motoolsd.core.files import Seen, check_path
from motoolsd.core.ports import DiskFull, PathMissing, PathTaken, ReadOnly, TreeError
from motoolsd.wire.names import DATABASE

OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_POINT: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
DATABASE_FILES: Final = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm")
NEW_DIRECTORY_MODE: Final = 0o700
NOTHING_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""What a step into a directory gives if there is none, or something else: a link is ENOTDIR or ELOOP."""
_NEVER_THERE: Final = NOTHING_THERE | {errno.ENAMETOOLONG}
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_SYS_OPENAT2: Final = 437
"""openat2(2), Linux 5.6; it has this number on every architecture, and glibc has no function for it."""
_HOW_SIZE_BYTES: Final = 24
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS = 0x01, 0x02, 0x04
_NO_OPENAT2: Final = frozenset({errno.ENOSYS, errno.EPERM})
"""An older kernel; a container's filter that does not know the call."""


def _how(flags: int) -> bytes:
    """`struct open_how` of openat2(2): flags, mode, resolve."""
    return struct.pack("=QQQ", flags, 0, _RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS)


_HOW: Final = {flags: _how(flags) for flags in (OPEN_DIRECTORY, OPEN_DIRECTORY | os.O_PATH, _POINT)}
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long


class Descent:
    """The way into the tree below an open directory. Threads may share one."""

    def __init__(self, root: int) -> None:
        """Remember the file system that everything is to be on.

        Args:
            root: the cache directory's descriptor; it stays the caller's.
        """
        self.root = root
        self.device = os.fstat(root).st_dev
        self._has_openat2 = True
        self._mount: bytes | None = None
        """Ours, once it had to be asked for."""

    def enter(self, parent: int, name: bytes) -> int:
        """Open a directory that lies in an open one.

        Returns:
            Its descriptor, which is the caller's to close.

        Raises:
            OSError: EXDEV if something is mounted there or it lies on another file system, ENOTDIR or ELOOP if it is
                a link or no directory.
        """
        return self._on_device(self.enter_on_mount(parent, name))

    def point_at(self, parent: int, name: bytes) -> int:
        """As `enter`, of a directory that may not be read: a descriptor to stat, and a way to it below /proc."""
        return self._on_device(self.enter_on_mount(parent, name, OPEN_DIRECTORY | os.O_PATH))

    def _on_device(self, descriptor: int) -> int:
        # A subvolume is of the same mount, and yet another file system.
        if os.fstat(descriptor).st_dev != self.device:
            raise _foreign(descriptor)
        return descriptor

    def _on_mount(self, descriptor: int) -> int:
        try:
            if self._mount is None:
                self._mount = _mount_of(self.root)
            mount = _mount_of(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        if mount != self._mount:
            raise _foreign(descriptor)
        return descriptor

    def enter_on_mount(self, parent: int, name: bytes, flags: int = OPEN_DIRECTORY) -> int:
        """As `enter`, of a directory that stat(2) has just shown to be on our file system.

        Of a directory that is bound to a second place, stat tells nothing: openat2 knows a mount point for sure, and
        where there is none, the kernel's description of the open descriptor.
        """
        if self._has_openat2:
            descriptor: int = _syscall(_SYS_OPENAT2, parent, name, _HOW[flags], _HOW_SIZE_BYTES)
            if descriptor >= 0:
                return descriptor
            if (number := ctypes.get_errno()) not in _NO_OPENAT2:
                raise OSError(number, os.strerror(number))
            self._has_openat2 = number != errno.ENOSYS
        return self._on_mount(os.open(name, flags, dir_fd=parent))

    @contextmanager
    def opened(self, names: Sequence[bytes], *, make: bool = False) -> Iterator[int]:
        """Hold the directory open that a path of these components leads to.

        Args:
            names: plain components, at least one.
            make: whether to make what is missing, mode 0700; each is on disk before the next.

        Raises:
            OSError: as `enter`; with `make`, EEXIST where a component is a link or no directory.
        """
        assert names
        descriptor = self.root
        try:
            for name in names:
                below = self._make(descriptor, name) if make else self.enter(descriptor, name)
                if descriptor != self.root:
                    os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            if descriptor != self.root:
                os.close(descriptor)

    def _make(self, parent: int, name: bytes) -> int:
        try:
            return self.enter(parent, name)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise _in_the_way(error) from error
        try:
            os.mkdir(name, NEW_DIRECTORY_MODE, dir_fd=parent)
        except FileExistsError:
            # Somebody was faster; whether it is a directory shows below.
            pass
        os.fsync(parent)
        try:
            return self.enter(parent, name)
        except OSError as error:
            raise _in_the_way(error) from error

    def open_file(self, parent: int, name: bytes) -> int:
        """Open a regular file for reading: never one of the database, whatever it is called.

        Closing any descriptor of an inode drops the locks that this process holds on it (POSIX), and SQLite's are
        such; hence the look at the inode first, on a descriptor that does not open it (O_PATH has no locks to drop).

        Raises:
            OSError: it cannot be opened; EXDEV if something is mounted on it, EINVAL if it is no regular file, EPERM if
                it is one of the database's.
        """
        handle = self._on_device(self.enter_on_mount(parent, name, _POINT))
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            if (found.st_dev, found.st_ino) in self._database_inodes():
                raise OSError(errno.EPERM, "it is the database")
            return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(handle)

    def _database_inodes(self) -> set[tuple[int, int]]:
        found = (look(self.root, name) for name in DATABASE_FILES)
        return {(seen.st_dev, seen.st_ino) for seen in found if seen is not None}


def _foreign(descriptor: int) -> OSError:
    """Close what is not on our file system."""
    os.close(descriptor)
    return OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def _mount_of(descriptor: int) -> bytes:
    """The number of the mount that an open descriptor is on, as proc(5) shows it (Linux 3.15)."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as lines:
        return next(line for line in lines if line.startswith(b"mnt_id:"))


def _in_the_way(error: OSError) -> OSError:
    """What mkdir would have said of it, so that nobody takes it for something that is missing."""
    return OSError(errno.EEXIST, os.strerror(errno.EEXIST)) if error.errno in NOTHING_THERE else error


def split(path: bytes) -> tuple[tuple[bytes, ...], bytes]:
    """The directories above a path, and its last component.

    Raises:
        PathRefused: it is not one that an entry may own; whoever hands it down has checked that already.
    """
    check_path(path)
    *parents, name = path.split(b"/")
    return tuple(parents), name


def look(parent: int, name: str | bytes) -> os.stat_result | None:
    """What a name in an open directory stands for, a link itself; None if for nothing.

    Raises:
        OSError: that cannot be told.
    """
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NEVER_THERE:
            return None
        raise


def seen_as(found: os.stat_result | Status) -> Seen:
    """What of it tells one file from another."""
    return Seen(found.st_dev, found.st_ino, stat.S_ISDIR(found.st_mode), found.st_size, found.st_mtime_ns)


class LinkInTheWay(TreeError):
    """There is a link, or something else that is no directory, where the way to a path led through a directory."""

    def __init__(self, path: bytes) -> None:
        """Name the path."""
        super().__init__(path, "on the way to it there is a link, or something else that is no directory")


def change_mode(handle: int, mode: int) -> None:
    """Change the permissions of just what a descriptor points at, which fchmod(2) refuses to (O_PATH)."""
    os.chmod(f"/proc/self/fd/{handle}", mode)


@contextmanager
def describing(path: bytes, *, strictly: bool = False) -> Iterator[None]:
    """Let the system's refusals out as the port's errors, named after a path.

    Args:
        path: which.
        strictly: whether a link on the way is an error of its own. Else it counts as if there were nothing; but what it
            hides may come back.
    """
    try:
        yield
    except OSError as error:
        if strictly and error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise LinkInTheWay(path) from error
        raise described(path, error) from error


def described(path: bytes, error: OSError) -> TreeError:
    """The port's error for one of the system's."""
    if error.errno in NOTHING_THERE:
        return PathMissing(path, "there is nothing at this path")
    if error.errno == errno.ENAMETOOLONG:
        return PathMissing(path, "there is nothing at this path: a name in it is too long for the file system")
    if error.errno in NO_ROOM:
        return DiskFull(path, "no room is left on the disk")
    if error.errno == errno.EROFS:
        return ReadOnly(path, "the file system is read-only")
    if error.errno == errno.EEXIST:
        return PathTaken(path, "there is something at this path already")
    if error.errno == errno.EXDEV:
        return TreeError(path, "it lies on another file system")
    if error.errno == errno.EBUSY:
        return TreeError(path, "something is mounted there, or it is in use")
    return TreeError(path, error.strerror or str(error))
