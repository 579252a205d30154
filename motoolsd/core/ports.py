"""What the daemon needs of the outside world, as protocols that adapters fulfil and tests fake.

Layer: core. Imports leases and wire.messages.
Invariant: nothing above the adapters reads a clock, walks a tree or looks at a process except through these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from motoolsd.core.leases import Process
from motoolsd.wire.messages import Size


class Clock(Protocol):
    """Time stamps and pauses. Timeouts belong to anyio."""

    def monotonic_s(self) -> float:
        """Seconds on a clock that never jumps; only differences mean something."""
        ...

    def utc_text(self) -> str:
        """Now as SQLite writes a time stamp in UTC, with milliseconds: `2026-01-31 23:59:59.123`."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Pause. Cancellation: leaves at once."""
        ...


class FileTree(Protocol):
    """The files below the cache directory."""

    async def measure(self) -> dict[str, Size]:
        """Add up every category. Cancellation: leaves at once; the walk ends at its next step."""
        ...


class Processes(Protocol):
    """Other processes, and their ends."""

    def identify(self, pid: int) -> Process | None:
        """The process that has a pid now; None if there is none. A pid of 0 is a process that cannot be seen."""
        ...

    def command(self, pid: int) -> str:
        """Its command line; empty if there is none."""
        ...

    def is_alive(self, process: Process) -> bool:
        """Whether it has not ended; a zombie has. One that cannot be seen counts as alive."""
        ...

    def watch(self, process: Process, on_end: Callable[[Process], None]) -> None:
        """Call back once, from the event loop, when it has ended; soon, if it has already. Watching twice is once."""
        ...

    def unwatch(self, process: Process) -> None:
        """Do not call back any more."""
        ...


class Ownership(Protocol):
    """Whether the directory is still ours."""

    def is_intact(self) -> bool:
        """Whether the paths of lock and directory still lead to what we hold."""
        ...
