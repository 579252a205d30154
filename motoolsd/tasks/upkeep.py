"""Writing what was gathered in memory, and moving the write-ahead log into the database.

Layer: tasks. Imports engine, store and core.
Invariant: checkpoints are made while nobody writes: during writes they make commits wait for ten milliseconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from motoolsd.core.errors import RequestError
from motoolsd.core.ports import Clock
from motoolsd.engine.budget import Budget
from motoolsd.engine.engine import Engine
from motoolsd.engine.protection import Protection
from motoolsd.engine.reserve import Reserve
from motoolsd.store.store import Store

logger = logging.getLogger(__name__)


async def run_usage_flush(engine: Engine, clock: Clock, interval_s: float) -> None:
    """Write the usage counts now and then. Runs until cancelled."""
    while True:
        await clock.tick(interval_s)
        engine.flush_usage_nowait()


async def run_budget(budget: Budget, clock: Clock, interval_s: float) -> None:
    """Keep the cache within its budget, and the trash fresh. Runs until cancelled."""
    while True:
        try:
            await budget.enforce()
        except RequestError as error:
            logger.error("the budget was not looked at: %s", error.message)
        await clock.tick(interval_s)


async def run_reserve(reserve: Reserve, clock: Clock, interval_s: float) -> None:
    """Make the ballast when there is room for it. Runs until cancelled."""
    while True:
        try:
            await reserve.keep()
        except RequestError as error:
            logger.error("the ballast was not looked at: %s", error.message)
        await clock.tick(interval_s)


async def run_pins(protection: Protection, clock: Clock, interval_s: float) -> None:
    """Take away the pins whose time is over. Runs until cancelled."""
    while True:
        try:
            await protection.end_pins()
        except RequestError as error:
            logger.error("pins that are over stay for now: %s", error.message)
        await clock.tick(interval_s)


async def run_checkpoints(engine: Engine, store: Store, clock: Clock, interval_s: float) -> None:
    """Checkpoint once after each burst of writes. Runs until cancelled."""
    done = seen = engine.writer.commits
    said: str | None = None
    while True:
        await clock.tick(interval_s)
        commits = engine.writer.commits
        if commits == seen and commits != done:
            try:
                await store.checkpoint(truncate=False)
                done, said = commits, None
            except RequestError as error:
                # Once for each reason: a full disk may stay full for days.
                if error.message != said:
                    logger.error("checkpoint failed, it is tried again: %s", error.message)
                said = error.message
        seen = commits


async def run_trimming(give_back: Callable[[], bool], clock: Clock, interval_s: float) -> None:
    """Give memory that was freed back to the kernel, in a thread. Runs until cancelled."""
    while True:
        await clock.tick(interval_s)
        await anyio.to_thread.run_sync(give_back)
