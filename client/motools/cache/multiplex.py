"""An async connection that many tasks use at the same time.

Layer: motools.cache. Imports connection, errors and motoolsd.wire.
Invariant: there is no background task. Of the tasks that wait, one reads for all; when it has what it waited for, or
is cancelled, the next one reads. What was handed over to be sent stays whole, whoever is cancelled.
"""

from __future__ import annotations

import socket
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from copy import copy

import anyio

from motools.cache.connection import RECEIVE_SIZE_BYTES, feed, greeting, is_final, lost, next_event, welcomed
from motools.cache.errors import CacheError, CacheRequestError
from motoolsd.wire.errors import LocalProtocolError
from motoolsd.wire.messages import Claim, Reply, Request, Used
from motoolsd.wire.session import ClientSession


class _Waiter:
    """A task that waits, and what came for it.

    Attributes:
        replies: what came and was not taken yet.
        woken: set to wake the task; None while it does something else, such as sending.
    """

    __slots__ = ("replies", "woken")

    def __init__(self) -> None:
        self.replies: deque[Reply] = deque()
        self.woken: anyio.Event | None = None

    def wake(self) -> bool:
        """Let it look again; False if it is not waiting."""
        if self.woken is None:
            return False
        self.woken.set()
        return True


class MultiplexedConnection:
    """One connection under one event loop. `greet` comes before anything else."""

    def __init__(self, connected: socket.socket) -> None:
        """Take over a connected socket."""
        connected.setblocking(False)
        self._socket = connected
        self._session = ClientSession()
        self._waiting: dict[int, _Waiter] = {}
        self._queueing: dict[_Waiter, None] = {}
        self._is_reading = False
        self._unsent = bytearray()
        self._sending = anyio.Lock()
        self._error: CacheError | None = None
        # Also runs when nobody closed it: a client that is forgotten gives no warning.
        self._finalizer = weakref.finalize(self, connected.close)

    @property
    def is_open(self) -> bool:
        """Whether it may be used again."""
        return self._error is None

    async def greet(self) -> None:
        """Say hello and wait for the welcome.

        Raises:
            CacheError: the daemon refuses, or the connection was lost.
        """
        self._waiting[0] = waiter = _Waiter()
        await self._send(self._session.hello(greeting()))
        self.peer = welcomed(await self._reply_for(waiter))
        del self._waiting[0]

    async def exchange(self, request: Request) -> Reply:
        """Send one request and wait for its reply.

        Cancellation: leaves at once; the request may have been carried out, and its reply is dropped.

        Raises:
            ConnectionLost: every task that waits gets one.
            CacheRequestError: the request is too large; nothing was sent.
        """
        return (await self.collect(request))[-1]

    async def collect(self, request: Request) -> list[Reply]:
        """Send one request and wait for all pages of its reply.

        Cancellation: as `exchange`.

        Raises:
            CacheError: as `exchange`.
        """
        request_id, waiter, frame = await self._register(request)
        try:
            await self._send(frame)
            replies = [await self._reply_for(waiter)]
            while not is_final(replies[-1]):
                replies.append(await self._reply_for(waiter))
        finally:
            del self._waiting[request_id]
            self._hand_over()
        return replies

    def hold(self, notice: Used) -> None:
        """Send a notice with the next request."""
        with suppress(LocalProtocolError):  # one that is lost costs a count
            self._unsent += self._session.notice(notice)

    def tell(self, notices: list[Used]) -> None:
        """Send notices as far as the socket takes them now; what is left goes with the next request. Never fails."""
        if self._unsent or not self.is_open:
            return
        for notice in notices:
            self.hold(notice)
        with suppress(OSError):  # the next request will say so
            del self._unsent[: self._socket.send(self._unsent)]

    def close(self, error: CacheError | None = None) -> None:
        """Close this process's end; whoever waits gets `error`."""
        if self._error is not None:
            return
        self._error = error or lost(None)
        if self._is_reading or self._sending.locked():
            anyio.notify_closing(self._socket)
        self._finalizer()
        for waiter in [*self._waiting.values(), *self._queueing]:
            waiter.wake()

    def abandon(self) -> None:
        """Close the socket of an event loop that is gone, or of a forked parent: nobody can wait here any more."""
        self._error = self._error or lost(None)
        self._finalizer()

    async def _register(self, request: Request) -> tuple[int, _Waiter, bytearray]:
        waiter = _Waiter()
        is_counted = not (isinstance(request, Claim) and request.wait)
        if is_counted and self._session.outstanding >= self._session.outstanding_max:
            self._queueing[waiter] = None
            try:
                await self._wait(waiter, lambda: self._session.outstanding < self._session.outstanding_max)
            finally:
                del self._queueing[waiter]
                self._hand_over()
        self._check_open()
        try:
            request_id, frame = self._session.request(request)
        except LocalProtocolError as error:
            raise CacheRequestError(str(error)) from error
        self._waiting[request_id] = waiter
        return request_id, waiter, frame

    async def _reply_for(self, waiter: _Waiter) -> Reply:
        if not waiter.replies:
            await self._wait(waiter, lambda: bool(waiter.replies))
        return waiter.replies.popleft()

    def _check_open(self) -> None:
        """Raise what ended the connection; each task gets an error of its own."""
        if self._error is not None:
            raise copy(self._error) from self._error.__cause__

    async def _wait(self, waiter: _Waiter, is_over: Callable[[], bool]) -> None:
        """Read for all, or let somebody else read, until it is over."""
        while not is_over():
            self._check_open()
            if self._is_reading:
                waiter.woken = anyio.Event()
                try:
                    await waiter.woken.wait()
                finally:
                    waiter.woken = None
            else:
                await self._read_for_all()

    async def _read_for_all(self) -> None:
        self._is_reading = True
        try:
            feed(self._session, await self._receive())
            while (envelope := next_event(self._session)) is not None:
                # A reply that nobody waits for any more belongs to a cancelled call.
                if (waiter := self._waiting.get(envelope.id)) is not None:
                    waiter.replies.append(envelope.body)
                    waiter.wake()
        except CacheError as error:
            self._is_reading = False
            self.close(error)
        finally:
            self._is_reading = False
            self._hand_over()

    async def _receive(self) -> bytes:
        while True:
            # Waited for first: the reply is never there yet, and a stream that always is starves nobody by that.
            try:
                await anyio.wait_readable(self._socket)
                return self._socket.recv(RECEIVE_SIZE_BYTES)
            except BlockingIOError:
                pass
            except (anyio.ClosedResourceError, OSError, ValueError) as error:
                raise lost(error) from error

    def _hand_over(self) -> None:
        """Wake one task to read on, and those that queue for a place if there is one."""
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
                return

    async def _send(self, frame: bytearray) -> None:
        self._unsent += frame
        # Whoever has the lock sends ours too; but he may be cancelled in between, so everybody waits for the turn.
        async with self._sending:
            while self._unsent:
                await self._send_some()

    async def _send_some(self) -> None:
        self._check_open()
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            await self._wait_writable()
        except OSError as error:
            self.close(lost(error))

    async def _wait_writable(self) -> None:
        """Wait until the daemon takes more, reading meanwhile: it takes nothing from a client that does not read."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._read_while_sending)
            try:
                await anyio.wait_writable(self._socket)
            except (anyio.ClosedResourceError, OSError, ValueError) as error:
                self.close(lost(error))
            group.cancel_scope.cancel()

    async def _read_while_sending(self) -> None:
        waiter = _Waiter()
        self._queueing[waiter] = None
        try:
            await self._wait(waiter, lambda: self._error is not None)
        finally:
            del self._queueing[waiter]
            self._hand_over()
