"""Room that is kept for what frees room.

Layer: engine. Imports disk and core.
Invariant: plain writes never take from it. Once let go of, it is made again when there is room for it.
"""

from __future__ import annotations

import logging
from typing import Final

from motoolsd.core.ballast import Step, next_step
from motoolsd.core.ports import Ballast, TreeError
from motoolsd.engine.disk import run_on_disk

KEPT_AT_START: Final = 0.75

logger = logging.getLogger(__name__)


class Reserve:
    """The ballast, and when to let go of it."""

    def __init__(self, ballast: Ballast, wanted_bytes: int) -> None:
        """Touch nothing yet.

        Args:
            ballast: the file.
            wanted_bytes: its size; 0: there is to be none.
        """
        self._ballast = ballast
        self._wanted_bytes = wanted_bytes
        self._could_not = False

    def release(self) -> bool:
        """Let go of it, because the disk is full. Blocks shortly; threads may call it.

        Returns:
            Whether there is more room now, so that what failed is worth another try.
        """
        if not self._ballast.release():
            return False
        logger.warning("the disk is full: the ballast was let go of, so that room can be made")
        return True

    def release_to_start(self) -> bool:
        """As `release`, of a part: a daemon that starts on a full disk is started to make room, and needs the rest."""
        if not self._ballast.release(keep=KEPT_AT_START):
            return False
        logger.warning("the disk is full: a part of the ballast was let go of, so that the daemon can start")
        return True

    async def keep(self) -> None:
        """Look once whether it is to be made, or to go.

        Raises:
            StorageFailed: the disk cannot be looked at.
        """
        step = await run_on_disk(self._keep)
        if step is Step.MAKE:
            logger.info("a ballast of %d bytes was made", self._wanted_bytes)

    def _keep(self) -> Step:
        step = next_step(
            wanted_bytes=self._wanted_bytes,
            held_bytes=self._ballast.held_bytes(),
            free_bytes=self._ballast.free_bytes(),
        )
        if step is Step.DROP:
            self._ballast.release()
        if step is not Step.MAKE:
            return step
        try:
            self._ballast.make(self._wanted_bytes)
        except TreeError as error:
            # Said once: it is tried again at every look.
            if not self._could_not:
                logger.warning("no ballast can be made (%s): on a full disk, clean-ups may be refused", error)
            self._could_not = True
            return Step.KEEP
        self._could_not = False
        return step
