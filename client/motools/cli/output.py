"""Printing: tables for people; JSON, JSON lines and CSV for programs.

Layer: motools.cli. Imports options; rich only when a table is printed.
Invariant: ids stay whole; nothing that is stored can move the cursor, colour the screen or break a line.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from motools.cache.clock import utc_text
from motools.cache.entries import Entry
from motools.cli.options import Format

SCHEMA_VERSION = 1
SHOWN_MAX = 400
"""Characters of one cell of a table; programs get all of it."""
WIDTH_UNBOUNDED = 1_000_000

Item = dict[str, Any]


class Column(NamedTuple):
    """A column of a table, in words: `show` makes the cell of an item."""

    heading: str
    show: Callable[[Item], str]
    is_number: bool = False


def plain(name: str) -> Callable[[Item], str]:
    """A column that shows a field as it is."""
    return lambda item: shown(item.get(name))


def print_items(entries: Sequence[msgspec.Struct], columns: Sequence[Column], output: Format) -> None:
    """Print a list."""
    items = [_as_item(entry) for entry in entries]
    if output is Format.JSON:
        _print_json({**_head(), "items": items})
    elif output is Format.JSONL:
        for item in items:
            print(json.dumps(item))
    elif output is Format.CSV:
        _print_csv(tuple(items[0]) if items else (), items)
    else:
        _print_table(items, columns)


def _as_item(entry: msgspec.Struct) -> Item:
    """An entry's fields, what identifies it first."""
    item: Item = msgspec.to_builtins(entry)
    for name in Entry.__struct_fields__:
        if name in item:
            item[name] = item.pop(name)
    return item


def print_document(document: Item, rows: Sequence[tuple[str, str]], output: Format) -> None:
    """Print one object: as it is for programs, as names and values for people."""
    if output is Format.JSON:
        _print_json({**_head(), **document})
    elif output is Format.JSONL:
        print(json.dumps({**_head(), **document}))
    elif output is Format.CSV:
        flat = {name: value for name, value in document.items() if not isinstance(value, dict)}
        _print_csv(tuple(flat), [flat])
    else:
        _print_pairs(rows)


def shown(value: object) -> str:
    """A value as a table may show it: one line, nothing that a terminal would obey, not endless."""
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value)
    escaped = text if text.isprintable() else "".join(map(_escape, text[: SHOWN_MAX + 1]))
    if len(escaped) <= SHOWN_MAX:
        return escaped
    return f"{escaped[:SHOWN_MAX]}... ({len(text):,} characters)"


def _escape(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def size_text(size_bytes: int | None) -> str:
    """Bytes for people: `1.2 MiB`."""
    if size_bytes is None:
        return "-"
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:  # noqa: PLR2004 - what the units are made of
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def time_text(stamp: object) -> str:
    """A time stamp for people: to the second, still UTC."""
    return shown(stamp).replace("T", " ").split(".")[0].removesuffix("Z")


def _head() -> Item:
    return {"schema_version": SCHEMA_VERSION, "as_of": utc_text()}


def _print_json(document: Item) -> None:
    print(json.dumps(document, indent=2))


def _print_csv(names: Sequence[str], items: Sequence[Item]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    for item in items:
        writer.writerow([_csv_cell(item.get(name)) for name in names])


def _csv_cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict | list | bool) else value


def _print_pairs(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def _print_table(items: Sequence[Item], columns: Sequence[Column]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    is_terminal = sys.stdout.isatty()
    console = Console(highlight=False, markup=False, emoji=False, width=None if is_terminal else WIDTH_UNBOUNDED)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.heading, no_wrap=True, justify="right" if column.is_number else "left")
    cells = [[column.show(item) for column in columns] for item in items]
    for row in cells:
        table.add_row(*map(Text, row))
    if console.measure(table).maximum > console.width:
        # Too wide for this terminal: one block an entry, so that every id can still be copied whole.
        _print_blocks(cells, columns)
        return
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip())


def _print_blocks(cells: Sequence[Sequence[str]], columns: Sequence[Column]) -> None:
    for number, row in enumerate(cells):
        if number:
            print()
        _print_pairs([(column.heading, cell) for column, cell in zip(columns, row, strict=True)])
