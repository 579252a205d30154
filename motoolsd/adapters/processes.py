"""What the kernel knows of processes and of this machine.

Layer: adapters. Imports nothing.
Invariant: a process is a pid and its start time; a pid alone may be somebody else's by now.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def start_time(pid: int) -> int | None:
    """When the process was started, in clock ticks since boot, or None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The second field is the command in parentheses and may hold anything; start time is field 22.
    return int(text[text.rindex(b")") + 2 :].split()[19])


def boot_id() -> str:
    """An id that is new after each boot; empty where the kernel gives none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def host_name() -> str:
    """This machine's name."""
    return socket.gethostname()


def reset_inherited_state() -> None:
    """Undo what a job may have set for itself before it started us: CPU affinity and file mode mask."""
    os.umask(0o077)
    # A cpuset narrower than the machine refuses; what it allows, we have already.
    with suppress(OSError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
