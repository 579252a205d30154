"""`motools cache why` and `diff`: why a lookup misses, and in what entries differ.

Layer: motools.cli. Imports cache, inputs when it is needed, options, output, tables and motools.cache.
Invariant: asking is no lookup: nothing is counted, claimed or computed by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import to_builtins

from motools.cli import cache
from motools.cli.coercion import Command
from motools.cli.options import DEFAULT_DIR, CacheDir, Format, FormatOption, JsonOption, LeaseKind, chosen, whole_number
from motools.cli.output import print_document, say
from motools.cli.tables import Column, Item, plain, shown, table_lines, time_text

if TYPE_CHECKING:
    from motools.cache.explanations import Difference, Explanation, NearEntry
    from motools.cache.utils import CacheUtils

ABSENT = "(not there)"
LAST_MAX = 1_000
NAME_SHOWN_MAX = 40

_WORDS = {
    "hit": "it is cached",
    "never_computed": "it was never computed",
    "different_inputs": "it was never computed with exactly these inputs",
    "other_version": "it was computed under another version",
    "computing": "it is being computed",
    "failed": "it failed",
    "refused": "it was refused",
    "partial": "its result is partial",
    "expired": "it has expired",
    "file_gone": "its file is gone",
    "damaged": "its row is damaged",
    "invalidated": "it was invalidated",
    "cleared": "it was cleared",
    "evicted": "it was evicted to make room",
}
"""Of each reason what it means; one of a newer daemon is shown as it is."""
_NEXT = {
    "hit": "",
    "computing": "`motools cache leases` shows who computes it",
    "file_gone": "`motools cache verify` looks at all files",
    "damaged": "`motools cache verify --repair` mends entries",
    "invalidated": "`motools cache invalidate --restore` lets it count again",
    "other_version": "the version of the client and its policy decide whether that counts",
}

KindOption = Annotated[
    LeaseKind | None, typer.Option("--kind", metavar="KIND", help="dataset, model or eval; else from what is given.")
]


@cache.app.command(cls=Command)
def why(  # noqa: PLR0913 - one for each option
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Of an entry; with --last, how many.", show_default=False)
    ] = None,
    *,
    last: Annotated[bool, typer.Option("--last", help="The latest miss; --last 5: the five.")] = False,
    kind: KindOption = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="FILE", help="The dataset's file (dataset, model).")
    ] = None,
    dataset_hash: Annotated[
        str | None, typer.Option("--dataset-hash", metavar="HASH", help="Its hash instead of the file.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="JSON or YAML: the training (model).")
    ] = None,
    backend: Annotated[
        str | None, typer.Option("--backend", metavar="NAME", help="Training or evaluation backend (model, eval).")
    ] = None,
    model_id: Annotated[str | None, typer.Option("--model-id", metavar="ID", help="The model (eval).")] = None,
    task_id: Annotated[str | None, typer.Option("--task-id", metavar="ID", help="The task (eval).")] = None,
    kwargs: Annotated[
        str | None, typer.Option("--kwargs", metavar="FILE", help="JSON or YAML: the arguments (eval).")
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", metavar="TEXT", help="As a client of this version sees it.")
    ] = None,
    cache_dir: CacheDir = DEFAULT_DIR,
    as_json: JsonOption = False,
) -> None:
    """Say why something is cached or not, and what is nearest to it: before the hours are spent.

    Example: motools cache why --dataset train.jsonl --config new.yaml --backend openai
    """
    output = chosen(Format.TABLE, json=as_json)
    given = {
        "dataset": dataset,
        "dataset_hash": dataset_hash,
        "config": config,
        "backend": backend,
        "model_id": model_id,
        "task_id": task_id,
        "kwargs": kwargs,
    }
    named = {name: value for name, value in given.items() if value is not None}
    if last:
        _say_last(_count(key, named), kind, version, cache_dir, output)
        return
    _check_question(key, named)
    inputs = None if key is not None else _inputs(kind, named)
    with cache.open_utils(cache_dir) as utils:
        found = utils.explain(key, kind_name(kind), version) if key is not None else _asked(utils, inputs, version)
    print_document(document_of(found), lambda: explanation_lines(found), output)


def _count(text: str | None, named: dict[str, str]) -> int:
    """How many misses are asked for.

    Raises:
        typer.BadParameter: it is no number, or too large; or inputs were given.
    """
    if named:
        raise typer.BadParameter("it asks for the latest misses: pass no inputs", param_hint="--last")
    return 1 if text is None else whole_number(text, "--last", LAST_MAX)


def _check_question(key: str | None, named: dict[str, str]) -> None:
    """Make sure that there is one question.

    Raises:
        typer.BadParameter: there is none, or several.
    """
    if key is not None and named:
        first = f"--{next(iter(named)).replace('_', '-')}"
        raise typer.BadParameter("a key says all: pass it, or what it is made from", param_hint=first)
    if key is None and not named:
        raise typer.BadParameter(
            "say what is asked for: a KEY, --last, or inputs such as --dataset FILE --config FILE --backend NAME"
        )


def kind_name(kind: LeaseKind | None) -> Any:  # noqa: ANN401 - one of KindName
    """The API's name of a kind."""
    return None if kind is None else kind.value


