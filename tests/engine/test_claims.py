"""A key is computed once, and whoever dies, leaves or loses never holds up the others."""

from __future__ import annotations

import itertools
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest
from anyio.abc import TaskGroup

from motoolsd.core.errors import ClaimDeadlock, RequestError, StaleLease, StorageFailed
from motoolsd.core.leases import Process
from motoolsd.engine.claims import RETURN_TIMEOUT_S
from motoolsd.wire.entries import KeyState, LeaseRow
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.leases import BreakLease, Claim, Claimed, RecordFailure, Release
from motoolsd.wire.messages import Stored
from tests.engine.bench import Bench
from tests.engine.conftest import OpenBench
from tests.samples import clear, clear_all, execute, put_dataset, put_evals, query, request_key

numbers = itertools.count(1)


class Job:
    """A job that claims, on a connection of its own."""

    def __init__(self, bench: Bench, pid: int | None = None) -> None:
        """Run as a process of its own."""
        self.bench = bench
        self.pid = next(numbers) + 100 if pid is None else pid
        self.context = b"context %d" % next(numbers)
        self.waiting: list[bool] = []

    def request(self, *keys: str, wait: bool = False, takes_over: bool = False) -> Claim:
        """A claim of datasets, under an id of its own."""
        claim_id = (b"claim %d" % next(numbers)).ljust(16, b".")
        return Claim(
            claim_id=claim_id,
            context=self.context,
            kind=Kind.DATASET,
            keys=list(keys),
            wait=wait,
            takes_over=takes_over,
        )

    async def ask(self, request: Claim) -> list[KeyState]:
        """The states of its keys."""
        reply = await self.bench.engine.claims.claim(request, self.pid, self, self.bench.tally, self.waiting.append)
        assert isinstance(reply, Claimed)
        return reply.states

    async def claim(self, *keys: str, **options: bool) -> list[KeyState]:
        """The same, of a new claim."""
        return await self.ask(self.request(*keys, **options))


class Wait:
    """A claim that waits in a task of its own."""

    def __init__(self, group: TaskGroup, job: Job, request: Claim) -> None:
        """Begin."""
        self.request = request
        self.states: list[KeyState] = []
        self.error: RequestError | None = None
        self.over = anyio.Event()
        group.start_soon(self._run, job)

    async def _run(self, job: Job) -> None:
        try:
            self.states = await job.ask(self.request)
        except RequestError as error:
            self.error = error
        self.over.set()

    @property
    def state(self) -> KeyState:
        """What came of its one key."""
        assert self.over.is_set(), "it still waits"
        (state,) = self.states
        return state


Begin = Callable[..., AbstractAsyncContextManager[Wait]]


@asynccontextmanager
async def waiting(bench: Bench, *keys: str, job: Job | None = None, **options: bool) -> AsyncIterator[Wait]:
    """A job that waits for keys while the block runs; over when it is left."""
    job = job or Job(bench)
    async with anyio.create_task_group() as group:
        wait = Wait(group, job, job.request(*keys, wait=True, **options))
        await anyio.wait_all_tasks_blocked()
        yield wait
        with anyio.fail_after(5):
            await wait.over.wait()


def leases_on_disk(database: str) -> int:
    """Rows."""
    return int(query(database, "SELECT count(*) FROM motoolsd_leases")[0][0])


async def test_first_claim_has_the_lease_on_disk_and_the_second_sees_whose_it_is(bench: Bench, database: str) -> None:
    """A lease outlives the daemon before its owner hears of it."""
    owner = Job(bench)
    (mine,) = await owner.claim("d")
    assert leases_on_disk(database) == 1
    (other,) = await Job(bench).claim("d")
    assert mine.token > 0
    assert isinstance(other.holder, LeaseRow)
    assert (other.holder.pid, other.holder.command) == (owner.pid, f"job {owner.pid}")


async def test_value_is_a_hit_and_no_lease(bench: Bench) -> None:
    """Nothing is to be computed."""
    await bench.write(put_dataset("d", b"file"))
    assert await Job(bench).claim("d") == [KeyState(value=b"file")]
    assert bench.engine.claims.held == 0


