"""Cache: the cache for asyncio and trio.

Layer: motools.cache. Imports calls, client, launch, multiplex and recovery.
Invariant: no background task, and no state of one event loop is used under another.
"""

from __future__ import annotations

import asyncio
import threading
from copy import copy
from math import inf
from types import TracebackType
from typing import Self, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from motools.cache import lease_calls
from motools.cache.async_claims import AsyncClaims
from motools.cache.async_entries import AsyncEntries
from motools.cache.async_files import AsyncFiles
from motools.cache.async_management import AsyncManagement
from motools.cache.async_waiting import Asker, give_up
from motools.cache.calls import Call
from motools.cache.client import Client
from motools.cache.clock import monotonic_s
from motools.cache.errors import UNAVAILABLE, CacheError, CacheRequestError
from motools.cache.launch import Launch
from motools.cache.multiplex import MultiplexedConnection
from motools.cache.recovery import Recovery, making_room, no_answer
from motools.cache.remembered import Memory
from motools.cache.unreleased import settle, unreleased
from motools.cache.using import AsyncUsing, end_use_async
from motoolsd.wire.messages import Drain, Found, Lookup, Request, RequestKey
from motoolsd.wire.names import INVISIBLE_PID

T = TypeVar("T")

RELEASES_AT_ONCE = 64
"""Each may take a moment, which it would not have among thousands."""


