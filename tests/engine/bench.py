"""The parts of an engine at hand, and what tests do with them again and again."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import anyio

from motoolsd.adapters.directory import CacheDirectory
from motoolsd.adapters.filetree import DirectoryTree
from motoolsd.core.errors import RequestError
from motoolsd.core.settings import Settings
from motoolsd.core.slots import Slots
from motoolsd.engine.engine import Engine
from motoolsd.engine.index import Index
from motoolsd.engine.usage import Audience, Tally
from motoolsd.engine.writer import Writer
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import Found, Lookup, Used, WriteReply, WriteRequest
from tests.fakes import FakeClock, FakeProcesses, GatedStore


@dataclass(frozen=True)
class Bench:
    """An engine and what it is made of."""

    engine: Engine
    writer: Writer
    store: GatedStore
    index: Index
    slots: Slots
    clock: FakeClock
    processes: FakeProcesses
    users: FakeProcesses
    files: DirectoryTree
    directory: Path
    """The cache directory."""

    async def write(self, request: WriteRequest) -> WriteReply | RequestError:
        """Submit a write and wait for its outcome."""
        answers: list[WriteReply | RequestError] = []
        answered = anyio.Event()

        def answer(outcome: WriteReply | RequestError) -> None:
            answers.append(outcome)
            answered.set()

        self.engine.submit_nowait(request, answer)
        await answered.wait()
        return answers[0]

    async def look_up(self, key: str, kind: Kind = Kind.DATASET) -> bytes | None:
        """What the engine answers now, with SQLite's help if need be."""
        return (await self.answer(Lookup(kind=kind, keys=[key]))).values[0]

    async def answer(self, request: Lookup) -> Found:
        """The same for any lookup."""
        lookups = self.engine.lookups
        return lookups.nowait(request, self.tally) or await lookups.find(request, self.tally)

    def told(self, notice: Used) -> None:
        """Take in hits that a client has counted."""
        self.engine.notice(notice, self.tally)

    @property
    def tally(self) -> Tally:
        """Where our lookups are counted."""
        return self.engine.usage.tally(Audience("", "{}"))

    def peek(self, key: str, kind: Kind = Kind.DATASET) -> bytes | None:
        """What memory answers."""
        found = self.engine.lookups.nowait(Lookup(kind=kind, keys=[key]), self.tally)
        assert found is not None, "memory cannot know"
        return found.values[0]

    def open_gates(self) -> None:
        """Hold nothing any more."""
        for name in ("commit_gate", "shown_gate", "slice_gate"):
            gate: anyio.Event | threading.Event | None = getattr(self.store, name)
            if gate is not None:
                gate.set()
                setattr(self.store, name, None)


def new_bench(store: GatedStore, directory: CacheDirectory, settings: Settings | None = None) -> Bench:
    """An engine over an open store and a real directory; nothing of it runs yet."""
    settings = settings or Settings()
    index, slots, clock = Index(settings.index_entries_max), Slots(0), FakeClock()
    writer = Writer(store, index, slots, clock, queue_max=settings.writer_queue_max, batch_max=settings.batch_max)
    processes, users, files = FakeProcesses(), FakeProcesses(), DirectoryTree(directory)
    engine = Engine(
        store=store,
        index=index,
        slots=slots,
        writer=writer,
        files=files,
        settings=settings,
        processes=processes,
        users=users,
        clock=clock,
        host="here",
    )
    path = Path(directory.path)
    return Bench(engine, writer, store, index, slots, clock, processes, users, files, path)
