"""An engine over a real database in a temporary file, its writer running."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from motoolsd.core.settings import Settings
from motoolsd.core.slots import Slots
from motoolsd.engine.engine import Engine
from motoolsd.engine.index import Index
from motoolsd.engine.writer import Writer
from motoolsd.store.migration import prepare_database
from motoolsd.store.store import open_store
from tests.engine.bench import Bench, NoFiles
from tests.fakes import FakeClock, FakeProcesses, GatedStore

OpenBench = Callable[..., AbstractAsyncContextManager[Bench]]


@pytest.fixture
def database(tmp_path: Path) -> str:
    """A fresh cache.db."""
    path = str(tmp_path / "cache.db")
    prepare_database(path)
    return path


@pytest.fixture
def open_bench(database: str) -> OpenBench:
    """Opens an engine with settings of the test's choice; its writer drains when the block is left."""

    @asynccontextmanager
    async def open_it(*, loaded: bool = True, **values: int) -> AsyncIterator[Bench]:
        settings = Settings(**values)  # type: ignore[arg-type]
        index, slots, clock = Index(settings.index_entries_max), Slots(0), FakeClock()
        async with open_store(database, synchronous="NORMAL") as real:
            store = GatedStore.around(real)
            writer = Writer(
                store, index, slots, clock, queue_max=settings.writer_queue_max, batch_max=settings.batch_max
            )
            processes = FakeProcesses()
            engine = Engine(
                store=store,
                index=index,
                slots=slots,
                writer=writer,
                files=NoFiles(),
                settings=settings,
                processes=processes,
                clock=clock,
                host="here",
            )
            engine.claims.start(*await store.leases())
            bench = Bench(engine, writer, store, index, slots, clock, processes)
            with anyio.fail_after(10):
                async with anyio.create_task_group() as group:
                    group.start_soon(writer.run)
                    await anyio.wait_all_tasks_blocked()
                    if loaded:
                        await engine.load_index()
                    try:
                        yield bench
                    finally:
                        # A failing test, too: the writer's commit is shielded, and would wait at its gate for ever.
                        bench.open_gates()
                        writer.close()

    return open_it


@pytest.fixture
async def bench(open_bench: OpenBench) -> AsyncIterator[Bench]:
    """An engine whose index is loaded."""
    async with open_bench() as opened:
        yield opened
