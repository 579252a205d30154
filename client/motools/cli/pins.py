"""`motools cache pin` and `unpin`: what no clean-up takes.

Layer: motools.cli. Imports cache, options, output and motools.cache.
Invariant: a name that means nothing is an error, not a pin of nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from motools.cli import cache
from motools.cli.coercion import Command
from motools.cli.options import DEFAULT_DIR, CacheDir, LeaseKindOption
from motools.cli.output import say

Key = Annotated[str, typer.Argument(metavar="KEY", help="A key, a file id, a model id or the path of a log.")]


@cache.app.command(cls=Command)
def pin(
    key: Key,
    *,
    kind: LeaseKindOption = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Shown wherever it is spared.")] = "",
    until: Annotated[
        str | None, typer.Option("--until", metavar="WHEN", help="30d, 2027-01-31 or RFC 3339; else for good.")
    ] = None,
    cache_dir: CacheDir = DEFAULT_DIR,
) -> None:
    """Protect entries, and what they were made from, from every clean-up.

    Example: motools cache pin ft-abc123 --reason "figure 3" --until 90d
    """
    with cache.open_utils(cache_dir) as utils:
        count = utils.pin(key, kind=None if kind is None else kind.value, reason=reason, until=_time(until))
    say(f"pinned {_entries(count)} in {cache_dir}; `motools cache unpin {key}` takes that back")


@cache.app.command(cls=Command)
def unpin(key: Key, *, kind: LeaseKindOption = None, cache_dir: CacheDir = DEFAULT_DIR) -> None:
    """Take the protection of a pin away.

    Example: motools cache unpin ft-abc123
    """
    with cache.open_utils(cache_dir) as utils:
        count = utils.unpin(key, kind=None if kind is None else kind.value)
    say(f"unpinned {_entries(count)} in {cache_dir}")


def _time(text: str | None) -> datetime | str | None:
    """A point in time; what is none may be a duration, which the cache reads."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return text


def _entries(count: int) -> str:
    return f"{count:,} entr{'y' if count == 1 else 'ies'}"
