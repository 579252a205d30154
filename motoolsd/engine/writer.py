"""Commit everything that waits in one transaction.

Layer: engine. Imports store and core; never server.
Invariant: an acknowledged write is committed, indexed and stamped, in that order. Two threads meet here: the writing
connection's takes batches and tells what became of them; everything else, the showing of it included, is the loop's.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextvars import copy_context
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel

from motoolsd.core.errors import NoRoom, RequestError, StorageFailed
from motoolsd.core.ports import Clock
from motoolsd.core.slots import ALL, Slots
from motoolsd.engine.index import Index
from motoolsd.store.commits import CommitUnknown, frees_room
from motoolsd.store.leases import LeaseChange
from motoolsd.store.outcomes import Applied, Change, Outcome
from motoolsd.store.ownership import Publication
from motoolsd.store.puts import put_keys
from motoolsd.store.store import Store
from motoolsd.store.writes import INTERNAL, BatchItem
from motoolsd.wire.keys import slot_of
from motoolsd.wire.messages import Clear, PutDataset, PutEvals, PutModel, RequestKey, WriteReply, WriteRequest

logger = logging.getLogger(__name__)

CLIENTS_MAX = 65_536
"""Clients whose order is remembered; of more, those that wrote last."""

Answer = Callable[[WriteReply | RequestError], None]
Told = Callable[[Applied | RequestError], None]
"""Told all that came of an internal change."""


class Waiting(NamedTuple):
    """A write in the queue, how its outcome is told, and the slots that it moves. Telling must not raise or block."""

    item: BatchItem
    answer: Callable[[Any], None]
    """`Told` of a change, else `Answer`."""
    slots: AbstractSet[int]


class RequestOrder:
    """Which numbers each client still has open.

    A request may arrive after its client gave it up, out of the buffers of a connection that it has left: a retry was
    answered meanwhile, later writes came, and the stored reply is gone. Carried out now, it would undo what followed.
    In memory only: no connection, and so no late request, outlives the daemon.
    """

    def __init__(self) -> None:
        """No client has said anything yet."""
        self._lowest_open: dict[bytes, int] = {}

    def check(self, request_key: RequestKey) -> None:
        """Let a request through, and learn from it which older ones are closed.

        Raises:
            RequestError: its client has closed this one.
        """
        known = self._lowest_open.pop(request_key.client, 0)
        self._lowest_open[request_key.client] = max(known, request_key.lowest_open)
        if len(self._lowest_open) > CLIENTS_MAX:
            del self._lowest_open[next(iter(self._lowest_open))]
        if request_key.number < known:
            message = f"request number {request_key.number} came too late: its client has closed all below {known}"
            raise RequestError(message)


class Writer:
    """The one task that writes. Bounded: `is_full` tells callers to wait, nothing is refused early."""

    def __init__(
        self,
        store: Store,
        index: Index,
        slots: Slots,
        clock: Clock,
        *,
        queue_max: int,
        batch_max: int,
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        """Wire up; `run` does the work. `make_room` lets go of what is kept for a full disk, from any thread."""
        self._store = store
        self._index = index
        self._slots = slots
        self._clock = clock
        self._queue_max = queue_max
        self._batch_max = batch_max
        self.make_room = make_room
        """Lets go of what is kept for a full disk; whether there was something. Any thread may call it; it blocks."""
        self._queue: deque[Waiting] = deque()
        self._taken: deque[list[Waiting]] = deque()
        self._wake = anyio.Event()
        self._accepted = 0
        self._shown = 0
        self._settling: deque[tuple[int, anyio.Event]] = deque()
        self._space_callbacks: list[Callable[[], None]] = []
        self._order = RequestOrder()
        self._is_closed = False
        self._refused_for: str | None = None
        self.on_shown: Callable[[Applied], None] = lambda _: None
        """Told of each write when it has become visible, before its own answer."""
        self.commits = 0
        """Transactions committed so far; lets the checkpoint task see whether the daemon is idle."""

    @property
    def is_full(self) -> bool:
        """Whether a caller should wait for `when_space` before it submits."""
        return len(self._queue) >= self._queue_max

    @property
    def queue_depth(self) -> int:
        """Writes that wait."""
        return len(self._queue)

    def has_room(self, count: int) -> bool:
        """Whether so many writes may be submitted now."""
        return len(self._queue) + count <= self._queue_max

    def submit_nowait(self, item: WriteRequest | Publication | LeaseChange, answer: Answer) -> None:
        """Queue a write; `answer` is called once, from the loop, when it is committed or has failed.

        Raises:
            anyio.WouldBlock: the queue is full.
            StorageFailed: the writer is closed.
            RequestError: the client has given this request up already.
        """
        self._enqueue(item, answer)

    def _enqueue(self, item: BatchItem, answer: Callable[[Any], None]) -> None:
        if self._is_closed:
            message = "the daemon is stopping"
            raise StorageFailed(message)
        if self.is_full:
            raise anyio.WouldBlock
        if not isinstance(item, INTERNAL):
            self._order.check(item.request_key)
        slots = touched_slots(item)
        self._slots.begin(slots)
        self._accepted += 1
        self._queue.append(Waiting(item, answer, slots))
        self._wake.set()

    def when_space(self, callback: Callable[[], None]) -> None:
        """Call back once, as soon as the queue has room."""
        self._space_callbacks.append(callback)

    async def wait_settled(self) -> None:
        """Wait until every write accepted so far is visible, or has failed. Cancellation: leaves at once."""
        if self._shown < self._accepted:
            settled = anyio.Event()
            self._settling.append((self._accepted, settled))
            await settled.wait()

    def change_nowait(self, change: Change, told: Told) -> None:
        """Queue an internal change; as `submit_nowait`, but that all that came of it is told."""
        self._enqueue(change, told)

    async def change(self, change: Change) -> Applied:
        """Queue an internal change and wait until it is visible, for room in the queue too.

        Cancellation: leaves at once; the change may be applied all the same.

        Raises:
            RequestError: it was refused.
        """
        await self.wait_room()
        done = anyio.Event()
        outcomes: list[Applied | RequestError] = []

        def told(outcome: Applied | RequestError) -> None:
            outcomes.append(outcome)
            done.set()

        self.change_nowait(change, told)
        await done.wait()
        if isinstance(outcomes[0], RequestError):
            raise outcomes[0]
        return outcomes[0]

    async def wait_room(self, count: int = 1) -> None:
        """Wait until so many writes may be submitted. Cancellation: leaves at once."""
        while not self.has_room(count):
            space = anyio.Event()
            self.when_space(space.set)
            await space.wait()

    def close(self) -> None:
        """Take no more; `run` returns when the queue is empty."""
        self._is_closed = True
        self._wake.set()

    async def run(self) -> None:
        """Commit batches until closed and drained.

        Cancellation: between batches. A batch that has begun is committed, indexed and answered, because a cancelled
        awaiter does not stop the thread that writes.
        """
        while self._queue or not self._is_closed:
            if not self._queue:
                self._wake = anyio.Event()
                await self._wake.wait()
                continue
            # The commit is shielded from end to end: without this, a cancelled writer would never notice.
            await anyio.lowlevel.checkpoint_if_cancelled()
            with anyio.CancelScope(shield=True):
                await self._commit_waiting()

    async def _commit_waiting(self) -> None:
        try:
            await self._store.commit_waiting(_Batches(self._take, self._publish, self._clock, self.make_room))
        except CommitUnknown as error:
            if isinstance(error.failure, NoRoom) and any(frees_room(waiting.item) for waiting in self._taken[0]):
                # It cannot be tried again before it is known what became of it; but whoever asks again has room.
                self.make_room()
            logger.error("commit of %d writes failed, outcome unknown: %s", len(self._taken[0]), error.failure.message)
            await self._recover()
            self._publish([error.failure] * len(self._taken[0]))
        except RequestError as error:
            # No connection: what waits now is refused, instead of being tried for ever.
            self._publish([error] * len(self._take()))

    def _take(self) -> list[BatchItem]:
        """The next batch. Called in the connection's thread: a deque is safe to be used from both ends."""
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch_max))]
        if batch:
            self._taken.append(batch)
        return [waiting.item for waiting in batch]

    def _publish(self, outcomes: Sequence[Outcome]) -> None:
        """Show and answer the batch that was taken first."""
        batch = self._taken.popleft()
        # Nothing awaits here: whoever looks sees all of the batch, or nothing of it.
        self._show(outcomes)
        for waiting in batch:
            self._slots.finish(waiting.slots)
        self._shown += len(batch)
        self.commits += 1
        while self._settling and self._settling[0][0] <= self._shown:
            self._settling.popleft()[1].set()
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Applied):
                self._refused_for = None
                self.on_shown(outcome)
                waiting.answer(outcome if isinstance(waiting.item, Change) else outcome.reply)
            else:
                self._log_refusal(outcome.message)
                waiting.answer(outcome)
        self._announce_space()

    def _log_refusal(self, message: str) -> None:
        """Once for the same reason, until something is stored again: a full disk refuses a job's every write."""
        if message != self._refused_for:
            logger.error("a write was refused: %s", message)
        self._refused_for = message

    async def _recover(self) -> None:
        # What is on disk is not known: forget all, so that every lookup asks SQLite, and bump every slot.
        self._index.forget()
        self._slots.bump(ALL)
        try:
            await self._store.reopen_writer()
        except RequestError as error:
            # The next commit opens it again, or fails in its turn.
            logger.error("the writing connection cannot be opened again yet: %s", error.message)

    def _show(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if not isinstance(outcome, Applied):
                continue
            if outcome.is_large:
                self._index.forget()
            for kind in outcome.emptied:
                self._index.empty(kind)
            for kind, key in outcome.removed:
                self._index.remove(kind, key)
            for kind, key, value in outcome.stored:
                self._index.store(kind, key, value, outcome.guards.get((kind, key)))

    def _announce_space(self) -> None:
        if not self.is_full and self._space_callbacks:
            callbacks, self._space_callbacks = self._space_callbacks, []
            for callback in callbacks:
                callback()


class _Batches:
    """What the store takes batches from: lends its thread `take`, and brings outcomes to the loop's."""

    def __init__(
        self,
        take: Callable[[], list[BatchItem]],
        publish: Callable[[Sequence[Outcome]], None],
        clock: Clock,
        make_room: Callable[[], bool],
    ) -> None:
        self._take = take
        self._publish = publish
        self._clock = clock
        self.make_room = make_room
        self._loop = asyncio.get_running_loop()
        # The writer's: that of its thread does not say under which event loop a callback runs, and anyio asks for it.
        self._context = copy_context()

    def take(self) -> tuple[Sequence[BatchItem], str]:
        return self._take(), self._clock.utc_text()

    def done(self, outcomes: Sequence[Outcome]) -> None:
        self._loop.call_soon_threadsafe(self._publish, outcomes, context=self._context)


def touched_slots(item: BatchItem) -> AbstractSet[int]:
    """The slots that a write may change; all of them where the keys are not known before."""
    match item:
        case PutDataset() | PutModel() | PutEvals():
            return {slot_of(kind, key) for kind, key in put_keys(item)}
        case Clear(kind=kind, keys=list() as keys):
            # Other filters leave some of them.
            return {slot_of(kind, key) for key in keys}
        case Publication(put=put):
            return touched_slots(put)
        case Change(keys=keys):
            return {slot_of(kind, key) for kind, key in keys}
        case LeaseChange():
            return set()
        case _:
            return ALL
