"""Keeping what explains: signatures of entries, counts by day, processes that nothing names any more.

Layer: tasks. Imports engine and core.
Invariant: works in slices, and while there is nothing to do costs one question an interval.
"""

from __future__ import annotations

import logging
from typing import Final

from motoolsd.core.errors import RequestError
from motoolsd.core.ports import Clock
from motoolsd.engine.nearest import Nearest
from motoolsd.engine.reporting import Reporting

logger = logging.getLogger(__name__)

SLICE_PAUSE_S: Final = 0.05
DAY_S: Final = 86_400.0
FIRST_FOLD_S: Final = 60.0
"""A daemon that starts has other things to do."""


async def run_signing(nearest: Nearest, clock: Clock, interval_s: float) -> None:
    """Sign entries, so that those that are near are found at once. Runs until cancelled."""
    while True:
        try:
            while await nearest.sign_some():
                await clock.sleep(SLICE_PAUSE_S)
        except RequestError as error:
            logger.warning("entries are not signed for now: %s", error.message)
        await clock.tick(interval_s)


async def run_folding(reporting: Reporting, clock: Clock) -> None:
    """Keep old counts in fewer rows, once a day. Runs until cancelled."""
    await clock.sleep(FIRST_FOLD_S)
    while True:
        try:
            await reporting.fold()
        except RequestError as error:
            logger.warning("old counts stay as they are for now: %s", error.message)
        await clock.sleep(DAY_S)
