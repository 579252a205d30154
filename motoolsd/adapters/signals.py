"""The signals that the daemon obeys, from the moment it serves to the end of its process.

Layer: adapters.
Invariant: once taken, none of them ends the process by itself again. A stop that is asked for twice is one stop: the
system's default would kill the daemon between its last answer and the checkpoint.
"""

from __future__ import annotations

import asyncio
import signal
from types import FrameType

OBEYED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """What was received, in order. Belongs to the main thread and its running event loop.

    Not `loop.add_signal_handler`, and what is built on it: taking such a handler away brings the default back.
    """

    def __init__(self) -> None:
        """Take nothing yet: a start that hangs can be ended by the system's default."""
        self._received: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def take(self) -> None:
        """Receive from now on. Before anybody knows of us: whoever starts a daemon may stop it at once."""
        for number in OBEYED:
            signal.signal(number, self._on_signal)
            signal.siginterrupt(number, False)

    def ignore(self) -> None:
        """The process ends: nothing that comes now changes that, or its exit code."""
        for number in OBEYED:
            signal.signal(number, signal.SIG_IGN)

    async def receive(self) -> signal.Signals:
        """The next one."""
        return await self._received.get()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._received.put_nowait, signal.Signals(number))
