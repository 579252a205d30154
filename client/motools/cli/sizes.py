"""`motools cache stats` and `motools cache size`: how many, and how much.

Layer: motools.cli. Imports cache, options, output, progress and tables.
Invariant: figures are those of the daemon, with the time at which they were counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import to_builtins

from motools.cli import cache
from motools.cli.coercion import Command
from motools.cli.options import DEFAULT_DIR, CacheDir, Format, FormatOption, JsonOption, chosen
from motools.cli.output import pairs, print_document, say
from motools.cli.progress import progress
from motools.cli.statistics import counted_text
from motools.cli.tables import Column, Item, plain, shown, size_text, table_lines

if TYPE_CHECKING:
    from motools.cache.cleaning import SizeReport

TOP_MAX = 1_000

_SIZE = Column("size", lambda item: size_text(item["size_bytes"]), is_number=True)
_ON_DISK = Column("on disk", lambda item: size_text(item["allocated_bytes"]), is_number=True)
SIZE_COLUMNS = (Column("category", plain("category")), _SIZE, _ON_DISK)
TOP_COLUMNS = (
    _SIZE,
    _ON_DISK,
    Column("kind", plain("kind")),
    Column("value", lambda item: shown(item["value"] or None)),
    Column("key", plain("key")),
)


@cache.app.command(cls=Command)
def size(
    *,
    breakdown: Annotated[bool, typer.Option("--breakdown", help="Show each category.")] = False,
    top: Annotated[int, typer.Option("--top", metavar="N", min=0, max=TOP_MAX, help="Show the N largest entries.")] = 0,
    rescan: Annotated[bool, typer.Option("--rescan", help="Count all files anew, and wait for it.")] = False,
    cache_dir: CacheDir = DEFAULT_DIR,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Show the room that the cache takes.

    Orphans are files that no entry names, dangling entries those whose files are gone: `motools cache prune` removes
    both.

    Example: motools cache size --breakdown --top 10
    """
    output = chosen(output, json=as_json)
    with cache.open_utils(cache_dir) as utils:
        if rescan:
            with progress("counting") as tell:
                report = utils.get_size_report(rescan=True, top=top, on_progress=tell)
        else:
            report = utils.get_size_report(top=top)
    document, items = _document(report)
    if output is not Format.TABLE:
        totals = {name: document[name] for name in ("total_size_bytes", "total_allocated_bytes")}
        print_document(document, list, output, items=items if breakdown else document["top"] or [totals])
        return
    if not breakdown and not top:
        print_document(document, pairs([("total size", size_text(report.total_size_bytes))]), output)
        return
    print_document(document, lambda: _lines(report, items, breakdown=breakdown, top=top), output)
    if report.is_scanning:
        say("the files are being counted right now: these are the figures so far")


def _document(report: SizeReport) -> tuple[dict[str, Any], list[Item]]:
    """All of it for programs, and the categories one by one."""
    categories = {name: to_builtins(size) for name, size in report.categories.items()}
    orphans = {**to_builtins(report.orphans), "count": report.num_orphans}
    document = {
        "total_size_bytes": report.total_size_bytes,
        "total_allocated_bytes": report.total_allocated_bytes,
        "categories": categories,
        "orphans": orphans,
        "num_dangling": report.num_dangling,
        "scanned_at": report.scanned_at,
        "is_scanning": report.is_scanning,
        "top": to_builtins(report.top),
    }
    return document, [{"category": name, **sizes} for name, sizes in categories.items()]


def _lines(report: SizeReport, items: list[Item], *, breakdown: bool, top: int) -> list[str]:
    lines: list[str] = []
    if breakdown:
        total = {"size_bytes": report.total_size_bytes, "allocated_bytes": report.total_allocated_bytes}
        lines += table_lines(SIZE_COLUMNS, [*items, {"category": "total", **total}], width=None)
        orphans = f"{report.num_orphans:,} ({size_text(report.orphans.allocated_bytes)} on disk, counted above)"
        found = [("orphans", orphans), ("dangling", f"{report.num_dangling:,} entries")]
        lines += ["", *pairs([*found, ("counted (UTC)", counted_text(report.scanned_at))])()]
    if top:
        entries: list[Item] = to_builtins(report.top)
        lines += [""] * bool(lines) + table_lines(TOP_COLUMNS, entries, width=None)
    return lines
