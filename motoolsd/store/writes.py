"""Writing: what each request of a batch changes, inside the transaction that `commits` has opened for it.

Layer: store. Imports clearing, puts, reads and rows.
Invariant: a reply is stored in the same transaction as its write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from motoolsd.core.errors import StaleLease, StorageFailed
from motoolsd.core.guards import Guard
from motoolsd.store.clearing import clear, clear_all
from motoolsd.store.leases import LeaseChange, apply_lease_change, take_lease
from motoolsd.store.outcomes import Applied, Change
from motoolsd.store.outcomes import Outcome as Came
from motoolsd.store.ownership import WHERE_KEY, Publication, key_cells, publish
from motoolsd.store.puts import Puts, RowsStatement, put_keys
from motoolsd.store.reads import select_value
from motoolsd.store.rows import TABLES
from motoolsd.wire.fields import Outcome
from motoolsd.wire.messages import (
    Clear,
    ClearAll,
    Put,
    PutDataset,
    PutEvals,
    PutModel,
    RequestKey,
    Stored,
    WriteReply,
    WriteRequest,
)

BatchItem = WriteRequest | Publication | LeaseChange | Change
INTERNAL: Final = (LeaseChange, Change)
"""Writes without a client, and so without a reply to store."""

_reply_encoder = msgspec.msgpack.Encoder()
_reply_decoder = msgspec.msgpack.Decoder(WriteReply)

FORGET_EVERY = 32
"""A client's writes between two looks at which of its replies may go."""
_STORE_REPLIES = RowsStatement(
    "INSERT INTO motoolsd_replies (client, number, reply, applied_at) VALUES", "(?, ?, ?, ?)"
)
_FIND_REPLY = "SELECT reply FROM motoolsd_replies WHERE client = ? AND number = ?"
_FORGET_REPLIES = "DELETE FROM motoolsd_replies WHERE client = ? AND number < ?"
_FORGET_OLD_REPLIES = "DELETE FROM motoolsd_replies WHERE applied_at < datetime(?, '-7 days')"


class ReusedNumber(sqlite3.IntegrityError):
    """A new request has the number of an old one: its client has a defect. It fails alone, and nothing of it stays."""


def apply_batch(connection: sqlite3.Connection, items: Sequence[BatchItem], now: str) -> list[Came]:
    """Carry out everything inside the open transaction, replies included.

    Raises:
        ReusedNumber: one of them has the number of an earlier one.
        sqlite3.Error: one of them is at fault; the transaction is to be rolled back.
    """
    puts = Puts(connection, now)
    replies: list[tuple[object, ...]] = []
    outcomes: list[Came] = []
    for item in items:
        if isinstance(item, LeaseChange):
            apply_lease_change(connection, item)
            outcomes.append(Applied(reply=Stored()))
            continue
        if isinstance(item, Change):
            # It may look at what was put before it in the same batch.
            puts.flush()
            outcomes.append(item.apply(connection, now))
            continue
        key = item.request_key
        if key.is_retry and (reply := _stored_reply(connection, key)) is not None:
            outcomes.append(_answer_again(reply))
            continue
        put = item.put if isinstance(item, Publication) else item
        if isinstance(put, Put) and put.token and not _take_lease(connection, put):
            outcomes.append(_stale(connection, put, puts))
            continue
        applied = _carry_out(connection, item, puts, now)
        replies.append((key.client, key.number, _reply_encoder.encode(applied.reply), now))
        outcomes.append(applied)
    puts.flush()
    try:
        _STORE_REPLIES.execute(connection, replies)
    except sqlite3.IntegrityError as error:
        # Looking first would cost every write a statement for the sake of a client with a defect.
        raise ReusedNumber from error
    _forget_replies(connection, items, outcomes)
    return outcomes


def _take_lease(connection: sqlite3.Connection, item: PutDataset | PutModel | PutEvals) -> bool:
    ((kind, key),) = put_keys(item)
    return take_lease(connection, kind, key, item.token)


