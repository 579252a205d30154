"""Choosing among the rows of an InMemoryCache.

Layer: motools.cache. Imports memory_leases and motoolsd.wire.
Invariant: what matches is what the daemon's SQL would match.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from motools.cache.memory_leases import Key
from motoolsd.wire import messages as m
from motoolsd.wire.entries import DatasetRow, EvalRow, ModelRow
from motoolsd.wire.keys import Kind, eval_key, json_hash, model_key, parse_eval_key


def keys_of(request: m.PutDataset | m.PutModel | m.PutEvals) -> list[Key]:
    """The keys that a request stores values under."""
    match request:
        case m.PutDataset():
            return [(Kind.DATASET, request.dataset_hash)]
        case m.PutModel():
            return [(Kind.MODEL, model_key(request.dataset_hash, request.config.decode(), request.backend_type))]
        case m.PutEvals():
            kwargs_hash = None if request.kwargs is None else json_hash(request.kwargs.decode())
            identity = request.model_id, request.backend_type
            return [(Kind.EVAL, eval_key(identity[0], task, identity[1], kwargs_hash)) for task in request.logs]


def is_cleared(request: m.Clear, key: Key) -> bool:
    """Whether a clear takes a key that has no entry yet; what an entry's value decides, it does not."""
    kind, name = key
    if kind is not request.kind or (kind is Kind.MODEL and request.model_ids is not None):
        return False
    if kind is not Kind.EVAL:
        return is_in(name, request.keys)
    identity = parse_eval_key(name)
    return is_in(identity.model_id, request.model_ids) and is_in(identity.task_id, request.task_ids)


R = TypeVar("R", DatasetRow, ModelRow, EvalRow)


def copies(rows: dict[str, R], is_wanted: Callable[[R], bool]) -> list[R]:
    """The rows as a listing gives them: what a caller does to one stays with the caller."""
    return [msgspec.structs.replace(row, labels=dict(row.labels)) for row in rows.values() if is_wanted(row)]


def remove(rows: dict[str, R], is_wanted: Callable[[R], bool]) -> int:
    """Remove what is wanted; how many rows that was."""
    keys = [key for key, row in rows.items() if is_wanted(row)]
    for key in keys:
        del rows[key]
    return len(keys)


def is_in(value: str, wanted: Sequence[str] | None) -> bool:
    """Whether a filter takes a value; None takes all."""
    return wanted is None or value in wanted
