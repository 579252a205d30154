"""Running one workload of one peer in many processes at once.

Everything that is not the peer's work is done before the clock starts: connecting, warming up, making the questions.
Every answer is checked; for lookups that costs some 20 ns each, for all peers alike.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import cycle
from math import ceil
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.cells import QUANTILES, Sample, WrongAnswer
from bench.keys import CHANGED_COUNT, CHANGED_FIRST, MISSING_FIRST, NEW_FIRST, draw, generator, key_of, value_of
from bench.peers import AsyncSession, Peer, Session
from bench.processes import Gate, run_workers
from bench.workloads import Workload

LATENCIES_MAX: Final = 5_000
"""Of one process; of more, every second, third and so on is kept."""
STRIDE_MAX: Final = 64
STRIDE_S: Final = 10e-6
"""One lookup in so many microseconds is timed by itself, so that reading the clock costs about one percent."""
TRIALS: Final = 32
"""Questions that every session is asked before the start."""
WARM_UP_BATCH: Final = 100

_now = time.perf_counter


class Question(NamedTuple):
    """A key and the value that it has; with `is_write`, that it gets."""

    key: str
    value: str | None
    is_write: bool = False


class Part(NamedTuple):
    """What one process did."""

    operations: int
    elapsed_s: float
    latencies_s: list[float]


class Run(NamedTuple):
    """A question asked by itself, and those after it that are asked without looking at the clock."""

    first: str
    answer: str | None
    rest: list[str]
    answers: list[str | None]


def measure(peer: Peer, workload: Workload, *, processes: int, seconds: float, entries: int, number: int) -> Sample:
    """Let `processes` processes work on one peer at once.

    Args:
        peer: whose store is served.
        workload: what to do.
        processes: how many.
        seconds: for how long.
        entries: how many there are in the store.
        number: of the round; each asks other questions.

    Raises:
        WorkerFailed: a process failed, or a peer's answer was not right.
    """
    seconds *= workload.slices

    def work(index: int, gate: Gate) -> Part:
        questions = make_questions(workload, entries=entries, seed=[number, index])
        session = peer.connect()
        if isinstance(session, AsyncSession):
            return asyncio.run(_work_async(peer, workload, session, questions, gate, seconds))
        try:
            return _work(peer, workload, session, questions, gate, seconds)
        finally:
            session.close()

    parts = run_workers(f"{peer.name}, {workload.name}", processes, work)
    return summary([part._replace(operations=part.operations * workload.batch) for part in parts])


def summary(parts: list[Part]) -> Sample:
    """Rates added up, latencies put together."""
    latencies: NDArray[np.float64] = np.concatenate([np.asarray(part.latencies_s) for part in parts])
    quantiles = np.quantile(latencies, QUANTILES) * 1e6
    return Sample(
        sum(part.operations / part.elapsed_s for part in parts), "op/s", tuple(round(float(q), 3) for q in quantiles)
    )


def make_questions(workload: Workload, *, entries: int, seed: list[int]) -> list[Question]:
    """One process's questions, in their order."""
    if workload.writes_percent == 100:  # noqa: PLR2004 - all of them
        # Of the system's chance: no two processes and no two rounds may store the same entry.
        new = generator().integers(NEW_FIRST, MISSING_FIRST, size=workload.questions)
        return [Question(key_of(int(number)), value_of(int(number)), is_write=True) for number in new]
    rng = generator(seed)
    if workload.writes_percent:
        numbers = draw(rng, workload.distribution, entries=CHANGED_COUNT, count=workload.questions)
        writes = rng.random(workload.questions) < workload.writes_percent / 100
        return [
            Question(key_of(CHANGED_FIRST + number), value_of(CHANGED_FIRST + number), is_write=bool(is_write))
            for number, is_write in zip(numbers, writes, strict=True)
        ]
    numbers = draw(rng, workload.distribution, entries=entries, count=workload.questions)
    if workload.asks == "misses":
        return [Question(key_of(MISSING_FIRST + number), None) for number in numbers]
    return [Question(key_of(number), value_of(number)) for number in numbers]


def _work(
    peer: Peer, workload: Workload, session: Session, questions: list[Question], gate: Gate, seconds: float
) -> Part:
    if workload.writes_percent:
        return _repeat(_changes(peer.name, session, questions), gate, seconds)
    if workload.batch > 1:
        warm_up(peer, session, questions)
        return _repeat(_batches(peer.name, session, questions, workload.batch), gate, seconds)
    stride = warm_up(peer, session, questions)
    return _look_up(peer.name, session.get, make_runs(questions, stride), gate, seconds)


def warm_up(peer: Peer, session: Session, questions: list[Question]) -> int:
    """Ask before the clock starts; how many lookups to make at a time, of which one is timed."""
    if peer.remembers:
        keys = list(dict.fromkeys(question.key for question in questions))
        if session.get_many is not None:
            for position in range(0, len(keys), WARM_UP_BATCH):
                session.get_many(keys[position : position + WARM_UP_BATCH])
        for key in keys:
            session.get(key)
    return stride_of([_timed(session.get, question.key) for question in questions[:TRIALS]])


def stride_of(trials_s: list[float]) -> int:
    """One lookup in how many is timed: fewer, the faster they are; the fastest trial was disturbed least."""
    return max(1, min(STRIDE_MAX, ceil(STRIDE_S / max(min(trials_s), 1e-9))))


def _timed(get: Callable[[str], object], key: str) -> float:
    begin_s = _now()
    get(key)
    return _now() - begin_s


