"""Worker processes that begin at the same moment, and always end."""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")

START_TIMEOUT_S: Final = 60.0
"""For connecting and warming up."""
WORK_TIMEOUT_S: Final = 120.0
END_TIMEOUT_S: Final = 5.0
HEAD_START_S: Final = 0.02
"""Between the word and the common start: every worker is awake by then."""

ENDING: Final = frozenset({signal.SIGINT, signal.SIGTERM})

# What a sweep's workers are on Linux; nothing is open yet when they are forked.
FORKING: Final = multiprocessing.get_context("fork")


class WorkerFailed(Exception):
    """A worker raised, died or took too long; the text says which work and why."""


class Gate:
    """Where a worker waits until all are ready."""

    def __init__(self, connection: Connection) -> None:
        """The worker's end of its pipe."""
        self._connection = connection

    def wait(self) -> float:
        """Wait for the others; the common start, on the clock of `time.perf_counter`.

        Raises:
            EOFError: whoever started the workers is gone.
        """
        self._connection.send(None)
        if not self._connection.poll(START_TIMEOUT_S):
            raise EOFError
        start_s: float = self._connection.recv()
        time.sleep(max(0.0, start_s - time.perf_counter()))
        return start_s


class _Failed(NamedTuple):
    trace: str


class Worker(Generic[T]):
    """One forked process and its pipe."""

    def __init__(self, label: str, run: Callable[[Connection], T]) -> None:
        """Fork; what `run` returns is the process's last word."""
        self._label = label
        self.connection, theirs = FORKING.Pipe()
        self.process: BaseProcess = FORKING.Process(target=_run, args=(run, self.connection, theirs), daemon=True)
        with _ending_later():
            self.process.start()
        theirs.close()

    def receive(self, timeout_s: float) -> Any:  # noqa: ANN401 - whatever the worker sends
        """What it sends next.

        Raises:
            WorkerFailed: it raised, died, or sends nothing in time.
        """
        try:
            if not self.connection.poll(timeout_s):
                raise WorkerFailed(f"{self._label}: no word from a worker within {timeout_s:.0f} s")
            message = self.connection.recv()
        except (EOFError, ConnectionResetError) as error:
            self.process.join(END_TIMEOUT_S)
            raise WorkerFailed(f"{self._label}: a worker died, exit code {self.process.exitcode}") from error
        if isinstance(message, _Failed):
            raise WorkerFailed(f"{self._label}: a worker failed\n{message.trace}")
        return message

    def end(self) -> None:
        """Let it end by itself, or else end it."""
        self.connection.close()
        self.process.join(END_TIMEOUT_S)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self.process.close()


@contextmanager
def _ending_later() -> Iterator[None]:
    """Hold signals back while forking: what their handlers raise inside the hooks of a fork is printed and dropped."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def open_worker(label: str, run: Callable[[Connection], T]) -> Iterator[Worker[T]]:
    """One worker, ended in the end."""
    worker = Worker(label, run)
    try:
        yield worker
    finally:
        worker.end()


def run_workers(
    label: str, count: int, work: Callable[[int, Gate], T], *, timeout_s: float = WORK_TIMEOUT_S
) -> list[T]:
    """What `count` processes return that pass the gate at once.

    Args:
        label: says in errors what they did.
        count: of processes.
        work: given the number of the process and the gate, which it has to wait at once.
        timeout_s: bounds the work behind the gate.

    Raises:
        WorkerFailed: one raised, died or took too long; all have ended then.
    """
    workers: list[Worker[T]] = []
    is_done = False
    try:
        # One by one: those that were started are ended should the next one fail.
        workers.extend(Worker(label, _passing(work, number)) for number in range(count))
        deadline_s = time.monotonic() + START_TIMEOUT_S
        for worker in workers:
            worker.receive(max(0.0, deadline_s - time.monotonic()))
        start_s = time.perf_counter() + HEAD_START_S
        for worker in workers:
            worker.connection.send(start_s)
        deadline_s = time.monotonic() + timeout_s
        results: list[T] = [worker.receive(max(0.0, deadline_s - time.monotonic())) for worker in workers]
        is_done = True
        return results
    finally:
        for worker in workers:
            if not is_done:
                worker.process.kill()
            worker.end()


def _passing(work: Callable[[int, Gate], T], number: int) -> Callable[[Connection], T]:
    return lambda connection: work(number, Gate(connection))


def _run(run: Callable[[Connection], object], ours: Connection, connection: Connection) -> None:
    # Its copy of the other end would keep it from seeing that nobody is there any more.
    ours.close()
    # Ctrl-C reaches the whole group: whoever started this process ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    try:
        message = run(connection)
    except EOFError:
        # Nobody listens any more.
        return
    except BaseException:  # noqa: BLE001 - handed on, whatever it is
        message = _Failed(traceback.format_exc())
    try:
        connection.send(message)
    except OSError:
        # As above.
        pass
