"""Stand-ins for what real time, threads and disks do; each passes the contract of what it stands for."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence

import anyio

from motoolsd.core.errors import StorageFailed
from motoolsd.core.slots import Slots
from motoolsd.engine.index import Index
from motoolsd.store.reads import Slice
from motoolsd.store.store import Store
from motoolsd.store.writes import BatchItem, CommitUnknown, Outcome
from motoolsd.wire.keys import Kind
from tests.samples import NOW


class FakeClock:
    """A clock that stands still until a test advances it. Fulfils core.ports.Clock."""

    def __init__(self) -> None:
        """Begin at 1000 s."""
        self._now_s = 1000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, anyio.Event]] = []

    def monotonic_s(self) -> float:
        """Seconds since some moment."""
        return self._now_s

    def utc_text(self) -> str:
        """Always the same moment."""
        return NOW

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced so far."""
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        woken = anyio.Event()
        heapq.heappush(self._sleepers, (self._now_s + seconds, next(self._order), woken))
        await woken.wait()

    async def advance(self, seconds: float) -> None:
        """Let time pass: whoever sleeps wakes at its own moment, and runs until it sleeps again."""
        await anyio.wait_all_tasks_blocked()
        end_s = self._now_s + seconds
        while self._sleepers and self._sleepers[0][0] <= end_s:
            self._now_s, _, woken = heapq.heappop(self._sleepers)
            woken.set()
            await anyio.wait_all_tasks_blocked()
        self._now_s = end_s


class GatedStore(Store):
    """The real store, whose commits can be held, counted and made to fail."""

    @classmethod
    def around(cls, store: Store) -> GatedStore:
        """Take the open store over; it is closed by whoever opened it."""
        gated = cls.__new__(cls)
        gated.__dict__ = store.__dict__
        gated.batches = []
        gated.commit_gate = gated.shown_gate = None
        gated.begun = anyio.Event()
        gated.committed = anyio.Event()
        gated.next_failure = None
        gated.slice_gate = None
        gated.sliced = anyio.Event()
        gated.reopened = 0
        return gated

    batches: list[int]
    """Items of each transaction so far."""
    commit_gate: anyio.Event | None
    """While set, a commit waits for it before it begins."""
    shown_gate: anyio.Event | None
    """While set, a commit that is on disk already waits for it before the writer hears of it."""
    begun: anyio.Event
    committed: anyio.Event
    next_failure: Exception | None
    """Raised by the next commit, after it was applied (CommitUnknown) or instead of it (others)."""
    slice_gate: anyio.Event | None
    """While set, a slice that was read already waits for it."""
    sliced: anyio.Event
    reopened: int

    async def commit(self, items: Sequence[BatchItem], now: str) -> Sequence[Outcome]:
        """Commit, as told."""
        self.batches.append(len(items))
        self.begun.set()
        if self.commit_gate is not None:
            await self.commit_gate.wait()
        failure, self.next_failure = self.next_failure, None
        if failure is not None and not isinstance(failure, CommitUnknown):
            raise failure
        outcomes = await super().commit(items, now)
        self.committed.set()
        if self.shown_gate is not None:
            await self.shown_gate.wait()
        if failure is not None:
            raise failure
        return outcomes

    async def slice(self, kind: Kind, after: int, limit: int) -> Slice:
        """Read a slice, and hold it, as told."""
        part = await super().slice(kind, after, limit)
        self.sliced.set()
        if self.slice_gate is not None:
            await self.slice_gate.wait()
        return part

    async def reopen_writer(self) -> None:
        """Count and reopen."""
        self.reopened += 1
        await super().reopen_writer()


def unknown_outcome() -> CommitUnknown:
    """What the store raises when COMMIT itself failed."""
    return CommitUnknown(StorageFailed("the disk went away", outcome_known=False))


def new_index_and_slots(entries_max: int = 1000) -> tuple[Index, Slots]:
    """An empty index, and slots from zero."""
    return Index(entries_max), Slots(0)
