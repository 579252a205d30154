"""Whether what a value depends on is so: its files are there, its time is not over.

Layer: engine. Imports writer, store.entries and core.
Invariant: an entry is made void only if nothing has changed it since its files were looked at. What is void misses for
everybody before anybody is told that it does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import anyio.to_thread

from motoolsd.core.guards import EXPIRED, MISSING, Guard
from motoolsd.core.ports import Clock, FileTree
from motoolsd.core.slots import Slots
from motoolsd.engine.writer import Writer
from motoolsd.store.entries import SetVoid
from motoolsd.wire.keys import Kind, slot_of

logger = logging.getLogger(__name__)


class Presence:
    """Looks before a guarded value is given."""

    def __init__(self, files: FileTree, clock: Clock, writer: Writer, slots: Slots) -> None:
        """Wire up."""
        self._files = files
        self._clock = clock
        self._writer = writer
        self._slots = slots

    async def is_settled(self, kind: Kind, guards: Mapping[str, Guard]) -> bool:
        """Look at what these values depend on, and let those miss that have lost it.

        Returns:
            Whether all of them are sound; if not, or if one changed meanwhile, they are to be read again.

        Raises:
            RequestError: it could not be written down that one misses.
        """
        slots = {key: slot_of(kind, key) for key in guards}
        numbers = {key: self._slots.number(slot) for key, slot in slots.items()}
        now = self._clock.moment()
        lost = {
            key: EXPIRED for key, guard in guards.items() if guard.expires is not None and guard.expires.is_over(now)
        }
        paths = [(key, path) for key, guard in guards.items() if key not in lost for path in guard.paths]
        if paths:
            present = await anyio.to_thread.run_sync(self._files.present, [path for _, path in paths])
            lost.update({key: MISSING for (key, _), is_there in zip(paths, present, strict=True) if not is_there})
        if not lost:
            return True
        # Whoever stored it again meanwhile has vouched for it.
        unchanged = {key: why for key, why in lost.items() if self._slots.is_current(slots[key], numbers[key])}
        for reason in (EXPIRED, MISSING):
            keys = tuple((kind, key) for key, why in unchanged.items() if why == reason)
            if keys:
                logger.info("%d entries miss from now on: %s (%s %s ...)", len(keys), reason, *keys[0])
                await self._writer.change(SetVoid(keys, reason))
        return False
