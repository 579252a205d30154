"""Keeping the cache within its budget.

Layer: engine. Imports census, cleaner and core.
Invariant: without a budget nothing is removed but what has expired in the trash. The trash goes before entries, and
entries go for good: what only moved to the trash would free nothing.
"""

from __future__ import annotations

import logging

from motoolsd.core.ports import FileTree
from motoolsd.core.settings import Settings
from motoolsd.engine.census import Census
from motoolsd.engine.cleaner import Cleaner
from motoolsd.engine.disk import run_on_disk
from motoolsd.wire.cleaning import Criteria
from motoolsd.wire.keys import Kind
from motoolsd.wire.names import TRASH
from motoolsd.wire.sizes import Size

logger = logging.getLogger(__name__)


class Budget:
    """High and low water mark of the whole directory, and what must stay free on its disk."""

    def __init__(self, census: Census, cleaner: Cleaner, files: FileTree, settings: Settings) -> None:
        """Wire up."""
        self._census = census
        self._cleaner = cleaner
        self._files = files
        self.settings = settings
        """Replaced by a reload."""
        self.evicted = 0
        """Entries so far."""

    async def enforce(self) -> None:
        """Look once, and remove what is too much, the least recently used first.

        Raises:
            RequestError: the database cannot be read or written.
        """
        settings = self.settings
        figures = await self._census.current()
        trash = figures.categories.get(TRASH, Size()).allocated_bytes
        high = settings.max_size_bytes
        excess = await self._excess(settings, figures.budgeted_size_bytes)
        rooms = [max(0, trash - excess)] if excess else []
        if high is not None:
            rooms.append(int(high * settings.trash_share))
        freed = await self._cleaner.trim_trash(min(rooms) if rooms else None)
        if (left := excess - freed) <= 0:
            return
        live = (await self._census.current()).live_size_bytes
        criteria = Criteria(kinds=tuple(Kind), to_bytes=max(0, live - left))
        evicted = await self._cleaner.remove(criteria, "over budget")
        count = evicted.datasets + evicted.models + evicted.evals
        self.evicted += count
        if count:
            logger.warning(
                "over budget by %d bytes: %d entries evicted, %d bytes freed", left, count, evicted.freed_bytes
            )
        else:
            logger.warning("over budget by %d bytes, and nothing can be evicted: all else is protected", left)

    async def _excess(self, settings: Settings, total_bytes: int) -> int:
        """How much is to go."""
        excess = 0
        if (high := settings.max_size_bytes) is not None and total_bytes > high:
            excess = total_bytes - int(high * settings.low_water)
        if (min_free := settings.min_free_bytes) is not None:
            free = await run_on_disk(self._files.free_bytes)
            excess = max(excess, min_free - free)
        return excess
