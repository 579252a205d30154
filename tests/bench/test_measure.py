"""Workers, their answers and their clocks."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bench.cells import WrongAnswer
from bench.keys import MISSING_FIRST, draw, generator, key_of, stored
from bench.measure import LATENCIES_MAX, STRIDE_MAX, make_questions, make_runs, measure, stride_of, thinned
from bench.peers import Session
from bench.processes import Gate, WorkerFailed, run_workers
from bench.proof import prove_right
from bench.workloads import BY_NAME

ENTRIES = 10


class DictStore:
    """Entries that every forked worker has a copy of."""

    def available(self) -> str | None:
        """It always is."""
        return None

    @contextmanager
    def serve(self, entries: int) -> Iterator[None]:
        """Nothing to set up."""
        yield


class Liar:
    """A peer of which each session has a dict of its own: nobody sees what others write."""

    name = "liar"
    durability = "none"
    remembers = False
    store = DictStore()

    def __init__(self, wrong: str | None = None) -> None:
        """With `wrong`, every lookup gives that."""
        self.wrong = wrong

    def available(self) -> str | None:
        """It always is."""
        return None

    def connect(self) -> Session:
        """Copy the entries."""
        values = dict(stored(ENTRIES))
        get: Callable[[str], str | None] = values.get
        wrong = self.wrong
        return Session(get=get if wrong is None else lambda _: wrong, put=values.__setitem__, close=lambda: None)


def test_peer_that_does_not_share_is_not_timed() -> None:
    """A write that another process does not see is an error with the peer's name."""
    with pytest.raises(WrongAnswer, match="liar does not show what another process stored"):
        prove_right(Liar())


@pytest.mark.parametrize("workload", ["hits", "misses", "mixed"])
def test_wrong_answer_ends_the_measurement(workload: str) -> None:
    """An answer that is not right stops the run, and says whose it was."""
    with pytest.raises(WorkerFailed, match="liar gave a wrong answer"):
        measure(Liar("lie"), BY_NAME[workload], processes=1, seconds=0.01, entries=ENTRIES, number=0)


def test_rates_of_all_processes_add_up() -> None:
    """A sample holds the rate of all processes together, and the quantiles of their latencies in order."""
    sample = measure(Liar(), BY_NAME["hits"], processes=2, seconds=0.01, entries=ENTRIES, number=0)
    assert sample.value > 0
    assert list(sample.latencies_us) == sorted(sample.latencies_us)


def test_workers_begin_together() -> None:
    """Nobody passes the gate before the last one is ready."""

    def work(number: int, gate: Gate) -> tuple[float, float]:
        ready_s = time.perf_counter()
        gate.wait()
        return ready_s, time.perf_counter()

    times = run_workers("together", 3, work)
    assert max(ready_s for ready_s, _ in times) < min(begin_s for _, begin_s in times)


@pytest.mark.parametrize("stage", ["before", "behind"])
def test_worker_that_dies_is_named_and_the_others_end(stage: str) -> None:
    """A worker that vanishes, before the gate or behind it, is an error that says what it did; nobody is left."""

    def work(number: int, gate: Gate) -> int:
        if number == 0 and stage == "before":
            os._exit(3)
        gate.wait()
        if number == 0:
            os._exit(3)
        time.sleep(60)
        return number

    with pytest.raises(WorkerFailed, match="sleepers: a worker died, exit code 3"):
        run_workers("sleepers", 2, work)
    assert multiprocessing.active_children() == []


def test_zipfian_keys_are_mostly_a_few() -> None:
    """The most popular hundredth of a thousand keys gets more than a third of the questions, uniformly a hundredth."""
    for distribution, low, high in (("zipfian", 0.33, 0.6), ("uniform", 0.0, 0.03)):
        numbers = draw(generator([1]), distribution, entries=1_000, count=10_000)  # type: ignore[arg-type]
        assert low < sum(number < 10 for number in numbers) / len(numbers) < high


def test_questions_of_a_round_can_be_asked_again() -> None:
    """The same seed gives the same questions; other workers and rounds ask others."""
    ask = BY_NAME["hits"]
    first = make_questions(ask, entries=1_000, seed=[0, 1])
    assert first == make_questions(ask, entries=1_000, seed=[0, 1])
    assert first != make_questions(ask, entries=1_000, seed=[1, 1])


def test_misses_ask_for_what_is_never_stored() -> None:
    """The keys of misses lie beyond all that workloads store."""
    questions = make_questions(BY_NAME["misses"], entries=10, seed=[0])
    assert all(question.value is None and question.key >= key_of(MISSING_FIRST) for question in questions)


def test_runs_ask_everything_once() -> None:
    """A run is one question that is timed and those up to the next; a remainder is left out."""
    questions = make_questions(BY_NAME["hits"], entries=10, seed=[0])[:7]
    runs = make_runs(questions, 3)
    assert [key for run in runs for key in (run.first, *run.rest)] == [question.key for question in questions[:6]]


def test_fast_lookups_are_timed_rarely() -> None:
    """The clock costs about one percent: each slow lookup is timed, of fast ones one in many."""
    assert stride_of([1e-3]) == 1
    assert stride_of([3e-6, 1e-3]) == 4
    assert stride_of([1e-9]) == STRIDE_MAX


def test_thinned_latencies_are_spread_evenly() -> None:
    """Of too many latencies, some from each part of the slice are kept."""
    kept = thinned([float(number) for number in range(3 * LATENCIES_MAX)])
    assert len(kept) == LATENCIES_MAX
    assert kept[-1] >= 3 * LATENCIES_MAX - 3
    assert thinned([]) == []
