"""Writing: what each request of a batch changes, inside the transaction that `commits` has opened for it.

Layer: store. Imports puts, reads and rows.
Invariant: a reply is stored in the same transaction as its write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from motoolsd.core.errors import RequestError, StaleLease, StorageFailed
from motoolsd.store.leases import LeaseChange, apply_lease_change, take_lease
from motoolsd.store.puts import Puts, RowsStatement, StoredEntry, put_keys
from motoolsd.store.reads import key_cells, select_value
from motoolsd.store.rows import KEY_COLUMNS, TABLES, key_of
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import (
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


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What a committed write changed, for the index, and its reply."""

    reply: WriteReply
    stored: list[StoredEntry] = []
    removed: list[tuple[Kind, str]] = []
    emptied: tuple[Kind, ...] = ()
    is_large: bool = False
    """So many entries of other keys were removed that they are not named: what is in memory is to be read anew."""


BatchItem = WriteRequest | Usage | LeaseChange
INTERNAL: Final = (Usage, LeaseChange)
"""Writes without a client, and so without a reply to store."""
Outcome = Applied | RequestError

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
    Kind.DATASET: "UPDATE dataset_files SET hits = hits + ?, last_used_at = ? WHERE dataset_hash = ?",
    Kind.MODEL: "UPDATE trained_models SET hits = hits + ?, last_used_at = ? WHERE cache_key = ?",
    Kind.EVAL: "UPDATE eval_results SET hits = hits + ?, last_used_at = ? WHERE model_id = ? AND task_id = ?"
    " AND backend_type = ? AND ifnull(inspect_kwargs_hash, '') = ifnull(?, '')",
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
        key = item.request_key
        if key.is_retry and (reply := _stored_reply(connection, key)) is not None:
            outcomes.append(_answer_again(reply))
            continue
        if isinstance(item, Put) and item.token and not _take_lease(connection, item):
            outcomes.append(_stale(connection, item, puts))
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


def _carry_out(connection: sqlite3.Connection, item: WriteRequest, puts: Puts) -> Applied:
    match item:
        case Clear():
            # What was put before it in the same batch goes too.
            puts.flush()
            return _clear(connection, item)
        case ClearAll():
            puts.flush()
            return _clear_all(connection)
        case _:
            return Applied(reply=Stored(), stored=puts.add(item))


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
    if not conditions:
        count = connection.execute(f"DELETE FROM {TABLES[item.kind]}").rowcount
        return Applied(reply=Cleared(**{field: count}), emptied=(item.kind,))
    columns = ", ".join(KEY_COLUMNS[item.kind])
    where = " AND ".join(f"{column} IN (SELECT value FROM json_each(?))" for column, _ in map(_spelled, conditions))
    source = f"FROM {TABLES[item.kind]} WHERE {where}"
    wanted = [_json(texts) for _, texts in map(_spelled, conditions)]
    first = f"SELECT 1 {source} LIMIT {REMOVED_MAX + 1}"
    (count,) = connection.execute(f"SELECT count(*) FROM ({first})", wanted).fetchone()
    if count > REMOVED_MAX:
        count = connection.execute(f"DELETE {source}", wanted).rowcount
        return Applied(reply=Cleared(**{field: count}), is_large=True)
    rows = connection.execute(f"DELETE {source} RETURNING {columns}", wanted).fetchall()
    removed = [(item.kind, key_of(item.kind, cells)) for cells in rows]
    return Applied(reply=Cleared(**{field: len(rows)}), removed=removed)


def _json(texts: list[str]) -> str:
    return msgspec.json.encode(texts).decode()


def _conditions(item: Clear) -> list[tuple[str, list[str]]]:
    key_column = "dataset_hash" if item.kind is Kind.DATASET else "cache_key"
    wanted = ((key_column, item.keys), ("model_id", item.model_ids), ("task_id", item.task_ids))
    return [(column, values) for column, values in wanted if values is not None]


def _spelled(condition: tuple[str, list[str]]) -> tuple[str, list[str]]:
    """The condition in hexadecimal where a text holds a NUL: json_each would cut it there, and match another row."""
    column, wanted = condition
    if not any("\0" in text for text in wanted):
        return condition
    return f"hex({column})", [text.encode().hex().upper() for text in wanted]


def _clear_all(connection: sqlite3.Connection) -> Applied:
    counts = {
        _CLEARED_FIELD[kind]: connection.execute(f"DELETE FROM {table}").rowcount for kind, table in TABLES.items()
    }
    return Applied(reply=Cleared(**counts), emptied=tuple(TABLES))


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