async def test_asking_again_after_a_lost_answer_gives_the_same_lease(bench: Bench) -> None:
    """The claim's id says that it is the same."""
    job = Job(bench)
    request = job.request("d")
    assert await job.ask(request) == await job.ask(request)


async def test_fulfil_ends_the_lease_and_gives_all_waiters_the_value(bench: Bench, database: str) -> None:
    """Stored, told, and gone from the disk."""
    (mine,) = await Job(bench).claim("d")
    async with waiting(bench, "d") as first, waiting(bench, "d") as second:
        put = msgspec.structs.replace(put_dataset("d", b"file"), token=mine.token)
        assert await bench.write(put) == Stored()
    assert first.state == second.state == KeyState(value=b"file")
    assert (bench.engine.claims.held, leases_on_disk(database)) == (0, 0)


async def test_fulfil_with_an_old_token_is_refused_with_the_value_that_stands(bench: Bench) -> None:
    """A job that was believed dead cannot overwrite."""
    (mine,) = await Job(bench).claim("d")
    await bench.engine.claims.break_lease(BreakLease(key="d"))
    (theirs,) = await Job(bench).claim("d")
    assert theirs.token > mine.token
    await bench.write(msgspec.structs.replace(put_dataset("d", b"new"), token=theirs.token))
    refused = await bench.write(msgspec.structs.replace(put_dataset("d", b"old"), token=mine.token))
    assert isinstance(refused, StaleLease)
    assert refused.detail == {"value": "new"}
    assert bench.peek("d") == b"new"


async def test_retried_fulfil_is_answered_alike(bench: Bench) -> None:
    """Its lease is gone, its reply is stored."""
    (mine,) = await Job(bench).claim("d")
    put = msgspec.structs.replace(put_dataset("d", b"file"), token=mine.token)
    await bench.write(put)
    key = msgspec.structs.replace(put.request_key, is_retry=True)
    assert await bench.write(msgspec.structs.replace(put, request_key=key)) == Stored()


async def test_fulfil_that_never_arrived_is_refused_when_its_lease_is_lost(bench: Bench) -> None:
    """A retry is no way around the token."""
    put = msgspec.structs.replace(put_dataset("d", key=request_key(retry=True)), token=77)
    assert isinstance(await bench.write(put), StaleLease)


async def test_token_is_for_one_key(bench: Bench) -> None:
    """Several logs under one lease make no sense."""
    with pytest.raises(RequestError, match="exactly one log"):
        await bench.write(msgspec.structs.replace(put_evals({"a": b"1", "b": b"2"}), token=1))


async def test_plain_put_wins(bench: Bench, database: str) -> None:
    """Waiters get its value, and the owner's comes too late."""
    (mine,) = await Job(bench).claim("d")
    async with waiting(bench, "d") as wait:
        assert await bench.write(put_dataset("d", b"set")) == Stored()
    assert wait.state == KeyState(value=b"set")
    assert leases_on_disk(database) == 0
    refused = await bench.write(msgspec.structs.replace(put_dataset("d", b"late"), token=mine.token))
    assert isinstance(refused, StaleLease)


async def test_lease_counts_again_when_the_put_that_won_over_it_fails(bench: Bench) -> None:
    """What was not stored takes nothing away."""
    (mine,) = await Job(bench).claim("d")
    bench.store.failing_statement = "BEGIN IMMEDIATE"
    assert isinstance(await bench.write(put_dataset("d", b"set")), StorageFailed)
    put = msgspec.structs.replace(put_dataset("d", b"mine"), token=mine.token)
    assert await bench.write(put) == Stored()


@pytest.mark.parametrize(
    "request_of", [lambda: clear(Kind.DATASET), lambda: clear(Kind.DATASET, keys=["d"]), clear_all]
)
async def test_clear_gives_the_lease_to_the_next(bench: Bench, request_of: Callable[[], Any]) -> None:
    """Its owner computes from what was to be forgotten."""
    (mine,) = await Job(bench).claim("d")
    async with waiting(bench, "d") as wait:
        await bench.write(request_of())
    assert wait.state.token > mine.token


async def test_clear_of_others_takes_nothing(bench: Bench) -> None:
    """Another key, another kind."""
    (mine,) = await Job(bench).claim("d")
    for other in (clear(Kind.DATASET, keys=["e"]), clear(Kind.MODEL), clear(Kind.EVAL, model_ids=["m"])):
        await bench.write(other)
    put = msgspec.structs.replace(put_dataset("d", b"mine"), token=mine.token)
    assert await bench.write(put) == Stored()


