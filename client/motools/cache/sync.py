"""SyncCache: the cache for code without an event loop.

Layer: motools.cache. Imports calls, client, connection, launch and recovery.
Invariant: thread-safe by one lock, fork-safe by dropping what the parent had.
"""

from __future__ import annotations

from threading import Lock, get_ident
from types import TracebackType
from typing import Self, TypeVar

from motools.cache import calls, lease_calls
from motools.cache.calls import Call
from motools.cache.cleaning import OnProgress
from motools.cache.cleaning_calls import Gathering, after_break
from motools.cache.client import Client
from motools.cache.clock import monotonic_s, pause
from motools.cache.connection import BlockingConnection
from motools.cache.errors import UNAVAILABLE, CacheError, CacheRequestError
from motools.cache.launch import connect
from motools.cache.recovery import Recovery, making_room
from motools.cache.remembered import Memory
from motools.cache.sync_claims import SyncClaims
from motools.cache.sync_entries import SyncEntries
from motools.cache.sync_management import SyncManagement
from motools.cache.sync_waiting import give_up
from motools.cache.unreleased import settle, unreleased
from motools.cache.using import SyncUsing, end_use
from motoolsd.wire.messages import Found, Lookup, Request, RequestKey
from motoolsd.wire.names import INVISIBLE_PID

T = TypeVar("T")

LEFT_MIN_S = 0.001
"""A socket cannot wait for less; the deadline is looked at again after it."""