def _inputs(kind: LeaseKind | None, named: dict[str, str]) -> tuple[LeaseKind, dict[str, Any]]:
    """What is asked for, read from files where it stands there.

    Raises:
        typer.Exit: it is not enough, too much, or cannot be read; said already.
    """
    from motools.cli.inputs import Inputs, check, hash_file, read_config

    if kind is None:
        is_eval = named.keys() & {"model_id", "task_id", "kwargs"}
        is_model = named.keys() & {"config", "backend"}
        kind = LeaseKind.EVAL if is_eval else LeaseKind.MODEL if is_model else LeaseKind.DATASET
    if "dataset" in named and "dataset_hash" in named:
        raise typer.BadParameter("pass the file or its hash", param_hint="--dataset-hash")
    if kind is not LeaseKind.EVAL and "kwargs" in named:
        raise typer.BadParameter("only evaluations have arguments", param_hint="--kwargs")
    if "kwargs" in named and "config" in named:
        raise typer.BadParameter("--kwargs has the arguments of an evaluation already", param_hint="--config")
    asked = Inputs(
        kind,
        named.get("dataset") or named.get("dataset_hash"),
        named.get("config") or named.get("kwargs"),
        named.get("backend"),
        named.get("model_id"),
        named.get("task_id"),
    )
    check(asked)
    content = named.get("dataset_hash") or (hash_file(named["dataset"]) if "dataset" in named else None)
    read = None if asked.config is None else read_config(asked.config)
    return kind, {**asked._asdict(), "dataset": content, "config": read}


def _asked(utils: CacheUtils, inputs: tuple[LeaseKind, dict[str, Any]] | None, version: str | None) -> Explanation:
    assert inputs is not None, "there is a question"
    kind, asked = inputs
    if kind is LeaseKind.DATASET:
        return utils.explain_dataset(asked["dataset"], version=version)
    if kind is LeaseKind.MODEL:
        return utils.explain_model(asked["dataset"], asked["config"], asked["backend"], version=version)
    names = asked["model_id"], asked["task_id"], asked["backend"]
    return utils.explain_eval(*names, asked["config"], version=version)


def _say_last(count: int, kind: LeaseKind | None, version: str | None, directory: str, output: Format) -> None:
    """Explain the latest misses, one after the other."""
    with cache.open_utils(directory) as utils:
        misses = [miss for miss in utils.list_misses(count if kind is None else LAST_MAX) if _is_of(miss.kind, kind)]
        found = [(miss, utils.explain(miss.key, kind_name(LeaseKind(miss.kind)), version)) for miss in misses[:count]]
    items = [
        {"missed_at": miss.missed_at, "reason_then": miss.reason, "job": miss.job, **document_of(one)}
        for miss, one in found
    ]
    if output is Format.TABLE and not found:
        say(f"nothing has missed in {directory} yet")
        return

    def lines() -> list[str]:
        told: list[str] = []
        for miss, one in found:
            told += [""] if told else []
            job = f" by job {shown(miss.job)}" if miss.job else ""
            told.append(f"missed {time_text(miss.missed_at)} UTC{job}: {_words(miss.reason)}")
            told += explanation_lines(one)
        return told

    print_document({"items": items}, lines, output, items=items or None)


