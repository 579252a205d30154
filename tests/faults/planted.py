"""`python -m tests.faults.planted BUG serve ...`: the daemon with a bug that a test must catch.

Each test of a fault runs once more against a daemon that breaks the promise: a test that says nothing then is broken.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from motoolsd.app import Running
from motoolsd.cli import main
from motoolsd.core.slots import Slots
from motoolsd.engine.writer import Writer
from motoolsd.server.connection import Connection
from motoolsd.store import commits, connection, reads
from motoolsd.store.commits import Source
from motoolsd.store.outcomes import Outcome
from motoolsd.store.writes import apply_batch
from motoolsd.wire.keys import SLOT_COUNT
from motoolsd.wire.messages import Stored

EARLY_S = 0.02
"""How long the answer is ahead of the commit."""


def _answer_before_commit() -> None:
    """Acknowledge what is not on disk yet."""

    def commit_waiting(connection: sqlite3.Connection, source: Source, database: str) -> None:
        items, now = source.take()
        if not items:
            return
        connection.execute("BEGIN IMMEDIATE")
        outcomes = apply_batch(connection, items, now)
        source.done(outcomes)
        time.sleep(EARLY_S)
        connection.execute("COMMIT")
        del database

    setattr(commits, "commit_waiting", commit_waiting)  # noqa: B010 - modules are not assigned to, says mypy


def _never_sync() -> None:
    """Leave it to the operating system when a commit comes to the disk."""
    real = connection._configure_writer  # noqa: SLF001

    def configure(raw: sqlite3.Connection, _synchronous: str) -> None:
        real(raw, "OFF")

    setattr(connection, "_configure_writer", configure)  # noqa: B010


def _swallow_failures() -> None:
    """Answer a write that has failed as one that was stored."""
    real = Writer._publish  # noqa: SLF001

    def publish(self: Writer, outcomes: Sequence[Outcome]) -> None:
        self._taken[0] = [waiting._replace(answer=_stored(waiting.answer)) for waiting in self._taken[0]]
        real(self, outcomes)

    setattr(Writer, "_publish", publish)  # noqa: B010


def _stored(answer: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda outcome: answer(Stored() if isinstance(outcome, Exception) else outcome)


def _retry_as_new() -> None:
    """Forget what was answered to a request, so that a retry of it is applied again."""
    setattr(commits, "apply_batch", _without_replies(apply_batch))  # noqa: B010


def _without_replies(real: Callable[..., Any]) -> Callable[..., Any]:
    def apply(raw: sqlite3.Connection, items: Sequence[Any], now: str) -> Any:  # noqa: ANN401
        outcomes = real(raw, items, now)
        raw.execute("DELETE FROM motoolsd_replies")
        return outcomes

    return apply


def _never_stamp() -> None:
    """Let every remembered answer count for ever."""

    def bump(self: Slots, _slots: AbstractSet[int]) -> None:
        self._numbers[:] = memoryview(array("Q", [1]) * SLOT_COUNT)

    setattr(Slots, "bump", bump)  # noqa: B010


def _believe_every_row() -> None:
    """Take what a row holds for what was stored."""
    setattr(reads, "_sound", lambda *_: True)  # noqa: B010


def _exit_at_once() -> None:
    """Take SIGTERM for the end: nothing is answered, closed or checkpointed."""

    def exit_at_once(_running: Running, _reason: str) -> None:
        os._exit(0)

    setattr(Running, "request_stop", exit_at_once)  # noqa: B010


def _cut_on_stop() -> None:
    """Cut every connection at a stop, whatever it waits for."""
    setattr(Connection, "drain", Connection.abort)  # noqa: B010


def _take_no_lock() -> None:
    """Open the lock file, and go on whoever holds it."""
    setattr(fcntl, "flock", lambda *_: None)  # noqa: B010


BUGS: dict[str, Callable[[], None]] = {
    "answer before commit": _answer_before_commit,
    "never sync": _never_sync,
    "swallow failures": _swallow_failures,
    "retry as new": _retry_as_new,
    "never stamp": _never_stamp,
    "believe every row": _believe_every_row,
    "take no lock": _take_no_lock,
    "exit at once": _exit_at_once,
    "cut on stop": _cut_on_stop,
}


if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    main()