def _stale(connection: sqlite3.Connection, item: PutDataset | PutModel | PutEvals, puts: Puts) -> StaleLease:
    """The refusal of a value whose lease was lost, with the value that stands."""
    puts.flush()
    ((kind, key),) = put_keys(item)
    value = select_value(connection, kind, key)
    return StaleLease(key, None if value is None else value.decode("utf-8", "backslashreplace"))


def _stored_reply(connection: sqlite3.Connection, key: RequestKey) -> bytes | None:
    row = connection.execute(_FIND_REPLY, (key.client, key.number)).fetchone()
    return None if row is None else row[0]


def _answer_again(reply: bytes) -> Came:
    """The stored reply for a retry."""
    try:
        return Applied(reply=_reply_decoder.decode(reply))
    except msgspec.MsgspecError:
        return StorageFailed("this request was applied before, but its stored reply is damaged")


def _carry_out(connection: sqlite3.Connection, item: WriteRequest | Publication, puts: Puts, now: str) -> Applied:
    match item:
        case Publication():
            return _publish(connection, item, puts, now)
        case Clear():
            # What was put before it in the same batch goes too.
            puts.flush()
            return clear(connection, item, now)
        case ClearAll():
            puts.flush()
            return clear_all(connection, item, now)
        case _:
            stored = puts.add(item)
            if item.version is None:
                return Applied(stored=stored)
            guard = Guard(version=item.version)
            return Applied(stored=stored, guards={(kind, key): guard for kind, key, _ in stored})


def _publish(connection: sqlite3.Connection, item: Publication, puts: Puts, now: str) -> Applied:
    """Store entries with what else there is to store of them."""
    if item.put.outcome is not Outcome.SUCCESS:
        return _publish_flawed(connection, item, puts, now)
    stored = puts.add(item.put)
    puts.flush()
    for kind, key, _ in stored:
        publish(connection, kind, key, item.files.get(key, ()), item)
    guards = item.guards([key for _, key, _ in stored])
    return Applied(stored=stored, guards={(kind, key): guards[key] for kind, key, _ in stored if key in guards})


def _publish_flawed(connection: sqlite3.Connection, item: Publication, puts: Puts, now: str) -> Applied:
    """Keep what is no success, so that it can be explained, where there is no success; it misses."""
    puts.flush()
    put = item.put
    keys = put_keys(put)
    standing = {key for kind, key in keys if select_value(connection, kind, key) is not None}
    if isinstance(put, PutEvals):
        logs = {
            task: path for (task, path), (_, key) in zip(put.logs.items(), keys, strict=True) if key not in standing
        }
        put = msgspec.structs.replace(put, logs=logs)
    elif standing:
        return Applied()
    stored = puts.add(put)
    puts.flush()
    for kind, key, _ in stored:
        publish(connection, kind, key, item.files.get(key, ()), item)
        connection.execute(
            f"UPDATE {TABLES[kind]} SET void_since = ?, void_reason = ? WHERE {WHERE_KEY[kind]}",
            (now, put.outcome.value, *key_cells(kind, key)),
        )
    return Applied(removed=[(kind, key) for kind, key, _ in stored], unfulfilled=keys if put.token else [])


def _forget_replies(connection: sqlite3.Connection, items: Sequence[BatchItem], outcomes: Sequence[Came]) -> None:
    """Drop what no retry can ask for any more; now and then, because each is a statement."""
    lowest: dict[bytes, int] = {}
    for item, outcome in zip(items, outcomes, strict=True):
        if not isinstance(item, INTERNAL) and isinstance(outcome, Applied):
            key = item.request_key
            if key.number % FORGET_EVERY:
                continue
            lowest[key.client] = max(key.lowest_open, lowest.get(key.client, 0))
    if lowest:
        connection.executemany(_FORGET_REPLIES, lowest.items())


def forget_old_replies(connection: sqlite3.Connection, now: str) -> None:
    """Drop replies that no client can ask for any more: it would have to retry for a week."""
    connection.execute(_FORGET_OLD_REPLIES, (now,))