async def test_dead_owner_hands_over_to_the_first_who_waits(bench: Bench, database: str) -> None:
    """In the order of their arrival."""
    owner = Job(bench)
    await owner.claim("d")
    second = Job(bench)
    async with waiting(bench, "d", job=second) as first, waiting(bench, "d") as last:
        bench.processes.end(owner.pid)
        await first.over.wait()
        assert first.state.token > 0
        assert not last.over.is_set()
        assert leases_on_disk(database) == 1
        bench.processes.end(second.pid)
    assert last.state.token > first.state.token


async def test_release_is_on_disk_and_hands_over(bench: Bench, database: str) -> None:
    """And asking twice does no harm."""
    owner = Job(bench)
    request = owner.request("d")
    await owner.ask(request)
    for count in (1, 0):
        released = await bench.engine.claims.release(Release(claim_id=request.claim_id))
        assert released.count == count
    assert leases_on_disk(database) == 0


async def test_claim_that_arrives_after_it_was_given_up_gets_nothing(bench: Bench) -> None:
    """Out of the buffers of a connection that was left: nobody would ever release it."""
    job = Job(bench)
    request = job.request("d")
    await bench.engine.claims.release(Release(claim_id=request.claim_id))
    with pytest.raises(RequestError, match="given up"):
        await job.ask(request)
    assert bench.engine.claims.held == 0


async def test_waiting_claim_that_is_released_leaves_no_ghost(bench: Bench) -> None:
    """Cancelled, interrupted: the key goes to those who are still there."""
    owner = Job(bench)
    mine = owner.request("d")
    await owner.ask(mine)
    async with waiting(bench, "d") as gone:
        await bench.engine.claims.release(Release(claim_id=gone.request.claim_id))
    assert gone.error is not None
    await bench.engine.claims.release(Release(claim_id=mine.claim_id))
    assert bench.engine.claims.held == 0


async def test_lost_connection_ends_the_wait_and_keeps_the_lease(bench: Bench) -> None:
    """The process lives: its job goes on computing."""
    owner, other = Job(bench), Job(bench)
    await owner.claim("d")
    async with waiting(bench, "d", job=other):
        bench.engine.claims.connection_lost(other)
        bench.engine.claims.connection_lost(owner)
    assert bench.engine.claims.held == 1


async def test_asking_again_while_it_waits_replaces_the_earlier_request(bench: Bench) -> None:
    """The end of the first one's connection was not noticed yet; there is one place in the queue, not two."""
    owner, job = Job(bench), Job(bench)
    await owner.claim("d")
    async with anyio.create_task_group() as group:
        request = job.request("d", wait=True)
        first, again = Wait(group, job, request), Wait(group, job, request)
        await first.over.wait()
        assert first.error is not None
        bench.processes.end(owner.pid)
        await again.over.wait()
    assert again.state.token > 0


async def test_invisible_process_has_its_lease_as_long_as_its_connection(bench: Bench) -> None:
    """Its end cannot be seen from here."""
    owner = Job(bench, pid=0)
    await owner.claim("d")
    async with waiting(bench, "d") as wait:
        bench.engine.claims.connection_lost(owner)
    assert wait.state.token > 0


async def test_invisible_process_has_time_to_come_back_after_a_restart(open_bench: OpenBench) -> None:
    """Whoever asks again keeps the lease, who does not loses it."""
    async with open_bench() as bench:
        back, gone = Job(bench, pid=0), Job(bench, pid=0)
        request = back.request("back")
        await back.ask(request)
        await gone.claim("gone")
    async with open_bench() as bench, anyio.create_task_group() as group:
        group.start_soon(bench.engine.claims.run_expiry)
        back.bench = bench
        assert (await back.ask(request))[0].token > 0
        await bench.clock.advance(RETURN_TIMEOUT_S + 1)
        assert bench.engine.claims.held == 1
        assert (await Job(bench).claim("back"))[0].holder is not None