class Cache(Client, AsyncFiles, AsyncEntries, AsyncClaims, AsyncUsing, AsyncManagement):
    """A cache directory, through its daemon, under asyncio or trio.

    Concurrency: any number of tasks may use one instance at the same time, over one connection. One thread only:
    the first that uses it; a second one gets RuntimeError. Under a new event loop (older code shares an instance over
    several `asyncio.run`) it connects anew.

    Cancellation: a call that is cancelled leaves at once; a write may be applied all the same.

    Resources: connects on first use. `aclose` or an `async with` block lets go of the connection; a cache that is
    forgotten is closed when it is collected.

    Errors: `CacheError` and nothing else; see `motools.cache.errors`.
    """

    _connection: MultiplexedConnection | None = None
    _connecting: anyio.Lock
    _token: object
    _thread: int | None
    _failures: int
    _failure: CacheError | None
    _is_closed = False

    async def __aenter__(self) -> Self:
        """Use it in an `async with` block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Release what is claimed and let go of the connection; closing twice does nothing.

        Every call after it raises CacheRequestError.
        """
        self._check_context()
        while self._held:
            async with anyio.create_task_group() as group:
                for _ in range(min(len(self._held), RELEASES_AT_ONCE)):
                    group.start_soon(give_up, self, self._held.pop())
        while self._in_use:
            await end_use_async(self, next(iter(self._in_use)))
        self._is_closed = True
        if self._connection is not None:
            if self._memory.has_used and self._memory.settle():
                self._connection.tell(self._memory.take_used())
            self._close_connection()
        self._memory = Memory(self._directory, 0)

    # How a call is carried out.

    async def _call(self, call: Call[T]) -> T:
        self._check_context()
        if call.of_values is not None and self._memory_entries:
            if self._memory.is_due:
                self._settle()
            assert isinstance(call.request, Lookup), "only lookups are remembered"
            if (values := self._memory.find(call.request)) is not None:
                return call.of_values(values)
        key = None if call.make is None else self._keys.new()
        started_s = monotonic_s()
        try:
            connection = self._connection
            if connection is None or call.is_stream or not connection.is_open:
                return await self._carry_out(call, key, started_s)
            # What nearly always comes, by the shortest way: an exchange over an open connection.
            try:
                if key is not None and not self._knows_origin:
                    await self._learn_origin()
                request = self._request(connection, call, key)
                if self._memory_entries:
                    return await self._exchange(connection, call, request, self._timeout_s)
                return self._result(connection, call, request, await connection.exchange(request, self._timeout_s))
            except CacheError as error:
                return await self._carry_out(call, key, started_s, error)
        except UNAVAILABLE as error:
            return self._fall_back(call, error)
        finally:
            if key is not None:
                self._keys.done(key)

    def _as_asker(self) -> Asker:
        return self

    async def _ask(self, call: Call[T]) -> T:
        return await self._call(call)

    async def _ask_for_hours(self, call: Call[T]) -> T:
        """A call whose answer may take hours: only getting and keeping a connection is bounded."""
        self._check_context()
        recovery: Recovery | None = None
        while True:
            try:
                left_s = self._timeout_s if recovery is None else recovery.left_s(monotonic_s())
                with anyio.move_on_after(left_s) as connecting:
                    connection = await self._open(left_s)
                if connecting.cancelled_caught:
                    raise no_answer(left_s, outcome_known=True)
                recovery = None
                return call.result(await connection.exchange(call.request_for(None)))
            except UNAVAILABLE as error:
                recovery = recovery or Recovery(self._timeout_s, monotonic_s(), is_write=False)
                await anyio.sleep(recovery.after(error, monotonic_s()))

    def _as_cache(self) -> Cache:
        return self

    async def _open(self, left_s: float) -> MultiplexedConnection:
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = await self._connect(left_s)
        return connection

    async def _carry_out(
        self, call: Call[T], key: RequestKey | None, started_s: float, error: CacheError | None = None
    ) -> T:
        """All attempts of a call; with `error`, those after a first one that failed."""
        recovery = Recovery(self._timeout_s, started_s, is_write=call.is_write)
        while True:
            if error is not None:
                await anyio.sleep(recovery.after(error, monotonic_s()))
                key = None if key is None else self._keys.retry(key)
            try:
                return await self._attempt_within(call, key, recovery.left_s(monotonic_s()))
            except CacheError as failed:
                error = failed

    async def _attempt_within(self, call: Call[T], key: RequestKey | None, left_s: float) -> T:
        with anyio.move_on_after(left_s):
            return await self._attempt(call, key, left_s)
        raise no_answer(self._timeout_s, outcome_known=not call.is_write)

    async def _attempt(self, call: Call[T], key: RequestKey | None, left_s: float) -> T:
        connection = await self._open(left_s)
        if key is not None and not self._knows_origin:
            await self._learn_origin()
        request = self._request(connection, call, key)
        if call.is_stream:
            connection.hold(self._memory.take_used())
            return call.result_of_pages(await connection.collect(request))
        return await self._exchange(connection, call, request)

    async def _exchange(
        self, connection: MultiplexedConnection, call: Call[T], request: Request, timeout_s: float = inf
    ) -> T:
        memory = self._memory
        if memory.has_used and (type(request) is not Lookup or memory.is_report_due):
            connection.hold(memory.take_used())
        if type(request) is not Lookup or not memory.attach(connection.peer.stamps):
            return self._result(connection, call, request, await connection.exchange(request, timeout_s))
        before, generation = memory.numbers_of(request), memory.generation
        reply = await connection.exchange(request, timeout_s)
        result = self._result(connection, call, request, reply)
        if isinstance(reply, Found) and reply.lasts and memory is self._memory and generation == memory.generation:
            memory.remember(request, before, reply.values)
        return result

    async def _learn_origin(self) -> None:
        """Gather who we are, in a thread: git may take its time."""
        await anyio.to_thread.run_sync(self._gather_origin, abandon_on_cancel=True)

    def _settle(self) -> None:
        """As in `SyncCache`."""
        if not self._memory.settle():
            self._memory.detach()
            self._close_connection()
        elif self._connection is not None and self._connection.is_open and self._memory.is_report_due:
            self._connection.tell(self._memory.take_used())

    async def _connect(self, left_s: float) -> MultiplexedConnection:
        """The connection that all tasks share; what keeps one of them from having it, keeps all that wait for it."""
        failures = self._failures
        async with self._connecting:
            if self._is_closed:
                raise CacheRequestError(f"{self!r} is closed")
            if self._connection is not None and self._connection.is_open:
                return self._connection
            if self._failures != failures and self._failure is not None:
                raise copy(self._failure)
            try:
                self._connection = await self._open_connection(left_s)
            except CacheError as error:
                self._failures += 1
                self._failure = error
                raise
            return self._connection

    async def _open_connection(self, left_s: float) -> MultiplexedConnection:
        launch = Launch(self._directory, timeout_s=left_s, autostart=self._autostart, create=self._creates)
        try:
            connected = await anyio.to_thread.run_sync(launch.run, abandon_on_cancel=True)
        except BaseException:
            launch.abandon()
            raise
        connection = MultiplexedConnection(connected)
        try:
            await connection.greet(self._greeting())
            await self._check_usable(connection)
            if connection.peer.peer_pid == INVISIBLE_PID:
                for claim_id in list(self._held):
                    await connection.exchange(lease_calls.join(claim_id).request_for(None))
            for claim_id in unreleased(self._directory):
                await connection.exchange(lease_calls.release(claim_id).request_for(None))
                settle(self._directory, claim_id)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _check_usable(self, connection: MultiplexedConnection) -> None:
        if self._asks_to_drain(connection.peer):
            await connection.exchange(Drain(reason=f"an upgrade from {connection.peer.version}"))
            raise making_room()
        if self._is_closed:
            raise CacheRequestError(f"{self!r} is closed")

    def _check_context(self) -> None:
        """One thread, or else RuntimeError; and one event loop at a time."""
        thread = threading.get_ident()
        try:
            token: object = asyncio.get_running_loop()  # a tenth of what anyio's token costs
        except RuntimeError:
            token = anyio.lowlevel.current_token()
        if thread == self._thread and token is self._token:
            return
        if self._thread is None:
            self._thread = thread
        elif self._thread != thread:
            message = f"{self!r} belongs to another thread: give each thread its own Cache, or use SyncCache"
            raise RuntimeError(message)
        if token != self._token:
            self._drop_connection()
            self._token = token
            self._connecting = anyio.Lock()

    def _close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.abandon()
            self._connection = None

    def _start_fresh(self) -> None:
        self._token = None
        self._thread = None
        self._failures = 0
        self._failure = None


SQLiteCache = Cache
"""The older package's name."""
