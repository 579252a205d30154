"""What the daemon needs of the outside world, as protocols that adapters fulfil and tests fake.

Layer: core. Imports wire.messages.
Invariant: nothing above the adapters reads a clock, walks a tree or looks at a process except through these.
"""

from __future__ import annotations

from typing import Protocol

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


class Ownership(Protocol):
    """Whether the directory is still ours."""

    def is_intact(self) -> bool:
        """Whether the paths of lock and directory still lead to what we hold."""
        ...
