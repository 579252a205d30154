"""The parent of the sweep's workers: it gathers every answer, and a dead worker ends it at once."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

import pytest

from examples.sweep.asking import Answer
from examples.sweep.plan import Config
from examples.sweep.workers import Event, Worker, WorkerDied, receive_answers, run_work

ANSWER = Answer("mlp", was_trained=True, accuracy=0.9, train_s=1.0)
CONFIG = Config(32, 0.1, 0.01)


def unstarted_worker(number: int) -> tuple[Worker, Connection[Answer, list[Config] | None]]:
    """A worker whose process never ran, and the end of the pipe that it would have."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    return Worker(number, context.Process(), ours), theirs


def test_every_outstanding_answer_is_received() -> None:
    """As many answers as were asked for, each with the worker that gave it."""
    (first, first_end), (second, second_end) = unstarted_worker(0), unstarted_worker(1)
    with first_end, second_end, first.pipe, second.pipe:
        first_end.send(ANSWER)
        second_end.send(ANSWER)
        second_end.send(ANSWER)
        events = list(receive_answers([first, second], {0: 1, 1: 2}))
    assert sorted(event.worker for event in events) == [0, 1, 1]


def test_each_answer_is_reported_as_it_comes() -> None:
    """The progress bar sees what is returned in the end."""
    worker, their_end = unstarted_worker(0)
    seen: list[Event] = []
    with their_end, worker.pipe:
        their_end.send(ANSWER)
        their_end.send(ANSWER)
        events = run_work([worker], [[CONFIG, CONFIG]], seen.append)
        assert their_end.recv() == [CONFIG, CONFIG]
    assert seen == events == [Event(0, ANSWER), Event(0, ANSWER)]


def test_worker_that_dies_ends_the_sweep() -> None:
    """Nobody waits for an answer that cannot come any more."""
    worker, their_end = unstarted_worker(3)
    with worker.pipe:
        their_end.send(ANSWER)
        their_end.close()
        with pytest.raises(WorkerDied, match="worker 3"):
            list(receive_answers([worker], {3: 2}))


def test_dead_worker_is_noticed_when_the_work_is_handed_out() -> None:
    """Not only while its answers are awaited."""
    worker, their_end = unstarted_worker(0)
    with worker.pipe:
        their_end.close()
        with pytest.raises(WorkerDied):
            run_work([worker], [[CONFIG]], lambda event: None)
