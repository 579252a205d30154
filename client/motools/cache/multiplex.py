"""An async connection that many tasks use at the same time.

Layer: motools.cache. Imports clock, connection, errors, recovery and motoolsd.wire.
Invariant: there is no background task. Of the tasks that wait, one reads and sends for all; when it has what it waited
for, or is cancelled, the next one does. What was handed over to be sent stays whole, whoever is cancelled.

Why requests are not sent at once: the replies of one wake-up wake many tasks, and each of them asks again. The task
that reads lets them all go first, and sends what they ask in one piece; so the daemon, too, is woken once for it all.
"""

from __future__ import annotations

import socket
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from copy import copy
from math import inf

import anyio
import anyio.lowlevel

from motools.cache.clock import monotonic_s
from motools.cache.connection import RECEIVE_SIZE_BYTES, greeting, is_final, lost, replies_in, welcomed
from motools.cache.errors import CacheError, CacheRequestError
from motools.cache.recovery import no_answer
from motools.cache.signal import Signal, signal_maker
from motoolsd.wire.errors import LocalProtocolError
from motoolsd.wire.leases import Claim
from motoolsd.wire.messages import Hello, Notice, Reply, Request
from motoolsd.wire.session import ClientSession

SENT_AT_ONCE_BYTES = 2_048
"""Of requests that are gathered: some twenty lookups, so that the daemon begins while others are still being put."""


class _Waiter:
    """A task that waits, and what came for it.

    Attributes:
        replies: what came and was not taken yet.
        woken: wakes the task; None while it does something else.
        timeout_s, deadline_s: for how long, and until when, it waits.
    """

    __slots__ = ("deadline_s", "replies", "timeout_s", "woken")

    def __init__(self, timeout_s: float = inf) -> None:
        self.replies: list[Reply] = []
        self.woken: Signal | None = None
        self.timeout_s = timeout_s
        self.deadline_s = inf if timeout_s == inf else monotonic_s() + timeout_s

    def wake(self) -> bool:
        """Let it look again; False if it is not waiting."""
        if self.woken is None:
            return False
        if not self.woken.done():
            self.woken.set_result(None)
        return True


