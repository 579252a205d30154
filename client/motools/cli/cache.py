"""`motools cache`: look into the cache, and clear it.

Layer: motools.cli. Imports options, output, selection, tables and motools.cache.
Invariant: reading makes no directory; nothing is removed without `--yes` or a yes at the terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from motools.cache.entries import Entry
from motools.cache.filtering import LISTED_MAX
from motools.cli.coercion import Command, Group
from motools.cli.exits import FAILED, REFUSED
from motools.cli.filter_options import takes_filters
from motools.cli.options import (
    DEFAULT_DIR,
    CacheDir,
    Clearable,
    Downstream,
    Force,
    Format,
    FormatOption,
    JsonOption,
    Kind,
    NoTrash,
    Yes,
    chosen,
    whole_number,
)
from motools.cli.output import confirm, print_items, say, say_error
from motools.cli.removing import Removal, carry_out
from motools.cli.selection import (
    ENTRY_TYPES,
    Filters,
    clear_entries,
    count_entries,
    counts_text,
    kinds_meant,
    plan_clear,
    read_entries,
)
from motools.cli.tables import UNKNOWN, Column, plain, size_text, time_text

if TYPE_CHECKING:
    from motools.cache.utils import CacheUtils

app = typer.Typer(cls=Group, no_args_is_help=True, help="Look into the cache, and clear it.")

_CREATED = Column("created (UTC)", lambda item: time_text(item["created_at"]))
_HITS = Column("hits", plain("hits"), is_number=True)
_SIZE = Column("size", lambda item: UNKNOWN if item["size_bytes"] is None else size_text(item["size_bytes"]), True)
_PINNED = Column("pinned", lambda item: "yes" if item["pinned"] else "")
COLUMNS = {
    Kind.DATASETS: (
        Column("dataset hash", plain("dataset_hash")),
        Column("file id", plain("file_id")),
        _SIZE,
        _HITS,
        _PINNED,
        _CREATED,
    ),
    Kind.MODELS: (
        Column("model id", plain("model_id")),
        Column("dataset hash", plain("dataset_hash")),
        Column("backend", plain("backend_type")),
        Column("config", plain("config")),
        _SIZE,
        _HITS,
        _PINNED,
        _CREATED,
        Column("cache key", plain("cache_key")),
    ),
    Kind.EVALS: (
        Column("id", plain("id"), is_number=True),
        Column("model id", plain("model_id")),
        Column("task id", plain("task_id")),
        Column("backend", plain("backend_type")),
        Column("kwargs", plain("inspect_kwargs")),
        Column("log", plain("log_file_path")),
        _SIZE,
        _HITS,
        _PINNED,
        _CREATED,
    ),
}


def open_utils(directory: str) -> CacheUtils:
    """The management API of a directory that holds a cache."""
    from motools.cache.utils import CacheUtils

    return CacheUtils(directory)


@app.command("list", cls=Command)
@takes_filters
def list_entries(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="What to list.")],
    *,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="FIELD[:desc]", help="As in size:desc, created or used.")
    ] = None,
    limit: Annotated[str | None, typer.Option("--limit", metavar="N", help="No more than so many.")] = None,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="TEXT", help="Go on behind a page; see its JSON.")
    ] = None,
    filters: Filters,
    cache_dir: CacheDir = DEFAULT_DIR,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """List what is cached, in the order in which it was first stored.

    Example: motools cache list models --label experiment=e1 --sort size:desc --limit 20
    """
    output = chosen(output, json=as_json)
    at_most = None if limit is None else whole_number(limit, "--limit", LISTED_MAX)
    with open_utils(cache_dir) as utils:
        found = read_entries(utils, kind, filters, sort=sort, limit=at_most, cursor=cursor)
    if not found.items and output is Format.TABLE:
        matching = " that fit the filters" if filters else ""
        say(f"no {kind.value}{matching} in {cache_dir}")
        return
    names = _field_names(ENTRY_TYPES[kind])
    items = [{name: getattr(entry, name) for name in names} for entry in found.items]
    more = {} if limit is None else {"cursor": found.cursor}
    print_items(items, names, COLUMNS[kind], output, more)
    if output is Format.TABLE and found.cursor is not None:
        say(f"there is more: `--limit` more, or `--cursor {found.cursor}`")


def _field_names(entry_type: type[Entry]) -> list[str]:
    """The fields of an entry, what identifies it first."""
    everywhere = Entry.__struct_fields__
    return [*(name for name in entry_type.__struct_fields__ if name not in everywhere), *everywhere]


@app.command(cls=Command)
@takes_filters
def clear(  # noqa: PLR0913 - one for each option
    kind: Annotated[Clearable, typer.Argument(metavar="KIND", help="datasets, models, evals or all.")],
    *,
    downstream: Downstream = False,
    delete_files: Annotated[bool, typer.Option("--delete-files", help="Their files, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    no_trash: NoTrash = False,
    force: Force = False,
    yes: Yes = False,
    filters: Filters,
    cache_dir: CacheDir = DEFAULT_DIR,
    as_json: JsonOption = False,
) -> None:
    """Remove entries, after asking. Without --delete-files their files stay.

    Example: motools cache clear all --label experiment=e1 --downstream --delete-files
    """
    kinds_meant(kind, filters)
    how = Removal(yes, dry_run, not no_trash, as_json)
    _check_clear(how, delete_files=delete_files)
    how.check()
    with open_utils(cache_dir) as utils:
        if delete_files:
            plan = plan_clear(utils, kind, filters, force=force, downstream=downstream)
            carry_out(utils, plan, cache_dir, how)
            return
        before = count_entries(utils, kind, filters, downstream=downstream)
        if not yes:
            _ask(before, cache_dir)
        removed = clear_entries(utils, kind, filters, force=force, downstream=downstream)
        left = count_entries(utils, kind, filters, downstream=downstream)
    counts = {name: count - left.get(name, 0) for name, count in before.items()}
    if sum(counts.values()) != removed:
        counts = {"entries": removed}  # others stored some meanwhile
    _say_cleared(counts, left, cache_dir)


def _check_clear(how: Removal, *, delete_files: bool) -> None:
    """Make sure that the options go together.

    Raises:
        typer.BadParameter: they do not.
    """
    given = {"--dry-run": how.dry_run, "--no-trash": not how.to_trash, "--json": how.as_json}
    if not delete_files and (names := [name for name, is_given in given.items() if is_given]):
        raise typer.BadParameter("it goes with --delete-files", param_hint=names[0])


def _say_cleared(counts: dict[str, int], left: dict[str, int], directory: str) -> None:
    """What went; what stays because it is pinned, the cache has named.

    Raises:
        typer.Exit: all of it is pinned.
    """
    if any(left.values()) and not any(counts.values()):
        say_error(f"all of it is pinned: nothing was removed from {directory}; --force removes pinned entries, too")
        raise typer.Exit(REFUSED)
    say(f"removed {counts_text(counts)} from {directory}")


def _ask(counts: dict[str, int], directory: str) -> None:
    """Say what would go, and go on only after a yes."""
    if not any(counts.values()):
        say(f"nothing to remove: {counts_text(counts)} in {directory}")
        raise typer.Exit
    if not confirm(f"Remove {counts_text(counts)} from {directory}?"):
        say("nothing was removed")
        raise typer.Exit(FAILED)
