"""`python -m tests.faults.planted BUG serve ...`: the daemon with a bug that a test must catch.

Each test of a fault runs once more against a daemon that breaks the promise: a test that says nothing then is broken.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any

import anyio

from motoolsd import app
from motoolsd.adapters.clock import SystemClock
from motoolsd.adapters.socket import peer_credentials
from motoolsd.cli import main
from motoolsd.core.deadlines import Moment
from motoolsd.core.slots import Slots
from motoolsd.engine.claims import Claims
from motoolsd.engine.writer import Writer
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


def _leases_by_the_wall() -> None:
    """End each lease that the wall clock says is ten minutes old."""

    async def run_expiry(self: Claims) -> None:
        while True:
            await anyio.sleep(0.05)
            now_s = SystemClock().moment().wall_s
            old = [one for one in self.leases() if now_s - datetime.fromisoformat(one.since).timestamp() > 600.0]
            self.revoke(old)

    setattr(Claims, "run_expiry", run_expiry)  # noqa: B010


def _deadlines_by_the_wall() -> None:
    """Ask the clock on the wall whether a time is over, and measure by it how long something took."""
    setattr(Moment, "is_over", lambda self, now: self.wall_s <= now.wall_s)  # noqa: B010
    setattr(SystemClock, "monotonic_s", lambda self: self.moment().wall_s)  # noqa: B010


def _ask_no_peer() -> None:
    """Take everybody who connects for ourselves."""
    setattr(app, "peer_credentials", lambda one: peer_credentials(one)._replace(uid=os.geteuid()))  # noqa: B010


BUGS: dict[str, Callable[[], None]] = {
    "answer before commit": _answer_before_commit,
    "never sync": _never_sync,
    "swallow failures": _swallow_failures,
    "retry as new": _retry_as_new,
    "never stamp": _never_stamp,
    "believe every row": _believe_every_row,
    "ask no peer": _ask_no_peer,
    "leases by the wall": _leases_by_the_wall,
    "deadlines by the wall": _deadlines_by_the_wall,
}


if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    main()
