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
    except (OSError, msgspec.MsgspecError):
        return None
    return pid if is_alive(pid) else None


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that init has not noticed yet (a zombie) does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


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
