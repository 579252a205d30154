"""Running one workload in many processes at the same time.

Processes are started before the clock is, wait at a barrier, and work for a fixed time.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from contextlib import closing
from itertools import cycle
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

from bench.peers import PEERS, Session

LATENCIES_MAX = 200_000
QUESTIONS = 4096
"""Different questions of one process; they come round again."""
START_TIMEOUT_S = 60.0
EXTRA_TIMEOUT_S = 120.0


class Sample(NamedTuple):
    """What one round of one peer gave."""

    operations_per_s: float
    p50_us: float
    p99_us: float


def key_of(number: int) -> str:
    """The dataset hash of an entry: 64 hexadecimal digits, as in real use."""
    return f"{number:064x}"


def value_of(number: int) -> str:
    """Its file id."""
    return f"file-{number:012d}"


Operation = Callable[[], None]
"""One question, its answer checked. Everything that is not the peer's work is done before the clock starts."""


def hits(session: Session, rng: random.Random, entries: int) -> Operation:
    """Look up entries that are there."""
    numbers = rng.choices(range(entries), k=QUESTIONS)
    ask, get = cycle([(key_of(number), value_of(number)) for number in numbers]).__next__, session.get

    def operation() -> None:
        key, value = ask()
        assert get(key) == value

    return operation


def misses(session: Session, rng: random.Random, entries: int) -> Operation:
    """Look up entries that are not there."""
    ask, get = cycle([key_of(entries + rng.randrange(1 << 60)) for _ in range(QUESTIONS)]).__next__, session.get

    def operation() -> None:
        assert get(ask()) is None

    return operation


def writes(session: Session, rng: random.Random, entries: int) -> Operation:
    """Store new entries, durably."""
    put = session.put

    def operation() -> None:
        number = entries + rng.randrange(1 << 60)
        put(key_of(number), value_of(number))

    return operation


WORKLOADS: dict[str, Callable[[Session, random.Random, int], Operation]] = {
    "hits": hits,
    "misses": misses,
    "writes": writes,
}


def run_round(peer: str, workload: str, directory: Path, *, processes: int, seconds: float, entries: int) -> Sample:
    """Let `processes` processes work on one peer at once.

    Raises:
        RuntimeError: a process failed.
    """
    # What a sweep's workers are on Linux; nothing is open yet when they are forked.
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(processes)
    with context.Pool(processes, initializer=_remember, initargs=(barrier,)) as pool:
        work = [(peer, workload, str(directory), seconds, entries, seed) for seed in range(processes)]
        parts = pool.starmap_async(_work, work, chunksize=1).get(START_TIMEOUT_S + seconds + EXTRA_TIMEOUT_S)
    latencies = sorted(latency for _, part in parts for latency in part)
    return Sample(
        operations_per_s=sum(rate for rate, _ in parts),
        p50_us=_percentile(latencies, 0.5),
        p99_us=_percentile(latencies, 0.99),
    )


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e6


_barrier: Barrier | None = None


def _remember(barrier: Barrier) -> None:
    global _barrier  # noqa: PLW0603 - a barrier can only be inherited by a pool's processes, not sent to them
    _barrier = barrier


def _work(
    peer: str, workload: str, directory: str, seconds: float, entries: int, seed: int
) -> tuple[float, list[float]]:
    # A different seed a process: each asks for its own keys in its own order.
    rng = random.Random(f"{seed}-{time.time_ns()}" if workload == "writes" else seed)
    latencies: list[float] = []
    now = time.perf_counter
    with closing(PEERS[peer]().open(Path(directory))) as session:
        operation = WORKLOADS[workload](session, rng, entries)
        operation()
        assert _barrier is not None, "the pool's initializer sets it"
        _barrier.wait(START_TIMEOUT_S)
        begin = last = now()
        end = begin + seconds
        while last < end:
            operation()
            done = now()
            latencies.append(done - last)
            last = done
    return len(latencies) / (last - begin), latencies[:LATENCIES_MAX]
