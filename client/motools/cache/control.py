"""Starting, stopping and asking a daemon.

Layer: motools.cache. Imports launch, connection, sync and motoolsd.wire.
Invariant: a process is signalled only if it holds the directory's lock and started when the lock file says.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import msgspec

from motools.cache.client import TIMEOUT_S
from motools.cache.clock import monotonic_s, pause
from motools.cache.connection import BlockingConnection
from motools.cache.endpoint import open_socket
from motools.cache.errors import CacheDirectoryMissing, CacheUnavailable, DaemonBusy, DaemonNotRunning
from motools.cache.launch import is_locked, start
from motools.cache.sync import SyncCache
from motoolsd.wire.messages import Status
from motoolsd.wire.names import LOCK, LOG, START_LOCK

STARTING_WAIT_S = 2.0
PAUSE_S = 0.05
ANSWER_TIMEOUT_S = 3.0
"""How long a daemon that is to be stopped may take to answer before it is sent a signal."""


class LockOwner(msgspec.Struct):
    """What the lock file says of its holder."""

    pid: int
    start_time: int = 0


def start_daemon(directory: str, timeout_s: float = TIMEOUT_S) -> tuple[Status, bool]:
    """Start a daemon, and the directory if it is missing.

    Returns:
        Its status, and whether one was running already.
    """
    was_running = is_listening(directory)
    start(directory, timeout_s).close()
    return get_status(directory, timeout_s=timeout_s), was_running


def is_listening(directory: str) -> bool:
    """Whether a daemon accepts connections."""
    try:
        open_socket(directory, timeout_s=ANSWER_TIMEOUT_S).close()
    except (DaemonNotRunning, CacheDirectoryMissing):
        return False
    return True


def get_status(directory: str, *, timeout_s: float = TIMEOUT_S) -> Status:
    """What a running daemon says of itself; never starts one, but waits a little for one that is starting.

    Raises:
        DaemonNotRunning: there is none.
    """
    deadline_s = monotonic_s() + STARTING_WAIT_S
    with SyncCache(directory, autostart=False, timeout_s=timeout_s) as cache:
        while True:
            try:
                return cache.get_status()
            except DaemonNotRunning:
                if monotonic_s() > deadline_s or not is_starting(directory):
                    raise
            pause(PAUSE_S)


def is_starting(directory: str) -> bool:
    """Whether somebody is starting a daemon, or one holds the lock that does not listen yet."""
    return any(is_locked(directory, name) for name in (START_LOCK, LOCK))


def stop_daemon(directory: str, timeout_s: float = TIMEOUT_S) -> int | None:
    """Stop the directory's daemon and wait until its process is gone.

    Returns:
        Its pid, or None if none was running.

    Raises:
        CacheDirectoryMissing: there is no such directory.
        DaemonBusy: it did not end in time.
    """
    try:
        pid = _ask_to_stop(directory)
    except DaemonNotRunning:
        pid = None
    except CacheUnavailable as error:
        if not isinstance(error, DaemonBusy):
            raise
        pid = None
    descriptor = _open_process(pid) if pid is not None else _signal_owner(directory)
    if descriptor is None:
        return pid
    try:
        _wait_until_gone(descriptor, timeout_s)
    finally:
        os.close(descriptor)
    return pid if pid is not None else read_owner(directory).pid


def read_owner(directory: str) -> LockOwner:
    """Who the lock file names; pid 0 if nobody."""
    try:
        return msgspec.json.decode(Path(directory, LOCK).read_bytes(), type=LockOwner)
    except (OSError, msgspec.MsgspecError):
        return LockOwner(0)


def log_path(directory: str) -> Path:
    """Where the daemon's log is."""
    return Path(directory, LOG)


def _ask_to_stop(directory: str) -> int:
    """Drain the daemon by its own means; its pid."""
    connection = BlockingConnection(open_socket(directory, timeout_s=ANSWER_TIMEOUT_S), ANSWER_TIMEOUT_S)
    pid = connection.peer.pid
    connection.drain("motools daemon stop", ANSWER_TIMEOUT_S)
    return pid


def _signal_owner(directory: str) -> int | None:
    """SIGTERM to a daemon that does not answer: a descriptor of its process, or None if there is none."""
    if not is_locked(directory, LOCK):
        return None
    owner = read_owner(directory)
    descriptor = _open_process(owner.pid) if owner.pid else None
    if descriptor is None or _start_time(owner.pid) != owner.start_time:
        return None
    signal.pidfd_send_signal(descriptor, signal.SIGTERM)
    # A stopped process (SIGSTOP) sees it only when it goes on.
    signal.pidfd_send_signal(descriptor, signal.SIGCONT)
    return descriptor


def _open_process(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _wait_until_gone(descriptor: int, timeout_s: float) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(timeout_s * 1000):
        raise DaemonBusy(f"the daemon did not end within {timeout_s:g} s: see `motools daemon logs`")


def _start_time(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is the command in parentheses and may hold anything; start time is field 22.
    return int(text[text.rindex(b")") + 2 :].split()[19])
