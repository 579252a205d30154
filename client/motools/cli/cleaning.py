"""`motools cache prune`, `undo`, `trash` and `verify`: freeing room without fear.

Layer: motools.cli. Imports cache, options, output, plans, progress, removing and motools.cache.
Invariant: what removes something shows it first; what is removed can be put back unless somebody said otherwise.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import to_builtins

from motools.cli import cache
from motools.cli.coercion import Command, Group
from motools.cli.exits import NOT_FOUND
from motools.cli.filter_options import takes_filters
from motools.cli.options import (
    DEFAULT_DIR,
    CacheDir,
    Downstream,
    Force,
    Format,
    FormatOption,
    JsonOption,
    KindsOption,
    NoTrash,
    Yes,
    chosen,
)
from motools.cli.output import print_document, print_items, say, say_error
from motools.cli.plans import TRASH_COLUMNS, result_document, result_text, staying_text, trash_text
from motools.cli.progress import progress
from motools.cli.removing import Removal, apply, ask, carry_out, check_can_ask, interruptible
from motools.cli.selection import Filters
from motools.cli.tables import Column, plain, shown, size_text

if TYPE_CHECKING:
    from motools.cache.cleaning import CleanupResult, TrashItem, VerifyReport
    from motools.cache.utils import CacheUtils

trash = typer.Typer(cls=Group, no_args_is_help=True, help="What clean-ups removed, until it goes by itself.")
cache.app.add_typer(trash, name="trash")

PROBLEM_CODES = {"corrupt": 1, "missing": 2, "unreadable": 4, "orphan": 8}
"""`verify` ends with the sum of those that it found."""
FINDING_COLUMNS = (
    Column("problem", plain("problem")),
    Column("kind", plain("kind")),
    Column("what is wrong", plain("detail")),
    Column("repaired", lambda item: "yes" if item["repaired"] else "no"),
    Column("path", lambda item: shown(item["path"] or None)),
    Column("key", plain("key")),
)


@cache.app.command(cls=Command)
@takes_filters
def prune(  # noqa: PLR0913 - one for each option
    *,
    to: Annotated[
        str | None, typer.Option("--to", metavar="SIZE", help="Least recently used first, down to 50GB, say.")
    ] = None,
    orphans: Annotated[bool, typer.Option("--orphans", help="Files that no entry names.")] = False,
    orphan_age: Annotated[
        str | None, typer.Option("--orphan-age", metavar="AGE", help="Only older ones. [default: 24h]")
    ] = None,
    dangling: Annotated[bool, typer.Option("--dangling", help="Entries whose files are gone.")] = False,
    kind: KindsOption = None,
    downstream: Downstream = False,
    filters: Filters,
    plan_id: Annotated[str | None, typer.Option("--plan", metavar="ID", help="Exactly what --dry-run showed.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    no_trash: NoTrash = False,
    force: Force = False,
    yes: Yes = False,
    cache_dir: CacheDir = DEFAULT_DIR,
    as_json: JsonOption = False,
) -> None:
    """Remove entries with their files, and files that belong to nothing.

    Example: motools cache prune --unused-for 14d --orphans --dry-run
    """
    chosen_by = {
        "to": to,
        "orphans": orphans or None,
        "orphan_age": orphan_age,
        "dangling": dangling or None,
        "kinds": None if kind is None else [one.value for one in kind],
        "downstream": downstream or None,
        "force": force or None,
        **filters,
    }
    options: dict[str, Any] = {name: value for name, value in chosen_by.items() if value is not None}
    how = Removal(yes, dry_run, not no_trash, as_json)
    if plan_id is not None:
        _apply_by_name(plan_id, options, cache_dir, how)
        return
    if not options.keys() - {"orphan_age", "kinds", "downstream", "force"}:
        hint = "a filter such as --older-than or --label, --to, --orphans or --dangling"
        raise typer.BadParameter(f"say what is to go: {hint}")
    how.check()
    with cache.open_utils(cache_dir) as utils:
        plan = utils.prune(dry_run=True, **options)
        carry_out(utils, plan, cache_dir, how)


def _apply_by_name(plan_id: str, options: dict[str, Any], directory: str, how: Removal) -> None:
    if options or how.dry_run:
        raise typer.BadParameter("a plan says already what goes: pass nothing else that does", param_hint="--plan")
    how.check()
    ask(f"Remove what plan {plan_id} showed from {directory}?", yes=how.yes)
    with cache.open_utils(directory) as utils:
        apply(utils, plan_id, directory, how)


@cache.app.command(cls=Command)
def undo(
    removal: Annotated[
        int | None, typer.Argument(metavar="[ID]", help="Of a removal, as `trash list` shows it.", show_default=False)
    ] = None,
    *,
    yes: Yes = False,
    cache_dir: CacheDir = DEFAULT_DIR,
    as_json: JsonOption = False,
) -> None:
    """Put back what a clean-up removed, the latest unless told otherwise: entries and files, all of it or nothing.

    Example: motools cache undo
    """
    _put_back(removal, cache_dir, yes=yes, as_json=as_json)


@trash.command("restore", cls=Command)
def restore(
    removal: Annotated[int, typer.Argument(metavar="ID", help="Of a removal, as `trash list` shows it.")],
    *,
    yes: Yes = False,
    cache_dir: CacheDir = DEFAULT_DIR,
    as_json: JsonOption = False,
) -> None:
    """Put back what a clean-up removed: as `motools cache undo`.

    Example: motools cache trash restore 3
    """
    _put_back(removal, cache_dir, yes=yes, as_json=as_json)


def _put_back(removal: int | None, directory: str, *, yes: bool, as_json: bool) -> None:
    check_can_ask(yes=yes)
    with cache.open_utils(directory) as utils:
        item = _found(utils.list_trash(), removal, directory)
        ask(f"Put {trash_text(item)} back into {directory}?", yes=yes)
        with progress("putting back") as tell:
            result = utils.undo(item.id, on_progress=tell)
    if as_json:
        print_document(result_document(result), list, Format.JSON)
        return
    for line in staying_text((), result.left):
        say(line)
    say(f"put back {result_text(result)}, in {directory}")


def _found(items: list[TrashItem], removal: int | None, directory: str) -> TrashItem:
    """The removal with a number; without one, the latest.

    Raises:
        typer.Exit: there is none.
    """
    for item in items:
        if removal in (None, item.id):
            return item
    if removal is None:
        say_error(f"there is nothing to put back: the trash of {directory} is empty")
    else:
        say_error(f"removal {removal} is not in the trash: see `motools cache trash list`")
    raise typer.Exit(NOT_FOUND)


@trash.command("list", cls=Command)
def list_trash(
    *, cache_dir: CacheDir = DEFAULT_DIR, output: FormatOption = Format.TABLE, as_json: JsonOption = False
) -> None:
    """List what can be put back, the latest first.

    Example: motools cache trash list
    """
    from motools.cache.cleaning import TrashItem

    output = chosen(output, json=as_json)
    with cache.open_utils(cache_dir) as utils:
        found = utils.list_trash()
    if not found and output is Format.TABLE:
        say(f"the trash of {cache_dir} is empty")
        return
    print_items(to_builtins(found), TrashItem.__struct_fields__, TRASH_COLUMNS, output)


@trash.command("empty", cls=Command)
def empty(
    removals: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", help="Of removals; none: all.", show_default=False)
    ] = None,
    *,
    yes: Yes = False,
    cache_dir: CacheDir = DEFAULT_DIR,
    as_json: JsonOption = False,
) -> None:
    """Free the room of what lies in the trash, for ever.

    Example: motools cache trash empty 3 --yes
    """
    check_can_ask(yes=yes)
    with cache.open_utils(cache_dir) as utils:
        items = utils.list_trash()
        going = items if not removals else [_found(items, number, cache_dir) for number in removals]
        result = _emptied(utils, removals, going, cache_dir, yes=yes)
    if as_json:
        print_document(result_document(result), list, Format.JSON)
    else:
        say(f"freed {size_text(result.freed_bytes)} in {cache_dir}")


def _emptied(
    utils: CacheUtils, removals: list[int] | None, going: list[TrashItem], directory: str, *, yes: bool
) -> CleanupResult:
    if going and not yes:
        for item in going:
            say(f"  {trash_text(item)}")
    if going or yes:
        room = size_text(sum(item.allocated_bytes for item in going))
        ask(f"Free {room} in {directory} for ever?", yes=yes)
    with interruptible(), progress("freeing") as tell:
        return utils.empty_trash(removals or None, on_progress=tell)


@cache.app.command(cls=Command)
def verify(
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Read the content of datasets, too.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Let what is wrong miss, so that it is made anew.")] = False,
    yes: Yes = False,
    cache_dir: CacheDir = DEFAULT_DIR,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Compare entries, files and the database with what they should be.

    Ends with the sum of what was found: 1 corrupt, 2 missing, 4 unreadable, 8 orphan. Repairing removes no file;
    entries whose file is gone go to the trash.

    Example: motools cache verify --deep
    """
    from motools.cache.cleaning import Finding

    output = chosen(output, json=as_json)
    if repair:
        check_can_ask(yes=yes)
        ask(f"Let entries of {cache_dir} miss whose files are missing or damaged?", yes=yes)
    with cache.open_utils(cache_dir) as utils, progress("verifying") as tell:
        report = utils.verify(deep=deep, repair=repair, on_progress=tell)
    findings = to_builtins(report.findings)
    if output is Format.JSON:
        print_document({"items": findings, "entries": report.entries, "files": report.files}, list, output)
    elif findings or output is not Format.TABLE:
        print_items(findings, Finding.__struct_fields__, FINDING_COLUMNS, output)
    say(_verified_text(report, cache_dir, repair=repair))
    raise typer.Exit(sum({PROBLEM_CODES.get(finding.problem, 1) for finding in report.findings}))


def _verified_text(report: VerifyReport, directory: str, *, repair: bool) -> str:
    looked = f"looked at {report.entries:,} entries and {report.files:,} files in {directory}"
    counts = Counter(finding.problem for finding in report.findings)
    if not counts:
        return f"{looked}: all is well"
    found = ", ".join(f"{count:,} {problem}" for problem, count in counts.items())
    can_repair = not repair and (counts["corrupt"] or counts["missing"])
    return f"{looked}: {found}" + ("; `motools cache verify --repair` mends entries" if can_repair else "")
