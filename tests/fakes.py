"""Stand-ins for what real time, threads and disks do; each passes the contract of what it stands for."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence

import anyio

from motoolsd.core.deadlines import Moment
from motoolsd.core.leases import Process
from motoolsd.core.slots import Slots
from motoolsd.engine.index import Index
from motoolsd.store import commits
from motoolsd.store.commits import Source
from motoolsd.store.outcomes import Outcome
from motoolsd.store.reads import Slice
from motoolsd.store.store import Store
from motoolsd.store.writes import BatchItem
from motoolsd.wire.keys import Kind
from tests.samples import NOW

GATE_TIMEOUT_S = 10.0
WALL_S = 1_769_900_000.0
FILES_AGE_S = 10.0


class FakeClock:
    """A clock that stands still until a test advances it. Fulfils core.ports.Clock."""

    def __init__(self) -> None:
        """Begin at 1000 s."""
        self.boot_id = "boot"
        self.wall_ahead_s = 0.0
        """How far somebody has set the wall clock ahead."""
        self._now_s = 1000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, anyio.Event]] = []

    def monotonic_s(self) -> float:
        """Seconds since some moment."""
        return self._now_s

    def utc_text(self) -> str:
        """Always the same moment."""
        return NOW

    def moment(self) -> Moment:
        """As far from a boot, and from a day in 2026, as the clock was advanced; a test may set another."""
        return Moment(self.boot_id, self._now_s, WALL_S + self._now_s + self.wall_ahead_s)

    def follow_files(self) -> None:
        """Set the wall clock so that what was written until now is a little in the past."""
        self.wall_ahead_s += time.time() + FILES_AGE_S - self.moment().wall_s

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced so far."""
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        woken = anyio.Event()
        heapq.heappush(self._sleepers, (self._now_s + seconds, next(self._order), woken))
        await woken.wait()

    async def tick(self, interval_s: float) -> None:
        """As `sleep`: what a test advances is what passes."""
        await self.sleep(interval_s)

    async def advance(self, seconds: float) -> None:
        """Let time pass: whoever sleeps wakes at its own moment, and runs until it sleeps again."""
        await anyio.wait_all_tasks_blocked()
        end_s = self._now_s + seconds
        while self._sleepers and self._sleepers[0][0] <= end_s:
            self._now_s, _, woken = heapq.heappop(self._sleepers)
            woken.set()
            await anyio.wait_all_tasks_blocked()
        self._now_s = end_s


class FakeProcesses:
    """Processes that live until a test ends them. Fulfils core.ports.Processes."""

    def __init__(self) -> None:
        """Nobody is watched."""
        self.watched: dict[Process, Callable[[Process], None]] = {}
        self.ended: set[int] = set()

    def identify(self, pid: int) -> Process | None:
        """Every pid is a process, but those that ended."""
        return None if pid in self.ended else Process(pid, 7 if pid else 0, "boot")

    def command(self, pid: int) -> str:
        """Named after its pid."""
        return f"job {pid}"

    def is_alive(self, process: Process) -> bool:
        """Whether no test has ended it."""
        return process.pid not in self.ended

    def watch(self, process: Process, on_end: Callable[[Process], None]) -> None:
        """Remember whom to tell."""
        if process.is_visible:
            self.watched.setdefault(process, on_end)

    def unwatch(self, process: Process) -> None:
        """Forget it."""
        self.watched.pop(process, None)

    def end(self, pid: int) -> None:
        """Let a process end."""
        self.ended.add(pid)
        for process, on_end in list(self.watched.items()):
            if process.pid == pid:
                del self.watched[process]
                on_end(process)


class FailingConnection:
    """A connection one of whose statements fails, once; a COMMIT after it was carried out: the disk went away."""

    def __init__(self, raw: sqlite3.Connection, statement: str) -> None:
        """Wrap a connection."""
        self._raw = raw
        self._statement: str | None = statement

    def __getattr__(self, name: str) -> object:
        """Everything else is the connection's own."""
        return getattr(self._raw, name)

    def execute(self, statement: str, parameters: object = ()) -> object:
        """Execute, or fail."""
        if statement != self._statement:
            return self._raw.execute(statement, parameters)  # type: ignore[arg-type]
        self._statement = None
        if statement == "COMMIT":
            self._raw.execute(statement)
        raise sqlite3.OperationalError("disk I/O error")


class GatedSource:
    """A source of batches that counts them and stops at the gates of its store. Fulfils store.commits.Source."""

    def __init__(self, store: GatedStore, source: Source) -> None:
        """Wrap a source."""
        self._store = store
        self._source = source
        self._loop = asyncio.get_running_loop()

    def take(self) -> tuple[Sequence[BatchItem], str]:
        """Take a batch, and hold it, as told."""
        items, now = self._source.take()
        if items:
            self._store.batches.append(len(items))
            self._loop.call_soon_threadsafe(self._store.begun.set)
            self._wait(self._store.commit_gate)
        return items, now

    def done(self, outcomes: Sequence[Outcome]) -> None:
        """Hold what became of a batch, as told."""
        self._loop.call_soon_threadsafe(self._store.committed.set)
        self._wait(self._store.shown_gate)
        self._source.done(outcomes)

    def make_room(self) -> bool:
        """As the source does."""
        return self._source.make_room()

    def _wait(self, gate: threading.Event | None) -> None:
        assert gate is None or gate.wait(GATE_TIMEOUT_S), "nobody opened the gate"


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
        gated.failing_statement = None
        gated.slice_gate = None
        gated.sliced = anyio.Event()
        gated.reopened = 0
        return gated

    batches: list[int]
    """Items of each transaction so far."""
    commit_gate: threading.Event | None
    """While set, a commit waits for it before it begins."""
    shown_gate: threading.Event | None
    """While set, a commit that is on disk already waits for it before the writer hears of it."""
    begun: anyio.Event
    committed: anyio.Event
    failing_statement: str | None
    """BEGIN IMMEDIATE or COMMIT: what fails next, once; a COMMIT after it was carried out."""
    slice_gate: anyio.Event | None
    """While set, a slice that was read already waits for it."""
    sliced: anyio.Event
    reopened: int

    async def commit_waiting(self, source: Source) -> None:
        """Commit, as told."""
        failing, self.failing_statement = self.failing_statement, None

        def commit(raw: sqlite3.Connection, gated: GatedSource) -> None:
            connection = raw if failing is None else FailingConnection(raw, failing)
            commits.commit_waiting(connection, gated, self._database)  # type: ignore[arg-type]

        await self._write(commit, GatedSource(self, source))

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


def new_index_and_slots(entries_max: int = 1000) -> tuple[Index, Slots]:
    """An empty index, and slots from zero."""
    return Index(entries_max), Slots(0)
