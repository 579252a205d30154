"""Starting, stopping and asking a daemon.

Layer: motools.cache. Imports launch, connection, sync and motoolsd.wire.
Invariant: a process is signalled only if it holds the directory's lock and started when the lock file says.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from motools.cache.client import TIMEOUT_S
from motools.cache.clock import monotonic_s, pause
from motools.cache.connection import BlockingConnection
from motools.cache.endpoint import open_socket
from motools.cache.errors import (
    CacheDirectoryMissing,
    CacheProtocolError,
    CacheUnavailable,
    DaemonBusy,
    DaemonNotRunning,
    PeerRefused,
)
from motools.cache.launch import is_locked, start
from motools.cache.sync import SyncCache
from motoolsd.wire.messages import Status
from motoolsd.wire.names import LOCK, LOG, START_LOCK

STARTING_WAIT_S = 2.0
STATUS_TIMEOUT_S = 10.0
PAUSE_S = 0.05
ANSWER_TIMEOUT_S = 3.0
"""How long a daemon that is to be stopped may take to answer before it is sent a signal."""


class LockOwner(msgspec.Struct):
    """What the lock file says of its holder."""

    pid: int
    start_time: int = 0
    boot_id: str = ""


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


def get_status(directory: str, *, timeout_s: float = STATUS_TIMEOUT_S) -> Status:
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

    It is asked to drain; one that does not answer is sent SIGTERM, which means the same.

    Returns:
        Its pid, or None if none was running.

    Raises:
        CacheDirectoryMissing: there is no such directory.
        DaemonBusy: it did not end in time.
    """
    deadline_s = monotonic_s() + timeout_s
    while True:
        with _open_owner(directory) as owner:
            drained_pid = _drain(directory)
            if owner is not None:
                if drained_pid is None:
                    _terminate(owner.descriptor)
                _wait_until_gone(owner, timeout_s)
                return owner.pid
        if not is_locked(directory, LOCK):
            return drained_pid
        # It has only just begun, and neither named itself nor listens; or its process cannot be seen from here.
        if monotonic_s() > deadline_s:
            raise DaemonBusy(f"the daemon of {directory} did not end within {timeout_s:g} s: see `motools daemon logs`")
        pause(PAUSE_S)


def log_path(directory: str) -> Path:
    """Where the daemon's log is."""
    return Path(directory, LOG)


class _Process(NamedTuple):
    pid: int
    descriptor: int
    """A pidfd: it stays this process, whoever gets its number later."""


@contextmanager
def _open_owner(directory: str) -> Iterator[_Process | None]:
    """The process that holds the directory's lock, if there is one that can be seen from here."""
    # A lock file alone says nothing: it stays after its owner, and goes along when a directory is copied.
    owner = _read_owner(directory) if is_locked(directory, LOCK) else None
    descriptor = None if owner is None else _open_process(owner.pid)
    if owner is None or descriptor is None:
        yield None
        return
    try:
        # Compared after the process was opened, so that its number cannot pass on in between.
        is_owner = (_start_time(owner.pid), _boot_id()) == (owner.start_time, owner.boot_id)
        yield _Process(owner.pid, descriptor) if is_owner else None
    finally:
        os.close(descriptor)


def _read_owner(directory: str) -> LockOwner | None:
    try:
        return msgspec.json.decode(Path(directory, LOCK).read_bytes(), type=LockOwner)
    except (OSError, msgspec.MsgspecError):
        return None


def _open_process(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (OSError, OverflowError):
        return None


def _drain(directory: str) -> int | None:
    """Have the daemon drain; its pid, or None if there is none that answers."""
    try:
        connection = BlockingConnection(open_socket(directory, timeout_s=ANSWER_TIMEOUT_S), ANSWER_TIMEOUT_S)
    except PeerRefused:
        raise
    except (CacheUnavailable, CacheProtocolError):
        return None
    connection.drain("motools daemon stop", ANSWER_TIMEOUT_S)
    return connection.peer.pid


def _terminate(descriptor: int) -> None:
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        # A stopped process (SIGSTOP) sees it only when it goes on.
        signal.pidfd_send_signal(descriptor, signal.SIGCONT)
    except ProcessLookupError:
        # It ended by itself.
        pass


def _wait_until_gone(process: _Process, timeout_s: float) -> None:
    poll = select.poll()
    poll.register(process.descriptor, select.POLLIN)
    if not poll.poll(timeout_s * 1000):
        text = (
            f"the daemon did not end within {timeout_s:g} s: see `motools daemon logs`. `kill -9 {process.pid}` ends "
            "it; nothing that was acknowledged is lost by that"
        )
        raise DaemonBusy(text)


def _start_time(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is the command in parentheses and may hold anything; start time is field 22.
    return int(text[text.rindex(b")") + 2 :].split()[19])


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
