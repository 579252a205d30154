"""Reading config.toml again while the daemon runs.

Layer: tasks. Imports core.
Invariant: a file that cannot be read, or a setting that is wrong, changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from motoolsd.core.errors import RequestError
from motoolsd.core.settings import Settings

logger = logging.getLogger(__name__)

RELOADABLE: Final = frozenset(
    {
        "backup_interval",
        "backups_keep",
        "durability",
        "idle_timeout_s",
        "low_water",
        "max_size",
        "min_free",
        "trash_keep",
        "trash_share",
    }
)
"""Settings that take effect on SIGHUP; the others are read once, at the start."""


class Reloading:
    """Reads the settings again and applies what can change while the daemon runs."""

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        apply: Callable[[Settings], None],
        set_durability: Callable[[str], Awaitable[None]],
    ) -> None:
        """Begin with the settings of the start.

        Args:
            settings: these.
            read: the file as it is now; fails with a RequestError.
            apply: takes over what changed; cannot fail.
            set_durability: of the database, `FULL` or `NORMAL`; may fail with a RequestError.
        """
        self._first = self._settings = settings
        self._read = read
        self._apply = apply
        self._set_durability = set_durability

    async def reload(self) -> None:
        """Apply the file as it is now; a bad one is logged, and the old settings stay."""
        try:
            settings = self._read()
            if settings.durability != self._settings.durability:
                await self._set_durability(settings.durability.upper())
        except RequestError as error:
            logger.error("the settings stay as they were: %s", error.message)
            return
        applied = _differing(self._settings, settings) & RELOADABLE
        waiting = _differing(self._first, settings) - RELOADABLE
        self._settings = settings
        self._apply(settings)
        logger.info("settings read again, changed: %s", ", ".join(sorted(applied)) or "nothing")
        if waiting:
            logger.warning("these settings need a restart of the daemon: %s", ", ".join(sorted(waiting)))


def _differing(one: Settings, other: Settings) -> set[str]:
    return {name for name in Settings.__struct_fields__ if getattr(one, name) != getattr(other, name)}
