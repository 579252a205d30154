"""Which request goes where.

Layer: server. Imports engine, core and wire.
Invariant: every request gets exactly one reply, or one stream that ends, or its connection ends.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

import anyio
import msgspec
from anyio.abc import TaskGroup

from motoolsd.core.errors import RequestError
from motoolsd.core.ports import Clock
from motoolsd.engine.checks import check_write
from motoolsd.engine.engine import Engine
from motoolsd.engine.publishing import has_files
from motoolsd.engine.usage import Audience, Tally
from motoolsd.store.connection import SQLITE_VERSION
from motoolsd.wire.backups import BackUp
from motoolsd.wire.cleaning import ApplyPlan, EmptyTrash, EndUse, ListTrash, MakePlan, Pin, Undo, Use, Verify
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.explaining import Compare, Explain, GetLineage, GetUsage, Introduce, ListMisses, Missed, Show
from motoolsd.wire.leases import BreakLease, Claim, JoinLease, ListLeases, RecordFailure, Release
from motoolsd.wire.listing import Invalidate, ListEntries
from motoolsd.wire.messages import (
    NOTICES,
    Clear,
    ClearAll,
    Drain,
    Draining,
    Failure,
    GetStatus,
    Hello,
    Lookup,
    PutDataset,
    PutEvals,
    PutModel,
    Reply,
    Request,
    Status,
    Used,
    WriteReply,
)
from motoolsd.wire.sizes import GetSizes, GetStats
from motoolsd.wire.version import __version__

logger = logging.getLogger(__name__)

_WRITES = (PutDataset, PutModel, PutEvals, Clear, ClearAll)


class Replier(Protocol):
    """Where replies go: a connection."""

    peer_pid: int
    tally: Tally

    def reply(self, request_id: int, body: Reply) -> None:
        """Send one reply; after the connection's end it does nothing."""
        ...

    def finish(self, request_id: int, body: Reply) -> None:
        """Send the reply that ends a request."""
        ...

    def count_waiting(self, is_waiting: bool) -> None:  # noqa: FBT001 - a callback's only argument
        """Take a request that waits for somebody else's work out of the outstanding ones, or in again."""
        ...

    async def wait_writable(self) -> None:
        """Wait until the other side has read enough of what was sent. Raises anyio.ClosedResourceError at its end."""
        ...

    @property
    def listing_turn(self) -> anyio.Lock:
        """Held while one listing goes out: pages of many at once would be kept for a client that does not read."""
        ...


class Daemon(Protocol):
    """What the dispatcher needs of the whole."""

    started_by: str
    socket_path: bytes
    idle_timeout_s: float
    durability: str

    @property
    def clients(self) -> int:
        """Open connections."""
        ...

    def request_stop(self, reason: str) -> None:
        """Begin to drain."""
        ...


