"""Entries in use: asked for first and looked at then, ended once, by their own process alone."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from motools.cache import Cache, CacheUtils, DatasetEntry, EntryNotFound, InMemoryCache, ModelEntry, SyncCache
from motools.cache.errors import CacheRequestError
from motoolsd.wire.cleaning import EndUse, Use
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.messages import Failure, Found, Lookup
from tests.cache.scripted import Talk, answer_to, scripted_daemon
from tests.cache.twins import TWINS, run_twin

DATASET = DatasetEntry(dataset_hash="d", file_id="f")
MODEL = ModelEntry(cache_key="k", model_id="m")


@pytest.fixture(params=TWINS, ids="-".join)
def twin(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A client and its event loop."""
    found: tuple[str, str] = request.param
    return found


def without_models(talk: Talk) -> None:
    """A daemon from which a model has gone."""
    talk.greet()
    while (request := talk.next()) is not None:
        is_gone = isinstance(request.body, Lookup) and request.body.kind == "model"
        talk.reply(request, Found(values=[None]) if is_gone else answer_to(request.body))


def test_use_begins_before_it_is_looked_at_and_ends_with_the_block(twin: tuple[str, str], cache_dir: Path) -> None:
    """In the other order, a clean-up could come in between."""
    kinds: list[str] = []

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        async with cache.using(DATASET, MODEL):
            kinds.extend(daemon.kinds())

    with scripted_daemon(cache_dir) as daemon:
        run_twin(twin, cache_dir, body)
    assert kinds == ["Use", "Lookup", "Use", "Lookup"]
    assert daemon.kinds()[4:] == ["EndUse", "EndUse"]
    begun = [request.use_id for request in daemon.requests if isinstance(request, Use)]
    ended = [request.use_id for request in daemon.requests if isinstance(request, EndUse)]
    assert begun == ended
    assert len(set(begun)) == 2


def test_entry_that_is_gone_is_named_and_nothing_stays_in_use(twin: tuple[str, str], cache_dir: Path) -> None:
    """The first of two was protected already."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        with pytest.raises(EntryNotFound, match="model k is gone"):
            async with cache.using(DATASET, MODEL):
                pytest.fail("the block is not entered")

    with scripted_daemon(cache_dir, without_models) as daemon:
        run_twin(twin, cache_dir, body)
    assert daemon.kinds() == ["Use", "Lookup", "Use", "Lookup", "EndUse", "EndUse"]


def test_use_ends_with_an_exception_too(twin: tuple[str, str], cache_dir: Path) -> None:
    """Which passes through."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        with pytest.raises(ZeroDivisionError):
            async with cache.using(DATASET):
                raise ZeroDivisionError

    with scripted_daemon(cache_dir) as daemon:
        run_twin(twin, cache_dir, body)
    assert daemon.kinds() == ["Use", "Lookup", "EndUse"]


def test_client_that_is_closed_inside_the_block_ends_it(twin: tuple[str, str], cache_dir: Path) -> None:
    """Once."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        async with cache.using(DATASET):
            await (cache.close if twin[0] == "SyncCache" else cache.aclose)()

    with scripted_daemon(cache_dir) as daemon:
        run_twin(twin, cache_dir, body)
    assert daemon.kinds() == ["Use", "Lookup", "EndUse"]


def test_refusal_of_the_daemon_passes_through(twin: tuple[str, str], cache_dir: Path) -> None:
    """It cannot see a process of another PID namespace, for one."""

    def refusing(talk: Talk) -> None:
        talk.greet()
        while (request := talk.next()) is not None:
            talk.reply(request, Failure(code=ErrorCode.INVALID_REQUEST, message="pin them instead"))

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        with pytest.raises(CacheRequestError, match="pin them instead"):
            async with cache.using(DATASET):
                pytest.fail("the block is not entered")

    with scripted_daemon(cache_dir, refusing):
        run_twin(twin, cache_dir, body)


def test_without_a_daemon_the_job_goes_on(
    twin: tuple[str, str], cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With `on_unavailable="miss"` the cache never fails a job; what could not be protected is logged."""
    was_inside = False

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        nonlocal was_inside
        async with cache.using(DATASET, MODEL):
            was_inside = True

    cache_dir.mkdir()
    with caplog.at_level(logging.WARNING):
        run_twin(twin, cache_dir, body, autostart=False, timeout_s=0.2, on_unavailable="miss")
    assert was_inside
    assert "the cache is unavailable" in caplog.text


def test_forked_child_ends_nothing(cache_dir: Path) -> None:
    """It leaves the same block as its parent."""
    with scripted_daemon(cache_dir) as daemon, SyncCache(cache_dir) as cache, cache.using(DATASET):
        block = cache.using(MODEL)
        block.__enter__()
        pid = os.fork()
        if pid == 0:
            block.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(pid, 0)
        assert "EndUse" not in daemon.kinds()
        block.__exit__(None, None, None)
        assert daemon.kinds().count("EndUse") == 1
    assert daemon.kinds().count("EndUse") == 2


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_cancelled_block_ends_its_use(cache_dir: Path, loop: str) -> None:
    """The cancellation does not keep the daemon from being told."""

    async def whole() -> None:
        async with Cache(cache_dir) as cache:
            with anyio.fail_after(20), anyio.CancelScope() as scope:
                async with cache.using(DATASET):
                    scope.cancel()
                    await anyio.sleep_forever()
            assert daemon.kinds() == ["Use", "Lookup", "EndUse"]

    with scripted_daemon(cache_dir) as daemon:
        anyio.run(whole, backend=loop)


def test_utilities_use_entries_too(cache_dir: Path) -> None:
    """Through their client."""
    with scripted_daemon(cache_dir) as daemon:
        (cache_dir / "cache.db").touch()
        with CacheUtils(cache_dir) as utils, utils.using(DATASET):
            assert daemon.kinds() == ["Use", "Lookup"]
    assert daemon.kinds()[-1] == "EndUse"


async def test_memory_checks_that_the_entry_is_there() -> None:
    """Nothing is cleaned up there, but a mistake shows."""
    cache = InMemoryCache()
    entry = await cache.put_dataset(b"content")
    async with cache.using(entry):
        pass
    await cache.clear_datasets()
    with pytest.raises(EntryNotFound):
        async with cache.using(entry):
            pytest.fail("the block is not entered")
