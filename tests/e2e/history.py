"""A process that asks for and changes a few hot keys, and records what it saw and when; importable by spawn.

Invariant: nothing lies between a call and the two readings of the clock around it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from itertools import accumulate
from multiprocessing.synchronize import Barrier
from pathlib import Path
from random import Random
from time import monotonic_ns, sleep
from typing import Any, Final, Literal, NamedTuple

import anyio
import msgspec

from motools.cache import Cache, SyncCache, connection, multiplex, remembered
from motools.cache.errors import CacheUnavailable
from motoolsd.wire.keys import STAMPS_SIZE_BYTES
from motoolsd.wire.messages import Lookup
from tests.e2e.daemons import daemon_pid, end_daemon
from tests.linearizability import NEVER, Operation

START_TIMEOUT_S: Final = 60.0
PAUSE_MAX_S: Final = 0.3
CHANGES_PER_1000: Final = 100
"""Of so many operations; the others are lookups."""

Action = Literal["get", "set", "clear", "clear table", "clear all"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one process does."""

    directory: str
    process: str
    """Its name; unique, because what it stores is named after it."""
    seed: int
    is_async: bool
    tasks: int
    """Calls at once; of a SyncCache always one."""
    keys: list[str]
    """The first ones are the hottest."""
    watched_keys: list[str] = []
    """Looked up only: another program changes them."""
    operations: int
    duration_s: float = 3600.0
    """It ends after this long or after its operations, whichever is first."""
    clears_per_1000: int
    table_clears_per_1000: int = 0
    """Of the clears, those of the whole table, and of everything."""
    kills: int = 0
    """How often it kills the daemon, spread over its operations."""
    pauses: int = 0
    """How often it stops the daemon for a while (SIGSTOP), spread over its operations."""
    timeout_s: float = 30.0
    is_blind: bool = False
    """A planted bug: this client's stamps never change."""
    path: str
    """Where the history goes."""


class Record(msgspec.Struct):
    """What one process saw."""

    operations: list[tuple[str, Operation]]
    lookups: int = 0
    asked: int = 0
    """Lookups for which the daemon was asked; the others were answered from memory."""
    kills: int = 0
    pauses: int = 0
    failures: int = 0


class Step(NamedTuple):
    """One operation to come."""

    action: Action
    key: str
    value: str


_barrier: Barrier | None = None


def remember_barrier(barrier: Barrier) -> None:
    """A pool's initializer: a barrier can only be inherited by a pool's processes, not sent to them."""
    global _barrier  # noqa: PLW0603
    _barrier = barrier


def run_plan(plan: Plan) -> None:
    """Do what a plan says and leave the record in its file."""
    assert _barrier is not None, "the pool's initializer sets it"
    if plan.is_blind:
        _be_blind()
    record = Record(operations=[])
    _count_questions(record)
    _barrier.wait(START_TIMEOUT_S)
    if plan.is_async:
        anyio.run(_run_async, plan, record)
    else:
        _run_sync(plan, record)
    Path(plan.path).write_bytes(msgspec.msgpack.encode(record))


def _run_sync(plan: Plan, record: Record) -> None:
    with SyncCache(plan.directory, timeout_s=plan.timeout_s) as cache:
        for step in _steps(plan, record):
            invoked_ns = monotonic_ns()
            try:
                value = _carry_out(cache, step)
            except CacheUnavailable as error:
                _note_failure(record, plan, step, invoked_ns, error)
            else:
                _note(record, plan, step, (invoked_ns, monotonic_ns()), value)


async def _run_async(plan: Plan, record: Record) -> None:
    async with Cache(plan.directory, timeout_s=plan.timeout_s) as cache:
        steps = _steps(plan, record)

        async def work() -> None:
            for step in steps:
                invoked_ns = monotonic_ns()
                try:
                    value = await _carry_out(cache, step)
                except CacheUnavailable as error:
                    _note_failure(record, plan, step, invoked_ns, error)
                else:
                    _note(record, plan, step, (invoked_ns, monotonic_ns()), value)

        async with anyio.create_task_group() as group:
            for _ in range(plan.tasks):
                group.start_soon(work)


