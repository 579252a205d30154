"""What lookups and listings return.

Layer: motools.cache. Imports motoolsd.wire.
Invariant: the older package's fields keep their names; times are RFC 3339 UTC, sizes bytes, None is unknown.
"""

from __future__ import annotations

import json
from typing import Any

from msgspec import Struct

from motoolsd.wire.entries import DatasetRow, EvalRow, LeaseRow, ModelRow, Row


class Entry(Struct, frozen=True, kw_only=True):
    """What entries of every kind have.

    Attributes:
        size_bytes, allocated_bytes: of its files; None: not counted, or it has none.
        files: what belongs to it, relative to the cache directory.
        missing_since: when a file of it was found to be gone; it misses since.
        expires_at: when it begins to miss by itself.
        void_since, void_reason, void_detail: since when and why it misses though it is there.
        seconds: how long it took to compute.
        metadata: what else was stored with it.
    """

    created_at: str | None = None
    last_used_at: str | None = None
    hits: int = 0
    size_bytes: int | None = None
    version: str | None = None
    labels: dict[str, str] = {}
    pinned: bool = False
    allocated_bytes: int | None = None
    files: tuple[str, ...] = ()
    missing_since: str | None = None
    pin_reason: str | None = None
    pinned_until: str | None = None
    expires_at: str | None = None
    void_since: str | None = None
    void_reason: str | None = None
    void_detail: str | None = None
    seconds: float | None = None
    metadata: dict[str, Any] | None = None


class DatasetEntry(Entry, frozen=True, kw_only=True):
    """A dataset and its file id."""

    dataset_hash: str
    file_id: str


class ModelEntry(Entry, frozen=True, kw_only=True):
    """A trained model and what it was trained from; None where the older package stored only the key."""

    cache_key: str
    model_id: str
    dataset_hash: str | None = None
    config: dict[str, Any] | None = None
    backend_type: str | None = None


class EvalEntry(Entry, frozen=True, kw_only=True):
    """An evaluation of a model on a task, and its log."""

    id: int
    model_id: str
    task_id: str
    backend_type: str
    log_file_path: str
    inspect_kwargs_hash: str | None = None
    inspect_kwargs: dict[str, Any] | None = None


class CacheStats(Struct, frozen=True, kw_only=True):
    """How many entries there are, and the room that everything takes; `scanned_at`: when files were counted last."""

    num_datasets: int
    num_models: int
    num_evals: int
    total_size_bytes: int
    scanned_at: str | None = None


class EvalHits(Struct, frozen=True):
    """Which of the tasks asked for are cached.

    Attributes:
        found: task id -> path of its log.
        missing: the other tasks, in the order in which they were asked for.
    """

    found: dict[str, str]
    missing: list[str]


class LeaseEntry(Struct, frozen=True, kw_only=True):
    """Who computes a key, and how many wait for it.

    Attributes:
        kind: `dataset`, `model` or `eval`.
        pid: of the owner; 0 where it runs in another PID namespace.
        command: the owner's command line.
        since: when the lease was granted.
        token: the fencing token; later leases have larger ones.
    """

    kind: str
    key: str
    pid: int
    host: str
    command: str
    since: str
    token: int
    waiters: int = 0


def text_of(value: bytes) -> str:
    """A value as text; bytes that are no UTF-8 (file names) survive the way there and back."""
    return value.decode("utf-8", "surrogateescape")


def dataset_entry(row: DatasetRow) -> DatasetEntry:
    """A listed row as users see it."""
    return DatasetEntry(dataset_hash=row.dataset_hash, file_id=text_of(row.value), **_common(row))


def model_entry(row: ModelRow) -> ModelEntry:
    """A listed row as users see it."""
    return ModelEntry(
        cache_key=row.cache_key,
        model_id=text_of(row.value),
        dataset_hash=row.dataset_hash,
        config=mapping_of(row.config),
        backend_type=row.backend_type,
        **_common(row),
    )


def eval_entry(row: EvalRow) -> EvalEntry:
    """A listed row as users see it."""
    return EvalEntry(
        id=row.id,
        model_id=row.model_id,
        task_id=row.task_id,
        backend_type=row.backend_type,
        log_file_path=text_of(row.value),
        inspect_kwargs_hash=row.kwargs_hash,
        inspect_kwargs=mapping_of(row.kwargs),
        **_common(row),
    )


def lease_entry(row: LeaseRow) -> LeaseEntry:
    """A listed lease as users see it."""
    return LeaseEntry(
        kind=row.kind.value,
        key=row.key,
        pid=row.pid,
        host=row.host,
        command=row.command,
        since=row.since,
        token=row.token,
        waiters=row.waiters,
    )


def _common(row: Row) -> dict[str, Any]:
    return {
        "created_at": row.created_at,
        "last_used_at": row.last_used_at,
        "hits": row.hits,
        "size_bytes": row.size_bytes,
        "version": row.version,
        "labels": row.labels,
        "pinned": row.pinned,
        "allocated_bytes": row.allocated_bytes,
        "files": tuple(text_of(path) for path in row.files),
        "missing_since": row.missing_since,
        "pin_reason": row.pin_reason,
        "pinned_until": row.pinned_until,
        "expires_at": row.expires_at,
        "void_since": row.void_since,
        "void_reason": row.void_reason,
        "void_detail": row.void_detail,
        "seconds": row.seconds,
        "metadata": mapping_of(row.metadata),
    }


def mapping_of(text: bytes | None) -> Any:  # noqa: ANN401 - what somebody wrote by hand may be any JSON
    """A stored JSON text as a value; None where there is none, or where somebody wrote something else by hand."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
