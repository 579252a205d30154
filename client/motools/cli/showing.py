"""`motools cache show` and `lineage`: all that is known of an entry, and what it was made from and for.

Layer: motools.cli. Imports cache, options, output, tables and motools.cache.
Invariant: pure but for the question itself; nothing that is stored can draw on the screen.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import to_builtins

from motools.cache.errors import AmbiguousName
from motools.cli import cache
from motools.cli.coercion import Command
from motools.cli.exits import NOT_FOUND
from motools.cli.explaining import KindOption, kind_name
from motools.cli.options import DEFAULT_DIR, CacheDir, Format, JsonOption, chosen
from motools.cli.output import print_document, say, say_error, write
from motools.cli.tables import UNKNOWN, duration_text, pair_lines, shown, shown_lines, size_text, time_text

if TYPE_CHECKING:
    from motools.cache import Origin
    from motools.cache.explanations import EntryDetails, EntryName, Lineage, LineageNode

INPUT_LINES_MAX = 60
"""Of a configuration; `--json` has the whole."""

_INPUTS = {
    "dataset": (),
    "model": ("dataset_hash", "backend_type", "config"),
    "eval": ("model_id", "task_id", "backend_type", "inspect_kwargs"),
}


class LineageFormat(StrEnum):
    """How a lineage is printed."""

    TABLE = "table"
    JSON = "json"
    DOT = "dot"


@cache.app.command(cls=Command)
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A key, a value, an evaluation's number, or the beginning of one.")
    ],
    *,
    kind: KindOption = None,
    cache_dir: CacheDir = DEFAULT_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show everything about one entry: who made it, when, from what, its files, and what was made from it.

    Example: motools cache show ft-abc123
    """
    output = chosen(Format.TABLE, json=as_json)
    with cache.open_utils(cache_dir) as utils:
        try:
            found = utils.show(name, kind_name(kind))
        except AmbiguousName as error:
            say_error(f"{name} means several entries; give more of the name, or its --kind:")
            for one in error.candidates:
                say(f"  {one.kind} {shown(one.key)} {shown(one.value)}")
            raise typer.Exit(NOT_FOUND) from error
    print_document(to_builtins(found), lambda: details_lines(found), output)


def details_lines(found: EntryDetails) -> list[str]:
    """An entry for people."""
    entry: dict[str, Any] = to_builtins(found.entry)
    pairs = [("kind", found.kind), ("key", shown(found.key)), ("value", shown(_value(entry)))]
    pairs += _state_pairs(entry)
    pairs += _made_pairs(found, entry)
    lines = pair_lines(pairs)
    for field in _INPUTS[found.kind]:
        lines += _input_lines(field, entry[field])
    for title, names, count in (
        ("made from", found.made_from, len(found.made_from)),
        ("made from it", found.made, found.num_made),
    ):
        lines += _name_lines(title, names, count)
    return lines


def _value(entry: dict[str, Any]) -> str | None:
    return next((entry[name] for name in ("file_id", "log_file_path", "model_id") if name in entry), None)


