"""`python -m tests.faults.planted BUG serve ...`: the daemon with a bug that a test must catch.

Each test of a fault runs once more against a daemon that breaks the promise: a test that says nothing then is broken.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any

import anyio

from motoolsd import app
from motoolsd.adapters import lock
from motoolsd.adapters.clock import SystemClock
from motoolsd.adapters.socket import peer_credentials
from motoolsd.cli import main
from motoolsd.core.deadlines import Moment
from motoolsd.core.leases import Change, Claimant, Key, Lease, LeaseTable
from motoolsd.core.slots import Slots
from motoolsd.engine.claims import Claims
from motoolsd.engine.index import Index
from motoolsd.engine.writer import Writer
from motoolsd.server.connection import Connection
from motoolsd.server.running import Running
from motoolsd.store import commits, connection, reads, store
from motoolsd.store.commits import Source
from motoolsd.store.outcomes import Outcome
from motoolsd.store.store import Store
from motoolsd.store.writes import apply_batch
from motoolsd.wire.envelopes import RequestEnvelope
from motoolsd.wire.errors import RemoteProtocolError
from motoolsd.wire.keys import SLOT_COUNT, Kind
from motoolsd.wire.messages import Lookup, Stored
from motoolsd.wire.session import Refused, ServerSession

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
    """End on SIGTERM without a word to anybody."""

    def request_stop(_self: Running, _reason: str) -> None:
        os._exit(0)

    setattr(Running, "request_stop", request_stop)  # noqa: B010


def _cut_on_stop() -> None:
    """Cut every connection at a stop, whatever it waits for."""
    setattr(Connection, "drain", Connection.abort)  # noqa: B010


def _no_lock() -> None:
    """Serve a directory that another daemon serves."""
    setattr(lock, "_take", lambda *_: None)  # noqa: B010


def _keep_the_connection() -> None:
    """Go on with the connection whose commit has failed."""

    async def reopen_writer(_self: Store) -> None:
        """Leave it as it is."""

    async def usable_writer(self: Store) -> connection.Connection:
        return self._writer or await self._open_writer()

    setattr(Store, "reopen_writer", reopen_writer)  # noqa: B010
    setattr(Store, "_usable_writer", usable_writer)  # noqa: B010


def _trust_a_failed_checkpoint() -> None:
    """Go on with the connection whose checkpoint could not be synced."""
    setattr(store, "FAILED_SYNCS", frozenset())  # noqa: B010


def _wait_for_the_disk() -> None:
    """Let lookups wait for the commit that is under way."""
    writing = threading.Lock()
    commit, find = commits.commit_waiting, Index.find

    def commit_waiting(*arguments: Any) -> Any:  # noqa: ANN401
        with writing:
            return commit(*arguments)

    def find_later(self: Index, *arguments: Any) -> Any:  # noqa: ANN401
        with writing:
            return find(self, *arguments)

    setattr(commits, "commit_waiting", commit_waiting)  # noqa: B010
    setattr(Index, "find", find_later)  # noqa: B010


def _keep_what_came() -> None:
    """Leak memory with every piece of data."""
    real, kept = Connection.data_received, list[bytes]()

    def data_received(self: Connection, data: bytes) -> None:
        kept.append(bytes(20_000))
        real(self, data)

    setattr(Connection, "data_received", data_received)  # noqa: B010


def _keep_a_descriptor() -> None:
    """Leak a file with every connection."""
    real = Connection.connection_made

    def connection_made(self: Connection, transport: asyncio.BaseTransport) -> None:
        os.dup(0)
        real(self, transport)

    setattr(Connection, "connection_made", connection_made)  # noqa: B010


def _on_bad_frame(harm: Callable[[], None]) -> None:
    real = ServerSession.next_event

    def next_event(self: ServerSession) -> Any:  # noqa: ANN401
        try:
            return real(self)
        except RemoteProtocolError:
            harm()
            raise

    setattr(ServerSession, "next_event", next_event)  # noqa: B010


def _die_of_a_bad_frame() -> None:
    """End for everybody because of one."""
    _on_bad_frame(lambda: os._exit(1))


def _keep_bad_frames() -> None:
    """Leak memory with every frame that cannot be read."""
    kept = list[bytes]()
    _on_bad_frame(lambda: kept.append(b"x" * 2_000_000))


def _guess_the_operation() -> None:
    """Take what is not known for a lookup."""
    real = ServerSession.next_event

    def next_event(self: ServerSession) -> Any:  # noqa: ANN401
        event = real(self)
        return RequestEnvelope(event.id, Lookup(kind=Kind.DATASET, keys=["a"])) if isinstance(event, Refused) else event

    setattr(ServerSession, "next_event", next_event)  # noqa: B010


def _grant_held_leases() -> None:
    """Give a lease to whoever asks."""
    real = LeaseTable.claim

    def claim(self: LeaseTable, claimant: Claimant, keys: Sequence[Key], since: str) -> list[Lease]:
        for key in keys:
            if self.lease(key) is not None:
                self._drop(key, Change())
        return real(self, claimant, keys, since)

    setattr(LeaseTable, "claim", claim)  # noqa: B010


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
    "exit at once": _exit_at_once,
    "cut on stop": _cut_on_stop,
    "no lock": _no_lock,
    "keep the connection": _keep_the_connection,
    "trust a failed checkpoint": _trust_a_failed_checkpoint,
    "keep what came": _keep_what_came,
    "keep a descriptor": _keep_a_descriptor,
    "die of a bad frame": _die_of_a_bad_frame,
    "keep bad frames": _keep_bad_frames,
    "ask no peer": _ask_no_peer,
    "leases by the wall": _leases_by_the_wall,
    "deadlines by the wall": _deadlines_by_the_wall,
    "grant held leases": _grant_held_leases,
    "guess the operation": _guess_the_operation,
    "wait for the disk": _wait_for_the_disk,
}


if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    main()
