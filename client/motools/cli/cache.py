"""`motools cache`: look into the cache, and clear it.

Layer: motools.cli. Imports options, output, exits and motools.cache.
Invariant: reading makes no directory; nothing is removed without `--yes` or a yes at the terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from motools.cli import exits
from motools.cli.options import (
    DEFAULT_DIR,
    CacheDir,
    Clearable,
    Format,
    FormatOption,
    JsonOption,
    Kind,
    chosen,
)
from motools.cli.output import Column, plain, print_document, print_items, shown, size_text, time_text

if TYPE_CHECKING:
    from motools.cache.utils import CacheUtils

app = typer.Typer(no_args_is_help=True, help="Look into the cache, and clear it.")

_CREATED = Column("created (UTC)", lambda item: time_text(item["created_at"]))
_HITS = Column("hits", plain("hits"), is_number=True)
COLUMNS = {
    Kind.DATASETS: (Column("dataset hash", plain("dataset_hash")), Column("file id", plain("file_id")), _HITS, _CREATED),
    Kind.MODELS: (
        Column("model id", plain("model_id")),
        Column("dataset hash", plain("dataset_hash")),
        Column("backend", plain("backend_type")),
        Column("config", lambda item: shown(_compact(item["config"]))),
        _HITS,
        _CREATED,
        Column("cache key", plain("cache_key")),
    ),
    Kind.EVALS: (
        Column("id", plain("id"), is_number=True),
        Column("model id", plain("model_id")),
        Column("task id", plain("task_id")),
        Column("backend", plain("backend_type")),
        Column("kwargs", lambda item: shown(_compact(item["inspect_kwargs"]))),
        Column("log", plain("log_file_path")),
        _HITS,
        _CREATED,
    ),
}

ModelIds = Annotated[list[str] | None, typer.Option("--model-id", help="Only this model; may be repeated.")]
TaskIds = Annotated[list[str] | None, typer.Option("--task-id", help="Only this task; may be repeated.")]


def _compact(value: object) -> str | None:
    return None if value is None else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def open_utils(directory: Path) -> CacheUtils:
    """The management API of a directory that holds a cache."""
    from motools.cache.utils import CacheUtils

    return CacheUtils(directory)


@app.command("list")
def list_entries(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    *,
    model_id: Annotated[str | None, typer.Option(help="Only this model (models and evals).")] = None,
    task_id: Annotated[str | None, typer.Option(help="Only this task (evals).")] = None,
    cache_dir: CacheDir = DEFAULT_DIR,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """List entries in the order in which they were first stored.

    Example: motools cache list evals --model-id ft-abc123
    """
    output = chosen(output, json=as_json)
    _check_filters(kind.value, {"--model-id": model_id, "--task-id": task_id}, _LIST_FILTERS)
    with open_utils(cache_dir) as utils:
        if kind is Kind.DATASETS:
            print_items(utils.list_datasets(), COLUMNS[kind], output)
        elif kind is Kind.MODELS:
            print_items(utils.list_models(model_id), COLUMNS[kind], output)
        else:
            print_items(utils.list_evals(model_id, task_id), COLUMNS[kind], output)


@app.command()
def stats(
    *, cache_dir: CacheDir = DEFAULT_DIR, output: FormatOption = Format.TABLE, as_json: JsonOption = False
) -> None:
    """Show how many entries there are, and the room that everything takes.

    Example: motools cache stats --json
    """
    output = chosen(output, json=as_json)
    with open_utils(cache_dir) as utils:
        found = utils.get_stats()
    rows = [
        ("datasets", str(found.num_datasets)),
        ("models", str(found.num_models)),
        ("evals", str(found.num_evals)),
        ("total size", size_text(found.total_size_bytes)),
    ]
    print_document(msgspec.to_builtins(found), rows, output)


@app.command()
def size(
    *,
    breakdown: Annotated[bool, typer.Option("--breakdown", help="Show each category.")] = False,
    cache_dir: CacheDir = DEFAULT_DIR,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Show the room that the cache takes on disk.

    Example: motools cache size --breakdown
    """
    output = chosen(output, json=as_json)
    with open_utils(cache_dir) as utils:
        categories = utils.get_sizes()
    total = sum(size.size_bytes for size in categories.values())
    document = {"total_size_bytes": total}
    rows = [("total", size_text(total))]
    if breakdown:
        document["categories"] = msgspec.to_builtins(categories)
        rows = [(name, size_text(size.size_bytes)) for name, size in categories.items()] + rows
    if breakdown and output in (Format.CSV, Format.JSONL):
        print_items([CategorySize(name, *msgspec.structs.astuple(size)) for name, size in categories.items()], (), output)
        return
    print_document(document, rows, output)


