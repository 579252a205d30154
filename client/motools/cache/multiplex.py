"""An async connection that many tasks use at the same time.

Layer: motools.cache. Imports connection, errors and motoolsd.wire.
Invariant: there is no background task. Of the tasks that wait, one reads for all; when it has what it waited for, or
is cancelled, the next one reads. What was handed over to be sent stays whole, whoever is cancelled.
"""

from __future__ import annotations

import socket
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable

import anyio

from motools.cache.connection import RECEIVE_SIZE_BYTES, feed, greeting, lost, next_event, welcomed
from motools.cache.errors import CacheError, CacheProtocolError
from motoolsd.wire.errors import LocalProtocolError
from motoolsd.wire.messages import Page, Reply, Request
from motoolsd.wire.session import ClientSession


class _Waiter:
    """A task that waits, and what came for it."""

    __slots__ = ("replies", "woken")

    def __init__(self) -> None:
        self.replies: deque[Reply] = deque()
        self.woken = anyio.Event()


class MultiplexedConnection:
    """One connection under one event loop. `greet` comes before anything else."""

    def __init__(self, connected: socket.socket) -> None:
        """Take over a connected socket."""
        connected.setblocking(False)
        self._socket = connected
        self._session = ClientSession()
        self._waiting: dict[int, _Waiter] = {}
        self._queueing: list[_Waiter] = []
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
            ConnectionLost: every task that waits gets it.
        """
        replies = [reply async for reply in self.stream(request)]
        return replies[-1]

    async def stream(self, request: Request) -> AsyncIterator[Reply]:
        """Send one request and give its replies one by one."""
        request_id, waiter, frame = await self._register(request)
        try:
            await self._send(frame)
            while True:
                reply = await self._reply_for(waiter)
                yield reply
                if not isinstance(reply, Page) or reply.is_last:
                    return
        finally:
            del self._waiting[request_id]
            self._hand_over()

    def close(self, error: CacheError | None = None) -> None:
        """Close this process's end; whoever waits gets `error`."""
        if self._error is not None:
            return
        self._error = error or lost(None)
        if self._is_reading or self._sending.locked():
            anyio.notify_closing(self._socket)
        self._finalizer()
        for waiter in [*self._waiting.values(), *self._queueing]:
            waiter.woken.set()

    def abandon(self) -> None:
        """Close the socket of an event loop that is gone, or of a forked parent: nobody can wait here any more."""
        self._error = self._error or lost(None)
        self._finalizer()

    async def _register(self, request: Request) -> tuple[int, _Waiter, bytearray]:
        waiter = _Waiter()
        if self._session.outstanding >= self._session.outstanding_max:
            self._queueing.append(waiter)
            try:
                await self._wait(waiter, lambda: self._session.outstanding < self._session.outstanding_max)
            finally:
                self._queueing.remove(waiter)
                self._hand_over()
        if self._error is not None:
            raise self._error
        try:
            request_id, frame = self._session.request(request)
        except LocalProtocolError as error:
            raise CacheProtocolError(str(error)) from error
        self._waiting[request_id] = waiter
        return request_id, waiter, frame

    async def _reply_for(self, waiter: _Waiter) -> Reply:
        if not waiter.replies:
            await self._wait(waiter, lambda: bool(waiter.replies))
        return waiter.replies.popleft()

    async def _wait(self, waiter: _Waiter, is_over: Callable[[], bool]) -> None:
        """Read for all, or let somebody else read, until it is over."""
        while not is_over():
            if self._error is not None:
                raise self._error
            if self._is_reading:
                waiter.woken = anyio.Event()
                await waiter.woken.wait()
            else:
                await self._read_for_all()

    async def _read_for_all(self) -> None:
        self._is_reading = True
        try:
            data = await self._receive()
            feed(self._session, data)
            while (envelope := next_event(self._session)) is not None:
                # A reply that nobody waits for any more belongs to a cancelled call.
                if (waiter := self._waiting.get(envelope.id)) is not None:
                    waiter.replies.append(envelope.body)
                    waiter.woken.set()
        except CacheError as error:
            self._is_reading = False
            self.close(error)
            raise
        finally:
            self._is_reading = False
            self._hand_over()

    async def _receive(self) -> bytes:
        while True:
            try:
                return self._socket.recv(RECEIVE_SIZE_BYTES)
            except BlockingIOError:
                pass
            except OSError as error:
                raise lost(error) from error
            try:
                await anyio.wait_readable(self._socket)
            except (anyio.ClosedResourceError, OSError, ValueError) as error:
                raise self._error or lost(error) from error

    def _hand_over(self) -> None:
        """Wake one task to read on, and those that queue for a place if there is one."""
        if self._is_reading:
            return
        for waiter in self._waiting.values():
            if not waiter.replies:
                waiter.woken.set()
                break
        else:
            for waiter in self._queueing[:1]:
                waiter.woken.set()
        if self._session.outstanding < self._session.outstanding_max:
            for waiter in self._queueing:
                waiter.woken.set()

    async def _send(self, frame: bytearray) -> None:
        self._unsent += frame
        # Whoever has the lock sends ours too; but he may be cancelled in between, so everybody waits for the turn.
        async with self._sending:
            while self._unsent:
                await self._send_some()

    async def _send_some(self) -> None:
        if self._error is not None:
            raise self._error
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            try:
                await anyio.wait_writable(self._socket)
            except (anyio.ClosedResourceError, OSError, ValueError) as error:
                raise self._error or lost(error) from error
        except OSError as error:
            failure = lost(error)
            self.close(failure)
            raise failure from error
