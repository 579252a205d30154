"""The contract of clocks: the real one and the one of the tests keep it alike."""

from __future__ import annotations

import re
from collections.abc import Callable

import anyio
import pytest

from motoolsd.adapters.clock import SystemClock, until_tick_s
from motoolsd.core.ports import Clock
from tests.fakes import FakeClock


@pytest.fixture(params=[SystemClock, FakeClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    """Each clock that fulfils the port."""
    make: Callable[[], Clock] = request.param
    return make()


async def let_pass(clock: Clock, seconds: float) -> None:
    """Let time pass, by itself or by hand."""
    if isinstance(clock, FakeClock):
        await clock.advance(seconds)


async def test_time_never_goes_back(clock: Clock) -> None:
    """Differences of the monotonic clock are never negative."""
    before = clock.monotonic_s()
    await let_pass(clock, 0.01)
    assert clock.monotonic_s() >= before


async def test_time_stamps_are_those_of_sqlite(clock: Clock) -> None:
    """UTC, with milliseconds, comparable as text with what SQLite writes."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", clock.utc_text())


async def test_sleep_lasts_as_long_as_asked(clock: Clock) -> None:
    """Not shorter by the clock's own measure."""
    began = clock.monotonic_s()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(clock.sleep, 0.02)
            await let_pass(clock, 0.02)
    assert clock.monotonic_s() - began >= 0.019


@pytest.mark.parametrize("seconds", [0, -1])
async def test_sleep_of_nothing_returns(clock: Clock, seconds: float) -> None:
    """A pause that is over already is no pause."""
    with anyio.fail_after(5):
        await clock.sleep(seconds)


async def test_sleep_can_be_cancelled(clock: Clock) -> None:
    """A cancelled sleeper leaves at once."""
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(clock.sleep, 3600)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()


async def test_tick_is_a_pause_of_an_interval_at_most(clock: Clock) -> None:
    """Two that tick alike wake together."""
    woken: list[float] = []

    async def tick() -> None:
        await clock.tick(0.05)
        woken.append(clock.monotonic_s())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            group.start_soon(tick)
            await let_pass(clock, 0.05)
    assert woken[1] - woken[0] < 0.04


@pytest.mark.parametrize(
    ("now_s", "interval_s", "pause_s"),
    [(100.0, 1.0, 1.0), (100.25, 1.0, 0.75), (100.25, 10.0, 9.75), (100.0, 0.25, 0.25), (100.125, 0.25, 0.125)],
)
def test_ticks_are_full_seconds_or_full_intervals(now_s: float, interval_s: float, pause_s: float) -> None:
    """Never longer than asked for, and never nothing."""
    assert until_tick_s(now_s, interval_s) == pytest.approx(pause_s)
