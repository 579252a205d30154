"""`motools cache`: look into the cache, and clear it.

Layer: motools.cli. Imports options, output, selection, tables and motools.cache.
Invariant: reading makes no directory; nothing is removed without `--yes` or a yes at the terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from motools.cache.entries import Entry
from motools.cli.coercion import Command, Group
from motools.cli.exits import FAILED, REFUSED
from motools.cli.options import (
    DEFAULT_DIR,
    CacheDir,
    Clearable,
    DatasetHashes,
    Force,
    Format,
    FormatOption,
    JsonOption,
    Kind,
    ModelIds,
    NoTrash,
    TaskIds,
    Yes,
    chosen,
)
from motools.cli.output import confirm, print_items, say, say_error
from motools.cli.removing import Removal, carry_out
from motools.cli.selection import (
    CLEAR_FILTERS,
    ENTRY_TYPES,
    LIST_FILTERS,
    Filters,
    check_filters,
    clear_entries,
    count_entries,
    counts_text,
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
def list_entries(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="What to list.")],
    *,
    model_id: ModelIds = None,
    task_id: TaskIds = None,
    dataset_hash: DatasetHashes = None,
    cache_dir: CacheDir = DEFAULT_DIR,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """List what is cached, in the order in which it was first stored.

    Example: motools cache list evals --model-id ft-abc123
    """
    output = chosen(output, json=as_json)
    filters = Filters(dataset_hash, model_id, task_id)
    check_filters(kind.value, filters, LIST_FILTERS)
    with open_utils(cache_dir) as utils:
        entries = read_entries(utils, kind, filters)
    if not entries and output is Format.TABLE:
        matching = " that fit the filters" if filters.given() else ""
        say(f"no {kind.value}{matching} in {cache_dir}")
        return
    names = _field_names(ENTRY_TYPES[kind])
    print_items([{name: getattr(entry, name) for name in names} for entry in entries], names, COLUMNS[kind], output)


def _field_names(entry_type: type[Entry]) -> list[str]:
    """The fields of an entry, what identifies it first."""
    everywhere = Entry.__struct_fields__
    return [*(name for name in entry_type.__struct_fields__ if name not in everywhere), *everywhere]


@app.command(cls=Command)
def clear(  # noqa: PLR0913 - one for each option
    kind: Annotated[Clearable, typer.Argument(metavar="KIND", help="datasets, models, evals or all.")],
    *,
    model_id: ModelIds = None,
    task_id: TaskIds = None,
    dataset_hash: DatasetHashes = None,
    delete_files: Annotated[bool, typer.Option("--delete-files", help="Their files, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    no_trash: NoTrash = False,
    force: Force = False,
    yes: Yes = False,
    cache_dir: CacheDir = DEFAULT_DIR,
    as_json: JsonOption = False,
) -> None:
    """Remove entries, after asking. Without --delete-files their files stay.

    Example: motools cache clear evals --model-id ft-abc123 --delete-files
    """
    filters = Filters(dataset_hash, model_id, task_id)
    check_filters(kind.value, filters, CLEAR_FILTERS)
    how = Removal(yes, dry_run, not no_trash, as_json)
    _check_clear(how, delete_files=delete_files)
    how.check()
    with open_utils(cache_dir) as utils:
        if delete_files:
            carry_out(utils, plan_clear(utils, kind, filters, force=force), cache_dir, how)
            return
        before = count_entries(utils, kind, filters)
        if not yes:
            _ask(before, cache_dir)
        counts = clear_entries(utils, kind, filters, force=force)
        left = count_entries(utils, kind, filters)
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
