"""The real clock.

Layer: adapters. Fulfils core.ports.Clock.
Invariant: the only place in the daemon that reads a clock.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

import anyio

from motoolsd.adapters.processes import boot_id
from motoolsd.core.deadlines import Moment

TICK_S: Final = 1.0


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

    async def tick(self, interval_s: float) -> None:
        """Pause until the next full multiple of an interval; of a second, where the interval is longer."""
        await anyio.sleep(until_tick_s(time.monotonic(), interval_s))


def until_tick_s(now_s: float, interval_s: float) -> float:
    """How long to pause, so that everybody wakes at the same moments, as with the timer slack of the kernel.

    Args:
        now_s: on the monotonic clock.
        interval_s: the longest pause; the shortest is a second less, or nearly nothing for an interval below that.
    """
    step_s = min(interval_s, TICK_S)
    return interval_s - (now_s + interval_s) % step_s