class SyncCache(Client, SyncEntries, SyncClaims, SyncUsing, SyncManagement):
    """A cache directory, through its daemon, blocking.

    Concurrency: one instance may be used by many threads, one call at a time; a forked child connects for itself.

    Resources: connects on first use. `close` or a `with` block lets go of the connection; a client that is forgotten
    is closed when it is collected.

    Errors: `CacheError` and nothing else; see `motools.cache.errors`. KeyboardInterrupt passes through a waiting call
    and leaves the client usable; whether the interrupted write was applied is not known then.
    """

    _lock: Lock
    _owner: int | None
    """The thread that is in a call."""
    _connection: BlockingConnection | None = None
    _is_closed = False

    def __enter__(self) -> Self:
        """Use it in a `with` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Release what is claimed and let go of the connection; closing twice does nothing.

        Every call after it raises CacheRequestError.
        """
        self._check_reentry()
        while self._held:
            give_up(self, self._held.pop())
        while self._in_use:
            end_use(self, next(iter(self._in_use)))
        with self._lock:
            self._is_closed = True
            self._report_last()
            self._memory = Memory(self._directory, 0)
            self._drop_connection()

    # How a call is carried out.

    def _call(self, call: Call[T], timeout_s: float | None = None) -> T:
        if call.of_values is not None and self._memory_entries and (values := self._recall(call)) is not None:
            return call.of_values(values)
        if timeout_s is None:
            timeout_s = self._timeout_s
        started_s = monotonic_s()
        # Another thread's call takes of the time of those that wait for it.
        is_alone = not self._lock.locked()
        if not is_alone:
            self._check_reentry()
        with self._lock:
            key = None if call.make is None else self._keys.new()
            try:
                self._owner = get_ident()
                connection = self._connection
                if connection is None or call.is_stream or not is_alone:
                    return self._carry_out(call, key, started_s, timeout_s)
                try:
                    return self._ask_open(connection, call, key, timeout_s)
                except CacheError as error:
                    return self._carry_out(call, key, started_s, timeout_s, error)
            except UNAVAILABLE as error:
                return self._fall_back(call, error)
            finally:
                self._owner = None
                if key is not None:
                    self._keys.done(key)

    def _ask_open(self, connection: BlockingConnection, call: Call[T], key: RequestKey | None, timeout_s: float) -> T:
        """What nearly always comes, by the shortest way: an exchange over an open connection.

        Eight processes on two cores find their caches cold at every call; each function that is not called counts.
        """
        is_plain = call.of_values is not None and not self._asks_version
        request = call.request if is_plain else None
        if request is None:
            request = self._request(connection, call, key)
        if self._memory_entries:
            return self._exchange(connection, call, request, timeout_s)
        reply = connection.exchange(request, timeout_s)
        if is_plain and call.inputs is None and type(reply) is call.expects:
            return call.decode(reply)
        return self._result(connection, call, request, reply)

    def _exchange(self, connection: BlockingConnection, call: Call[T], request: Request, timeout_s: float) -> T:
        memory = self._memory
        if memory.has_used and (type(request) is not Lookup or memory.is_report_due):
            connection.hold(memory.take_used())
        if type(request) is not Lookup or not memory.attach(connection.peer.stamps):
            return self._result(connection, call, request, connection.exchange(request, timeout_s))
        before = memory.numbers_of(request)
        reply = connection.exchange(request, timeout_s)
        result = self._result(connection, call, request, reply)
        if isinstance(reply, Found) and reply.lasts:
            memory.remember(request, before, reply.values)
        return result

    def _recall(self, call: Call[T]) -> list[str | None] | None:
        """What is remembered of a lookup's keys, if it is all of them."""
        if self._memory.is_due:
            self._settle()
        assert isinstance(call.request, Lookup), "only lookups are remembered"
        return self._memory.find(call.request)

    def _settle(self) -> None:
        """Look whether what is remembered is still that of our directory, and tell the daemon what was used.

        Waits neither for a daemon nor for another thread's call, unless what is remembered is void.
        """
        if not self._lock.acquire(blocking=False):
            # The use of these is not reported, rather than gathered without end.
            self._memory.drop_used()
            if self._memory.is_current():
                return
            self._check_reentry()
            self._lock.acquire()
        try:
            if not self._memory.settle():
                self._memory.detach()
                self._drop_connection()
            elif self._connection is not None and self._connection.is_open and self._memory.is_report_due:
                self._connection.tell(self._memory.take_used())
        finally:
            self._lock.release()

    def _as_cache(self) -> SyncCache:
        return self

    def _report_last(self) -> None:
        if self._memory.has_used and self._memory.settle() and self._connection is not None:
            self._connection.tell(self._memory.take_used())

    def _check_reentry(self) -> None:
        """Raise where the lock would be waited for by the very thread that holds it."""
        if self._owner == get_ident():
            message = (
                f"{self!r} is in the middle of a call of this thread: a signal handler needs a SyncCache of its own"
            )
            raise CacheRequestError(message)

    def _reach(self) -> None:
        """Make sure that there is a directory, and a daemon."""
        connection = self._connection
        if connection is None or not connection.is_open:
            self._call(calls.get_status())

    def _call_long(self, call: Call[T], on_progress: OnProgress | None = None, *, is_repeatable: bool = True) -> T:
        """A call whose answer comes bit by bit, on a connection of its own.

        Args:
            call: to carry out; a stream.
            on_progress: told of it.
            is_repeatable: whether asking again after a lost connection does no harm. Sizes, plans and findings only
                look, and ApplyPlan tells what came of the first time. Undo without a number would put back one removal
                more, and what was undone or freed by number is not found any more.
        """
        recovery = Recovery(self._timeout_s, monotonic_s(), is_write=False)
        while True:
            gathering = Gathering(on_progress)
            connection: BlockingConnection | None = None
            try:
                connection = self._open(max(recovery.left_s(monotonic_s()), LEFT_MIN_S))
                connection.stream(
                    self._request(connection, call, None), self._timeout_s, gathering.take, self.get_status
                )
                return call.result_of_pages(gathering.pages)
            except UNAVAILABLE as error:
                recovery = after_break(recovery, error, gathering, is_repeatable=is_repeatable or connection is None)
                pause(recovery.after(error, monotonic_s()))
            finally:
                # This is how the daemon learns that nobody waits any more.
                if connection is not None:
                    connection.close()

    def _carry_out(
        self,
        call: Call[T],
        key: RequestKey | None,
        started_s: float,
        timeout_s: float,
        error: CacheError | None = None,
    ) -> T:
        """All attempts of a call; with `error`, those after a first one that failed."""
        recovery = Recovery(timeout_s, started_s, is_write=call.is_write)
        while True:
            if error is not None:
                pause(recovery.after(error, monotonic_s()))
                key = None if key is None else self._keys.retry(key)
            try:
                return self._attempt(call, key, recovery)
            except CacheError as failed:
                error = failed

    def _attempt(self, call: Call[T], key: RequestKey | None, recovery: Recovery) -> T:
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = self._connect(max(recovery.left_s(monotonic_s()), LEFT_MIN_S))
        request = self._request(connection, call, key)
        left_s = max(recovery.left_s(monotonic_s()), LEFT_MIN_S)
        if call.is_stream:
            connection.hold(self._memory.take_used())
            return call.result_of_pages(connection.collect(request, left_s))
        return self._exchange(connection, call, request, left_s)

    def _connect(self, left_s: float) -> BlockingConnection:
        connection = self._open(left_s)
        self._connection = connection
        return connection

    def _open(self, left_s: float) -> BlockingConnection:
        if self._is_closed:
            raise CacheRequestError(f"{self!r} is closed")
        connected = connect(self._directory, timeout_s=left_s, autostart=self._autostart, create=self._creates)
        connection = BlockingConnection(connected, left_s, self._greeting())
        if self._asks_to_drain(connection.peer):
            connection.drain(f"an upgrade from {connection.peer.version}", left_s)
            raise making_room()
        if connection.peer.peer_pid == INVISIBLE_PID:
            for claim_id in self._held:
                connection.exchange(lease_calls.join(claim_id).request_for(None), left_s)
        for claim_id in unreleased(self._directory):
            connection.exchange(lease_calls.release(claim_id).request_for(None), left_s)
            settle(self._directory, claim_id)
        return connection

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _start_fresh(self) -> None:
        # A lock that another thread of the parent held stays locked in a forked child for ever: a new one.
        self._lock = Lock()
        self._owner = None
