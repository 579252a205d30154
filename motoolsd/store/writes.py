"""Writing: a batch of requests in one transaction, in the thread of the one writing connection.

Layer: store. Imports rows, reads and failures.
Invariant: a batch commits as a whole; a request that fails inside it takes nothing of the others along. A reply is
stored in the same transaction as its write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from motoolsd.core.checksums import row_checksum
from motoolsd.core.errors import RequestError, StorageFailed
from motoolsd.store.failures import explain
from motoolsd.store.reads import key_cells
from motoolsd.store.rows import KEY_COLUMNS, TABLES, key_of
from motoolsd.wire.keys import Kind, eval_key, json_hash, model_key
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
    stored: list[tuple[Kind, str, bytes]] = []
    removed: list[tuple[Kind, str]] = []
    emptied: tuple[Kind, ...] = ()


BatchItem = WriteRequest | Usage
Outcome = Applied | RequestError

_reply_encoder = msgspec.msgpack.Encoder()
_reply_decoder = msgspec.msgpack.Decoder(WriteReply)

_PUT_COLUMNS = "created_at, version, labels, checksum"
_ON_CONFLICT = (
    "created_at = excluded.created_at, version = excluded.version, labels = excluded.labels,"
    " checksum = excluded.checksum, size_bytes = NULL"
)
# Values are bound as bytes, because a file name need not be UTF-8; the column holds text all the same.
_PUT_DATASET = (
    f"INSERT INTO dataset_files (dataset_hash, file_id, {_PUT_COLUMNS}) VALUES (?, CAST(? AS TEXT), ?, ?, ?, ?)"
    f" ON CONFLICT (dataset_hash) DO UPDATE SET file_id = excluded.file_id, {_ON_CONFLICT}"
)
_PUT_MODEL = (
    f"INSERT INTO trained_models (cache_key, dataset_hash, config, backend_type, model_id, {_PUT_COLUMNS})"
    " VALUES (?, ?, CAST(? AS TEXT), ?, CAST(? AS TEXT), ?, ?, ?, ?)"
    " ON CONFLICT (cache_key) DO UPDATE SET dataset_hash = excluded.dataset_hash, config = excluded.config,"
    f" backend_type = excluded.backend_type, model_id = excluded.model_id, {_ON_CONFLICT}"
)
_EVAL_UPDATE = (
    f"DO UPDATE SET log_file_path = excluded.log_file_path, inspect_kwargs = excluded.inspect_kwargs, {_ON_CONFLICT}"
)
# Two constraints cover an evaluation: the old one, which takes NULLs for different, and ours. Either may speak first.
_PUT_EVAL = (
    "INSERT INTO eval_results (model_id, task_id, backend_type, inspect_kwargs_hash, inspect_kwargs, log_file_path,"
    f" {_PUT_COLUMNS}) VALUES (?, ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?, ?)"
    f" ON CONFLICT (model_id, task_id, backend_type, ifnull(inspect_kwargs_hash, '')) {_EVAL_UPDATE}"
    f" ON CONFLICT {_EVAL_UPDATE}"
)
_STORE_REPLY = "INSERT INTO motoolsd_replies (client, number, reply, applied_at) VALUES (?, ?, ?, ?)"
_FIND_REPLY = "SELECT reply FROM motoolsd_replies WHERE client = ? AND number = ?"
_FORGET_REPLIES = "DELETE FROM motoolsd_replies WHERE client = ? AND number < ?"
_FORGET_OLD_REPLIES = "DELETE FROM motoolsd_replies WHERE applied_at < datetime(?, '-7 days')"
_COUNT_USE = {
    Kind.DATASET: "UPDATE dataset_files SET hits = hits + ?, last_used_at = ? WHERE dataset_hash = ?",
    Kind.MODEL: "UPDATE trained_models SET hits = hits + ?, last_used_at = ? WHERE cache_key = ?",
    Kind.EVAL: "UPDATE eval_results SET hits = hits + ?, last_used_at = ? WHERE model_id = ? AND task_id = ?"
    " AND backend_type = ? AND ifnull(inspect_kwargs_hash, '') = ifnull(?, '')",
}


class CommitUnknown(Exception):
    """COMMIT failed: whether the batch is on disk is not known, and this connection is not to be used again."""

    def __init__(self, failure: RequestError) -> None:
        """Keep what every request of the batch is told."""
        super().__init__(failure.message)
        self.failure = failure


def commit_batch(
    connection: sqlite3.Connection, items: Sequence[BatchItem], now: str, database: str
) -> Sequence[Outcome]:
    """Apply everything in one transaction.

    Returns:
        An outcome for each item, in order; a refused one stands beside applied ones.

    Raises:
        CommitUnknown: COMMIT itself failed.
        sqlite3.Error: the transaction could not even begin; nothing was applied.
    """
    _begin(connection)
    try:
        outcomes = [_apply(connection, item, now) for item in items]
        _forget_replies(connection, items, outcomes)
    except BaseException as error:
        _roll_back(connection)
        if not isinstance(error, sqlite3.Error):
            raise
        # One of them is at fault; which one shows when each has a transaction of its own. Too dear to be done always,
        # and savepoints would not do: a full disk ends the whole transaction.
        return [_commit_alone(connection, item, now, database) for item in items]
    _commit(connection, database)
    return outcomes


def _commit_alone(connection: sqlite3.Connection, item: BatchItem, now: str, database: str) -> Outcome:
    try:
        _begin(connection)
        outcome = _apply(connection, item, now)
    except BaseException as error:
        _roll_back(connection)
        if not isinstance(error, sqlite3.Error):
            raise
        return explain(error, database)
    _commit(connection, database)
    return outcome


def _begin(connection: sqlite3.Connection) -> None:
    _roll_back(connection)  # what a failed ROLLBACK left behind
    connection.execute("BEGIN IMMEDIATE")


def _commit(connection: sqlite3.Connection, database: str) -> None:
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise CommitUnknown(explain(error, database, outcome_known=False)) from error


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _apply(connection: sqlite3.Connection, item: BatchItem, now: str) -> Outcome:
    if isinstance(item, Usage):
        return _count_use(connection, item, now)
    request_key = item.request_key
    row = connection.execute(_FIND_REPLY, (request_key.client, request_key.number)).fetchone()
    if row is not None:
        return _answer_again(request_key, row[0])
    applied = _carry_out(connection, item, now)
    reply = _reply_encoder.encode(applied.reply)
    connection.execute(_STORE_REPLY, (request_key.client, request_key.number, reply, now))
    return applied


def _answer_again(request_key: RequestKey, reply: bytes) -> Outcome:
    """The stored reply for a retry; a new request must not have the number of an old one."""
    if request_key.is_retry:
        try:
            return Applied(reply=_reply_decoder.decode(reply))
        except msgspec.MsgspecError:
            return StorageFailed("this request was applied before, but its stored reply is damaged")
    message = f"request number {request_key.number} of this client was used before, and this is no retry of it"
    return RequestError(message)


def _carry_out(connection: sqlite3.Connection, item: WriteRequest, now: str) -> Applied:
    match item:
        case PutDataset():
            return _put_dataset(connection, item, now)
        case PutModel():
            return _put_model(connection, item, now)
        case PutEvals():
            return _put_evals(connection, item, now)
        case Clear():
            return _clear(connection, item)
        case ClearAll():
            return _clear_all(connection)


def _forget_replies(connection: sqlite3.Connection, items: Sequence[BatchItem], outcomes: Sequence[Outcome]) -> None:
    lowest: dict[bytes, int] = {}
    for item, outcome in zip(items, outcomes, strict=True):
        if not isinstance(item, Usage) and isinstance(outcome, Applied):
            key = item.request_key
            lowest[key.client] = max(key.lowest_open, lowest.get(key.client, 0))
    connection.executemany(_FORGET_REPLIES, lowest.items())


def forget_old_replies(connection: sqlite3.Connection, now: str) -> None:
    """Drop replies that no client can ask for any more: it would have to retry for a week."""
    connection.execute(_FORGET_OLD_REPLIES, (now,))


def _labels_json(item: Put) -> str | None:
    return msgspec.json.encode(item.labels).decode() if item.labels else None


def _put_dataset(connection: sqlite3.Connection, item: PutDataset, now: str) -> Applied:
    checksum = row_checksum(item.dataset_hash, item.file_id)
    connection.execute(_PUT_DATASET, (item.dataset_hash, item.file_id, now, item.version, _labels_json(item), checksum))
    return Applied(reply=Stored(), stored=[(Kind.DATASET, item.dataset_hash, item.file_id)])


def _put_model(connection: sqlite3.Connection, item: PutModel, now: str) -> Applied:
    key = model_key(item.dataset_hash, item.config.decode(), item.backend_type)
    inputs = (key, item.dataset_hash, item.config, item.backend_type, item.model_id)
    checksum = row_checksum(key, item.model_id)
    connection.execute(_PUT_MODEL, (*inputs, now, item.version, _labels_json(item), checksum))
    return Applied(reply=Stored(), stored=[(Kind.MODEL, key, item.model_id)])


def _put_evals(connection: sqlite3.Connection, item: PutEvals, now: str) -> Applied:
    kwargs_hash = None if item.kwargs is None else json_hash(item.kwargs.decode())
    labels = _labels_json(item)
    stored = []
    for task_id, path in item.logs.items():
        key = eval_key(item.model_id, task_id, item.backend_type, kwargs_hash)
        identity = (item.model_id, task_id, item.backend_type, kwargs_hash)
        connection.execute(
            _PUT_EVAL, (*identity, item.kwargs, path, now, item.version, labels, row_checksum(key, path))
        )
        stored.append((Kind.EVAL, key, path))
    return Applied(reply=Stored(), stored=stored)


_CLEARED_FIELD = {Kind.DATASET: "datasets", Kind.MODEL: "models", Kind.EVAL: "evals"}


def _clear(connection: sqlite3.Connection, item: Clear) -> Applied:
    field = _CLEARED_FIELD[item.kind]
    conditions = _conditions(item)
    if not conditions:
        count = connection.execute(f"DELETE FROM {TABLES[item.kind]}").rowcount
        return Applied(reply=Cleared(**{field: count}), emptied=(item.kind,))
    columns = ", ".join(KEY_COLUMNS[item.kind])
    where = " AND ".join(f"{column} IN (SELECT value FROM json_each(?))" for column, _ in map(_spelled, conditions))
    rows = connection.execute(
        f"DELETE FROM {TABLES[item.kind]} WHERE {where} RETURNING {columns}",
        [msgspec.json.encode(wanted).decode() for _, wanted in map(_spelled, conditions)],
    ).fetchall()
    removed = [(item.kind, key_of(item.kind, cells)) for cells in rows]
    return Applied(reply=Cleared(**{field: len(rows)}), removed=removed)


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
    connection.executemany(
        _COUNT_USE[item.kind], [(count, now, *key_cells(item.kind, key)) for key, count in item.hits.items()]
    )
    return Applied(reply=Stored())
