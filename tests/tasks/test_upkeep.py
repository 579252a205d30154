"""Checkpoints while nobody writes, usage counts now and then."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import anyio
import pytest

from motoolsd.core.errors import StorageFailed
from motoolsd.engine.engine import Engine
from motoolsd.engine.reserve import Reserve
from motoolsd.store.store import Store
from motoolsd.tasks.upkeep import run_checkpoints, run_reserve, run_usage_flush
from tests.fakes import FakeClock


class Busy:
    """An engine and a store that count what is done to them."""

    def __init__(self) -> None:
        """Nothing was written yet."""
        self.commits = 0
        self.flushes = 0
        self.checkpoints: list[bool] = []
        self.fails = False
        self.writer = self

    def flush_usage_nowait(self) -> None:
        """Count."""
        self.flushes += 1

    async def checkpoint(self, *, truncate: bool) -> None:
        """Count, or fail."""
        if self.fails:
            raise StorageFailed("the disk is full")
        self.checkpoints.append(truncate)


@asynccontextmanager
async def upkeep(busy: Busy, clock: FakeClock) -> AsyncIterator[None]:
    """Both tasks, running."""
    engine, store = cast("Engine", busy), cast("Store", busy)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(run_checkpoints, engine, store, clock, 1.0)
            group.start_soon(run_usage_flush, engine, clock, 30.0)
            await anyio.wait_all_tasks_blocked()
            yield
            group.cancel_scope.cancel()


async def test_one_checkpoint_after_each_burst_of_writes() -> None:
    """Never while writes come in, never twice, never without writes."""
    busy, clock = Busy(), FakeClock()
    async with upkeep(busy, clock):
        await clock.advance(10)
        assert busy.checkpoints == []
        for _ in range(5):
            busy.commits += 100
            await clock.advance(1)
        assert busy.checkpoints == []
        await clock.advance(10)
        assert busy.checkpoints == [False]
        busy.commits += 1
        await clock.advance(10)
        assert busy.checkpoints == [False, False]


async def test_failed_checkpoint_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and costs nothing but room."""
    busy, clock = Busy(), FakeClock()
    busy.fails = True
    async with upkeep(busy, clock):
        busy.commits = 1
        with caplog.at_level(logging.ERROR):
            await clock.advance(3)
        assert "the disk is full" in caplog.text
        busy.fails = False
        await clock.advance(1)
        assert busy.checkpoints == [False]


async def test_checkpoint_that_goes_on_failing_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """A disk may be full for days, and the log lies on it."""
    busy, clock = Busy(), FakeClock()
    busy.fails = True
    async with upkeep(busy, clock):
        busy.commits = 1
        with caplog.at_level(logging.ERROR):
            await clock.advance(20)
        assert caplog.text.count("checkpoint failed") == 1


async def test_reserve_is_looked_at_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever became of the look before."""

    class Failing:
        looks = 0

        async def keep(self) -> None:
            self.looks += 1
            raise StorageFailed("the disk is gone")

    reserve, clock = Failing(), FakeClock()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(run_reserve, cast("Reserve", reserve), clock, 10.0)
            await anyio.wait_all_tasks_blocked()
            await clock.advance(20)
            group.cancel_scope.cancel()
    assert reserve.looks == 3
    assert "the disk is gone" in caplog.text


async def test_usage_is_written_at_its_interval() -> None:
    """Not with every read, and not never."""
    busy, clock = Busy(), FakeClock()
    async with upkeep(busy, clock):
        await clock.advance(29)
        assert busy.flushes == 0
        await clock.advance(31)
        assert busy.flushes == 2
