"""`motools cache stats`: how many entries, how much room, and what lookups came to.

Layer: motools.cli. Imports cache, filter_options, options, output, tables and motools.cache.
Invariant: figures are those of the daemon; what lookups came to outlasts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import to_builtins

from motools.cli import cache
from motools.cli.coercion import Command
from motools.cli.filter_options import labels_of
from motools.cli.options import DEFAULT_DIR, CacheDir, Format, FormatOption, JsonOption, chosen
from motools.cli.output import print_document, print_items
from motools.cli.tables import (
    UNKNOWN,
    Column,
    Item,
    duration_text,
    pair_lines,
    plain,
    shown,
    size_text,
    table_lines,
    time_text,
)

if TYPE_CHECKING:
    from motools.cache.entries import CacheStats
    from motools.cache.explanations import Usage

BY_JOB = "job"


@cache.app.command(cls=Command)
def stats(
    *,
    since: Annotated[str | None, typer.Option("--since", metavar="AGE", help="Lookups of the last 24h, say.")] = None,
    job: Annotated[str | None, typer.Option("--job", metavar="ID", help="Lookups of this job.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="Lookups with this label. Repeatable.")
    ] = None,
    by: Annotated[str | None, typer.Option("--by", metavar="job|LABEL", help="A line for each job, or label.")] = None,
    cache_dir: CacheDir = DEFAULT_DIR,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Count the entries and the room that everything takes, and show what lookups came to.

    Example: motools cache stats --since 24h --by experiment
    """
    output = chosen(output, json=as_json)
    labels = labels_of(list(label or ()))
    with cache.open_utils(cache_dir) as utils:
        found = utils.get_stats()
        usage = utils.get_usage(
            since=since, job=job, labels=labels, by_label=None if by in (None, BY_JOB) else by, by_job=by == BY_JOB
        )
    items: list[Item] = [to_builtins(row) for row in usage]
    document = {**to_builtins(found), "lookups": items}
    if output in (Format.JSONL, Format.CSV) and (since, job, by) == (None, None, None) and not labels:
        # As always: one line, of the totals.
        items = [to_builtins(found)]
    if output in (Format.JSONL, Format.CSV):
        print_items(items, _names(items), (), output)
        return
    print_document(document, lambda: _lines(found, usage, by), output)


def _names(items: Sequence[Item]) -> list[str]:
    from motools.cache.explanations import Usage

    return list(items[0]) if items else list(Usage.__struct_fields__)


def _lines(found: CacheStats, usage: Sequence[Usage], by: str | None) -> list[str]:
    lines = pair_lines(
        [
            ("datasets", shown(found.num_datasets)),
            ("models", shown(found.num_models)),
            ("evals", shown(found.num_evals)),
            ("total size", size_text(found.total_size_bytes)),
            ("counted (UTC)", counted_text(found.scanned_at)),
        ]
    )
    if not usage:
        return [*lines, "", "no lookups were counted"]
    columns = (
        USAGE_COLUMNS if by is None else (Column(shown(by), lambda item: shown(item["group"] or None)), *USAGE_COLUMNS)
    )
    items: list[dict[str, Any]] = [to_builtins(row) for row in usage]
    return [*lines, "", *table_lines(columns, items, width=None)]


def counted_text(stamp: str | None) -> str:
    """When files were counted last."""
    return "not yet" if stamp is None else time_text(stamp)


def _rate_text(item: Item) -> str:
    asked = item["hits"] + item["misses"]
    return f"{100 * item['hits'] / asked:.1f} %" if asked else UNKNOWN


def _reasons_text(item: Item) -> str:
    reasons: dict[str, int] = item["reasons"]
    ordered = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count:,} {shown(name).replace('_', ' ')}" for name, count in ordered) or UNKNOWN


USAGE_COLUMNS = (
    Column("kind", plain("kind")),
    Column("hits", lambda item: f"{item['hits']:,}", is_number=True),
    Column("misses", lambda item: f"{item['misses']:,}", is_number=True),
    Column("hit rate", _rate_text, is_number=True),
    Column("time saved", lambda item: duration_text(item["seconds_saved"]) if item["seconds_saved"] else UNKNOWN),
    Column("cost saved", lambda item: f"{item['cost_saved']:,.2f}" if item["cost_saved"] else UNKNOWN, is_number=True),
    Column("misses by reason", _reasons_text),
)
