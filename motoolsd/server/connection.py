"""One client's connection.

Layer: server. Imports dispatch and wire.
Invariant: what a connection may have open, and may make us hold, is bounded: above `OUTSTANDING_MAX` requests, with a
full writer, or with a client that does not read, nothing more is taken from it until that ends. Nothing is refused.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Protocol, cast

import anyio

from motoolsd.engine.usage import Tally
from motoolsd.server.dispatch import Dispatcher
from motoolsd.wire.envelopes import RequestEnvelope
from motoolsd.wire.errors import RemoteProtocolError
from motoolsd.wire.messages import OUTSTANDING_MAX, Failure, Hello, Reply
from motoolsd.wire.session import Refused, ServerSession, State, encode_reply
from motoolsd.wire.version import __version__

logger = logging.getLogger(__name__)


FLUSH_SIZE_BYTES = 256 * 1024
"""Replies gathered for one write; above it they are handed over, and the transport says whether the client reads."""


class Registry(Protocol):
    """Who counts connections and says whether one may stay."""

    started_by: str
    stamps: tuple[int, int] | None

    def admit(self, connection: Connection, transport: asyncio.Transport) -> Failure | None:
        """Count a new connection in, or say why it is to be closed. Called before a byte is read or written."""
        ...

    def leave(self, connection: Connection) -> None:
        """Count it out."""
        ...

    def flush_soon(self, connection: Connection) -> None:
        """Call its `flush` when this step of the loop is over."""
        ...


class Connection(asyncio.Protocol):
    """An asyncio Protocol that answers inside `data_received` whatever memory can answer."""

    def __init__(self, registry: Registry, dispatcher: Dispatcher) -> None:
        """Made by the listener for each connection."""
        self._registry = registry
        self._dispatcher = dispatcher
        self._session = ServerSession()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytearray] = []
        self._out_size = 0
        self._is_flush_due = False
        self._outstanding = 0
        self.peer_pid = 0
        """The process at the other end; the registry sets it."""
        self.tally: Tally
        """Where its lookups are counted: from its hello on."""
        self._held: RequestEnvelope | Refused | None = None
        self._awaits_space = False
        self._is_reading = True
        self._is_draining = False
        self._is_writable = True
        self._writable = anyio.Event()
        self._writable.set()
        self._listing_turn: anyio.Lock | None = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Check who is there, before anything is read."""
        # uvloop's transports have all the methods, and are no subclass.
        self._transport = cast("asyncio.Transport", transport)
        refusal = self._registry.admit(self, self._transport)
        if refusal is not None:
            self._close()

    def data_received(self, data: bytes) -> None:
        """Take bytes and answer what can be answered."""
        if self._held is not None or self._out or not self._may_take():
            self._session.receive_data(data)
        elif (request := self._session.receive_request(data)) is not None:
            self._answer(request)
            return
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why it ended changes nothing here
        """Forget what was still to be sent or taken. What the writer has goes on: cancelled is not unwritten."""
        self._transport = None
        self._session.close()
        self._held = None
        self._out.clear()
        self._is_writable = True
        self._writable.set()
        self._registry.leave(self)
        self._dispatcher.connection_lost(self)

    def pause_writing(self) -> None:
        """The client does not read: take nothing more from it."""
        self._is_writable = False
        self._writable = anyio.Event()

    def resume_writing(self) -> None:
        """It reads again."""
        self._is_writable = True
        self._writable.set()
        self._pump()

    # What the dispatcher calls.

    def reply(self, request_id: int, body: Reply) -> None:
        """Send a reply; those of one wake-up leave in one write."""
        if self._transport is None:
            return
        self._put_out(encode_reply(request_id, body))
        if not self._is_flush_due:
            self._is_flush_due = True
            self._registry.flush_soon(self)

    def finish(self, request_id: int, body: Reply) -> None:
        """Send the reply that ends a request."""
        self._outstanding -= 1
        self.reply(request_id, body)

    def count_waiting(self, is_waiting: bool) -> None:  # noqa: FBT001 - a callback's only argument
        """Take a request that waits for somebody else's work out of the outstanding ones, or in again."""
        self._outstanding += -1 if is_waiting else 1
        if self._transport is not None and not self._is_flush_due:
            self._is_flush_due = True
            self._registry.flush_soon(self)

    async def wait_writable(self) -> None:
        """Wait until the client has read enough.

        Raises:
            anyio.ClosedResourceError: it is gone.
        """
        await self._writable.wait()
        if self._transport is None:
            raise anyio.ClosedResourceError

    @property
    def listing_turn(self) -> anyio.Lock:
        """One listing at a time; most connections never ask for any."""
        if self._listing_turn is None:
            self._listing_turn = anyio.Lock()
        return self._listing_turn

    # What the listener calls.

    def drain(self) -> None:
        """Take no more requests; close when those in flight are answered."""
        self._is_draining = True
        self._close_if_drained()

    def abort(self) -> None:
        """Cut the connection."""
        self._session.close()
        if self._transport is not None:
            self._transport.abort()

    def _pump(self) -> None:
        try:
            while self._may_take():
                event = self._held or self._session.next_event()
                if event is None:
                    break
                self._held = None
                if not self._take(event):
                    break
        except RemoteProtocolError as error:
            logger.warning("a connection was closed: %s", error)
            self._flush()
            self._close()
            return
        if self._out:
            self._flush()
        # Asked for each time: reading stops where nothing may be taken, and goes on where it may again.
        if (self._held is None and self._may_take()) is not self._is_reading:
            self._turn_reading()
        if self._is_draining:
            self._close_if_drained()

    def _answer(self, request: RequestEnvelope) -> None:
        """Carry out what nearly always comes, by the shortest way: one whole request, and nothing else under way.

        Among many clients the processor's caches are cold at each request: every function that is not called counts.
        """
        try:
            reply = self._dispatcher.dispatch(self, request.id, request.body)
        except anyio.WouldBlock:
            self._held = request
            self._pump()
            return
        if reply is None:
            self._outstanding += 1
        elif self._transport is not None:
            self._transport.write(encode_reply(request.id, reply))

    def _may_take(self) -> bool:
        return self._is_writable and self._outstanding < OUTSTANDING_MAX and not self._is_draining

    def _take(self, event: RequestEnvelope | Refused) -> bool:
        """Carry one event out; False if it has to wait for the writer."""
        if type(event) is Refused:
            self._put_out(encode_reply(event.id, event.failure))
            return True
        assert type(event) is RequestEnvelope, "the session gives nothing else"
        if self._session.state is State.HELLO:
            return self._greet(event)
        try:
            reply = self._dispatcher.dispatch(self, event.id, event.body)
        except anyio.WouldBlock:
            self._held = event
            if not self._awaits_space:
                self._awaits_space = True
                self._dispatcher.when_space(self._on_space)
            return False
        if reply is None:
            self._outstanding += 1
        else:
            self._put_out(encode_reply(event.id, reply))
        return True

    def _greet(self, event: RequestEnvelope) -> bool:
        assert isinstance(event.body, Hello), "the session lets nothing else through"
        self.tally = self._dispatcher.tally(event.body)
        registry = self._registry
        answer = self._session.welcome(
            version=__version__,
            pid=os.getpid(),
            started_by=registry.started_by,
            stamps=registry.stamps,
            peer_pid=self.peer_pid,
        )
        self._put_out(encode_reply(event.id, answer))
        if self._session.state is State.CLOSED:
            self._flush()
            self._close()
        return True

    def _put_out(self, frame: bytearray) -> None:
        self._out.append(frame)
        self._out_size += len(frame)
        if self._out_size >= FLUSH_SIZE_BYTES:
            # One read may bring thousands of requests, each with a large reply: the transport must get them while
            # it can still say that the client does not read.
            self._flush()

    def _on_space(self) -> None:
        self._awaits_space = False
        self._pump()

    def flush(self) -> None:
        """Send the replies of this wake-up, and go on with what waited for one of them."""
        self._is_flush_due = False
        self._flush()
        # An answer makes room for what was held or left unread; nearly always there is nothing of that.
        if self._held is not None or not self._is_reading or self._is_draining:
            self._pump()

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            self._transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
        self._out.clear()
        self._out_size = 0

    def _turn_reading(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._is_reading = not self._is_reading
        if self._is_reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _close_if_drained(self) -> None:
        if self._is_draining and self._outstanding == 0 and not self._out and self._transport is not None:
            self._close()

    def _close(self) -> None:
        self._session.close()
        if self._transport is not None:
            self._transport.close()
