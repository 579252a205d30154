"""Writing: what each request of a batch changes, inside the transaction that `commits` has opened for it.

Layer: store. Imports puts, reads and rows.
Invariant: a reply is stored in the same transaction as its write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from motoolsd.core.errors import StaleLease, StorageFailed
from motoolsd.store.leases import LeaseChange, apply_lease_change, take_lease
from motoolsd.store.outcomes import Applied, Change, Outcome
from motoolsd.store.ownership import ENTRY_COLUMN, WHERE_KEY, Publication, disown, disown_removed, key_cells, publish
from motoolsd.store.puts import Puts, RowsStatement, put_keys
from motoolsd.store.reads import select_value
from motoolsd.store.rows import KEY_COLUMNS, TABLES, key_of, one_of, text_of
from motoolsd.wire.cleaning import Protected
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import (
    PROTECTED_NAMED_MAX,
    Clear,
    ClearAll,
    Cleared,
    Put,
    PutDataset,
    PutEvals,
    PutModel,
    RequestKey,
    Stored,
    WriteReply,
    WriteRequest,
)


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Hits counted since the last one: an internal write without a client."""

    kind: Kind
    hits: dict[str, int]


BatchItem = WriteRequest | Publication | Usage | LeaseChange | Change
INTERNAL: Final = (Usage, LeaseChange, Change)
"""Writes without a client, and so without a reply to store."""

_reply_encoder = msgspec.msgpack.Encoder()
_reply_decoder = msgspec.msgpack.Decoder(WriteReply)

REMOVED_MAX = 2_000
"""Keys that one clear may name to be taken out of memory: all of that is done between two lookups."""
FORGET_EVERY = 32
"""A client's writes between two looks at which of its replies may go."""
_STORE_REPLIES = RowsStatement(
    "INSERT INTO motoolsd_replies (client, number, reply, applied_at) VALUES", "(?, ?, ?, ?)"
)
_FIND_REPLY = "SELECT reply FROM motoolsd_replies WHERE client = ? AND number = ?"
_FORGET_REPLIES = "DELETE FROM motoolsd_replies WHERE client = ? AND number < ?"
_FORGET_OLD_REPLIES = "DELETE FROM motoolsd_replies WHERE applied_at < datetime(?, '-7 days')"
_COUNT_USE = {
    kind: f"UPDATE {table} SET hits = hits + ?, last_used_at = ? WHERE {WHERE_KEY[kind]}"
    for kind, table in TABLES.items()
}


class ReusedNumber(sqlite3.IntegrityError):
    """A new request has the number of an old one: its client has a defect. It fails alone, and nothing of it stays."""


def apply_batch(connection: sqlite3.Connection, items: Sequence[BatchItem], now: str) -> list[Outcome]:
    """Carry out everything inside the open transaction, replies included.

    Raises:
        ReusedNumber: one of them has the number of an earlier one.
        sqlite3.Error: one of them is at fault; the transaction is to be rolled back.
    """
    puts = Puts(connection, now)
    replies: list[tuple[object, ...]] = []
    outcomes: list[Outcome] = []
    for item in items:
        if isinstance(item, Usage):
            outcomes.append(_count_use(connection, item, now))
            continue
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
        applied = _carry_out(connection, item, puts)
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


def _answer_again(reply: bytes) -> Outcome:
    """The stored reply for a retry."""
    try:
        return Applied(reply=_reply_decoder.decode(reply))
    except msgspec.MsgspecError:
        return StorageFailed("this request was applied before, but its stored reply is damaged")


def _carry_out(connection: sqlite3.Connection, item: WriteRequest | Publication, puts: Puts) -> Applied:
    match item:
        case Publication():
            return _publish(connection, item, puts)
        case Clear():
            # What was put before it in the same batch goes too.
            puts.flush()
            return _clear(connection, item)
        case ClearAll():
            puts.flush()
            return _clear_all(connection, force=item.force)
        case _:
            return Applied(reply=Stored(), stored=puts.add(item))


def _publish(connection: sqlite3.Connection, item: Publication, puts: Puts) -> Applied:
    """Store entries with what else there is to store of them."""
    stored = puts.add(item.put)
    puts.flush()
    for kind, key, _ in stored:
        publish(connection, kind, key, item.files.get(key, ()), item)
    guards = item.guards([key for _, key, _ in stored])
    return Applied(stored=stored, guards={(kind, key): guards[key] for kind, key, _ in stored if key in guards})


