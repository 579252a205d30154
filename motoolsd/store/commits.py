"""Group commit: everything that waits in one transaction, batch after batch, in the writing connection's thread.

Layer: store. Imports writes and failures.
Invariant: a batch commits as a whole; a request that fails inside it takes nothing of the others along. What became of
it is told after its COMMIT. Group commit after Gray and Reuter, "Transaction Processing" (1993): while one batch is on
its way to the disk, the next one gathers.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from motoolsd.core.errors import NoRoom, RequestError
from motoolsd.store.failures import explain, is_undone
from motoolsd.store.leases import LeaseChange
from motoolsd.store.outcomes import Change, Outcome
from motoolsd.store.writes import INTERNAL, BatchItem, ReusedNumber, apply_batch
from motoolsd.wire.messages import Clear, ClearAll, PutDataset, PutEvals, PutModel

BURST_BATCHES_MAX: Final = 64
"""Batches in one stay in the thread: then a checkpoint, or whoever else waits for the connection, has its turn."""
QUICK_ROWS_MAX: Final = 16
"""Rows of one request above which nobody is made to wait for it."""


class CommitUnknown(Exception):
    """COMMIT failed: whether the batch is on disk is not known, and this connection is not to be used again."""

    def __init__(self, failure: RequestError) -> None:
        """Keep what every request of the batch is told."""
        super().__init__(failure.message)
        self.failure = failure


class Source(Protocol):
    """Where batches come from, and who is told what became of them. Called in the connection's thread."""

    def take(self) -> tuple[Sequence[BatchItem], str]:
        """What waits now, in the order of its arrival, and the time stamp of its rows."""
        ...

    def done(self, outcomes: Sequence[Outcome]) -> None:
        """What became of the batch that was taken first of those not told of yet: an outcome for each item, in order.

        A refused item stands beside applied ones. It must not block.
        """
        ...

    def make_room(self) -> bool:
        """Let go of what is kept for a full disk; whether it is worth trying again what frees room."""
        ...


def commit_waiting(connection: sqlite3.Connection, source: Source, database: str) -> None:
    """Commit batch after batch while something waits, for at most `BURST_BATCHES_MAX`.

    A committed batch is told of when the next one, if there is one, begins its way to the disk. Telling makes the event
    loop busy; done at once, it would compete for the interpreter's lock with the next batch's statements, while the
    disk needs no lock. (Measured: docs/performance.md.)

    Raises:
        CommitUnknown: COMMIT itself failed, and the batch taken last was not told of; all before it were.
    """
    untold: deque[Sequence[Outcome]] = deque()

    def tell() -> None:
        while untold:
            source.done(untold.popleft())

    for _ in range(BURST_BATCHES_MAX):
        items, now = source.take()
        if not items:
            break
        if not all(map(_is_quick, items)):
            tell()
        try:
            outcomes = commit_batch(connection, items, now, database, before_commit=tell, make_room=source.make_room)
        except sqlite3.Error as error:
            tell()
            outcomes = [explain(error, database)] * len(items)
        untold.append(outcomes)
    tell()


def commit_batch(
    connection: sqlite3.Connection,
    items: Sequence[BatchItem],
    now: str,
    database: str,
    *,
    before_commit: Callable[[], None] = lambda: None,
    make_room: Callable[[], bool] = lambda: False,
) -> Sequence[Outcome]:
    """Apply everything in one transaction.

    Args:
        connection: the writer.
        items: in the order of their arrival.
        now: the time stamp of their rows.
        database: for what errors say.
        before_commit: called when all statements are through, or when that is not going to be.
        make_room: called where the disk is full and something that frees room is refused.

    Returns:
        An outcome for each item, in order; a refused one stands beside applied ones.

    Raises:
        CommitUnknown: COMMIT itself failed, and it may have come through.
        sqlite3.Error: the transaction could not even begin; nothing was applied.
    """
    _begin(connection)
    try:
        outcomes = apply_batch(connection, items, now)
        before_commit()
        _commit(connection, database)
    except CommitUnknown:
        raise
    except BaseException as error:
        _roll_back(connection)
        if not isinstance(error, sqlite3.Error):
            raise
        before_commit()
        # One of them is at fault; which one shows when each has a transaction of its own. Too dear to be done always,
        # and savepoints would not do: a full disk ends the whole transaction.
        return [_commit_with_room(connection, item, now, database, make_room) for item in items]
    return outcomes


def _is_quick(item: BatchItem) -> bool:
    """Whether others may wait for its statements: those that clear a table may take seconds."""
    if isinstance(item, PutEvals):
        return len(item.logs) <= QUICK_ROWS_MAX
    return isinstance(item, PutDataset | PutModel | LeaseChange)


def _commit_with_room(
    connection: sqlite3.Connection, item: BatchItem, now: str, database: str, make_room: Callable[[], bool]
) -> Outcome:
    """Commit one item; what frees room has a second try with the room that was kept for it."""
    outcome = _commit_alone(connection, item, now, database)
    if isinstance(outcome, NoRoom) and frees_room(item) and make_room():
        return _commit_alone(connection, item, now, database)
    return outcome


def frees_room(item: BatchItem) -> bool:
    """Whether it is a part of what frees room."""
    return item.frees_room if isinstance(item, Change) else isinstance(item, Clear | ClearAll)


def _commit_alone(connection: sqlite3.Connection, item: BatchItem, now: str, database: str) -> Outcome:
    try:
        _begin(connection)
        (outcome,) = apply_batch(connection, [item], now)
        _commit(connection, database)
    except CommitUnknown:
        raise
    except BaseException as error:
        _roll_back(connection)
        if not isinstance(error, sqlite3.Error):
            raise
        if isinstance(error, ReusedNumber) and not isinstance(item, INTERNAL):
            number = item.request_key.number
            return RequestError(f"request number {number} was used before, and this is no retry of it")
        return explain(error, database)
    return outcome


def _begin(connection: sqlite3.Connection) -> None:
    _roll_back(connection)  # what a failed ROLLBACK left behind
    connection.execute("BEGIN IMMEDIATE")


def _commit(connection: sqlite3.Connection, database: str) -> None:
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if is_undone(error, database):
            raise
        raise CommitUnknown(explain(error, database, outcome_known=False)) from error


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
