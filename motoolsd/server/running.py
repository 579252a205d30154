"""What the dispatcher may know of, and do to, the whole daemon.

Layer: server. Imports listener and core.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from motoolsd.core.settings import Settings
from motoolsd.server.listener import Listener

logger = logging.getLogger(__name__)


class Running:
    """The daemon from outside: who started it, where it listens, and whether it is to end."""

    def __init__(
        self,
        listener: Listener,
        settings: Settings,
        *,
        socket_path: bytes,
        ends_when_idle: bool,
        on_stop: Callable[[str], None],
    ) -> None:
        """Nothing asked to stop yet.

        Args:
            listener: its connections.
            settings: the present ones.
            socket_path: where it listens.
            ends_when_idle: whether whoever needs it next starts it again.
            on_stop: told the reason when it begins to drain.
        """
        self._listener = listener
        self._ends_when_idle = ends_when_idle
        self._on_stop = on_stop
        self.started_by = listener.started_by
        self.socket_path = socket_path
        self.stop = anyio.Event()
        self.apply(settings)

    @property
    def clients(self) -> int:
        """Open connections."""
        return self._listener.clients

    def apply(self, settings: Settings) -> None:
        """Take over what the settings say of the whole."""
        self.idle_timeout_s = settings.idle_timeout_s if self._ends_when_idle else 0.0
        self.durability: str = settings.durability

    def request_stop(self, reason: str) -> None:
        """Begin to drain; only the first reason counts."""
        if not self.stop.is_set():
            logger.info("stopping: %s", reason)
            self._on_stop(reason)
            self.stop.set()