def _steps(plan: Plan, record: Record) -> Iterator[Step]:
    """Operations at random, the same for the same plan; the daemon is killed between two of them."""
    randomness = Random(plan.seed)
    weights = list(accumulate(1 / (rank + 1) for rank in range(len(plan.keys))))
    kill_at = {plan.operations * (number + 1) // (plan.kills + 1) for number in range(plan.kills)}
    pause_at = {plan.operations * (2 * number + 1) // (2 * plan.pauses + 1) for number in range(plan.pauses)}
    end_ns = monotonic_ns() + int(plan.duration_s * 1e9)
    for number in range(plan.operations):
        if monotonic_ns() > end_ns:
            return
        if number in kill_at:
            record.kills += _kill_daemon(plan)
        if number in pause_at:
            record.pauses += _pause_daemon(plan, randomness)
        action = _action(plan, randomness)
        (key,) = randomness.choices(plan.keys, cum_weights=weights)
        if action == "get" and plan.watched_keys and randomness.random() < 0.5:
            key = randomness.choice(plan.watched_keys)
        yield Step(action, key, f"{plan.process}/{number}")


def _action(plan: Plan, randomness: Random) -> Action:
    if (drawn := randomness.randrange(1000)) >= CHANGES_PER_1000:
        return "get"
    if drawn >= plan.clears_per_1000:
        return "set"
    if randomness.randrange(1000) >= plan.table_clears_per_1000:
        return "clear"
    return randomness.choice(["clear table", "clear all"])


def _kill_daemon(plan: Plan) -> bool:
    """Kill whichever daemon runs; False should it be between two."""
    with SyncCache(plan.directory) as another:
        another.get_status()
    return end_daemon(Path(plan.directory), signal.SIGKILL) is not None


def _pause_daemon(plan: Plan, randomness: Random) -> bool:
    """Stop whichever daemon runs for a moment; False should it be between two."""
    pid = daemon_pid(Path(plan.directory))
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGSTOP)
        sleep(randomness.uniform(0.02, PAUSE_MAX_S))
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return True


def _carry_out(cache: SyncCache | Cache, step: Step) -> Any:  # noqa: ANN401 - a value, or a coroutine of one
    match step.action:
        case "get":
            return cache.get_file_id(step.key)
        case "set":
            return cache.set_file_id(step.key, step.value)
        case "clear":
            return cache.clear_datasets([step.key])
        case "clear table":
            return cache.clear_datasets()
        case "clear all":
            return cache.clear_all()


def _note(record: Record, plan: Plan, step: Step, times: tuple[int, int], value: str | None) -> None:
    match step.action:
        case "get":
            record.lookups += 1
            record.operations.append((step.key, Operation("read", value, *times, plan.process)))
        case "set":
            record.operations.append((step.key, Operation("write", step.value, *times, plan.process)))
        case "clear":
            record.operations.append((step.key, Operation("write", None, *times, plan.process)))
        case "clear table" | "clear all":
            record.operations += [(key, Operation("write", None, *times, plan.process)) for key in plan.keys]


def _note_failure(record: Record, plan: Plan, step: Step, invoked_ns: int, error: CacheUnavailable) -> None:
    """A lookup without an answer says nothing, a change that was never sent neither; of others nobody knows."""
    record.failures += 1
    if step.action != "get" and not error.outcome_known:
        _note(record, plan, step, (invoked_ns, NEVER), None)


def _count_questions(record: Record) -> None:
    """Count from now on for how many lookups this process asks a daemon."""

    def counted(exchange: Callable[..., Any]) -> Callable[..., Any]:
        def count_and_exchange(self: object, request: object, *rest: object) -> object:
            record.asked += isinstance(request, Lookup)
            return exchange(self, request, *rest)

        return count_and_exchange

    for kind in (connection.BlockingConnection, multiplex.MultiplexedConnection):
        setattr(kind, "exchange", counted(kind.exchange))  # noqa: B010 - methods are not assigned to, says mypy


def _be_blind() -> None:
    """Let every comparison of stamps in this process say that nothing changed."""
    unchanging = memoryview(bytes(STAMPS_SIZE_BYTES)).cast("Q")
    setattr(remembered, "_map", lambda _path, _identity: unchanging)  # noqa: B010 - as above
