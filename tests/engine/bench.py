"""The parts of an engine at hand, and what tests do with them again and again."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import anyio

from motoolsd.core.errors import RequestError
from motoolsd.core.slots import Slots
from motoolsd.engine.engine import Engine
from motoolsd.engine.index import Index
from motoolsd.engine.writer import Writer
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import Lookup, WriteReply, WriteRequest
from motoolsd.wire.sizes import Size
from tests.fakes import FakeClock, FakeProcesses, GatedStore


class NoFiles:
    """A file tree with one category. Fulfils core.ports.FileTree."""

    async def measure(self) -> dict[str, Size]:
        """Always the same."""
        return {"runs": Size(size_bytes=7, allocated_bytes=4096)}


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
        request = Lookup(kind=kind, keys=[key])
        found = self.engine.lookup_nowait(request) or await self.engine.lookup(request)
        return found.values[0]

    def peek(self, key: str, kind: Kind = Kind.DATASET) -> bytes | None:
        """What memory answers."""
        found = self.engine.lookup_nowait(Lookup(kind=kind, keys=[key]))
        assert found is not None, "memory cannot know"
        return found.values[0]

    def open_gates(self) -> None:
        """Hold nothing any more."""
        for name in ("commit_gate", "shown_gate", "slice_gate"):
            gate: anyio.Event | threading.Event | None = getattr(self.store, name)
            if gate is not None:
                gate.set()
                setattr(self.store, name, None)