async def test_invisible_process_that_joins_its_claim_again_keeps_the_lease(open_bench: OpenBench) -> None:
    """That is how it comes back over a new connection; the end of that one is its own then."""
    async with open_bench() as bench:
        owner = Job(bench, pid=0)
        request = owner.request("d")
        await owner.ask(request)
    async with open_bench() as bench, anyio.create_task_group() as group:
        group.start_soon(bench.engine.claims.run_expiry)
        assert bench.engine.claims.join(request.claim_id, 0, owner).count == 1
        await bench.clock.advance(RETURN_TIMEOUT_S + 1)
        assert bench.engine.claims.held == 1
        bench.engine.claims.connection_lost(owner)
        assert bench.engine.claims.held == 0


async def test_leases_and_tokens_survive_a_restart(open_bench: OpenBench) -> None:
    """The same owner still owns, later tokens are larger, and a process that died meanwhile has lost."""
    async with open_bench() as bench:
        alive = Job(bench)
        (kept,) = await alive.claim("kept")
        dead = Job(bench)
        await dead.claim("lost")
        request = alive.request("given")
        (given,) = await alive.ask(request)
        await bench.engine.claims.release(Release(claim_id=request.claim_id))
    async with open_bench() as bench:
        assert bench.engine.claims.held == 2
        bench.processes.end(dead.pid)
        (new,) = await Job(bench).claim("lost")
        assert new.token > given.token
        put = msgspec.structs.replace(put_dataset("kept", b"file"), token=kept.token)
        assert await bench.write(put) == Stored()


async def test_failure_reaches_those_who_ask_for_it_and_the_lease_the_first_other(bench: Bench) -> None:
    """As they asked."""
    owner = Job(bench)
    (mine,) = await owner.claim("d")
    async with waiting(bench, "d") as told, waiting(bench, "d", takes_over=True) as heir:
        await bench.engine.claims.fail(RecordFailure(kind=Kind.DATASET, key="d", token=mine.token, reason="oom"))
    assert told.state == KeyState(failure="oom")
    assert heir.state.token > 0


async def test_failure_is_remembered_for_as_long_as_was_asked(bench: Bench) -> None:
    """Later claims get it too; then the lease. It is never a value."""
    (mine,) = await Job(bench).claim("d")
    failure = RecordFailure(kind=Kind.DATASET, key="d", token=mine.token, reason="oom", retry_after_s=60)
    await bench.engine.claims.fail(failure)
    assert await Job(bench).claim("d") == [KeyState(failure="oom")]
    assert bench.peek("d") is None
    await bench.clock.advance(61)
    assert (await Job(bench).claim("d"))[0].token > 0


async def test_failure_without_the_lease_is_refused_unless_it_is_repeated(bench: Bench) -> None:
    """A retry whose first try was carried out has nothing left to do."""
    failure = RecordFailure(kind=Kind.DATASET, key="d", token=9, reason="oom")
    with pytest.raises(StaleLease):
        await bench.engine.claims.fail(failure)
    assert (await bench.engine.claims.fail(msgspec.structs.replace(failure, is_retry=True))).count == 0


async def test_crosswise_claims_are_refused(bench: Bench) -> None:
    """Two jobs that wait for each other would wait for ever."""
    one, two = Job(bench), Job(bench)
    inner = one.request("a")
    await one.ask(inner)
    await two.claim("b")
    async with waiting(bench, "b", job=one):
        with pytest.raises(ClaimDeadlock, match="never end"):
            await two.claim("a", wait=True)
        bench.processes.end(two.pid)


async def test_several_keys_are_claimed_at_once_and_waited_for_until_the_first(bench: Bench) -> None:
    """What is free is granted, hits are hits, and a wait ends with the first that is settled."""
    await bench.write(put_dataset("hit", b"file"))
    owner = Job(bench)
    await owner.claim("held")
    states = await Job(bench).claim("hit", "free", "held")
    assert states[0] == KeyState(value=b"file")
    assert states[1].token > 0
    assert states[2].holder is not None
    async with waiting(bench, "held", "free") as wait:
        await bench.write(put_dataset("held", b"set"))
    assert wait.states[0] == KeyState(value=b"set")
    assert wait.states[1].holder is not None


