"""Rows as the daemon lists them.

Layer: wire. Imports keys.
Invariant: times are RFC 3339 UTC texts, sizes bytes; None means unknown (a row written by hand or by older code).
"""

from __future__ import annotations

from msgspec import Struct

from motoolsd.wire.keys import Kind


class Row(Struct, kw_only=True, omit_defaults=True, gc=False):
    """What rows of every kind have."""

    value: bytes
    created_at: str | None = None
    last_used_at: str | None = None
    hits: int = 0
    size_bytes: int | None = None
    version: str | None = None
    labels: dict[str, str] = {}
    pinned: bool = False
    allocated_bytes: int | None = None
    files: tuple[bytes, ...] = ()
    """Paths of what belongs to it, relative to the cache directory."""
    missing_since: str | None = None
    """When it was found that a file of it is gone: it misses since."""
    pin_reason: str | None = None
    pinned_until: str | None = None
    expires_at: str | None = None
    void_since: str | None = None
    """Since when it misses though it is there."""
    void_reason: str | None = None
    void_detail: str | None = None
    seconds: float | None = None
    """How long it took to compute."""
    metadata: bytes | None = None
    """JSON."""
    origin: bytes | None = None
    """Names who stored it."""


class DatasetRow(Row, kw_only=True, omit_defaults=True, gc=False):
    """A dataset: its content hash, and as value its file id."""

    dataset_hash: str


class ModelRow(Row, kw_only=True, omit_defaults=True, gc=False):
    """A trained model: its key, what the key was made from, and as value its model id."""

    cache_key: str
    dataset_hash: str | None = None
    config: bytes | None = None
    """The canonical JSON text; None for rows of the older package, which kept only the key."""
    backend_type: str | None = None


class EvalRow(Row, kw_only=True, omit_defaults=True, gc=False):
    """An evaluation: its number, its identity, and as value the path of its log."""

    id: int
    model_id: str
    task_id: str
    backend_type: str
    kwargs_hash: str | None = None
    kwargs: bytes | None = None


class LeaseRow(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Who computes a key."""

    kind: Kind
    key: str
    pid: int
    """0: a process of another PID namespace."""
    host: str
    command: str
    """Its command line, as it was when it claimed."""
    since: str
    token: int
    waiters: int = 0


class KeyState(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How a claimed key stands: the first of these that is there."""

    value: bytes | None = None
    version: str | None = None
    """The value's, if it does not go with the asked one."""
    token: int = 0
    """The lease is the claim's own; above 0."""
    failure: str | None = None
    holder: LeaseRow | None = None