def _forget_replies(connection: sqlite3.Connection, items: Sequence[BatchItem], outcomes: Sequence[Outcome]) -> None:
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


_CLEARED_FIELD = {Kind.DATASET: "datasets", Kind.MODEL: "models", Kind.EVAL: "evals"}


def _clear(connection: sqlite3.Connection, item: Clear) -> Applied:
    field = _CLEARED_FIELD[item.kind]
    conditions = _conditions(item)
    stay = [] if item.force else _pinned(connection, item.kind, conditions)
    if not conditions and not stay:
        count = connection.execute(f"DELETE FROM {TABLES[item.kind]}").rowcount
        disown_removed(connection, item.kind)
        return Applied(reply=_cleared({field: count}), emptied=(item.kind,))
    columns = ", ".join(KEY_COLUMNS[item.kind])
    source = f"FROM {TABLES[item.kind]} WHERE {_where(conditions)}{'' if item.force else ' AND pinned = 0'}"
    wanted = [parameter for _, parameter in conditions]
    first = f"SELECT 1 {source} LIMIT {REMOVED_MAX + 1}"
    (count,) = connection.execute(f"SELECT count(*) FROM ({first})", wanted).fetchone()
    if count > REMOVED_MAX:
        count = connection.execute(f"DELETE {source}", wanted).rowcount
        disown_removed(connection, item.kind)
        return Applied(reply=_cleared({field: count}, stay), is_large=True)
    own = f"{ENTRY_COLUMN[item.kind]}, files, {columns}"
    rows = connection.execute(f"DELETE {source} RETURNING {own}", wanted).fetchall()
    disown(connection, item.kind, [entry for entry, files, *_ in rows if files])
    removed = [(item.kind, key_of(item.kind, cells)) for _, _, *cells in rows]
    return Applied(reply=_cleared({field: len(rows)}, stay), removed=removed)


def _where(conditions: list[tuple[str, str]]) -> str:
    return " AND ".join(condition for condition, _ in conditions) or "1"


def _pinned(connection: sqlite3.Connection, kind: Kind, conditions: list[tuple[str, str]]) -> list[Protected]:
    """The pinned entries that match."""
    rows = connection.execute(
        f"SELECT pin_reason, {', '.join(KEY_COLUMNS[kind])} FROM {TABLES[kind]}"
        f" WHERE pinned != 0 AND {_where(conditions)}",
        [parameter for _, parameter in conditions],
    ).fetchall()
    return [
        Protected(kind=kind.value, key=key_of(kind, cells), why=f"pinned: {text_of(reason)}" if reason else "pinned")
        for reason, *cells in rows
    ]


def _conditions(item: Clear) -> list[tuple[str, str]]:
    """What rows must match, each with its parameter."""
    key_column = "dataset_hash" if item.kind is Kind.DATASET else "cache_key"
    wanted = ((key_column, item.keys), ("model_id", item.model_ids), ("task_id", item.task_ids))
    return [one_of(column, values) for column, values in wanted if values is not None]


def _clear_all(connection: sqlite3.Connection, *, force: bool) -> Applied:
    stay = [] if force else [pinned for kind in TABLES for pinned in _pinned(connection, kind, [])]
    only = " WHERE pinned = 0" if stay else ""
    counts = {
        _CLEARED_FIELD[kind]: connection.execute(f"DELETE FROM {table}{only}").rowcount
        for kind, table in TABLES.items()
    }
    for kind in TABLES:
        disown_removed(connection, kind)
    reply = _cleared(counts, stay)
    return Applied(reply=reply, is_large=True) if stay else Applied(reply=reply, emptied=tuple(TABLES))


def _cleared(counts: Mapping[str, int], stay: Sequence[Protected] = ()) -> Cleared:
    return Cleared(**counts, num_protected=len(stay), protected=list(stay[:PROTECTED_NAMED_MAX]))


def _count_use(connection: sqlite3.Connection, item: Usage, now: str) -> Applied:
    rows = []
    for key, count in item.hits.items():
        try:
            rows.append((count, now, *key_cells(item.kind, key)))
        except ValueError:
            # Clients report what they have used; a key that is none has no row to count in.
            continue
    connection.executemany(_COUNT_USE[item.kind], rows)
    return Applied(reply=Stored())
