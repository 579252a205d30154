"""Where a daemon listens, and a socket to it.

Layer: motools.cache. Imports errors and motoolsd.wire.
Invariant: the process at the other end has our uid before a byte is sent to it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct

from motools.cache.errors import CacheDirectoryMissing, CacheUnavailable, DaemonBusy, DaemonNotRunning, PeerRefused
from motoolsd.wire.names import DATABASE, SOCKET, SOCKET_PATH_SIZE_MAX

_CREDENTIALS = struct.Struct("3i")
_TIMEVAL = struct.Struct("ll")
_EXHAUSTION = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_ILL = frozenset({errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.EUCLEAN, errno.ETIMEDOUT})
"""What a disk, or whoever serves it, answers with when it fails."""


def set_timeout(connection: socket.socket, timeout_s: float) -> None:
    """Bound every blocking system call on a socket, in the kernel: Python's own timeout would poll before each call."""
    seconds = max(timeout_s, 0.001)
    value = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1_000_000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def open_socket(directory: str, *, timeout_s: float) -> socket.socket:
    """A blocking socket, connected to the directory's daemon.

    Args:
        directory: absolute path of the cache directory.
        timeout_s: for this and every later call on the socket.

    Raises:
        DaemonNotRunning: nothing listens there.
        DaemonBusy: it does not accept in time.
        PeerRefused: directory or process belong to another user, or the socket's path is a link.
        CacheDirectoryMissing: there is no such directory.
    """
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise exhausted(error) from error
    try:
        set_timeout(connection, timeout_s)
        _connect(connection, directory)
        _check_peer(connection, directory)
    except BaseException:
        connection.close()
        raise
    return connection


def check_directory(directory: str) -> None:
    """Make sure that a directory is there, ours, and holds a cache; nothing is made.

    Raises:
        CacheDirectoryMissing: there is none, or it holds no cache.db.
        PeerRefused: it belongs to another user.
    """
    check_owner(directory)
    if not os.path.lexists(os.path.join(directory, DATABASE)):
        text = f"no cache in {directory}: it holds no {DATABASE}. Name another with --cache-dir or MOTOOLS_CACHE_DIR"
        raise CacheDirectoryMissing(text)


def check_owner(directory: str) -> None:
    """Make sure that a directory is there, is one, and is ours.

    Raises:
        CacheDirectoryMissing: there is none, or it may not be entered.
        PeerRefused: it belongs to another user.
    """
    try:
        owner = os.stat(directory).st_uid
        # With the dot: what is no directory, or may not be entered, says so.
        os.stat(os.path.join(directory, "."))
    except OSError as error:
        raise _unusable(error, directory) from error
    if owner != os.geteuid():
        raise foreign(directory, owner)


def foreign(directory: str, owner: int) -> PeerRefused:
    """The refusal of somebody else's cache."""
    text = (
        f"{directory} belongs to uid {owner}, this process runs as uid {os.geteuid()}. A cache belongs to one user and "
        "cannot be shared by a group: use a directory of your own"
    )
    return PeerRefused(text)


def exhausted(error: OSError) -> CacheUnavailable:
    """The error where this process, or the machine, has no room for another descriptor."""
    refused = CacheUnavailable(f"the daemon cannot be reached: {error.strerror}. Close files, or raise `ulimit -n`")
    refused.is_final = True
    return refused


def _connect(connection: socket.socket, directory: str) -> None:
    path = os.path.join(directory, SOCKET)
    if os.path.islink(path):
        # It may lead to the daemon of another cache of ours, and no check of its uid would tell.
        raise PeerRefused(f"{path} is a link: a daemon listens at none. Remove it")
    try:
        if len(os.fsencode(path)) <= SOCKET_PATH_SIZE_MAX:
            connection.connect(path)
            return
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{descriptor}/{SOCKET}")
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise _nobody_there(error, directory) from error
    except BlockingIOError as error:
        text = f"the daemon of {directory} does not accept connections: see `motools daemon status`"
        raise DaemonBusy(text) from error
    except OSError as error:
        if error.errno in _EXHAUSTION:
            raise exhausted(error) from error
        raise _unusable(error, directory) from error


def _nobody_there(error: OSError, directory: str) -> CacheUnavailable | CacheDirectoryMissing:
    try:
        is_directory = stat.S_ISDIR(os.stat(directory).st_mode)
    except OSError as missing:
        return _unusable(missing, directory)
    if not is_directory:
        return _unusable(error, directory)
    text = f"no daemon serves {directory}: start one with `motools daemon start --cache-dir {directory}`"
    return DaemonNotRunning(text)


def _unusable(error: OSError, directory: str) -> CacheUnavailable | CacheDirectoryMissing:
    if error.errno in _ILL:
        # It may be well again, and it is no mistake of the caller's: a job that can do without the cache does so.
        text = f"the disk that {directory} lies on cannot be read ({error.strerror}): see the kernel log (dmesg)"
        return DaemonNotRunning(text)
    if isinstance(error, PermissionError):
        try:
            owner = os.stat(directory).st_uid
        except OSError:
            return PeerRefused(f"{directory} may not be entered: {error.strerror}. Use a directory of your own")
        if owner != os.geteuid():
            return foreign(directory, owner)
    if isinstance(error, FileNotFoundError):
        text = f"no cache directory {directory}. Name another with --cache-dir or MOTOOLS_CACHE_DIR, or make it with"
        return CacheDirectoryMissing(f"{text} `motools daemon start --cache-dir {directory}`")
    text = f"{directory} cannot be used as a cache directory: {error.strerror}"
    return CacheDirectoryMissing(f"{text}. Name another with --cache-dir or MOTOOLS_CACHE_DIR")


def _check_peer(connection: socket.socket, directory: str) -> None:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, _gid = _CREDENTIALS.unpack(credentials)
    if uid != os.geteuid():
        raise foreign(os.path.join(directory, SOCKET), uid)
