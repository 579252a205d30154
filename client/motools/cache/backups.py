"""Copies of the database.

Layer: motools.cache. Imports arguments, calls and motoolsd.wire.
Invariant: as in `calls`. A path is made absolute here: the daemon has another working directory.
"""

from __future__ import annotations

import os

from msgspec import Struct

from motools.cache.arguments import value_bytes
from motools.cache.calls import Call
from motools.cache.errors import CacheRequestError
from motoolsd.wire.backups import BackedUp, BackUp


class Backup(Struct, frozen=True, kw_only=True):
    """A copy of the database.

    Attributes:
        path: absolute.
        datasets, models, evals: how many entries are in it.
        schema_version: of its tables; a motoolsd of this version or a later one reads it.
        as_of: RFC 3339 UTC; everything that was acknowledged before is in it.
    """

    path: str
    size_bytes: int
    datasets: int
    models: int
    evals: int
    schema_version: int
    as_of: str


def backup(path: str | os.PathLike[str], *, force: bool) -> Call[Backup]:
    """Copy the database to a file."""

    def decode(pages: list[BackedUp]) -> Backup:
        made = pages[-1]
        return Backup(
            path=os.fsdecode(made.path),
            size_bytes=made.size_bytes,
            datasets=made.datasets,
            models=made.models,
            evals=made.evals,
            schema_version=made.schema_version,
            as_of=made.as_of,
        )

    named = os.fsdecode(value_bytes(path, "path"))
    if "\0" in named or named.endswith("/"):
        raise CacheRequestError(f"a backup is a file: {named!r} names none")
    request = BackUp(path=os.fsencode(os.path.abspath(named)), force=bool(force))
    return Call(request, BackedUp, decode, is_stream=True)
