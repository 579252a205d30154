"""Storing entries: many rows in one statement.

Layer: store. Imports core.checksums and wire.
Invariant: rows of one table are stored in the order in which they were added; nothing is in the database before
`flush`. Every statement gives the interpreter's lock away and has to get it back from the event loop, which is busiest
when many write: a statement a row made a batch of 16 take three times as long inside the daemon as outside.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain

import msgspec

from motoolsd.core.checksums import row_checksum
from motoolsd.store.outcomes import StoredEntry
from motoolsd.wire.keys import Kind, eval_key, json_hash, model_key
from motoolsd.wire.messages import Put, PutDataset, PutEvals, PutModel

CHUNK_SIZES = (64, 16, 4, 1)
"""Rows in one statement, the largest that fits first: few different texts, so that SQLite keeps them prepared."""

Parameters = tuple[object, ...]


class RowsStatement:
    """An INSERT for any number of rows."""

    def __init__(self, head: str, row: str, tail: str = "") -> None:
        """Prepare the texts.

        Args:
            head: up to and with VALUES.
            row: the parameters of one row, in parentheses.
            tail: what follows the rows.
        """
        self._texts = {size: f"{head} {', '.join([row] * size)}{tail}" for size in CHUNK_SIZES}

    def execute(self, connection: sqlite3.Connection, rows: Sequence[Parameters]) -> None:
        """Insert the rows, in as few statements as there are chunks."""
        position = 0
        for size in CHUNK_SIZES:
            while len(rows) - position >= size:
                chunk = rows[position : position + size]
                connection.execute(self._texts[size], tuple(chain.from_iterable(chunk)))
                position += size


_PUT_COLUMNS = "created_at, version, labels, origin, seconds, metadata, checksum"
_PUT_PLACES = "?, ?, ?, ?, ?, CAST(? AS TEXT), ?"


def _on_conflict(column: str) -> str:
    """What else changes when a row is stored again: the same value keeps its files, unless one of them is gone."""
    keeps = f"{column} IS excluded.{column} AND void_since IS NULL"
    kept = ", ".join(
        f"{name} = CASE WHEN {keeps} THEN {name} ELSE {empty} END"
        for name, empty in (("files", "0"), ("size_bytes", "NULL"), ("allocated_bytes", "NULL"))
    )
    return (
        "created_at = excluded.created_at, version = excluded.version, labels = excluded.labels,"
        " origin = coalesce(excluded.origin, origin),"
        f" seconds = {_if_said('seconds', keeps)}, metadata = {_if_said('metadata', keeps)},"
        f" checksum = excluded.checksum, {kept}, void_since = NULL, void_reason = NULL, void_detail = NULL,"
        " expires_at = NULL"
    )


def _if_said(name: str, keeps: str) -> str:
    """A new value knows what was said with it; the same one, stored again without a word, what was said before."""
    return f"CASE WHEN {keeps} THEN coalesce(excluded.{name}, {name}) ELSE excluded.{name} END"


# Values are bound as bytes, because a file name need not be UTF-8; the column holds text all the same.
_DATASETS = RowsStatement(
    f"INSERT INTO dataset_files (dataset_hash, file_id, {_PUT_COLUMNS}) VALUES",
    f"(?, CAST(? AS TEXT), {_PUT_PLACES})",
    f" ON CONFLICT (dataset_hash) DO UPDATE SET file_id = excluded.file_id, {_on_conflict('file_id')}",
)
_MODELS = RowsStatement(
    f"INSERT INTO trained_models (cache_key, dataset_hash, config, backend_type, model_id, {_PUT_COLUMNS}) VALUES",
    f"(?, ?, CAST(? AS TEXT), ?, CAST(? AS TEXT), {_PUT_PLACES})",
    " ON CONFLICT (cache_key) DO UPDATE SET dataset_hash = excluded.dataset_hash, config = excluded.config,"
    f" backend_type = excluded.backend_type, model_id = excluded.model_id, {_on_conflict('model_id')}",
)
_EVAL_UPDATE = (
    "DO UPDATE SET log_file_path = excluded.log_file_path, inspect_kwargs = excluded.inspect_kwargs,"
    f" {_on_conflict('log_file_path')}"
)
# Two constraints cover an evaluation: the old one, which takes NULLs for different, and ours. Either may speak first.
_EVALS = RowsStatement(
    "INSERT INTO eval_results (model_id, task_id, backend_type, inspect_kwargs_hash, inspect_kwargs, log_file_path,"
    f" {_PUT_COLUMNS}) VALUES",
    f"(?, ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), {_PUT_PLACES})",
    f" ON CONFLICT (model_id, task_id, backend_type, ifnull(inspect_kwargs_hash, '')) {_EVAL_UPDATE}"
    f" ON CONFLICT {_EVAL_UPDATE}",
)


def put_keys(item: PutDataset | PutModel | PutEvals) -> list[tuple[Kind, str]]:
    """The keys that a request stores values under."""
    match item:
        case PutDataset():
            return [(Kind.DATASET, item.dataset_hash)]
        case PutModel():
            return [(Kind.MODEL, model_key(item.dataset_hash, item.config.decode(), item.backend_type))]
        case PutEvals():
            kwargs_hash = None if item.kwargs is None else json_hash(item.kwargs.decode())
            return [
                (Kind.EVAL, eval_key(item.model_id, task_id, item.backend_type, kwargs_hash)) for task_id in item.logs
            ]


class Puts:
    """The entries of one batch, until they are flushed."""

    def __init__(self, connection: sqlite3.Connection, now: str) -> None:
        """Gather for an open transaction; `now` is the time stamp of all rows."""
        self._connection = connection
        self._now = now
        self._datasets: list[Parameters] = []
        self._models: list[Parameters] = []
        self._evals: list[Parameters] = []

    def add(self, item: PutDataset | PutModel | PutEvals) -> list[StoredEntry]:
        """Take the entries of one request; what they are to the index."""
        match item:
            case PutDataset():
                return self._add_dataset(item)
            case PutModel():
                return self._add_model(item)
            case PutEvals():
                return self._add_evals(item)

    def flush(self) -> None:
        """Store what was gathered."""
        for statement, rows in ((_DATASETS, self._datasets), (_MODELS, self._models), (_EVALS, self._evals)):
            statement.execute(self._connection, rows)
            rows.clear()

    def _add_dataset(self, item: PutDataset) -> list[StoredEntry]:
        checksum = row_checksum(item.dataset_hash, item.file_id)
        self._datasets.append((item.dataset_hash, item.file_id, *self._provenance(item), checksum))
        return [(Kind.DATASET, item.dataset_hash, item.file_id)]

    def _add_model(self, item: PutModel) -> list[StoredEntry]:
        key = model_key(item.dataset_hash, item.config.decode(), item.backend_type)
        inputs = (key, item.dataset_hash, item.masked_config or item.config, item.backend_type, item.model_id)
        self._models.append((*inputs, *self._provenance(item), row_checksum(key, item.model_id)))
        return [(Kind.MODEL, key, item.model_id)]

    def _add_evals(self, item: PutEvals) -> list[StoredEntry]:
        kwargs_hash = None if item.kwargs is None else json_hash(item.kwargs.decode())
        kwargs, provenance = item.masked_kwargs or item.kwargs, self._provenance(item)
        stored: list[StoredEntry] = []
        for task_id, path in item.logs.items():
            key = eval_key(item.model_id, task_id, item.backend_type, kwargs_hash)
            identity = (item.model_id, task_id, item.backend_type, kwargs_hash)
            self._evals.append((*identity, kwargs, path, *provenance, row_checksum(key, path)))
            stored.append((Kind.EVAL, key, path))
        return stored

    def _provenance(self, item: Put) -> Parameters:
        labels = msgspec.json.encode(item.labels).decode() if item.labels else None
        return self._now, item.version, labels, item.origin, item.seconds, item.metadata