class CategorySize(msgspec.Struct):
    """One line of `size --breakdown` for programs that read lines."""

    category: str
    size_bytes: int
    allocated_bytes: int


@app.command()
def clear(
    kind: Annotated[Clearable, typer.Argument(help="What to clear.")],
    *,
    dataset_hash: Annotated[
        list[str] | None, typer.Option(help="Only this dataset; may be repeated (datasets).")
    ] = None,
    model_id: ModelIds = None,
    task_id: TaskIds = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    cache_dir: CacheDir = DEFAULT_DIR,
) -> None:
    """Remove entries. The files that they name stay where they are.

    Example: motools cache clear evals --model-id ft-abc123
    """
    given = {"--dataset-hash": dataset_hash, "--model-id": model_id, "--task-id": task_id}
    _check_filters(kind.value, given, _FILTERS)
    with open_utils(cache_dir) as utils:
        if not yes:
            _ask(utils, kind, dataset_hash, model_id, task_id, cache_dir)
        if kind is Clearable.DATASETS:
            counts = {"datasets": utils.clear_datasets(dataset_hash)}
        elif kind is Clearable.MODELS:
            counts = {"models": utils.clear_models(model_id)}
        elif kind is Clearable.EVALS:
            counts = {"evals": utils.clear_evals(model_id, task_id)}
        else:
            counts = utils.clear_all()
    exits.say("removed " + ", ".join(f"{count} {name}" for name, count in counts.items()))


_FILTERS = {
    "datasets": {"--dataset-hash"},
    "models": {"--model-id"},
    "evals": {"--model-id", "--task-id"},
    "all": set[str](),
}
_LIST_FILTERS = {**_FILTERS, "datasets": set[str]()}


def _check_filters(kind: str, given: Mapping[str, object], allowed: Mapping[str, set[str]]) -> None:
    for option, value in given.items():
        if value is not None and option not in allowed[kind]:
            fitting = " and ".join(sorted(allowed[kind])) or "no filter"
            raise typer.BadParameter(f"{option} does not go with {kind}, which takes {fitting}")


def _ask(
    utils: CacheUtils,
    kind: Clearable,
    dataset_hashes: list[str] | None,
    model_ids: list[str] | None,
    task_ids: list[str] | None,
    cache_dir: Path,
) -> None:
    if not sys.stdin.isatty():
        exits.say("motools: error: there is no terminal to ask at: pass --yes to clear without asking")
        raise typer.Exit(exits.USAGE)
    counts = _count(utils, kind, dataset_hashes, model_ids, task_ids)
    if not typer.confirm(f"Remove {counts} from {cache_dir}?", err=True):
        exits.say("nothing was removed")
        raise typer.Exit(exits.FAILED)


def _count(
    utils: CacheUtils,
    kind: Clearable,
    dataset_hashes: list[str] | None,
    model_ids: list[str] | None,
    task_ids: list[str] | None,
) -> str:
    """What would go, in words."""

    def is_in(value: str, wanted: list[str] | None) -> bool:
        return wanted is None or value in wanted

    counts = {}
    if kind in (Clearable.DATASETS, Clearable.ALL):
        counts["datasets"] = sum(is_in(entry.dataset_hash, dataset_hashes) for entry in utils.list_datasets())
    if kind in (Clearable.MODELS, Clearable.ALL):
        counts["models"] = sum(is_in(entry.model_id, model_ids) for entry in utils.list_models())
    if kind in (Clearable.EVALS, Clearable.ALL):
        counts["evals"] = sum(
            is_in(entry.model_id, model_ids) and is_in(entry.task_id, task_ids) for entry in utils.list_evals()
        )
    return ", ".join(f"{count} {name}" for name, count in counts.items())