def make_runs(questions: list[Question], stride: int) -> list[Run]:
    """The questions, `stride` at a time."""
    keys, values = [question.key for question in questions], [question.value for question in questions]
    return [
        Run(keys[i], values[i], keys[i + 1 : i + stride], values[i + 1 : i + stride])
        for i in range(0, len(keys) - len(keys) % stride, stride)
    ]


def _look_up(name: str, get: Callable[[str], str | None], runs: list[Run], gate: Gate, seconds: float) -> Part:
    latencies: list[float] = []
    asked, stride = 0, 1 + len(runs[0].rest)
    now = _now
    start_s = gate.wait()
    end_s = start_s + seconds
    for first, answer, rest, answers in cycle(runs):
        begin_s = now()
        given = get(first)
        done_s = now()
        latencies.append(done_s - begin_s)
        if given != answer or list(map(get, rest)) != answers:
            raise WrongAnswer(name, f"gave a wrong answer: asked for {first} and {len(rest)} more")
        asked += stride
        if done_s >= end_s:
            break
    return Part(asked, now() - start_s, thinned(latencies))


def _repeat(operation: Callable[[], None], gate: Gate, seconds: float) -> Part:
    """Time every operation: none of them is so short that the clock matters."""
    latencies: list[float] = []
    now = _now
    start_s = gate.wait()
    end_s, last_s = start_s + seconds, now()
    while True:
        # At least one: a worker that was woken too late for its slice has something to tell, too.
        operation()
        done_s = now()
        latencies.append(done_s - last_s)
        last_s = done_s
        if last_s >= end_s:
            return Part(len(latencies), last_s - start_s, thinned(latencies))


def _changes(name: str, session: Session, questions: list[Question]) -> Callable[[], None]:
    """Writes, and lookups of what others write meanwhile: every value under a key begins alike."""
    ask, get, put = cycle(questions).__next__, session.get, session.put
    serials = iter(range(1 << 62)).__next__
    # Once before the clock starts: connecting is not writing, nor is learning who writes, which is sent only once.
    get(questions[0].key)
    if questions[0].is_write:
        put(questions[0].key, f"{questions[0].value}-{serials():x}")

    def operation() -> None:
        key, value, is_write = ask()
        assert value is not None, "only hits are changed"
        if is_write:
            put(key, f"{value}-{serials():x}")
        elif not (get(key) or "").startswith(value):
            raise WrongAnswer(name, f"gave a wrong answer for {key}")

    return operation


def _batches(name: str, session: Session, questions: list[Question], size: int) -> Callable[[], None]:
    get_many = session.get_many
    assert get_many is not None, "asked only of peers that have it"
    whole = len(questions) - len(questions) % size
    parts = [questions[i : i + size] for i in range(0, whole, size)]
    ask = cycle([([part.key for part in some], [part.value for part in some]) for some in parts]).__next__

    def operation() -> None:
        keys, values = ask()
        if get_many(keys) != values:
            raise WrongAnswer(name, f"gave a wrong answer for {len(keys)} keys")

    return operation


async def _work_async(
    peer: Peer, workload: Workload, session: AsyncSession, questions: list[Question], gate: Gate, seconds: float
) -> Part:
    try:
        get = session.get
        if peer.remembers:
            keys = list(dict.fromkeys(question.key for question in questions))
            if session.get_many is not None:
                for position in range(0, len(keys), WARM_UP_BATCH):
                    await session.get_many(keys[position : position + WARM_UP_BATCH])
            for key in keys:
                await get(key)
        trials_s = [await _timed_async(get, question.key) for question in questions[:TRIALS]]
        runs = make_runs(questions, stride_of(trials_s))
        # All tasks ask once at the same time: whoever wants a connection for each has them before the start.
        await _all([get(questions[task % len(questions)].key) for task in range(workload.tasks)])
        start_s = gate.wait()
        end_s = start_s + seconds
        turns = [_rotated(runs, task) for task in range(workload.tasks)]
        parts = await _all([_look_up_async(peer.name, get, turn, end_s) for turn in turns])
        latencies = [latency for part in parts for latency in part.latencies_s]
        return Part(sum(part.operations for part in parts), _now() - start_s, thinned(latencies))
    finally:
        await session.close()


async def _timed_async(get: Callable[[str], Awaitable[object]], key: str) -> float:
    begin_s = _now()
    await get(key)
    return _now() - begin_s


async def _all(asked: list[Awaitable[Any]]) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_await(one)) for one in asked]
    return [task.result() for task in tasks]


async def _await(one: Awaitable[Any]) -> Any:  # noqa: ANN401 - handed on
    return await one


def _rotated(runs: list[Run], count: int) -> list[Run]:
    count %= len(runs)
    return runs[count:] + runs[:count]


async def _look_up_async(name: str, get: Callable[[str], Awaitable[str | None]], runs: list[Run], end_s: float) -> Part:
    latencies: list[float] = []
    asked, stride = 0, 1 + len(runs[0].rest)
    now = _now
    for first, answer, rest, answers in cycle(runs):
        begin_s = now()
        given = await get(first)
        done_s = now()
        latencies.append(done_s - begin_s)
        if given != answer or [await get(key) for key in rest] != answers:
            raise WrongAnswer(name, f"gave a wrong answer: asked for {first} and {len(rest)} more")
        asked += stride
        if done_s >= end_s:
            break
    return Part(asked, 0.0, latencies)


def thinned(latencies: list[float]) -> list[float]:
    """At most `LATENCIES_MAX` of them, evenly."""
    return latencies[:: ceil(len(latencies) / LATENCIES_MAX) or 1]
