"""Claims promise the same over a daemon and in memory, under asyncio and trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from motools.cache import (
    Cache,
    CacheRequestError,
    ClaimDeadlock,
    ClaimTimeout,
    ComputationFailed,
    InMemoryCache,
    StaleLease,
)
from motools.cache.claims import OnFailure

pytestmark = pytest.mark.slow
Shared = Cache | InMemoryCache
Run = Callable[[Callable[[Shared], Awaitable[None]]], None]
MODES: tuple[OnFailure, ...] = ("raise", "take over")


@pytest.fixture(params=["asyncio", "trio"])
def event_loop_name(request: pytest.FixtureRequest) -> str:
    """Both."""
    return str(request.param)


@pytest.fixture(params=["daemon", "memory"])
def run(request: pytest.FixtureRequest, shared_dir: Path, event_loop_name: str) -> Run:
    """Runs an async function with a cache."""

    def run_it(function: Callable[[Shared], Awaitable[None]]) -> None:
        async def main() -> None:
            with anyio.fail_after(20):
                async with InMemoryCache() if request.param == "memory" else Cache(shared_dir) as cache:
                    await function(cache)

        anyio.run(main, backend=event_loop_name)

    return run_it


async def await_waiters(cache: Shared, count: int) -> None:
    """Return when so many wait."""
    while sum(lease.waiters for lease in await cache.list_leases()) != count:  # noqa: ASYNC110 - no event tells
        await anyio.sleep(0.005)


def test_many_tasks_train_once(run: Run) -> None:
    """All get the one model."""

    async def main(cache: Shared) -> None:
        trained = 0

        async def train() -> str:
            nonlocal trained
            trained += 1
            await anyio.sleep(0.01)
            return "model"

        models: list[str] = []

        async def ask() -> None:
            models.append(await cache.get_or_train("d", {"lr": 1}, train))

        async with anyio.create_task_group() as group:
            for _ in range(200):
                group.start_soon(ask)
        assert (trained, set(models), len(models)) == (1, {"model"}, 200)

    run(main)


def test_only_missing_tasks_are_evaluated(run: Run) -> None:
    """Together or one by one, in any order, at the same time."""

    async def main(cache: Shared) -> None:
        calls: list[list[str]] = []

        async def evaluate(tasks: list[str]) -> dict[str, str]:
            calls.append(tasks)
            await anyio.sleep(0.01)
            return {task: f"/logs/{task}" for task in tasks}

        await cache.set_eval_log_paths("m", {"old": "/logs/old"}, "inspect")

        async def ask(*tasks: str) -> None:
            logs = await cache.get_or_evaluate("m", tasks, evaluate, "inspect", one_by_one=len(tasks) == 2)
            assert logs == {task: f"/logs/{task}" for task in tasks}

        async with anyio.create_task_group() as group:
            group.start_soon(ask, "a", "b", "old")
            group.start_soon(ask, "b", "a")
            group.start_soon(ask, "c", "b", "a")
        assert sorted(task for tasks in calls for task in tasks) == ["a", "b", "c"]

    run(main)


def test_failure_is_told_as_asked(run: Run) -> None:
    """Those that wait get it, or the lease."""

    async def main(cache: Shared) -> None:
        told: list[str] = []

        async def wait(mode: OnFailure) -> None:
            try:
                async with cache.claim_dataset("k", on_failure=mode) as claim:
                    told.append(f"{mode}: owner" if claim.is_owner else f"{mode}: {claim.value}")
            except ComputationFailed as error:
                told.append(f"{mode}: {error}")

        async def upload() -> str:
            raise AssertionError("it was tried")

        async with anyio.create_task_group() as group, cache.claim_dataset("k") as claim:
            for mode in MODES:
                group.start_soon(wait, mode)
            await await_waiters(cache, 2)
            await claim.fail("out of memory", retry_after_s=60)
        assert sorted(told) == ["raise: out of memory", "take over: owner"]
        with pytest.raises(ComputationFailed, match="out of memory"):
            await cache.get_or_upload("k", upload)
        assert await cache.get_file_id("k") is None

    run(main)


def test_plain_set_wins(run: Run) -> None:
    """The owner's value is refused, and the one that stands is named."""

    async def main(cache: Shared) -> None:
        async with cache.claim_dataset("k") as claim:
            await cache.set_file_id("k", "set")
            with pytest.raises(StaleLease) as caught:
                await claim.fulfil("late")
            assert caught.value.value == "set"
        async with cache.claim_model("d", {}) as claim:
            assert await cache.clear_models() == 0
            with pytest.raises(StaleLease) as caught:
                await claim.fulfil("late")
            assert caught.value.value is None
        async with cache.claim_eval("m", "t", "inspect") as claim:
            (lease,) = await cache.list_leases()
            assert (lease.kind, lease.token > 0) == ("eval", True)
            assert await cache.break_lease(lease.key) == 1
            with pytest.raises(StaleLease):
                await claim.fail("late")

    run(main)


def test_wait_ends_by_time_by_cancellation_and_by_deadlock(run: Run) -> None:
    """And leaves nothing behind."""

    async def main(cache: Shared) -> None:
        async def late() -> None:
            with pytest.raises(ClaimTimeout):
                await cache.claim_dataset("k", timeout_s=0.02).__aenter__()
            async with cache.claim_dataset("k", wait=False) as claim:
                assert (claim.pending, claim.is_owner) == (True, False)

        async with cache.claim_dataset("k") as claim:
            async with anyio.create_task_group() as group:
                group.start_soon(late)
            async with anyio.create_task_group() as group:
                group.start_soon(cache.claim_dataset("k").__aenter__)
                await await_waiters(cache, 1)
                group.cancel_scope.cancel()
            await await_waiters(cache, 0)
            with pytest.raises(ClaimDeadlock):
                await cache.claim_dataset("k").__aenter__()
            await claim.fulfil("v", stage="first")
            with pytest.raises(CacheRequestError, match="ends once"):
                await claim.fail("again")
        assert await cache.list_leases() == []
        assert (await cache.list_datasets())[0].labels == {"stage": "first"}

    run(main)


def test_crosswise_claims_are_refused(run: Run) -> None:
    """One task is told, the other goes on."""

    async def main(cache: Shared) -> None:
        ends: list[str] = []
        both = anyio.Event()
        holding = 0

        async def nest(outer: str, inner: str) -> None:
            nonlocal holding
            try:
                async with cache.claim_dataset(outer):
                    holding += 1
                    if holding == 2:
                        both.set()
                    await both.wait()
                    async with cache.claim_dataset(inner):
                        ends.append("went on")
            except ClaimDeadlock:
                ends.append("was told")

        async with anyio.create_task_group() as group:
            group.start_soon(nest, "a", "b")
            group.start_soon(nest, "b", "a")
        assert sorted(ends) == ["was told", "went on"]
        assert await cache.list_leases() == []

    run(main)
