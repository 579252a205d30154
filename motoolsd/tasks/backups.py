"""Copies of the database that are made by themselves.

Layer: tasks. Imports engine and core.
Invariant: looks often and copies seldom: how long ago the last copy was made stands in the database, so that daemons
that live for a quarter of an hour make one a day all the same.
"""

from __future__ import annotations

from typing import Final

from motoolsd.core.ports import Clock
from motoolsd.engine.backups import Backups

LOOK_INTERVAL_S: Final = 60.0
"""Also how long a daemon that starts is left to what it was started for."""


async def run_backups(backups: Backups, clock: Clock) -> None:
    """Make a backup whenever one is due. Runs until cancelled."""
    while True:
        # Asked at each look, because a reload may change it.
        await clock.sleep(min(LOOK_INTERVAL_S, backups.settings.backup_interval_s or LOOK_INTERVAL_S))
        await backups.keep_up()
