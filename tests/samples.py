"""Requests as clients send them, and databases as older programs left them."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from motoolsd.core.deadlines import Moment
from motoolsd.store.commits import commit_batch
from motoolsd.store.outcomes import Applied, Outcome
from motoolsd.store.ownership import OwnedFile, Publication
from motoolsd.store.puts import put_keys
from motoolsd.store.store import Store
from motoolsd.store.writes import BatchItem
from motoolsd.wire.filters import Filters
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import Clear, ClearAll, PutDataset, PutEvals, PutModel, RequestKey

NOW = "2026-01-31 23:59:59.123"
CLIENT = b"client-of-tests."

OLD_DDL = """
CREATE TABLE dataset_files (dataset_hash TEXT PRIMARY KEY, file_id TEXT NOT NULL);
CREATE TABLE trained_models (cache_key TEXT PRIMARY KEY, model_id TEXT NOT NULL);
CREATE TABLE eval_results (id INTEGER PRIMARY KEY AUTOINCREMENT, model_id TEXT NOT NULL, task_id TEXT NOT NULL,
  backend_type TEXT NOT NULL, log_file_path TEXT NOT NULL, inspect_kwargs_hash TEXT,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, UNIQUE(model_id, task_id, backend_type, inspect_kwargs_hash));
"""
"""What the older, daemon-less package made."""

OLD_ROWS = """
INSERT INTO dataset_files VALUES ('d1', 'file-1'), ('d2', 'file-2');
INSERT INTO trained_models VALUES ('k1', 'model-1');
INSERT INTO eval_results (model_id, task_id, backend_type, log_file_path, inspect_kwargs_hash)
  VALUES ('m', 't1', 'inspect', '/logs/oldest', NULL), ('m', 't1', 'inspect', '/logs/middle', NULL),
         ('m', 't2', 'inspect', '/logs/t2', 'hash'), ('m', 't1', 'inspect', '/logs/newest', NULL);
"""
"""Rows of the older package; one evaluation stands there three times, because NULLs never conflicted."""

_numbers = itertools.count(1)


def request_key(
    number: int | None = None, *, client: bytes = CLIENT, lowest_open: int = 1, retry: bool = False
) -> RequestKey:
    """The key of a write; without a number, one that was not used before."""
    return RequestKey(client, next(_numbers) if number is None else number, lowest_open, retry)


def put_dataset(dataset_hash: str, file_id: bytes = b"file", key: RequestKey | None = None) -> PutDataset:
    """A PutDataset."""
    return PutDataset(request_key=key or request_key(), dataset_hash=dataset_hash, file_id=file_id)


def put_model(dataset_hash: str = "d", model_id: bytes = b"model", **config: object) -> PutModel:
    """A PutModel with a canonical config."""
    text = json.dumps(config, sort_keys=True).encode()
    return PutModel(
        request_key=request_key(), dataset_hash=dataset_hash, config=text, backend_type="openai", model_id=model_id
    )


def put_evals(logs: dict[str, bytes], *, model_id: str = "m", kwargs: bytes | None = None) -> PutEvals:
    """A PutEvals."""
    return PutEvals(request_key=request_key(), model_id=model_id, backend_type="inspect", kwargs=kwargs, logs=logs)


def publication(
    put: PutDataset | PutModel | PutEvals, *paths: bytes, size_bytes: int = 10, expires: Moment | None = None
) -> Publication:
    """A put whose entries own files; those of a request with several entries belong to the first."""
    (_, key), *_ = put_keys(put)
    files = tuple(OwnedFile(path, size_bytes, 4096) for path in paths)
    return Publication(put=put, files={key: files} if files else {}, expires=expires)


def clear(
    kind: Kind,
    *,
    keys: list[str] | None = None,
    model_ids: list[str] | None = None,
    task_ids: list[str] | None = None,
    force: bool = False,
    filters: Filters | None = None,
    downstream: bool = False,
) -> Clear:
    """A Clear."""
    return Clear(
        request_key=request_key(),
        kind=kind,
        keys=keys,
        model_ids=model_ids,
        task_ids=task_ids,
        force=force,
        filters=filters,
        downstream=downstream,
    )


def clear_all(*, force: bool = False) -> ClearAll:
    """A ClearAll."""
    return ClearAll(request_key=request_key(), force=force)


def as_retry(request: PutDataset | Clear) -> PutDataset | Clear:
    """The same request, sent again by a client that saw no answer."""
    key = request.request_key
    again = RequestKey(key.client, key.number, key.lowest_open, is_retry=True)
    return msgspec.structs.replace(request, request_key=again)


def applied(outcome: Outcome) -> Applied:
    """The outcome of a write that must have been applied."""
    assert isinstance(outcome, Applied), outcome
    return outcome


def committed(raw: sqlite3.Connection, *items: BatchItem) -> list[Applied]:
    """Commit one batch on a connection of our own; its outcomes, which must all be applied."""
    return [applied(outcome) for outcome in commit_batch(raw, items, NOW, "cache.db")]


def execute(database: str | Path, script: str) -> None:
    """What somebody does to a database by hand, with a program of their own."""
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(script)


def insert(database: str | Path, dataset_hash: str, file_id: str) -> None:
    """A dataset that another program has stored."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT OR REPLACE INTO dataset_files (dataset_hash, file_id) VALUES (?, ?)", (dataset_hash, file_id)
        )


def query(database: str | Path, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """What somebody sees in a database by hand."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(statement, parameters).fetchall()


def make_old_database(database: str | Path) -> None:
    """A cache.db of the older package, with duplicates."""
    execute(database, OLD_DDL + OLD_ROWS)


class Batches:
    """Batches one after another, and what became of them. Fulfils store.commits.Source."""

    def __init__(self, *batches: Sequence[BatchItem]) -> None:
        """Queue batches."""
        self._batches = deque(batches)
        self.told: list[Sequence[Outcome]] = []

    def take(self) -> tuple[Sequence[BatchItem], str]:
        """The next batch."""
        return (self._batches.popleft() if self._batches else ()), NOW

    def done(self, outcomes: Sequence[Outcome]) -> None:
        """Remember."""
        self.told.append(outcomes)

    def make_room(self) -> bool:
        """There is nothing to let go of."""
        return False


async def commit(store: Store, *items: BatchItem) -> Sequence[Outcome]:
    """Commit one batch; what became of its items."""
    source = Batches(items)
    await store.commit_waiting(source)
    (outcomes,) = source.told
    return outcomes
