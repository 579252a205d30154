"""`motools cache leases`: who computes what, and taking it away.

Layer: motools.cli. Imports cache, options, output, tables and motools.cache.
Invariant: no lease is broken without `--yes` or a yes at the terminal.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from motools.cache.entries import LeaseEntry
from motools.cli import cache
from motools.cli.coercion import Command
from motools.cli.exits import FAILED, NOT_FOUND, USAGE
from motools.cli.options import (
    DEFAULT_DIR,
    CacheDir,
    Format,
    FormatOption,
    JsonOption,
    LeaseKind,
    LeaseKindOption,
    chosen,
)
from motools.cli.output import can_ask, confirm, print_items, say, say_error
from motools.cli.tables import Column, plain, shown, time_text

COLUMNS = (
    Column("key", plain("key")),
    Column("kind", plain("kind")),
    Column("pid", lambda item: shown(item["pid"] or None), is_number=True),
    Column("host", plain("host")),
    Column("command", plain("command")),
    Column("since (UTC)", lambda item: time_text(item["since"])),
    Column("waiters", plain("waiters"), is_number=True),
)


@cache.app.command(cls=Command)
def leases(
    *,
    broken: Annotated[
        str | None, typer.Option("--break", metavar="KEY", help="Take the lease of this key from its owner.")
    ] = None,
    kind: LeaseKindOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    cache_dir: CacheDir = DEFAULT_DIR,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Show who computes what right now, and how many wait for it.

    A lease ends by itself when its owner has stored the value, gives up or dies. One that is broken goes to the next
    who waits; its owner goes on computing, and is told when it wants to store the value.

    Example: motools cache leases --break 9f86d081 --yes
    """
    output = chosen(output, json=as_json)
    if broken is not None:
        _break(broken, kind, cache_dir, yes=yes)
        return
    with cache.open_utils(cache_dir) as utils:
        found = [lease for lease in utils.list_leases() if kind is None or lease.kind == kind.value]
    if not found and output is Format.TABLE:
        say(f"nobody computes anything in {cache_dir}")
        return
    names = LeaseEntry.__struct_fields__
    items: list[dict[str, Any]] = [{name: getattr(lease, name) for name in names} for lease in found]
    print_items(items, names, COLUMNS, output)


def _break(key: str, kind: LeaseKind | None, directory: str, *, yes: bool) -> None:
    if not yes and not can_ask():
        say_error("there is no terminal to ask at: pass --yes to break the lease without asking")
        raise typer.Exit(USAGE)
    chosen_kind = None if kind is None else kind.value
    with cache.open_utils(directory) as utils:
        owners = [lease for lease in utils.list_leases() if lease.key == key and chosen_kind in (None, lease.kind)]
        if not owners:
            say_error(f"nobody holds a lease of {key}: see `motools cache leases`")
            raise typer.Exit(NOT_FOUND)
        names = ", ".join(f"{lease.kind} {key} of pid {lease.pid} ({lease.command})" for lease in owners)
        if not yes and not confirm(f"Break the lease of {names}?"):
            say("nothing was broken")
            raise typer.Exit(FAILED)
        count = utils.break_lease(key, chosen_kind)
    say(f"broke {count} lease{'' if count == 1 else 's'}: {names}")
