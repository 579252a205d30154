"""A dispatcher over a real engine, and somebody who asks it."""

from __future__ import annotations

import os

import anyio

from motoolsd.engine.engine import Engine
from motoolsd.engine.usage import Audience, UsageCounts
from motoolsd.server.dispatch import Dispatcher
from motoolsd.wire.messages import Reply, Request
from tests.fakes import FakeClock


class Mailbox:
    """Where replies go. Fulfils dispatch.Replier."""

    def __init__(self) -> None:
        """Empty, and always writable."""
        self.peer_pid = os.getpid()
        self.tally = UsageCounts(10, FakeClock()).tally(Audience())
        self.waiting: list[bool] = []
        self.replies: list[Reply] = []
        self.finished = anyio.Event()
        self.is_gone = False
        self.listing_turn = anyio.Lock()

    def reply(self, request_id: int, body: Reply) -> None:
        """Keep a reply."""
        self.replies.append(body)

    def finish(self, request_id: int, body: Reply) -> None:
        """Keep the last reply."""
        assert not self.finished.is_set(), "finished twice"
        self.replies.append(body)
        self.finished.set()

    def count_waiting(self, is_waiting: bool) -> None:  # noqa: FBT001 - as the connection's
        """Keep what is counted."""
        self.waiting.append(is_waiting)

    async def wait_writable(self) -> None:
        """Return at once, or raise if the client is gone."""
        await anyio.lowlevel.checkpoint()
        if self.is_gone:
            raise anyio.ClosedResourceError


class Whole:
    """The daemon as the dispatcher knows it. Fulfils dispatch.Daemon."""

    started_by = "client"
    socket_path = b"/c/motoolsd.sock"
    idle_timeout_s = 900.0
    durability = "full"
    clients = 3

    def __init__(self) -> None:
        """Nobody asked to stop."""
        self.reasons: list[str] = []

    def request_stop(self, reason: str) -> None:
        """Keep the reason."""
        self.reasons.append(reason)


class Desk:
    """A dispatcher over a real engine, and somebody who asks it."""

    def __init__(self, dispatcher: Dispatcher, engine: Engine, whole: Whole, clock: FakeClock) -> None:
        """Keep the parts at hand."""
        self.dispatcher = dispatcher
        self.engine = engine
        self.whole = whole
        self.clock = clock

    async def ask(self, body: Request) -> list[Reply]:
        """All replies to a request."""
        mailbox = Mailbox()
        mailbox.tally = self.engine.usage.tally(Audience())
        reply = self.dispatcher.dispatch(mailbox, 7, body)
        if reply is not None:
            assert mailbox.replies == []
            return [reply]
        await mailbox.finished.wait()
        return mailbox.replies