def _is_of(name: str, kind: LeaseKind | None) -> bool:
    return kind is None or name == kind.value


def document_of(found: Explanation) -> dict[str, Any]:
    """An explanation for programs."""
    document: dict[str, Any] = to_builtins(found)
    document["nearest"] = [
        {**to_builtins(near), "differences": [difference_item(one) for one in near.differences]}
        for near in found.nearest
    ]
    return document


def difference_item(one: Difference, cached: str = "cached", asked: str = "asked") -> dict[str, Any]:
    """A difference for programs: a side that has no such field is left out."""
    item: dict[str, Any] = {"path": one.path}
    if one.in_cached:
        item[cached] = one.cached
    if one.in_asked:
        item[asked] = one.asked
    return item


def explanation_lines(found: Explanation) -> list[str]:
    """An explanation for people: the answer first."""
    lines = [f"{found.result}: {_words(found.reason)}"]
    lines.append(f"  {found.kind} {shown(found.key)}" + ("" if found.value is None else f" -> {shown(found.value)}"))
    if found.detail:
        lines.append(f"  {shown(found.detail)}")
    if hint := _NEXT.get(found.reason):
        lines.append(f"  {hint}")
    for near in found.nearest:
        lines += ["", *_near_lines(near)]
    return lines


def _words(reason: str) -> str:
    return _WORDS.get(reason, reason)


def _near_lines(near: NearEntry) -> list[str]:
    count = len(near.differences)
    state = "" if near.why_not is None else f", which misses itself: {_words(near.why_not)}"
    made = "" if near.created_at is None else f", stored {time_text(near.created_at)} UTC"
    if not near.differences:
        return [f"nearest: {shown(near.value)}{made}{state}: what differs is masked, or the version alone"]
    head = f"nearest: {shown(near.value)}{made}{state} ({count} difference{'' if count == 1 else 's'})"
    return [head, *(f"  {line}" for line in difference_lines(near.differences, "cached", "asked"))]


def difference_lines(differences: list[Difference], first: str, second: str) -> list[str]:
    """Differences as a table."""
    items: list[Item] = [
        {
            "path": one.path,
            "first": _value(one.cached, is_there=one.in_cached),
            "second": _value(one.asked, is_there=one.in_asked),
        }
        for one in differences
    ]
    columns = (Column("field", plain("path")), Column(first, plain("first")), Column(second, plain("second")))
    return table_lines(columns, items, width=None)


def _value(value: object, *, is_there: bool) -> str:
    """A JSON value on one line: texts in quotes, so that `1` and `"1"` are told apart."""
    from json import dumps

    return dumps(value, ensure_ascii=False) if is_there else ABSENT


@cache.app.command(cls=Command)
def diff(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Key, value or number of an entry.")],
    other: Annotated[str, typer.Argument(metavar="NAME", help="The same of another one of its kind.")],
    *,
    kind: KindOption = None,
    cache_dir: CacheDir = DEFAULT_DIR,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Compare what two entries were made from, field by field.

    Example: motools cache diff ft-abc123 ft-def456
    """
    output = chosen(output, json=as_json)
    with cache.open_utils(cache_dir) as utils:
        found = utils.compare(name, other, kind_name(kind))
    items = [difference_item(one, "first", "second") for one in found]
    if output is Format.TABLE and not found:
        say(f"{name} and {other} were made from the same, as far as it is known")
        return
    if output is Format.CSV:
        items = [{"path": item["path"], "first": item.get("first"), "second": item.get("second")} for item in items]

    def table() -> list[str]:
        return difference_lines(found, shown(name[:NAME_SHOWN_MAX]), shown(other[:NAME_SHOWN_MAX]))

    print_document({"differences": items}, table, output, items=items or None)
