"""`motools cache invalidate`: letting entries miss that stay where they are.

Layer: motools.cli. Imports cache, filter_options, options, output, removing, selection and motools.cache.
Invariant: shows how many there are before it changes any; what it did can be taken back.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from motools.cli import cache
from motools.cli.coercion import Command
from motools.cli.filter_options import takes_filters
from motools.cli.options import DEFAULT_DIR, CacheDir, Clearable, Downstream, Format, JsonOption, Yes
from motools.cli.output import print_document, say
from motools.cli.removing import ask, check_can_ask
from motools.cli.selection import Filters, counts_text, kinds_meant


@cache.app.command(cls=Command)
@takes_filters
def invalidate(
    kind: Annotated[
        Clearable | None, typer.Argument(metavar="[KIND]", help="datasets, models, evals or all.", show_default=False)
    ] = None,
    *,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="What `why` will say.")] = None,
    restore: Annotated[bool, typer.Option("--restore", help="Let them count again.")] = False,
    downstream: Downstream = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    yes: Yes = False,
    filters: Filters,
    cache_dir: CacheDir = DEFAULT_DIR,
    as_json: JsonOption = False,
) -> None:
    """Let entries miss without removing them, so that they are computed anew; --restore takes it back.

    Example: motools cache invalidate --label experiment=e1 --reason "wrong prompt" --downstream
    """
    options = _options(kind, filters, restore=restore, reason=reason, downstream=downstream)
    if not dry_run:
        check_can_ask(yes=yes)
    with cache.open_utils(cache_dir) as utils:
        change = utils.restore if restore else utils.invalidate
        if dry_run or not yes:
            counts = change(dry_run=True, **options)
        if not dry_run:
            if not yes:
                if not any(counts.values()):
                    say(f"nothing to change: {counts_text(counts)} in {cache_dir}")
                    raise typer.Exit
                verb = "count again" if restore else "miss"
                ask(f"Let {counts_text(counts)} of {cache_dir} {verb}?", yes=False)
            counts = change(**options)
    would = "would " if dry_run else ""
    now = ("count again" if restore else "miss") + ("" if dry_run else " now")
    if as_json:
        print_document(counts, list, Format.JSON)
    else:
        say(f"{counts_text(counts)} of {cache_dir} {would}{now}")


def _options(
    kind: Clearable | None, filters: Filters, *, restore: bool, reason: str | None, downstream: bool
) -> dict[str, Any]:
    """What the API is told.

    Raises:
        typer.BadParameter: nothing is chosen, a filter does not fit, or the reason is missing or too much.
    """
    if kind is None and not filters:
        raise typer.BadParameter("say what is meant: KIND, or a filter such as --label experiment=e1")
    if restore and reason is not None:
        raise typer.BadParameter("--restore takes it away again: there is nothing to give a reason for")
    if not restore and not reason:
        raise typer.BadParameter("say why: it is what `motools cache why` will answer", param_hint="--reason")
    options: dict[str, Any] = {
        **filters,
        "downstream": downstream,
        "kinds": kinds_meant(kind or Clearable.ALL, filters),
    }
    return options if restore else {**options, "reason": reason}
