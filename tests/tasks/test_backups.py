"""When it is looked whether a backup is due."""

from __future__ import annotations

from typing import cast

import anyio
import pytest

from motoolsd.core.settings import Settings
from motoolsd.engine.backups import Backups
from motoolsd.tasks.backups import run_backups
from tests.fakes import FakeClock


class Counting:
    """Backups that count how often they are looked at."""

    def __init__(self, settings: Settings) -> None:
        """Not yet."""
        self.settings = settings
        self.looks = 0

    async def keep_up(self) -> bool:
        """Count."""
        self.looks += 1
        return False


@pytest.mark.parametrize(("interval", "looks"), [("1d", 2), ("30s", 4), ("0", 2)])
async def test_look_comes_every_minute_or_as_often_as_backups_are_wanted(interval: str, looks: int) -> None:
    """A daemon that lives for a quarter of an hour looks in time; one that starts is left alone."""
    backups, clock = Counting(Settings(backup_interval=interval)), FakeClock()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(run_backups, cast("Backups", backups), clock)
            await anyio.wait_all_tasks_blocked()
            assert backups.looks == 0
            for _ in range(12):
                await clock.advance(10)
            group.cancel_scope.cancel()
    assert backups.looks == looks