class MultiplexedConnection:
    """One connection under one event loop. `greet` comes before anything else."""

    introduced_until_s = 0.0
    """As in `BlockingConnection`."""

    def __init__(self, connected: socket.socket) -> None:
        """Take over a connected socket."""
        connected.setblocking(False)
        self._socket = connected
        self._session = ClientSession()
        self._new_signal = signal_maker()
        self._waiting: dict[int, _Waiter] = {}
        self._timed: dict[int, _Waiter] = {}
        """Those of `_waiting` that have a deadline, the earliest first: all exchanges are given the same time."""
        self._queueing: dict[_Waiter, None] = {}
        self._is_reading = False
        self._next_reader: _Waiter | None = None
        self._blocked: anyio.CancelScope | None = None
        """Where the task that reads waits for the socket; cancelled to have it look again."""
        self._unsent = bytearray()
        self._error: CacheError | None = None
        # Also runs when nobody closed it: a client that is forgotten gives no warning.
        self._finalizer = weakref.finalize(self, connected.close)

    @property
    def is_open(self) -> bool:
        """Whether it may be used again."""
        return self._error is None

    @property
    def has_room(self) -> bool:
        """Whether a request can be sent now, without waiting for the place of another."""
        return self._error is None and self._session.outstanding < self._session.outstanding_max

    async def greet(self, hello: Hello | None = None) -> None:
        """Say hello and wait for the welcome.

        Raises:
            CacheError: the daemon refuses, or the connection was lost.
        """
        self._waiting[0] = waiter = _Waiter()
        self._unsent += self._session.hello(hello or greeting())
        self.peer = welcomed(await self._reply_for(waiter))
        del self._waiting[0]

    async def exchange(self, request: Request, timeout_s: float = inf) -> Reply:
        """Send one request and wait for its reply.

        Args:
            request: what to ask.
            timeout_s: for all of it; the same in all calls but those that wait without end.

        Cancellation: leaves at once; the request may have been carried out, and its reply is dropped.

        Raises:
            ConnectionLost: every task that waits gets one.
            DaemonBusy: the time is over; the connection stays as it is.
            CacheRequestError: the request is too large; nothing was sent.
        """
        waiter = _Waiter(timeout_s)
        session = self._session
        while session.outstanding >= session.outstanding_max and not (isinstance(request, Claim) and request.wait):
            await self._queue(waiter)
        request_id = self._register(request, waiter)
        # As `_reply_for`, without the functions between: it is what nearly always happens.
        try:
            while not waiter.replies:
                if self._is_reading and self._error is None:
                    waiter.woken = self._new_signal()
                    await waiter.woken
                    waiter.woken = None
                    if not waiter.replies:
                        self._check_time(waiter)
                else:
                    self._check_open()
                    await self._read_for_all()
                    if not waiter.replies:
                        self._check_time(waiter)
            return waiter.replies[0]
        finally:
            self._forget(request_id, waiter)

    async def collect(self, request: Request) -> list[Reply]:
        """Send one request and wait for all pages of its reply.

        Cancellation: as `exchange`.

        Raises:
            CacheError: as `exchange`.
        """
        waiter = _Waiter()
        if self._session.outstanding >= self._session.outstanding_max:
            await self._queue(waiter)
        request_id = self._register(request, waiter)
        try:
            replies = [await self._reply_for(waiter)]
            while not is_final(replies[-1]):
                replies.append(await self._reply_for(waiter))
        finally:
            self._forget(request_id, waiter)
        return replies

    async def stream(
        self,
        request: Request,
        silence_s: float,
        take: Callable[[Reply], None],
        when_silent: Callable[[], Awaitable[object]],
    ) -> None:
        """Send one request and hand out all messages of its reply, as they come: as `BlockingConnection.stream`.

        Cancellation: as `exchange`.
        """
        waiter = _Waiter()
        request_id = self._register(request, waiter)
        try:
            reply: Reply | None = None
            while reply is None or not is_final(reply):
                reply = None
                while reply is None:
                    with anyio.move_on_after(silence_s):
                        reply = await self._reply_for(waiter)
                    if reply is None:
                        await when_silent()
                take(reply)
        finally:
            self._forget(request_id, waiter)

    def hold(self, notices: Sequence[Notice]) -> None:
        """Send notices with the next request."""
        for notice in notices:
            with suppress(LocalProtocolError):  # one that is lost costs a count
                self._unsent += self._session.notice(notice)

    def tell(self, notices: Sequence[Notice]) -> None:
        """Send notices as far as the socket takes them now; what is left goes with the next request. Never fails."""
        if self._unsent or not self.is_open:
            return
        self.hold(notices)
        self._send_nowait()

    def close(self, error: CacheError | None = None) -> None:
        """Close this process's end; whoever waits gets `error`."""
        if self._error is not None:
            return
        self._error = error or lost(None)
        if self._blocked is not None:
            anyio.notify_closing(self._socket)
        self._finalizer()
        for waiter in [*self._waiting.values(), *self._queueing]:
            waiter.wake()

    def abandon(self) -> None:
        """Close the socket of an event loop that is gone, or of a forked parent: nobody can wait here any more."""
        self._error = self._error or lost(None)
        self._finalizer()

    def _register(self, request: Request, waiter: _Waiter) -> int:
        """Hand a request over to be sent."""
        if self._error is not None:
            self._check_open()
        try:
            request_id, frame = self._session.request(request)
        except LocalProtocolError as error:
            raise CacheRequestError(str(error)) from error
        self._unsent += frame
        self._waiting[request_id] = waiter
        if waiter.deadline_s != inf:
            self._timed[request_id] = waiter
        if self._blocked is not None or len(self._unsent) >= SENT_AT_ONCE_BYTES:
            self._send_nowait()
            if self._unsent and self._blocked is not None:
                # The socket is full: the task that reads has to wait for room in it as well.
                self._blocked.cancel()
        return request_id

    async def _queue(self, waiter: _Waiter) -> None:
        """Wait for a place among the outstanding requests."""
        session = self._session
        self._queueing[waiter] = None
        try:
            # What waits here has no place among those whose time is looked at by whoever reads.
            with anyio.move_on_after(waiter.deadline_s - monotonic_s()):
                await self._wait(waiter, lambda: session.outstanding < session.outstanding_max)
        finally:
            del self._queueing[waiter]
            self._hand_over()
        self._check_time(waiter)

    def _forget(self, request_id: int, waiter: _Waiter) -> None:
        del self._waiting[request_id]
        self._timed.pop(request_id, None)
        if self._next_reader is waiter or self._queueing:
            self._hand_over()

    async def _reply_for(self, waiter: _Waiter) -> Reply:
        if not waiter.replies:
            await self._wait(waiter, lambda: bool(waiter.replies))
        return waiter.replies.pop(0)

    def _check_time(self, waiter: _Waiter) -> None:
        if waiter.deadline_s != inf and monotonic_s() >= waiter.deadline_s:
            raise no_answer(waiter.timeout_s, outcome_known=False)

    def _check_open(self) -> None:
        """Raise what ended the connection; each task gets an error of its own."""
        if self._error is not None:
            raise copy(self._error) from self._error.__cause__

    async def _wait(self, waiter: _Waiter, is_over: Callable[[], bool]) -> None:
        """Read for all, or let somebody else read, until it is over."""
        while not is_over():
            self._check_open()
            if self._is_reading:
                waiter.woken = self._new_signal()
                try:
                    await waiter.woken
                finally:
                    waiter.woken = None
            else:
                await self._read_for_all()

    async def _read_for_all(self) -> None:
        """Send what there is to send, read what comes, and hand it out."""
        self._is_reading = True
        self._next_reader = None
        try:
            if len(self._waiting) > 1:
                # Whoever was woken beside us asks first.
                await anyio.lowlevel.checkpoint()
                self._check_open()
            self._send_nowait()
            data = await self._receive()
            if data is not None:
                self._hand_out(data)
        except CacheError as error:
            self._is_reading = False
            self.close(error)
        finally:
            self._is_reading = False
            self._hand_over()

    def _hand_out(self, data: bytes) -> None:
        for envelope in replies_in(self._session, data):
            # A reply that nobody waits for any more belongs to a cancelled call.
            if (waiter := self._waiting.get(envelope.id)) is not None:
                waiter.replies.append(envelope.body)
                waiter.wake()

    async def _receive(self) -> bytes | None:
        """Wait for the socket, at most until the first deadline; what came, or None if it is time to look again."""
        first = next(iter(self._timed.values()), None)
        left_s = inf if first is None else max(0.0, first.deadline_s - monotonic_s())
        try:
            # Waited for first: the reply is never there yet, and a stream that always is starves nobody by that.
            with anyio.CancelScope(deadline=inf if left_s == inf else anyio.current_time() + left_s) as self._blocked:
                await self._wait_for_socket()
            if self._blocked.cancelled_caught:
                self._wake_late()
            self._send_nowait()
            return self._socket.recv(RECEIVE_SIZE_BYTES)
        except BlockingIOError:
            return None
        except (anyio.ClosedResourceError, OSError, ValueError) as error:
            raise lost(error) from error
        finally:
            self._blocked = None

    async def _wait_for_socket(self) -> None:
        """Wait until something can be read or, if there is something to send, written.

        Both at once: the daemon takes nothing more from a client that does not read. What is wrong with the socket is
        said by whoever uses it next.
        """
        if not self._unsent:
            await anyio.wait_readable(self._socket)
            return
        async with anyio.create_task_group() as group:

            async def wait(ready: Callable[[socket.socket], Awaitable[None]]) -> None:
                with suppress(anyio.ClosedResourceError, OSError, ValueError):
                    await ready(self._socket)
                group.cancel_scope.cancel()

            group.start_soon(wait, anyio.wait_writable)
            group.start_soon(wait, anyio.wait_readable)

    def _wake_late(self) -> None:
        """Wake those whose time is over."""
        now_s = monotonic_s()
        for waiter in self._timed.values():
            if waiter.deadline_s > now_s:
                break
            waiter.wake()

    def _hand_over(self) -> None:
        """Wake one task to read on, and those that queue for a place if there is one."""
        self._next_reader = None
        if self._is_reading:
            return
        # As many as have a place, or one to read; waking thousands for one place would cost the square of them.
        places = self._session.outstanding_max - self._session.outstanding
        woken = 0
        for waiter in self._queueing:
            woken += waiter.wake()
            if woken >= max(places, 1):
                break
        if woken and places <= 0:
            return
        for waiter in self._waiting.values():
            if not waiter.replies and waiter.wake():
                self._next_reader = waiter
                return

    def _send_nowait(self) -> None:
        """Send as much as the socket takes; a connection that is gone is noticed by whoever reads."""
        if self._unsent:
            with suppress(OSError):
                del self._unsent[: self._socket.send(self._unsent)]
