"""The listening Unix socket, and who is at the other end of a connection.

Layer: adapters. Imports core, wire, descent and directory.
Invariant: made under the lock, under another name, and renamed: there is no moment at which the path leads to a
socket that does not listen, and a stale one is replaced in one step.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from motoolsd.adapters.descent import NO_ROOM
from motoolsd.adapters.directory import CacheDirectory
from motoolsd.adapters.processes import program_of
from motoolsd.core.errors import AlreadyRunning, NoRoom, StartFailed
from motoolsd.wire.names import SOCKET, SOCKET_PATH_SIZE_MAX

_CREDENTIALS = struct.Struct("3i")
MANAGER = "systemd"


class Credentials(NamedTuple):
    """The process at the other end, as the kernel saw it connect."""

    pid: int
    uid: int
    gid: int


def peer_credentials(connection: socket.socket) -> Credentials:
    """Who is at the other end (SO_PEERCRED).

    Raises:
        OSError: the connection is gone.
    """
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Credentials(*_CREDENTIALS.unpack(packed))


@contextmanager
def open_listener(directory: CacheDirectory, *, backlog: int) -> Iterator[socket.socket]:
    """Listen at `<cache_dir>/motoolsd.sock`, mode 0600.

    Resources: leaving the block removes the socket, if the path still leads to this one.

    Raises:
        AlreadyRunning: a service manager listens there, and starts the daemon of this directory.
        NoRoom: the disk is full, or has no inode for it.
        StartFailed: it cannot be made for another reason.
    """
    temporary = f"{SOCKET}.{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    identity: tuple[int, int] | None = None
    try:
        try:
            _refuse_managers(directory)
            _remove(directory, temporary)
            listener.bind(bindable_path(directory, temporary))
            os.chmod(temporary, 0o600, dir_fd=directory.descriptor)
            listener.listen(backlog)
            listener.setblocking(False)
            identity = _identity(directory, temporary)
            os.rename(temporary, SOCKET, src_dir_fd=directory.descriptor, dst_dir_fd=directory.descriptor)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise NoRoom(f"{os.path.join(directory.path, SOCKET)} cannot be made: {error.strerror}") from error
            message = f"cannot listen at {os.path.join(directory.path, SOCKET)}: {error.strerror}"
            raise StartFailed(message) from error
        yield listener
    finally:
        listener.close()
        _remove(directory, temporary)
        if identity is not None and _identity(directory, SOCKET) == identity:
            _remove(directory, SOCKET)


def _refuse_managers(directory: CacheDirectory) -> None:
    """Leave a socket unit's socket in its place: replaced, it would never start its daemon again.

    Nobody else can listen there while we hold the lock, but for what is not ours to care for.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(bindable_path(directory, SOCKET))
            listening = peer_credentials(probe)
        except OSError:
            return
    if listening.uid == os.geteuid() and program_of(listening.pid) == MANAGER:
        raise AlreadyRunning(directory.path, "a systemd socket unit listens for it; see `motools daemon status`")


def bindable_path(directory: CacheDirectory, name: str) -> str:
    """A path to `name` that fits into a socket address, through /proc/self/fd if the plain one is too long."""
    plain = os.path.join(directory.path, name)
    if len(os.fsencode(plain)) <= SOCKET_PATH_SIZE_MAX:
        return plain
    return f"/proc/self/fd/{directory.descriptor}/{name}"


def _identity(directory: CacheDirectory, name: str) -> tuple[int, int] | None:
    try:
        found = os.stat(name, dir_fd=directory.descriptor, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _remove(directory: CacheDirectory, name: str) -> None:
    # Gone already, or not ours to remove; either way nobody needs it.
    with suppress(OSError):
        os.unlink(name, dir_fd=directory.descriptor)