def _state_pairs(entry: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = []
    if entry["void_since"] is not None:
        said = f": {shown(entry['void_detail'])}" if entry["void_detail"] else ""
        pairs.append(("misses", f"since {time_text(entry['void_since'])} UTC, {shown(entry['void_reason'])}{said}"))
    if entry["expires_at"] is not None:
        pairs.append(("expires (UTC)", time_text(entry["expires_at"])))
    if entry["pinned"]:
        pairs.append(("pinned", shown(entry["pin_reason"] or "yes")))
    return pairs


def _made_pairs(found: EntryDetails, entry: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = [("stored (UTC)", time_text(entry["created_at"]))]
    if found.origin is not None:
        pairs += _origin_pairs(found.origin)
    if entry["seconds"] is not None:
        seconds = entry["seconds"]
        pairs.append(("took", f"{seconds:.3g} s" if seconds < 1 else duration_text(seconds)))
    pairs += [(name, shown(entry[name])) for name in ("version", "labels", "metadata") if entry[name]]
    used = time_text(entry["last_used_at"]) if entry["last_used_at"] else "never"
    pairs.append(("hits", f"{entry['hits']:,}, the last (UTC): {used}"))
    size = UNKNOWN if entry["size_bytes"] is None else size_text(entry["size_bytes"])
    pairs += [("size", size), *(("file", shown(path)) for path in entry["files"])]
    if found.holder is not None:
        holder = found.holder
        where = f"by pid {holder.pid} on {shown(holder.host)} since {time_text(holder.since)} UTC"
        pairs.append(("computed anew", where))
    return pairs


def _origin_pairs(origin: Origin) -> list[tuple[str, str]]:
    who = f"{origin.user or origin.uid}@{origin.host}, pid {origin.pid}"
    pairs = [("by", shown(who if not origin.job_id else f"{who}, job {origin.job_id}"))]
    if origin.command:
        pairs.append(("command", shown(" ".join(origin.command))))
    if origin.cwd:
        pairs.append(("directory", shown(origin.cwd)))
    if origin.git_commit:
        state = {True: ", with changes", False: "", None: ", perhaps with changes"}[origin.git_dirty]
        branch = f" ({origin.git_branch})" if origin.git_branch else ""
        pairs.append(("git commit", shown(f"{origin.git_commit}{branch}{state}")))
    return pairs


def _input_lines(field: str, value: object) -> list[str]:
    if not isinstance(value, dict):
        return pair_lines([(field.replace("_", " "), shown(value))])
    text = json.dumps(value, indent=2, ensure_ascii=False)
    told = [f"  {shown(line)}" for line in text.split("\n")]
    more = len(told) - INPUT_LINES_MAX
    if more > 0:
        told = [*told[:INPUT_LINES_MAX], f"  ... and {more:,} more lines: --json has all"]
    return [f"{field.replace('_', ' ')}:", *told]


def _name_lines(title: str, names: list[EntryName], count: int) -> list[str]:
    if not names:
        return []
    lines = [f"{title}: {count:,}"]
    lines += [f"  {one.kind} {shown(one.value or one.key)}" + ("" if one.value else " (no entry)") for one in names]
    return (
        lines
        if count <= len(names)
        else [*lines, f"  ... and {count - len(names):,} more: see `motools cache lineage`"]
    )


@cache.app.command(cls=Command)
def lineage(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As for `motools cache show`.")],
    *,
    up: Annotated[bool, typer.Option("--up", help="Only what it was made from.")] = False,
    down: Annotated[bool, typer.Option("--down", help="Only what was made from it.")] = False,
    kind: KindOption = None,
    cache_dir: CacheDir = DEFAULT_DIR,
    output: Annotated[
        LineageFormat, typer.Option("--format", metavar="FORMAT", help="table, json or dot (Graphviz).")
    ] = LineageFormat.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Show what an entry was made from and what was made from it: dataset, models, evaluations.

    Example: motools cache lineage ft-abc123 --format dot
    """
    if as_json and output is LineageFormat.DOT:
        raise typer.BadParameter("--json and --format dot exclude each other")
    chosen_kind = kind_name(kind)
    with cache.open_utils(cache_dir) as utils:
        found = utils.lineage(name, chosen_kind, up=up or not down, down=down or not up)
    if as_json or output is LineageFormat.JSON:
        print_document(to_builtins(found), list, Format.JSON)
    elif output is LineageFormat.DOT:
        write(dot_text(found))
    else:
        print_document({}, lambda: tree_lines(found), Format.TABLE)
    if found.is_cut:
        say(f"only the first {len(found.nodes):,} entries are shown")


def tree_lines(found: Lineage) -> list[str]:
    """A lineage as a tree, sources above what was made from them; the one asked for is marked."""
    made: dict[int, list[int]] = {}
    for place, node in enumerate(found.nodes):
        for source in node.made_from:
            made.setdefault(source, []).append(place)
    lines: list[str] = []
    # What has several sources stands below each of them; there are no cycles: evaluations come from models, models
    # from datasets.
    left = [(place, "", "") for place, node in reversed(list(enumerate(found.nodes))) if not node.made_from]
    while left:
        place, own, below = left.pop()
        mark = "  <- this" if place == found.root and len(found.nodes) > 1 else ""
        lines.append(f"{own}{_node_text(found.nodes[place])}{mark}")
        children = made.get(place, [])
        for index in range(len(children) - 1, -1, -1):
            is_last = index == len(children) - 1
            own_mark, below_mark = ("`-- ", "    ") if is_last else ("|-- ", "|   ")
            left.append((children[index], below + own_mark, below + below_mark))
    return lines


def _node_text(node: LineageNode) -> str:
    task = f" ({shown(node.detail)})" if node.detail else ""
    if node.value is None:
        return f"{node.kind} {shown(node.key)} (no entry)"
    return f"{node.kind} {shown(node.value)}{task}"


def dot_text(found: Lineage) -> str:
    """A lineage in Graphviz's language."""
    lines = ["digraph lineage {", "  rankdir=LR;", "  node [shape=box];"]
    for place, node in enumerate(found.nodes):
        style = ", style=bold" if place == found.root else ", style=dashed" if node.value is None else ""
        lines.append(f"  n{place} [label={_quoted(_node_text(node))}{style}];")
    lines += [f"  n{source} -> n{place};" for place, node in enumerate(found.nodes) for source in node.made_from]
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    escaped = shown_lines(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
