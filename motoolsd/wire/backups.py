"""Messages about backups of cache.db, and what `motoolsd restore-backup` prints.

Layer: wire. Imports fields.
Invariant: as in messages: fields are only ever added, with a default. Paths travel as bytes.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from motoolsd.wire.fields import Message, Value


class BackUp(Message, tag="back_up", frozen=True, kw_only=True):
    """Ask for a consistent copy of the database: a stream of `Progress` with `BackedUp` as its end."""

    path: Value
    """Absolute; outside the cache directory."""
    force: bool = False
    """Whether a file that is there is replaced."""


class BackedUp(Message, tag="backed_up", frozen=True, kw_only=True):
    """The copy is whole, checked, and on disk."""

    path: bytes
    size_bytes: int
    datasets: int
    models: int
    evals: int
    schema_version: int
    as_of: str
    """Everything acknowledged before it is in the copy."""


class BackupFile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A copy of the database, or the database itself, as it lies there."""

    path: bytes
    size_bytes: int = 0
    made_at: str = ""
    """RFC 3339 UTC."""
    datasets: int = 0
    models: int = 0
    evals: int = 0
    schema_version: int = 0
    problem: str = ""
    """Why it cannot be used; the counts say nothing then."""


class Restoring(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `motoolsd restore-backup --json` prints: one JSON text."""

    backups: list[BackupFile] = msgspec.field(default_factory=list)
    """The automatic ones, the newest first; only with `--list`."""
    chosen: BackupFile | None = None
    """What is, or would be, put into place."""
    current: BackupFile | None = None
    """The database that is, or would be, replaced; None: there is none."""
    replaced: bytes = b""
    """Where that was set aside."""
    code: str = ""
    """An ErrorCode, if it failed."""
    message: str = ""
    is_busy: bool = False
    """Whether it failed because a daemon serves the directory."""
