"""The worker processes, and the parent that hands out the work and gathers answers.

A pipe leads to each worker. The parent sends a list of configurations and receives an answer for each; a worker that
dies closes its end, which ends the sweep with an error and never with a wait.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from examples.sweep.asking import Answer, ask
from examples.sweep.jobs import Jobs
from examples.sweep.plan import Config
from motools.cache import SyncCache

STOP_TIMEOUT_S = 10.0


class WorkerDied(RuntimeError):
    """A worker process ended before it had answered everything."""

    def __init__(self, worker: int) -> None:
        """Name the worker; why it died stands in its own traceback."""
        self.worker = worker
        super().__init__(f"worker {worker} died before it had answered; its traceback is above")


@dataclass(frozen=True)
class Event:
    """One answer, and which worker had asked."""

    worker: int
    answer: Answer


@dataclass(frozen=True)
class Worker:
    """A running worker process and the parent's end of the pipe to it."""

    number: int
    process: SpawnProcess
    pipe: Connection[list[Config] | None, Answer]


def run_worker(pipe: Connection[Answer, list[Config] | None], directory: Path, dataset_hash: str) -> None:
    """A worker's whole life: answer list after list until the parent says None.

    An interrupt from the keyboard goes to the parent alone, which then ends its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs = Jobs(directory, dataset_hash)
    with SyncCache(directory) as cache, pipe:
        while (configs := pipe.recv()) is not None:
            for config in configs:
                pipe.send(ask(cache, jobs, config))


@contextmanager
def open_workers(count: int, directory: Path, dataset_hash: str) -> Iterator[list[Worker]]:
    """Start `count` worker processes; on leaving, all of them have ended."""
    context = multiprocessing.get_context("spawn")  # as separate jobs would be: nothing inherited, no open connection
    workers: list[Worker] = []
    try:
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=run_worker, args=(theirs, directory, dataset_hash), name=f"worker-{number}"
            )
            process.start()
            theirs.close()
            workers.append(Worker(number, process, ours))
        yield workers
        for worker in workers:
            send(worker, None)
            worker.process.join(STOP_TIMEOUT_S)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


def run_work(workers: list[Worker], lists: list[list[Config]], on_event: Callable[[Event], None]) -> list[Event]:
    """Let all workers go through their configurations at the same time.

    Args:
        workers: as many as there are lists.
        lists: as `plan_work` made them.
        on_event: called with each answer as it comes in.

    Returns:
        All answers, in the order in which they came.

    Raises:
        WorkerDied: a worker ended early.
    """
    events: list[Event] = []
    outstanding = {}
    for worker, configs in zip(workers, lists, strict=True):
        send(worker, configs)
        outstanding[worker.number] = len(configs)
    for event in receive_answers(workers, outstanding):
        events.append(event)
        on_event(event)
    return events


def receive_answers(workers: list[Worker], outstanding: dict[int, int]) -> Iterator[Event]:
    """Answers as they come in, until each worker has given as many as are outstanding."""
    left = dict(outstanding)
    while asked := [worker for worker in workers if left[worker.number]]:
        ready = wait([worker.pipe for worker in asked])
        for worker in asked:
            if worker.pipe not in ready:
                continue
            try:
                answer = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                raise WorkerDied(worker.number) from None
            left[worker.number] -= 1
            yield Event(worker.number, answer)


def send(worker: Worker, configs: list[Config] | None) -> None:
    """Hand a worker its list, or None: the end.

    Raises:
        WorkerDied: nobody reads at the other end.
    """
    try:
        worker.pipe.send(configs)
    except BrokenPipeError:
        raise WorkerDied(worker.number) from None
