"""InMemoryCache: what the contract in tests/e2e/test_backends.py leaves open."""

from __future__ import annotations

import msgspec
import pytest

from motools.cache import InMemoryCache


async def test_two_caches_share_nothing() -> None:
    """Each lives and dies with its object."""
    one, other = InMemoryCache(), InMemoryCache()
    await one.set_file_id("d", "file")
    assert await other.get_file_id("d") is None


async def test_methods_never_give_up_the_loop_so_that_any_loop_will_do() -> None:
    """A call is over when it returns to its caller: no event loop is asked for."""
    with pytest.raises(StopIteration):
        InMemoryCache().set_file_id("d", "file").send(None)


async def test_closed_cache_can_still_be_read() -> None:
    """There is nothing to close; a test may look afterwards."""
    async with InMemoryCache() as cache:
        await cache.set_file_id("d", "file")
    await cache.aclose()
    assert await cache.get_file_id("d") == "file"


async def test_size_is_that_of_the_entries() -> None:
    """It grows by what is stored, and goes when that goes."""
    cache = InMemoryCache()
    empty = await cache.get_size_breakdown()
    await cache.set_file_id("d", "x" * 1000)
    full = await cache.get_size_breakdown()
    assert empty == dict.fromkeys(("datasets", "runs", "evals", "database", "trash", "staging", "ballast"), 0)
    assert 1000 < full["database"] < 1200
    assert (await cache.get_stats()).total_size_bytes == full["database"]


async def test_numbers_of_evals_are_not_given_twice() -> None:
    """As in the database, a cleared evaluation's number does not come back."""
    cache = InMemoryCache()
    await cache.set_eval_log_paths("m", {"t": "/1"}, "inspect")
    await cache.clear_evals()
    await cache.set_eval_log_paths("m", {"t": "/2"}, "inspect")
    assert [entry.id for entry in await cache.list_evals()] == [2]
    assert msgspec.structs.asdict((await cache.list_evals())[0])["log_file_path"] == "/2"


async def test_many_answers_are_the_callers_own() -> None:
    """What is done to them does not show in the next ones."""
    cache = InMemoryCache()
    await cache.set_file_id("d", "file")
    (await cache.get_many("dataset", ["d", "e"])).append("mine")
    assert await cache.get_many("dataset", ["d", "e"]) == ["file", None]


async def test_many_questions_see_each_change_at_once() -> None:
    """Nothing is remembered beside what is stored."""
    cache = InMemoryCache()
    seen = [await cache.get_many("model", [("d", {})])]
    await cache.set_model_id("d", {}, "model")
    seen.append(await cache.get_many("model", [("d", {})]))
    await cache.clear_all()
    seen.append(await cache.get_many("model", [("d", {})]))
    assert seen == [[None], ["model"], [None]]
