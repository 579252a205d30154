"""What the kernel knows of processes and of this machine.

Layer: adapters. Imports core.leases.
Invariant: a process is a pid and its start time; a pid alone may be somebody else's by now. The end of one that is
watched is told by the kernel (pidfd_open, Linux 5.3), not found by asking.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from motoolsd.core.leases import Process
from motoolsd.wire.names import INVISIBLE_PID

logger = logging.getLogger(__name__)

COMMAND_SIZE_MAX: Final = 4096
POLL_INTERVAL_S: Final = 1.0
"""How often a process is looked at where the kernel has no pidfd, or no descriptor is left for one."""
_ENDED: Final = frozenset("ZXx")


def start_time(pid: int) -> int | None:
    """When the process was started, in clock ticks since boot, or None if there is none."""
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def program_of(pid: int) -> str:
    """The name of the program that a process runs; empty if it cannot be seen."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def process_state(pid: int) -> str | None:
    """What it does, as one letter of proc(5): `T` is stopped by a signal, `Z` has ended. None if there is none."""
    fields = _stat(pid)
    return None if fields is None else fields[0].decode()


def _stat(pid: int) -> list[bytes] | None:
    """What the kernel says of a process, from its third field on: state, parent, ..., start time as field 22."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The second field is the command in parentheses and may hold anything.
    return text[text.rindex(b")") + 2 :].split()


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


def terminate(process: Process) -> bool:
    """Send SIGTERM to one of our user's processes, and wake it should it be stopped.

    Returns:
        Whether it was there, and was the one that is meant: of this boot, started when it says, and ours.
    """
    if process.boot_id != boot_id():
        return False
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        # Looked at after it was opened: its number cannot pass on in between.
        is_meant = start_time(process.pid) == process.start_time
        if not is_meant or os.stat(f"/proc/{process.pid}").st_uid != os.geteuid():
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        signal.pidfd_send_signal(descriptor, signal.SIGCONT)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def reset_inherited_state() -> None:
    """Undo what a job may have set for itself before it started us: CPU affinity and file mode mask."""
    os.umask(0o077)
    # A cpuset narrower than the machine refuses; what it allows, we have already.
    with suppress(OSError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


class SystemProcesses:
    """The processes of this machine. Fulfils core.ports.Processes; belongs to one running event loop."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._boot_id = boot_id()
        self._watched: dict[Process, int | asyncio.TimerHandle] = {}

    def identify(self, pid: int) -> Process | None:
        """The process that has a pid now."""
        if pid == INVISIBLE_PID:
            return Process(INVISIBLE_PID, 0, self._boot_id)
        started = start_time(pid)
        return None if started is None else Process(pid, started, self._boot_id)

    def command(self, pid: int) -> str:
        """Its command line, blanks between the arguments."""
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                packed = file.read(COMMAND_SIZE_MAX)
        except OSError:
            return ""
        return packed.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "backslashreplace")

    def is_alive(self, process: Process) -> bool:
        """Whether it runs, or is stopped."""
        if process.boot_id != self._boot_id:
            return False
        if not process.is_visible:
            return True
        fields = _stat(process.pid)
        return fields is not None and int(fields[19]) == process.start_time and fields[0].decode() not in _ENDED

    def watch(self, process: Process, on_end: Callable[[Process], None]) -> None:
        """Have the kernel tell of its end."""
        if process in self._watched or not process.is_visible:
            return
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            descriptor = None
        except (OSError, AttributeError) as error:
            logger.warning("process %d is looked at every %g s: %s", process.pid, POLL_INTERVAL_S, error)
            self._poll(process, on_end)
            return
        # Opened by its number: only now it is sure whose descriptor this is.
        if descriptor is None or not self.is_alive(process):
            if descriptor is not None:
                os.close(descriptor)
            self._watched[process] = asyncio.get_running_loop().call_later(0, self._end, process, on_end)
            return
        self._watched[process] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._end, process, on_end)

    def unwatch(self, process: Process) -> None:
        """Let go of what tells of its end."""
        watched = self._watched.pop(process, None)
        if isinstance(watched, int):
            asyncio.get_running_loop().remove_reader(watched)
            os.close(watched)
        elif watched is not None:
            watched.cancel()

    def close(self) -> None:
        """Watch nothing any more."""
        for process in list(self._watched):
            self.unwatch(process)

    def _poll(self, process: Process, on_end: Callable[[Process], None]) -> None:
        if not self.is_alive(process):
            self._end(process, on_end)
            return
        loop = asyncio.get_running_loop()
        self._watched[process] = loop.call_later(POLL_INTERVAL_S, self._poll, process, on_end)

    def _end(self, process: Process, on_end: Callable[[Process], None]) -> None:
        self.unwatch(process)
        on_end(process)
