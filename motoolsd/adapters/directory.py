"""The cache directory: opened once, checked, held by a descriptor.

Layer: adapters. Imports core and wire.
Invariant: whatever path leads to it later, the descriptor is the directory that was checked.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from motoolsd.core.errors import DirectoryMissing, PeerRefused, RequestError, StartFailed
from motoolsd.core.filesystems import check_filesystem
from motoolsd.wire.names import CONFIG, DATABASE, FILE_CATEGORIES, LOCK, LOG, STAMPS

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
STATFS_SIZE_BYTES = 256
"""More than struct statfs takes on any Linux; its first word is f_type."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
CONFIG_SIZE_MAX_BYTES = 1024 * 1024
ROOT_UID = 0
"""Root needs no planted file: what it left in a cache, as in a container, is no intruder's."""
_FILES = (
    LOCK,
    LOG,
    STAMPS,
    f"{STAMPS}.new",
    CONFIG,
    *(f"{DATABASE}{suffix}" for suffix in ("", "-wal", "-shm", "-journal")),
)
"""What is opened and believed. The socket is made anew; ballast and directories are used only if they are no links."""


class CacheDirectory:
    """An open cache directory of ours. Made by `open_directory`."""

    def __init__(self, path: str, descriptor: int) -> None:
        """Remember which directory the path led to."""
        self.path = path
        self.descriptor = descriptor
        found = os.fstat(descriptor)
        self._identity = (found.st_dev, found.st_ino)
        self.notes: list[str] = []
        """What was mended, to be logged once there is a log."""

    @property
    def database(self) -> str:
        """Absolute path of cache.db."""
        return os.path.join(self.path, DATABASE)

    def is_intact(self) -> bool:
        """Whether the path still leads to the directory that is held open."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def names_in(self, category: str) -> list[bytes]:
        """The paths of what lies right below a category, relative to the directory."""
        try:
            descriptor = os.open(category, _DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=self.descriptor)
        except OSError:
            return []
        try:
            return [os.fsencode(f"{category}/{name}") for name in os.listdir(descriptor)]
        finally:
            os.close(descriptor)

    def read_config(self) -> str | None:
        """The text of config.toml, or None if there is none.

        Raises:
            StartFailed: it cannot be read.
        """
        path = os.path.join(self.path, CONFIG)
        try:
            descriptor = os.open(
                CONFIG, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=self.descriptor
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror}"
            raise StartFailed(message) from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                message = f"{path} is no regular file"
                raise StartFailed(message)
            return _read_text(path, descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def open_directory(path: str) -> Iterator[CacheDirectory]:
    """Open a cache directory, make it if it is missing, and make sure that it is ours alone.

    Args:
        path: absolute path. A new directory has mode 0700; write permission of group and world is taken away from
            an existing one, and said in the log.

    Raises:
        PeerRefused: it belongs to another user.
        UnsupportedFilesystem: it lies on a network or FUSE file system.
        DirectoryMissing: it cannot be made or entered.
        StartFailed: it lies on a read-only file system, or one of its files is a link, or somebody else's.
    """
    with _describing(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        descriptor = os.open(path, _DIRECTORY_FLAGS)
    try:
        directory = CacheDirectory(path, descriptor)
        with _describing(path):
            _check_owner(path, descriptor)
            check_filesystem(filesystem_type(descriptor), path)
            _check_writable(path, descriptor)
            _take_away_write_permission(directory)
            _check_files(directory)
            _make_parts(directory)
        yield directory
    finally:
        os.close(descriptor)


def filesystem_type(descriptor: int) -> int:
    """The type number of the file system that a descriptor lies on, as statfs(2) gives it.

    Raises:
        OSError: fstatfs failed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(STATFS_SIZE_BYTES)
    if libc.fstatfs(descriptor, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return ctypes.c_long.from_buffer(buffer).value


@contextmanager
def _describing(path: str) -> Iterator[None]:
    try:
        yield
    except RequestError:
        raise
    except OSError as error:
        message = f"{path} cannot be used as a cache directory: {error.strerror}. Choose another with --cache-dir"
        raise DirectoryMissing(message) from error


def _check_owner(path: str, descriptor: int) -> None:
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid():
        message = (
            f"{path} belongs to uid {found.st_uid}, this process runs as uid {os.geteuid()}. A cache directory belongs "
            "to one user and cannot be shared by a group: use one of your own with --cache-dir or MOTOOLS_CACHE_DIR"
        )
        raise PeerRefused(message, owner=found.st_uid)


def _check_writable(path: str, descriptor: int) -> None:
    if os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
        message = (
            f"{path} lies on a read-only file system, where neither the daemon's socket nor its lock can be made. "
            f"Mount it writable, or copy it (`cp -a {path} ELSEWHERE`) and name the copy with --cache-dir or "
            "MOTOOLS_CACHE_DIR"
        )
        raise StartFailed(message)


def _take_away_write_permission(directory: CacheDirectory) -> None:
    mode = stat.S_IMODE(os.fstat(directory.descriptor).st_mode)
    if mode & 0o022:
        os.fchmod(directory.descriptor, mode & ~0o022)
        directory.notes.append(f"{directory.path} was writable by others (mode {mode:o}): that was taken away")


def _check_files(directory: CacheDirectory) -> None:
    """Before one is opened: while others could write to the directory, they may have put something there."""
    for name in _FILES:
        path = os.path.join(directory.path, name)
        try:
            found = os.stat(name, dir_fd=directory.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(found.st_mode):
            message = (
                f"{path} is a link: nothing of a cache is reached through one. Remove it, or put the file itself there"
            )
            raise StartFailed(message)
        if found.st_uid not in (os.geteuid(), ROOT_UID):
            remedy = f"Remove it, or if you know what it is, make it yours (`sudo chown {os.geteuid()} {path}`)"
            raise PeerRefused(f"{path} belongs to uid {found.st_uid}. {remedy}", owner=found.st_uid)


def _read_text(path: str, descriptor: int) -> str:
    try:
        content = os.read(descriptor, CONFIG_SIZE_MAX_BYTES + 1)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise StartFailed(message) from error
    if len(content) > CONFIG_SIZE_MAX_BYTES:
        message = f"{path} is larger than {CONFIG_SIZE_MAX_BYTES} bytes: that is no configuration"
        raise StartFailed(message)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        message = f"{path} is no UTF-8 text: {error}"
        raise StartFailed(message) from error


def _make_parts(directory: CacheDirectory) -> None:
    for name in FILE_CATEGORIES:
        try:
            os.mkdir(name, 0o700, dir_fd=directory.descriptor)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            # Nothing lies in it, then; what is to lie there one day makes it.
            directory.notes.append(f"{directory.path}/{name} cannot be made: {error.strerror}")
