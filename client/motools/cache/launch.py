"""Start a daemon where none runs.

Layer: motools.cache. Imports endpoint and errors.
Invariant: of all clients that find no daemon, one starts one: whoever holds motoolsd.start.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from motools.cache.clock import monotonic_s, pause
from motools.cache.endpoint import check_directory, check_owner, open_socket
from motools.cache.errors import CacheDirectoryMissing, CacheError, DaemonNotRunning, UnsupportedFilesystem
from motools.cache.recovery import no_answer
from motoolsd.wire.names import LOCK, START_LOCK

PAUSE_FIRST_S = 0.005
PAUSE_LAST_S = 0.05


def autostart_is_on() -> bool:
    """What the environment says: `MOTOOLS_AUTOSTART=0` turns it off."""
    return os.environ.get("MOTOOLS_AUTOSTART", "1").strip().lower() not in {"0", "false", "no", "off"}


def connect(directory: str, *, timeout_s: float, autostart: bool, create: bool) -> socket.socket:
    """A socket to the directory's daemon, started if need be.

    Args:
        directory: absolute path.
        timeout_s: bounds all of it.
        autostart: whether to start a daemon; the environment may say no all the same.
        create: whether to make the directory; otherwise a directory without a cache is an error.

    Raises:
        CacheError: there is no daemon to be had; `is_final` where trying again would say the same.
    """
    try:
        return open_socket(directory, timeout_s=timeout_s)
    except (DaemonNotRunning, CacheDirectoryMissing) as error:
        if not (autostart and autostart_is_on()):
            error.is_final = True
            raise
    if not create:
        check_directory(directory)
    return start(directory, timeout_s)


class Launch:
    """The same for a worker thread that its caller may stop waiting for."""

    def __init__(self, directory: str, *, timeout_s: float, autostart: bool, create: bool) -> None:
        """As `connect`."""
        self._directory = directory
        self._timeout_s = timeout_s
        self._autostart = autostart
        self._create = create
        self._lock = Lock()
        self._is_abandoned = False
        self._connected: socket.socket | None = None

    def run(self) -> socket.socket:
        """`connect`; a socket that came too late is closed."""
        connected = connect(self._directory, timeout_s=self._timeout_s, autostart=self._autostart, create=self._create)
        with self._lock:
            self._connected = connected
            if self._is_abandoned:
                connected.close()
        return connected

    def abandon(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            self._is_abandoned = True
            if self._connected is not None:
                self._connected.close()


def start(directory: str, timeout_s: float) -> socket.socket:
    """A socket to the directory's daemon, started if need be whatever the environment says; makes the directory.

    Raises:
        CacheError: it does not start, or not in time.
    """
    deadline_s = monotonic_s() + timeout_s
    _make_directory(directory)
    # Before anything is made in it.
    check_owner(directory)
    with _open_start_lock(directory) as descriptor:
        for left_s in _attempts(deadline_s):
            if (connected := _try_connect(directory, left_s)) is not None:
                return connected
            if not _try_lock(descriptor):
                # Somebody else is starting one.
                continue
            try:
                if (started := _start_locked(directory, deadline_s)) is not None:
                    return started
            finally:
                # Explicitly: a child forked by another thread meanwhile holds the same open file.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    raise no_answer(timeout_s, outcome_known=True)


def _start_locked(directory: str, deadline_s: float) -> socket.socket | None:
    """Under the start lock: connect after all, or start a daemon; None if another one is coming up or ending."""
    left_s = max(deadline_s - monotonic_s(), 0.001)
    if (connected := _try_connect(directory, left_s)) is not None:
        return connected
    if is_locked(directory, LOCK):
        # A daemon that is coming up, or ending.
        return None
    from motools.cache.spawn import spawn_daemon  # subprocess and all that: only whoever starts a daemon loads it

    if not spawn_daemon(directory, deadline_s=deadline_s):
        return None
    return _try_connect(directory, max(deadline_s - monotonic_s(), 0.001))


def _attempts(deadline_s: float) -> Iterator[float]:
    """The seconds left, again and again with growing pauses, until there are none."""
    pause_s = PAUSE_FIRST_S
    while (left_s := deadline_s - monotonic_s()) > 0:
        yield left_s
        pause(min(pause_s, max(deadline_s - monotonic_s(), 0)))
        pause_s = min(pause_s * 2, PAUSE_LAST_S)


def _try_connect(directory: str, timeout_s: float) -> socket.socket | None:
    try:
        return open_socket(directory, timeout_s=timeout_s)
    except DaemonNotRunning:
        return None


def _make_directory(directory: str) -> None:
    try:
        os.makedirs(os.path.dirname(directory), exist_ok=True)
        os.mkdir(directory, 0o700)
    except FileExistsError:
        # There already; whether it is a directory, and ours, is looked at next.
        pass
    except OSError as error:
        message = f"{directory} cannot be made: {error.strerror}. Name another with --cache-dir or MOTOOLS_CACHE_DIR"
        raise CacheDirectoryMissing(message) from error


@contextmanager
def _open_start_lock(directory: str) -> Iterator[int]:
    path = os.path.join(directory, START_LOCK)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _not_writable(path, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _not_writable(path: str, error: OSError) -> CacheError:
    remedy = "Check the owner, the permissions and the free space of the cache directory"
    if error.errno == errno.ELOOP:
        remedy = "It is a link: remove it"
    elif error.errno == errno.EROFS:
        remedy = "Mount its file system writable, or copy the cache directory and name the copy with --cache-dir"
    refused = DaemonNotRunning(
        f"no daemon runs, and none can be started: {path} cannot be opened ({error.strerror}). {remedy}"
    )
    refused.is_final = True
    return refused


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UnsupportedFilesystem(
            f"the file system of the cache directory does not lock files ({error.strerror}): put it on a local disk"
        ) from error
    return True


def is_locked(directory: str, name: str) -> bool:
    """Whether somebody holds a lock file: `LOCK`, a daemon that lives; `START_LOCK`, a client that starts one."""
    try:
        descriptor = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # Explicitly: a child forked by another thread meanwhile would go on holding it.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
