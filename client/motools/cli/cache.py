"""`motools cache`: look into the cache, and clear it.

Layer: motools.cli. Imports options, output, selection, tables and motools.cache.
Invariant: reading makes no directory; nothing is removed without `--yes` or a yes at the terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from motools.cache.entries import Entry
from motools.cli.coercion import Command, Group
from motools.cli.exits import FAILED, USAGE
from motools.cli.options import (
    DEFAULT_DIR,
    CacheDir,
    Clearable,
    DatasetHashes,
    Format,
    FormatOption,
    JsonOption,
    Kind,
    ModelIds,
    TaskIds,
    chosen,
)
from motools.cli.output import can_ask, confirm, pairs, print_document, print_items, say, say_error
from motools.cli.selection import (
    CLEAR_FILTERS,
    ENTRY_TYPES,
    LIST_FILTERS,
    Filters,
    check_filters,
    clear_entries,
    count_entries,
    counts_text,
    read_entries,
)
from motools.cli.tables import Column, Item, plain, shown, size_text, table_lines, time_text

if TYPE_CHECKING:
    from motools.cache.utils import CacheUtils

app = typer.Typer(cls=Group, no_args_is_help=True, help="Look into the cache, and clear it.")

_CREATED = Column("created (UTC)", lambda item: time_text(item["created_at"]))
_HITS = Column("hits", plain("hits"), is_number=True)
COLUMNS = {
    Kind.DATASETS: (
        Column("dataset hash", plain("dataset_hash")),
        Column("file id", plain("file_id")),
        _HITS,
        _CREATED,
    ),
    Kind.MODELS: (
        Column("model id", plain("model_id")),
        Column("dataset hash", plain("dataset_hash")),
        Column("backend", plain("backend_type")),
        Column("config", plain("config")),
        _HITS,
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
        _HITS,
        _CREATED,
    ),
}
SIZE_COLUMNS = (
    Column("category", plain("category")),
    Column("size", lambda item: size_text(item["size_bytes"]), is_number=True),
    Column("on disk", lambda item: size_text(item["allocated_bytes"]), is_number=True),
)


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
def stats(
    *, cache_dir: CacheDir = DEFAULT_DIR, output: FormatOption = Format.TABLE, as_json: JsonOption = False
) -> None:
    """Count the entries, and show the room that everything takes.

    Example: motools cache stats --json
    """
    output = chosen(output, json=as_json)
    with open_utils(cache_dir) as utils:
        found = utils.get_stats()
    document = {name: getattr(found, name) for name in found.__struct_fields__}
    rows = [
        ("datasets", shown(found.num_datasets)),
        ("models", shown(found.num_models)),
        ("evals", shown(found.num_evals)),
        ("total size", size_text(found.total_size_bytes)),
    ]
    print_document(document, pairs(rows), output)


@app.command(cls=Command)
def size(
    *,
    breakdown: Annotated[bool, typer.Option("--breakdown", help="Show each category.")] = False,
    cache_dir: CacheDir = DEFAULT_DIR,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Show the room that the cache takes.

    Example: motools cache size --breakdown
    """
    output = chosen(output, json=as_json)
    with open_utils(cache_dir) as utils:
        sizes = utils.get_sizes()
    items: list[dict[str, Any]] = [
        {"category": name, "size_bytes": size.size_bytes, "allocated_bytes": size.allocated_bytes}
        for name, size in sizes.items()
    ]
    total = sum(size.size_bytes for size in sizes.values())
    if breakdown:
        document = {
            "total_size_bytes": total,
            "categories": {item["category"]: _without_category(item) for item in items},
        }
        allocated = sum(size.allocated_bytes for size in sizes.values())
        rows: list[Item] = [*items, {"category": "total", "size_bytes": total, "allocated_bytes": allocated}]
        print_document(document, lambda: table_lines(SIZE_COLUMNS, rows, width=None), output, items=items)
    else:
        print_document({"total_size_bytes": total}, pairs([("total size", size_text(total))]), output)


def _without_category(item: Item) -> Item:
    return {name: value for name, value in item.items() if name != "category"}


@app.command(cls=Command)
def clear(
    kind: Annotated[Clearable, typer.Argument(metavar="KIND", help="What to clear.")],
    *,
    model_id: ModelIds = None,
    task_id: TaskIds = None,
    dataset_hash: DatasetHashes = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    cache_dir: CacheDir = DEFAULT_DIR,
) -> None:
    """Remove entries, after asking. The files that they name stay.

    Example: motools cache clear evals --model-id ft-abc123
    """
    filters = Filters(dataset_hash, model_id, task_id)
    check_filters(kind.value, filters, CLEAR_FILTERS)
    if not yes and not can_ask():
        say_error("there is no terminal to ask at: pass --yes to remove without asking")
        raise typer.Exit(USAGE)
    with open_utils(cache_dir) as utils:
        if not yes:
            _ask(count_entries(utils, kind, filters), cache_dir)
        counts = clear_entries(utils, kind, filters)
    say(f"removed {counts_text(counts)} from {cache_dir}")


def _ask(counts: dict[str, int], directory: str) -> None:
    """Say what would go, and go on only after a yes."""
    if not any(counts.values()):
        say(f"nothing to remove: {counts_text(counts)} in {directory}")
        raise typer.Exit
    if not confirm(f"Remove {counts_text(counts)} from {directory}?"):
        say("nothing was removed")
        raise typer.Exit(FAILED)
