"""Commit everything that waits in one transaction.

Layer: engine. Imports store and core; never server.
Invariant: an acknowledged write is committed, indexed and stamped, in that order. Group commit after Gray and
Reuter, "Transaction Processing" (1993): while one batch is on its way to the disk, the next one gathers.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import anyio
import anyio.lowlevel

from motoolsd.core.errors import RequestError, StorageFailed
from motoolsd.core.ports import Clock
from motoolsd.core.slots import ALL, Slots
from motoolsd.engine.index import Index
from motoolsd.store.store import Store
from motoolsd.store.writes import Applied, BatchItem, CommitUnknown, Outcome, Usage
from motoolsd.wire.keys import Kind, eval_key, json_hash, model_key, slot_of
from motoolsd.wire.messages import PutDataset, PutEvals, PutModel, RequestKey, WriteReply

logger = logging.getLogger(__name__)

CLIENTS_MAX = 65_536
"""Clients whose order is remembered; of more, those that wrote last."""

Answer = Callable[[WriteReply | RequestError], None]


class Waiting(NamedTuple):
    """A write in the queue, and how its outcome is told. Telling must not raise and not block."""

    item: BatchItem
    answer: Answer


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
        self, store: Store, index: Index, slots: Slots, clock: Clock, *, queue_max: int, batch_max: int
    ) -> None:
        """Wire up; `run` does the work."""
        self._store = store
        self._index = index
        self._slots = slots
        self._clock = clock
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._queue: deque[Waiting] = deque()
        self._wake = anyio.Event()
        self._settled = anyio.Event()
        self._space_callbacks: list[Callable[[], None]] = []
        self._order = RequestOrder()
        self._is_closed = False
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

    def submit_nowait(self, item: BatchItem, answer: Answer) -> None:
        """Queue a write; `answer` is called once, from the loop, when it is committed or has failed.

        Raises:
            anyio.WouldBlock: the queue is full.
            StorageFailed: the writer is closed.
            RequestError: the client has given this request up already.
        """
        if self._is_closed:
            message = "the daemon is stopping"
            raise StorageFailed(message)
        if self.is_full:
            raise anyio.WouldBlock
        if not isinstance(item, Usage):
            self._order.check(item.request_key)
        self._queue.append(Waiting(item, answer))
        self._wake.set()

    def when_space(self, callback: Callable[[], None]) -> None:
        """Call back once, as soon as the queue has room."""
        self._space_callbacks.append(callback)

    async def wait_settled(self) -> None:
        """Wait until the batch that is being committed, if any, is visible. Cancellation: leaves at once."""
        await self._settled.wait()

    def close(self) -> None:
        """Take no more; `run` returns when the queue is empty."""
        self._is_closed = True
        self._wake.set()

    async def run(self) -> None:
        """Commit batches until closed and drained.

        Cancellation: between batches. A batch that has begun is committed, indexed and answered, because a cancelled
        awaiter does not stop the thread that writes.
        """
        self._settled.set()
        while self._queue or not self._is_closed:
            if not self._queue:
                self._wake = anyio.Event()
                await self._wake.wait()
                continue
            # The commit is shielded from end to end: without this, a cancelled writer would never notice.
            await anyio.lowlevel.checkpoint_if_cancelled()
            await self._commit_next()

    async def _commit_next(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch_max))]
        items = [waiting.item for waiting in batch]
        with anyio.CancelScope(shield=True):
            self._slots.begin(touched_slots(items))
            self._settled = anyio.Event()
            outcomes = await self._commit(items)
            # From here to the last answer nothing awaits: whoever looks sees all of the batch, or nothing of it.
            self._show(outcomes)
            self._slots.finish()
            self._settled.set()
            self.commits += 1
        for waiting, outcome in zip(batch, outcomes, strict=True):
            waiting.answer(outcome.reply if isinstance(outcome, Applied) else outcome)
        self._announce_space()

    async def _commit(self, items: Sequence[BatchItem]) -> Sequence[Outcome]:
        try:
            return await self._store.commit(items, self._clock.utc_text())
        except CommitUnknown as error:
            logger.error("commit of %d writes failed, outcome unknown: %s", len(items), error.failure.message)
            await self._recover()
            return [error.failure] * len(items)
        except RequestError as error:
            logger.error("%d writes refused: %s", len(items), error.message)
            return [error] * len(items)

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
            for kind in outcome.emptied:
                self._index.empty(kind)
            for kind, key in outcome.removed:
                self._index.remove(kind, key)
            for kind, key, value in outcome.stored:
                self._index.store(kind, key, value)

    def _announce_space(self) -> None:
        if not self.is_full and self._space_callbacks:
            callbacks, self._space_callbacks = self._space_callbacks, []
            for callback in callbacks:
                callback()


def touched_slots(items: Sequence[BatchItem]) -> AbstractSet[int]:
    """The slots that a batch may change; all of them where the keys are not known before."""
    slots: set[int] = set()
    for item in items:
        match item:
            case PutDataset():
                slots.add(slot_of(Kind.DATASET, item.dataset_hash))
            case PutModel():
                slots.add(slot_of(Kind.MODEL, model_key(item.dataset_hash, item.config.decode(), item.backend_type)))
            case PutEvals():
                kwargs_hash = None if item.kwargs is None else json_hash(item.kwargs.decode())
                slots.update(
                    slot_of(Kind.EVAL, eval_key(item.model_id, task_id, item.backend_type, kwargs_hash))
                    for task_id in item.logs
                )
            case Usage():
                pass
            case _:
                return ALL
    return slots
