"""An engine over a real database in a temporary file, its writer running."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from motoolsd.adapters.directory import open_directory
from motoolsd.core.settings import Settings
from motoolsd.store.migration import prepare_database
from motoolsd.store.store import open_store
from tests.engine.bench import Bench, new_bench
from tests.fakes import GatedStore

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
        with open_directory(str(Path(database).parent)) as directory:
            async with open_store(database, synchronous="NORMAL") as real:
                bench = new_bench(GatedStore.around(real), directory, settings)
                async with running(bench):
                    if loaded:
                        await bench.engine.load_index()
                    yield bench

    return open_it


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[None]:
    """Let its writer run; it drains when the block is left."""
    bench.engine.claims.start(*await bench.store.leases())
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(bench.writer.run)
            await anyio.wait_all_tasks_blocked()
            try:
                yield
            finally:
                # A failing test, too: the writer's commit is shielded, and would wait at its gate for ever.
                bench.open_gates()
                bench.writer.close()


@pytest.fixture
async def bench(open_bench: OpenBench) -> AsyncIterator[Bench]:
    """An engine whose index is loaded."""
    async with open_bench() as opened:
        yield opened
