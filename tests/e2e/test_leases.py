"""Compute once, with real processes: whoever dies, stops or waits, one value comes of it."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
import time
from contextlib import ExitStack, redirect_stderr
from functools import partial
from pathlib import Path

import anyio
import pytest

from motools.cache import (
    Cache,
    CacheRequestError,
    ClaimTimeout,
    StaleLease,
    SyncCache,
    UncacheableConfigError,
)
from tests.e2e.daemons import daemon_pid, end_daemon
from tests.e2e.jobs import job
from tests.e2e.processes import claim_each

POOL_TIMEOUT_S = 120.0
WAITERS = 1000
spawn = multiprocessing.get_context("spawn")


@pytest.mark.slow
def test_32_processes_compute_each_key_once(shared_dir: Path) -> None:
    """However many ask at the same moment, one computes, and all get its value."""
    rounds = 10
    with spawn.Pool(32) as pool:
        work = [(str(shared_dir), rounds)] * 32
        results = pool.starmap_async(claim_each, work, chunksize=1).get(POOL_TIMEOUT_S)
    for number in range(rounds):
        answers = [result[number] for result in results]
        assert len({value for value, _ in answers}) == 1
        assert sum(computed for _, computed in answers) == 1


@pytest.mark.slow
def test_killed_owner_hands_over_though_a_child_keeps_its_socket_open(shared_dir: Path) -> None:
    """The kernel tells of the death, not the connection."""
    with job(shared_dir) as owner, job(shared_dir) as heir:
        assert owner.ask("claim k") == "owner"
        assert owner.ask("fork") == "forked"
        heir.tell("claim k")
        _await_waiters(shared_dir, 1)
        os.kill(owner.pid, signal.SIGKILL)
        assert heir.hear() == "owner"


@pytest.mark.slow
def test_zombie_owner_counts_as_dead(shared_dir: Path) -> None:
    """Its parent has not asked for its exit status; it computes nothing any more."""
    with job(shared_dir) as owner, job(shared_dir) as heir:
        assert owner.ask("claim k") == "owner"
        os.kill(owner.pid, signal.SIGKILL)
        # Nobody waits for it until the block is left.
        assert heir.ask("claim k") == "owner"


@pytest.mark.slow
def test_owner_and_waiters_outlive_a_killed_daemon(shared_dir: Path) -> None:
    """The same owner still owns, and its value reaches all ten."""
    with ExitStack() as stack:
        owner = stack.enter_context(job(shared_dir))
        assert owner.ask("claim k") == "owner"
        waiters = [stack.enter_context(job(shared_dir)) for _ in range(10)]
        for waiter in waiters:
            waiter.tell("claim k")
        _await_waiters(shared_dir, 10)
        end_daemon(shared_dir, signal.SIGKILL)
        _await_waiters(shared_dir, 10)
        assert owner.ask("fulfil v") == "done"
        assert [waiter.hear() for waiter in waiters] == ["value v"] * 10


@pytest.mark.slow
def test_stopped_owner_whose_lease_was_broken_cannot_overwrite(shared_dir: Path) -> None:
    """It wakes up, believes that it owns, and is told what stands."""
    with job(shared_dir) as owner, job(shared_dir) as other, SyncCache(shared_dir) as cache:
        assert owner.ask("claim k") == "owner"
        os.kill(owner.pid, signal.SIGSTOP)
        assert cache.break_lease("k", "dataset") == 1
        assert other.ask("claim k") == "owner"
        assert other.ask("fulfil new") == "done"
        os.kill(owner.pid, signal.SIGCONT)
        assert owner.ask("fulfil old") == "stale new"
        assert cache.get_file_id("k") == "new"


@pytest.mark.slow
def test_jobs_that_claim_each_others_keys_do_not_wait_for_ever(shared_dir: Path) -> None:
    """One is told, and the other goes on as soon as that one leaves."""
    with job(shared_dir) as one, job(shared_dir) as two:
        assert one.ask("claim a") == "owner"
        assert two.ask("claim b") == "owner"
        one.tell("claim b")
        _await_waiters(shared_dir, 1)
        assert two.ask("claim a") == "error ClaimDeadlock"
        assert two.ask("leave") == "left"
        assert one.hear() == "owner"


@pytest.mark.slow
def test_leases_keep_the_daemon_from_idle_exit_and_go_with_their_process(
    shared_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that trains for hours says nothing meanwhile, and may have lost its connection."""
    monkeypatch.setenv("MOTOOLS_IDLE_TIMEOUT", "0.5")
    with job(shared_dir) as owner:
        assert owner.ask("claim k") == "owner"
        pid = daemon_pid(shared_dir)
        # Its connection is cut by the restart; it makes no other.
        end_daemon(shared_dir, signal.SIGKILL)
        with SyncCache(shared_dir) as cache:
            assert [lease.pid for lease in cache.list_leases()] == [owner.pid]
        again = daemon_pid(shared_dir)
        assert again not in (None, pid)
        time.sleep(2)
        assert daemon_pid(shared_dir) == again
        os.kill(owner.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while daemon_pid(shared_dir) is not None:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.slow
async def test_thousand_waiters_of_one_client_get_the_value(shared_dir: Path) -> None:
    """They share one connection, and the owner's fulfil comes through among them."""
    values: list[str | None] = []
    async with Cache(shared_dir) as cache:

        async def wait() -> None:
            async with cache.claim_dataset("k") as claim:
                values.append(claim.value)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group, cache.claim_dataset("k") as claim:
                for _ in range(WAITERS):
                    group.start_soon(wait)
                await _await_waiters_of(cache, WAITERS)
                await claim.fulfil("v")
    assert values == ["v"] * WAITERS


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_cancelled_waiter_leaves_no_ghost(shared_dir: Path, backend: str) -> None:
    """The lease passes it by."""

    async def main() -> None:
        async with Cache(shared_dir) as cache, cache.claim_dataset("k") as claim:
            assert claim.is_owner
            async with anyio.create_task_group() as group:

                async def wait() -> None:
                    async with cache.claim_dataset("k"):
                        raise AssertionError("it was cancelled")

                group.start_soon(wait)
                await _await_waiters_of(cache, 1)
                group.cancel_scope.cancel()
            assert (await cache.list_leases())[0].waiters == 0

    anyio.run(main, backend=backend)
    with SyncCache(shared_dir) as cache:
        assert cache.list_leases() == []


@pytest.mark.slow
def test_interrupted_blocking_waiter_leaves_no_ghost(shared_dir: Path) -> None:
    """KeyboardInterrupt goes through, and the client stays usable."""
    with SyncCache(shared_dir) as cache, job(shared_dir) as owner:
        assert owner.ask("claim k") == "owner"
        timer = threading.Timer(0.3, partial(os.kill, os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt), cache.claim_dataset("k"):
            pass
        timer.join()
        assert cache.list_leases()[0].waiters == 0
        assert owner.ask("leave") == "left"
        assert cache.list_leases() == []


@pytest.mark.slow
def test_wait_is_bounded_and_says_whom_for(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once after a while, on stderr; then the time is over."""
    monkeypatch.setattr("motools.cache.sync_waiting.NOTICE_AFTER_S", 0.05)
    with SyncCache(shared_dir) as cache, job(shared_dir) as owner:
        assert owner.ask("claim k") == "owner"
        notice = io.StringIO()
        claim = cache.claim_dataset("k", timeout_s=0.3)
        with redirect_stderr(notice), pytest.raises(ClaimTimeout, match=str(owner.pid)) as caught:
            claim.__enter__()
        assert isinstance(caught.value, TimeoutError)
        assert notice.getvalue().count("waiting for the dataset") == 1
        assert f"pid {owner.pid}" in notice.getvalue()
        with cache.claim_dataset("k", wait=False) as claim:
            assert (claim.pending, claim.is_owner, claim.value) == (True, False, None)
            assert claim.holder is not None
            assert claim.holder.pid == owner.pid


@pytest.mark.slow
def test_mistakes_are_named_and_cache_nothing(shared_dir: Path) -> None:
    """A value that is none, twice, outside the block, without the lease, a config that has no key."""
    with SyncCache(shared_dir) as cache:
        claim = cache.claim_dataset("k")
        with pytest.raises(CacheRequestError, match="outside"):
            claim.fulfil("v")
        with claim:
            for value, complaint in ((7, "must be text"), ("", "empty")):
                with pytest.raises(CacheRequestError, match=complaint):
                    claim.fulfil(value)  # type: ignore[arg-type]
            claim.fulfil("v", source="test")
            with pytest.raises(CacheRequestError, match="ends once"):
                claim.fulfil("w")
        with pytest.raises(CacheRequestError, match="outside"):
            claim.fulfil("w")
        with pytest.raises(CacheRequestError, match="entered once"), claim:
            pass
        with cache.claim_dataset("k") as hit, pytest.raises(CacheRequestError, match="without the lease"):
            hit.fulfil("w")
        with pytest.raises(UncacheableConfigError):
            cache.claim_model("d", {"x": object()})
        with pytest.raises(CacheRequestError, match="on_failure"):
            cache.claim_dataset("k", on_failure="ignore")  # type: ignore[arg-type]
        assert cache.get_file_id("k") == "v"
        assert cache.list_datasets()[0].labels == {"source": "test"}


@pytest.mark.slow
def test_exception_in_the_block_releases_and_goes_through(shared_dir: Path) -> None:
    """The next has the lease; nothing is cached."""
    with SyncCache(shared_dir) as cache:
        with pytest.raises(ZeroDivisionError), cache.claim_dataset("k"):
            raise ZeroDivisionError
        assert cache.list_leases() == []
        with cache.claim_dataset("k") as claim:
            assert claim.is_owner


@pytest.mark.slow
def test_forked_child_that_leaves_the_block_releases_nothing(shared_dir: Path) -> None:
    """The lease is the parent's."""
    with SyncCache(shared_dir) as cache, cache.claim_dataset("k") as claim:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                claim.__exit__(None, None, None)
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        claim.fulfil("v")
        assert cache.get_file_id("k") == "v"


@pytest.mark.slow
def test_closed_client_has_released(shared_dir: Path) -> None:
    """Whoever closes without leaving the block."""
    cache = SyncCache(shared_dir)
    cache.claim_dataset("k").__enter__()
    cache.close()
    with SyncCache(shared_dir) as other:
        assert other.list_leases() == []


@pytest.mark.slow
def test_evaluations_are_claimed_together(shared_dir: Path) -> None:
    """Only what is missing is evaluated, once, though two ask in opposite orders at the same time."""
    calls: list[list[str]] = []
    lock = threading.Lock()

    def evaluate(tasks: list[str]) -> dict[str, str]:
        with lock:
            calls.append(tasks)
        time.sleep(0.05)
        return {task: f"/logs/{task}" for task in tasks}

    results: list[dict[str, str]] = []

    def ask(tasks: list[str], *, one_by_one: bool) -> None:
        with SyncCache(shared_dir) as cache:
            results.append(cache.get_or_evaluate("m", tasks, evaluate, "inspect", one_by_one=one_by_one))

    with SyncCache(shared_dir) as cache:
        cache.set_eval_log_paths("m", {"old": "/logs/old"}, "inspect")
    orders = [["a", "b", "old"], ["b", "a"], ["c", "b", "a"]]
    threads = [
        threading.Thread(target=ask, args=(order,), kwargs={"one_by_one": bool(n)}) for n, order in enumerate(orders)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(task for tasks in calls for task in tasks) == ["a", "b", "c"]
    assert sorted(map(len, results)) == [2, 3, 3]
    assert all(path == f"/logs/{task}" for result in results for task, path in result.items())


@pytest.mark.slow
def test_evaluation_without_a_log_is_named(shared_dir: Path) -> None:
    """And leaves no lease."""
    with SyncCache(shared_dir) as cache:
        with pytest.raises(CacheRequestError, match="no log for b"):
            cache.get_or_evaluate("m", ["a", "b"], lambda _: {"a": "/logs/a"}, "inspect")
        assert cache.list_leases() == []


@pytest.mark.slow
def test_lost_lease_gives_the_value_that_stands(shared_dir: Path) -> None:
    """`get_or_*` is about the value, not about whose it is."""
    with SyncCache(shared_dir) as cache:

        def upload() -> str:
            with SyncCache(shared_dir) as other:
                other.set_file_id("k", "theirs")
            return "mine"

        assert cache.get_or_upload("k", upload) == "theirs"
        with cache.claim_dataset("l") as claim:
            cache.clear_all()
            with pytest.raises(StaleLease):
                claim.fulfil("v")


@pytest.mark.slow
def test_without_a_daemon_claims_run_uncached(cache_dir: Path) -> None:
    """The cache never fails a job that asked it not to."""
    with SyncCache(cache_dir, autostart=False, timeout_s=0.2, on_unavailable="miss") as cache:
        assert cache.get_or_upload("k", lambda: "computed") == "computed"


def _await_waiters(directory: Path, count: int) -> None:
    """Return when so many wait."""
    deadline = time.monotonic() + 20
    with SyncCache(directory) as cache:
        while sum(lease.waiters for lease in cache.list_leases()) != count:
            assert time.monotonic() < deadline, cache.list_leases()
            time.sleep(0.005)


async def _await_waiters_of(cache: Cache, count: int) -> None:
    """The same, in a task."""
    with anyio.fail_after(20):
        while (await cache.list_leases())[0].waiters != count:  # noqa: ASYNC110 - another process counts them
            await anyio.sleep(0.005)
