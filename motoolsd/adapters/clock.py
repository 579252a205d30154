"""The real clock.

Layer: adapters. Fulfils core.ports.Clock.
Invariant: the only place in the daemon that reads a clock.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

import anyio

from motoolsd.adapters.processes import boot_id
from motoolsd.core.deadlines import Moment


class SystemClock:
    """CLOCK_MONOTONIC for durations, CLOCK_REALTIME for time stamps."""

    def __init__(self) -> None:
        """Learn which boot this is."""
        self._boot_id = boot_id()

    def monotonic_s(self) -> float:
        """Seconds since some moment; never jumps."""
        return time.monotonic()

    def utc_text(self) -> str:
        """Now, as SQLite writes it, with milliseconds."""
        return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]

    def moment(self) -> Moment:
        """Now, on all clocks that a deadline may need."""
        return Moment(self._boot_id, time.clock_gettime(time.CLOCK_BOOTTIME), time.time())

    async def sleep(self, seconds: float) -> None:
        """Pause; not at all if the time is over already."""
        await anyio.sleep(max(0.0, seconds))
