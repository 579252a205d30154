"""The once-a-second look: are we still the owner, did somebody edit the database, is anybody there.

Layer: tasks. Imports engine and core.
Invariant: a directory that was removed or replaced ends the daemon within two looks, and nothing is made there.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from motoolsd.core.errors import RequestError
from motoolsd.core.ports import Clock, Ownership
from motoolsd.engine.engine import Engine

logger = logging.getLogger(__name__)

Stop = Callable[[str], None]


async def run_ownership_watch(ownership: Ownership, clock: Clock, interval_s: float, abandon: Stop) -> None:
    """Abandon the directory when it or the lock file is no longer what the path leads to."""
    while ownership.is_intact():
        await clock.tick(interval_s)
    abandon("the cache directory or its lock file was removed or replaced")


async def run_edit_watch(engine: Engine, clock: Clock, interval_s: float) -> None:
    """Notice when another program changes cache.db. Runs until cancelled."""
    while True:
        await clock.tick(interval_s)
        try:
            await engine.notice_outside_edit()
        except RequestError as error:
            logger.error("cannot look for outside edits: %s", error.message)


async def run_idle_watch(
    idle_s: Callable[[], float], clock: Clock, timeout_s: Callable[[], float], interval_s: float, stop: Stop
) -> None:
    """Stop the daemon when nobody was connected for a while.

    Args:
        idle_s: seconds since the last connection ended; 0 while there is one.
        clock: for the pauses.
        timeout_s: how long is too long; asked at each look, because a reload may change it.
        interval_s: at most this long between two looks.
        stop: told the reason, once.
    """
    while (left_s := timeout_s() - idle_s()) > 0:
        await (clock.tick(interval_s) if left_s > interval_s else clock.sleep(left_s))
    stop(f"idle for {timeout_s():g} s")


async def run_watchdog(feed: Callable[[], Awaitable[None]], clock: Clock, interval_s: float) -> None:
    """Feed the service manager's watchdog. Runs until cancelled; a loop that stands still feeds nobody."""
    while True:
        await feed()
        await clock.tick(interval_s)
