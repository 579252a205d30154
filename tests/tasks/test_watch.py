"""The once-a-second looks, on a clock that the test advances."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, cast

import anyio
import pytest

from motoolsd.core.errors import StorageFailed
from motoolsd.engine.engine import Engine
from motoolsd.tasks.watch import run_edit_watch, run_idle_watch, run_ownership_watch, run_watchdog
from tests.fakes import FakeClock

AsyncFunction = Callable[[], Coroutine[Any, Any, None]]


class Held:
    """A directory that is ours until somebody takes it. Fulfils core.ports.Ownership."""

    def __init__(self) -> None:
        """Ours."""
        self.intact = True
        self.looks = 0

    def is_intact(self) -> bool:
        """Whether it is still ours."""
        self.looks += 1
        return self.intact


async def run_with(task: AsyncFunction, script: AsyncFunction) -> None:
    """Run a periodic task beside what the test does to it."""
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(task)
            await script()
            group.cancel_scope.cancel()


async def test_replaced_directory_is_abandoned_within_two_looks() -> None:
    """And until then the daemon is left alone; afterwards nothing is looked at any more."""
    clock, held = FakeClock(), Held()
    reasons: list[str] = []

    async def script() -> None:
        await clock.advance(10)
        assert reasons == []
        assert held.looks >= 10
        held.intact = False
        await clock.advance(2)
        looks = held.looks
        await clock.advance(10)
        assert held.looks == looks
        assert len(reasons) == 1
        assert "removed or replaced" in reasons[0]

    await run_with(lambda: run_ownership_watch(held, clock, 1.0, reasons.append), script)


class Watched:
    """An engine that counts looks for outside edits, and may fail."""

    def __init__(self) -> None:
        """No look yet."""
        self.looks = 0
        self.fails = False

    async def notice_outside_edit(self) -> bool:
        """Look."""
        self.looks += 1
        if self.fails:
            raise StorageFailed("locked")
        return False


async def test_outside_edits_are_looked_for_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    """A look that fails is logged and ends nothing."""
    clock, engine = FakeClock(), Watched()

    async def script() -> None:
        await clock.advance(3)
        assert engine.looks == 3
        engine.fails = True
        with caplog.at_level(logging.ERROR):
            await clock.advance(1)
        assert "cannot look for outside edits: locked" in caplog.text
        engine.fails = False
        await clock.advance(2)
        assert engine.looks == 6

    await run_with(lambda: run_edit_watch(cast("Engine", engine), clock, 1.0), script)


class Idleness:
    """How long nobody was there, by the test's clock."""

    def __init__(self, clock: FakeClock) -> None:
        """Idle from now on."""
        self.clock = clock
        self.since_s: float | None = clock.monotonic_s()
        self.timeout_s = 100.0
        self.reasons: list[str] = []

    def idle_s(self) -> float:
        """0 while somebody is there."""
        return 0.0 if self.since_s is None else self.clock.monotonic_s() - self.since_s

    async def watch(self) -> None:
        """Run the task under test."""
        await run_idle_watch(self.idle_s, self.clock, lambda: self.timeout_s, 1.0, self.reasons.append)


async def test_idle_daemon_stops_after_the_timeout_not_before() -> None:
    """To the moment, and once."""
    clock = FakeClock()
    idleness = Idleness(clock)

    async def script() -> None:
        await clock.advance(99.9)
        assert idleness.reasons == []
        await clock.advance(0.1)
        assert idleness.reasons == ["idle for 100 s"]

    await run_with(idleness.watch, script)


async def test_connections_keep_the_daemon_alive() -> None:
    """The timeout begins anew when the last one ends."""
    clock = FakeClock()
    idleness = Idleness(clock)

    async def script() -> None:
        await clock.advance(50)
        idleness.since_s = None
        await clock.advance(500)
        idleness.since_s = clock.monotonic_s()
        await clock.advance(99)
        assert idleness.reasons == []
        await clock.advance(2)
        assert len(idleness.reasons) == 1

    await run_with(idleness.watch, script)


async def test_changed_timeout_holds_at_the_next_look() -> None:
    """A reload may shorten it: a long pause under way does not delay that."""
    clock = FakeClock()
    idleness = Idleness(clock)

    async def script() -> None:
        await clock.advance(20)
        idleness.timeout_s = 5
        await clock.advance(1)
        assert idleness.reasons == ["idle for 5 s"]

    await run_with(idleness.watch, script)


async def test_watchdog_is_fed_at_once_and_then_regularly() -> None:
    """A feed that does not come back is followed by none."""
    clock, fed, stuck = FakeClock(), [], anyio.Event()

    async def feed() -> None:
        fed.append(clock.monotonic_s())
        if len(fed) == 4:
            await stuck.wait()

    async def script() -> None:
        await clock.advance(20.0)
        assert len(fed) == 3
        await clock.advance(1_000.0)
        assert len(fed) == 4

    await run_with(lambda: run_watchdog(feed, clock, 10.0), script)
