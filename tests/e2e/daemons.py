"""Finding and ending the daemon of a test's directory, by pid and never by name."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import msgspec

STOP_TIMEOUT_S = 20.0


class Owner(msgspec.Struct):
    """What the tests read of motoolsd.lock."""

    pid: int


def daemon_pid(directory: Path) -> int | None:
    """The pid that the lock file names, if that process still runs."""
    try:
        pid = msgspec.json.decode((directory / "motoolsd.lock").read_bytes(), type=Owner).pid
        os.kill(pid, 0)
    except (OSError, msgspec.MsgspecError):
        return None
    return pid


def end_daemon(directory: Path, number: signal.Signals = signal.SIGTERM) -> int | None:
    """Signal the directory's daemon and wait until it is gone; its pid, or None if there was none."""
    pid = daemon_pid(directory)
    if pid is None:
        return None
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, number)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(STOP_TIMEOUT_S * 1000), f"daemon {pid} did not end"
    finally:
        os.close(descriptor)
    return pid
