"""A listener on a real socket, and clients that talk to it."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from motoolsd.adapters.directory import open_directory
from motoolsd.adapters.socket import Credentials
from motoolsd.core.settings import Settings
from motoolsd.server.dispatch import Dispatcher
from motoolsd.server.listener import Listener
from motoolsd.store.migration import prepare_database
from motoolsd.store.store import open_store
from tests.engine.bench import new_bench
from tests.engine.conftest import running
from tests.fakes import FakeClock, GatedStore
from tests.server.desk import Desk, Whole
from tests.server.scripted import ScriptedDispatcher
from tests.server.served import Served

Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(short_dir: Path) -> Serve:
    """Serves on a socket until the block is left, or `stop` is set."""

    @asynccontextmanager
    async def serve_it(
        dispatcher: Dispatcher | None = None,
        *,
        peer_uid: Callable[[socket.socket], int] = lambda _socket: os.geteuid(),
        connections_max: int = 10,
        drain_timeout_s: float = 5.0,
    ) -> AsyncIterator[Served]:
        clock, path, ready = FakeClock(), str(short_dir / "s"), anyio.Event()
        listener = Listener(
            peer_of=lambda connection: Credentials(os.getpid(), peer_uid(connection), 0),
            connections_max=connections_max,
            started_by="command",
            monotonic_s=clock.monotonic_s,
        )
        served = Served(path, listener, clock, anyio.Event(), anyio.Event())
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen()
            listening.setblocking(False)

            async def run() -> None:
                await listener.serve(
                    listening,
                    dispatcher or ScriptedDispatcher(),
                    stop=served.stop,
                    drain_timeout_s=drain_timeout_s,
                    on_ready=ready.set,
                )
                served.ended.set()

            with anyio.fail_after(10):
                async with anyio.create_task_group() as group:
                    group.start_soon(run)
                    await ready.wait()
                    yield served
                    served.stop.set()

    return serve_it


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A dispatcher over an engine on a fresh database, loaded."""
    database, whole = str(tmp_path / "cache.db"), Whole()
    prepare_database(database)
    with open_directory(str(tmp_path)) as directory:
        async with open_store(database, synchronous="NORMAL") as store:
            bench = new_bench(GatedStore.around(store), directory, Settings(page_rows_max=2, writer_queue_max=2))
            async with running(bench), anyio.create_task_group() as tasks:
                await bench.engine.load_index()
                yield Desk(Dispatcher(bench.engine, whole, bench.clock, tasks), bench.engine, whole, bench.clock)