class Dispatcher:
    """Carries requests out: at once, through the writer, or in a task."""

    def __init__(self, engine: Engine, daemon: Daemon, clock: Clock, tasks: TaskGroup) -> None:
        """Wire up.

        Args:
            engine: what there is to do.
            daemon: the whole, for status and stop.
            clock: for the uptime.
            tasks: where requests run that have to wait.
        """
        self._engine = engine
        self._daemon = daemon
        self._clock = clock
        self._tasks = tasks
        self._started_s = clock.monotonic_s()

    def dispatch(self, replier: Replier, request_id: int, body: Request) -> Reply | None:
        """Carry a request out.

        Returns:
            The reply, or None if it comes later through the replier.

        Raises:
            anyio.WouldBlock: the writer's queue is full: ask again when `when_space` calls.
        """
        try:
            if type(body) is Lookup:
                if self._engine.usage.is_full:
                    self._engine.flush_usage_nowait()
                found = self._engine.lookups.nowait(body, replier.tally)
                if found is None:
                    self._start(replier, request_id, self._engine.lookups.find, body, replier.tally)
                return found
            if isinstance(body, _WRITES):
                return self._submit(replier, request_id, body)
            return self._dispatch_rare(replier, request_id, body)
        except anyio.WouldBlock:
            raise
        except Exception as error:  # noqa: BLE001 - one defect ends one request
            failure = _defect(request_id, error)
            return None if isinstance(body, NOTICES) else failure

    def tally(self, hello: Hello) -> Tally:
        """Where the lookups of a connection are counted."""
        labels = msgspec.json.encode(hello.labels, order="sorted").decode()
        return self._engine.usage.tally(Audience(hello.job, labels))

    def when_space(self, callback: Callable[[], None]) -> None:
        """Call back once, when the writer takes requests again."""
        self._engine.writer.when_space(callback)

    def _submit(
        self, replier: Replier, request_id: int, body: PutDataset | PutModel | PutEvals | Clear | ClearAll
    ) -> Reply | None:
        def answer(outcome: WriteReply | RequestError) -> None:
            replier.finish(request_id, outcome.to_failure() if isinstance(outcome, RequestError) else outcome)

        try:
            if has_files(body):
                check_write(body)
                self._start(replier, request_id, self._engine.publishing.publish, body)
                return None
            self._engine.submit_nowait(body, answer)
        except RequestError as error:
            return error.to_failure()
        return None

    def _dispatch_rare(self, replier: Replier, request_id: int, body: Request) -> Reply | None:
        match body:
            case Used() | Missed() | Introduce():
                # Nobody waits for an answer, so it is not among the outstanding ones.
                replier.count_waiting(True)
                self._engine.notice(body, replier.tally)
            case ListEntries():
                self._list(replier, request_id, self._engine.listing.entries(body))
            case ListLeases():
                self._list(replier, request_id, self._engine.claims.list_leases())
            case Claim() | Release() | RecordFailure() | JoinLease() | BreakLease():
                return self._dispatch_claim(replier, request_id, body)
            case GetStats():
                self._start(replier, request_id, self._engine.stats)
            case GetSizes():
                self._stream(replier, request_id, self._engine.census.sizes(body))
            case GetStatus():
                return self._status()
            case Drain():
                logger.info("asked to stop: %s", body.reason or "no reason given")
                self._daemon.request_stop(body.reason)
                return Draining()
            case Hello():
                return Failure(code=ErrorCode.INVALID_REQUEST, message="hello was said already")
            case _:
                self._dispatch_cleaning(replier, request_id, body)
        return None

    def _dispatch_cleaning(self, replier: Replier, request_id: int, body: Request) -> None:
        cleaner, protection = self._engine.cleaner, self._engine.protection
        match body:
            case MakePlan():
                self._stream(replier, request_id, cleaner.plan(body))
            case ApplyPlan():
                self._stream(replier, request_id, cleaner.apply(body))
            case Undo():
                self._stream(replier, request_id, cleaner.undo(body))
            case EmptyTrash():
                self._stream(replier, request_id, cleaner.empty_trash(body))
            case ListTrash():
                self._list(replier, request_id, cleaner.list_trash())
            case Verify():
                self._stream(replier, request_id, self._engine.verification.verify(body))
            case Pin():
                self._start(replier, request_id, protection.pin, body)
            case Use():
                self._start(replier, request_id, protection.use, body, replier.peer_pid)
            case EndUse():
                self._start(replier, request_id, protection.end_use, body)
            case _:
                self._dispatch_explaining(replier, request_id, body)

    def _dispatch_explaining(self, replier: Replier, request_id: int, body: Request) -> None:
        explaining, showing = self._engine.explaining, self._engine.showing
        match body:
            case Explain():
                self._start(replier, request_id, explaining.explain, body)
            case ListMisses():
                self._list(replier, request_id, explaining.misses(body))
            case Show():
                self._start(replier, request_id, showing.show, body)
            case GetLineage():
                self._start(replier, request_id, showing.lineage, body)
            case Compare():
                self._start(replier, request_id, showing.compare, body)
            case Invalidate():
                self._start(replier, request_id, self._engine.invalidating.invalidate, body)
            case BackUp():
                self._stream(replier, request_id, self._engine.backups.back_up(body))
            case GetUsage():
                self._start(replier, request_id, self._engine.reporting.table, body)
            case _:
                raise AssertionError(body)

    def _dispatch_claim(
        self, replier: Replier, request_id: int, body: Claim | Release | RecordFailure | JoinLease | BreakLease
    ) -> Reply | None:
        claims = self._engine.claims
        match body:
            case Claim():
                # One that waits has asked before, and was counted.
                tally = self._engine.usage.silent if body.wait else replier.tally
                arguments = (body, replier.peer_pid, replier, tally, replier.count_waiting)
                self._start(replier, request_id, claims.claim, *arguments)
            case Release():
                self._start(replier, request_id, claims.release, body)
            case RecordFailure():
                self._start(replier, request_id, claims.fail, body)
            case BreakLease():
                self._start(replier, request_id, claims.break_lease, body)
            case JoinLease():
                try:
                    return claims.join(body.claim_id, replier.peer_pid, replier)
                except RequestError as error:
                    return error.to_failure()
        return None

    def connection_lost(self, replier: Replier) -> None:
        """A connection ended: what waited on it for somebody else's work waits no more."""
        self._engine.claims.connection_lost(replier)

    def _status(self) -> Status:
        return Status(
            pid=os.getpid(),
            version=__version__,
            socket=self._daemon.socket_path,
            uptime_s=round(self._clock.monotonic_s() - self._started_s, 3),
            clients=self._daemon.clients,
            entries=self._engine.entries,
            started_by=self._daemon.started_by,
            idle_timeout_s=self._daemon.idle_timeout_s,
            durability=self._daemon.durability,
            sqlite_version=SQLITE_VERSION,
        )

    def _stream(self, replier: Replier, request_id: int, pages: AsyncGenerator[Reply, None]) -> None:
        self._tasks.start_soon(self._run_stream, replier, request_id, pages)

    def _list(self, replier: Replier, request_id: int, pages: AsyncGenerator[Reply, None]) -> None:
        self._tasks.start_soon(self._run_listing, replier, request_id, pages)

    def _start(
        self, replier: Replier, request_id: int, function: Callable[..., Awaitable[Reply]], *args: object
    ) -> None:
        self._tasks.start_soon(self._run, replier, request_id, function, *args)

    async def _run(
        self, replier: Replier, request_id: int, function: Callable[..., Awaitable[Reply]], *args: object
    ) -> None:
        try:
            reply: Reply = await function(*args)
        except RequestError as error:
            reply = error.to_failure()
        except Exception as error:  # noqa: BLE001 - as above
            reply = _defect(request_id, error)
        replier.finish(request_id, reply)

    async def _run_listing(self, replier: Replier, request_id: int, pages: AsyncGenerator[Reply, None]) -> None:
        async with replier.listing_turn:
            try:
                await replier.wait_writable()
            except anyio.ClosedResourceError:
                # It has gone while it waited for its turn: not a page is read for nobody.
                await pages.aclose()
                return
            await self._run_stream(replier, request_id, pages)

    async def _run_stream(self, replier: Replier, request_id: int, pages: AsyncGenerator[Reply, None]) -> None:
        last: Reply | None = None
        try:
            async with aclosing(pages):
                async for page in pages:
                    if last is not None:
                        replier.reply(request_id, last)
                        await replier.wait_writable()
                    last = page
        except RequestError as error:
            last = error.to_failure()
        except anyio.ClosedResourceError:
            return
        except Exception as error:  # noqa: BLE001 - as above
            last = _defect(request_id, error)
        assert last is not None, "a stream has at least one page"
        replier.finish(request_id, last)


def _defect(request_id: int, error: Exception) -> Failure:
    logger.error("request %d failed by a defect of motoolsd", request_id, exc_info=error)
    text = f"a defect in motoolsd; its log has the details under request {request_id}: see `motools daemon logs`"
    return Failure(code=ErrorCode.PROTOCOL_ERROR, message=text)