async def test_claim_waits_for_a_write_on_its_way(bench: Bench) -> None:
    """A value that is being stored is no reason to compute it."""
    bench.store.shown_gate = threading.Event()
    bench.writer.submit_nowait(put_dataset("d", b"file"), lambda _: None)
    await bench.store.committed.wait()
    async with anyio.create_task_group() as group:
        job = Job(bench)
        wait = Wait(group, job, job.request("d"))
        await anyio.wait_all_tasks_blocked()
        assert not wait.over.is_set()
        bench.open_gates()
    assert wait.state == KeyState(value=b"file")


async def test_lease_that_cannot_be_stored_is_nobodys(bench: Bench) -> None:
    """The claim fails with the disk's reason, and the next one has it."""
    bench.store.failing_statement = "BEGIN IMMEDIATE"
    with pytest.raises(StorageFailed):
        await Job(bench).claim("d")
    assert bench.engine.claims.held == 0
    assert (await Job(bench).claim("d"))[0].token > 0


async def test_claim_works_while_memory_knows_not_everything(open_bench: OpenBench) -> None:
    """SQLite is asked."""
    async with open_bench(loaded=False) as bench:
        await bench.write(put_dataset("d", b"file"))
        bench.index.forget()
        states = await Job(bench).claim("d", "e")
        assert states[0] == KeyState(value=b"file")
        assert states[1].token > 0


async def test_keys_that_are_none_are_refused(bench: Bench) -> None:
    """An evaluation's key has four parts."""
    job = Job(bench)
    with pytest.raises(RequestError, match="not the key"):
        await job.ask(msgspec.structs.replace(job.request("nonsense"), kind=Kind.EVAL))
    good = eval_key("m", "t", "inspect", None)
    assert (await job.ask(msgspec.structs.replace(job.request(good), kind=Kind.EVAL)))[0].token > 0


async def test_joined_process_keeps_the_lease(bench: Bench) -> None:
    """`motools run`: the command outlives whoever started it."""
    owner = Job(bench)
    request = owner.request("d")
    await owner.ask(request)
    assert bench.engine.claims.join(request.claim_id, 4711, object()).count == 1
    bench.processes.end(owner.pid)
    assert bench.engine.claims.held == 1
    bench.processes.end(4711)
    assert bench.engine.claims.held == 0
    with pytest.raises(RequestError, match="no lease to join"):
        bench.engine.claims.join(request.claim_id, 4712, object())


async def test_waiting_is_counted_apart(bench: Bench) -> None:
    """A claim that waits must not use up what its connection may have outstanding."""
    owner, job = Job(bench), Job(bench)
    await owner.claim("d")
    async with waiting(bench, "d", job=job):
        assert job.waiting == [True]
        bench.processes.end(owner.pid)
    assert job.waiting == [True, False]


async def test_listing_names_owners_and_counts_waiters(bench: Bench) -> None:
    """The oldest first."""
    owner = Job(bench)
    await owner.claim("a", "b")
    async with waiting(bench, "b"):
        pages = [page async for page in bench.engine.claims.list_leases()]
        assert [(row.key, row.pid, row.waiters) for page in pages for row in page.items] == [
            ("a", owner.pid, 0),
            ("b", owner.pid, 1),
        ]
        assert [page.is_last for page in pages] == [True]
        bench.processes.end(owner.pid)


async def test_processes_are_watched_only_while_they_matter(bench: Bench) -> None:
    """A daemon that runs for months must not keep a descriptor for each job there ever was."""
    owner, job = Job(bench), Job(bench)
    request = owner.request("d")
    await owner.ask(request)
    async with waiting(bench, "d", job=job):
        assert {process.pid for process in bench.processes.watched} == {owner.pid, job.pid}
        await bench.write(put_dataset("d"))
    await anyio.wait_all_tasks_blocked()
    assert bench.processes.watched == {}


async def test_damaged_lease_is_left_out(bench: Bench) -> None:
    """A row that cannot be read is said, and the daemon starts."""
    await Job(bench).claim("good")
    await Job(bench).claim("bad")

    execute(bench.store._database, "UPDATE motoolsd_leases SET lease = x'c1' WHERE key = 'bad'")  # noqa: SLF001
    leases, last = await bench.store.leases()
    assert [lease.key[1] for lease in leases] == ["good"]
    assert last == 2
    assert isinstance(leases[0].claimant.process, Process)
