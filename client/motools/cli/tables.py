"""Tables for people: cells made safe to show, columns laid out.

Layer: motools.cli. Imports nothing.
Invariant: ids stay whole; nothing that is stored can move the cursor, colour the screen or break a line.

Written out instead of taken from rich: ten thousand rows took rich six seconds and take a tenth of one here, and no
command need load it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from unicodedata import combining, east_asian_width

BOLD = "\x1b[1m"
PLAIN = "\x1b[0m"
GAP = "  "
UNKNOWN = "-"
SHOWN_MAX = 2_000
"""Characters of a cell; `--json` has the whole."""
ALIGNED_WIDTH_MAX = 200
"""A longer cell pushes the rest of its line to the right, instead of all other lines."""

_WORD = re.compile(r"(?:`[^`]*`|\S)+")

Item = Mapping[str, Any]


class Column(NamedTuple):
    """A column of a table: `show` makes the cell of an item."""

    heading: str
    show: Callable[[Item], str]
    is_number: bool = False


def plain(name: str) -> Callable[[Item], str]:
    """Shows a field as it is."""
    return lambda item: shown(item[name])


def shown(value: object) -> str:
    """A value as a table may show it: on one line, with nothing in it that a terminal would obey."""
    if value is None:
        return UNKNOWN
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) > SHOWN_MAX:
        text = f"{text[:SHOWN_MAX]}... ({len(text):,} characters)"
    return text if text.isprintable() else "".join(map(_escaped, text))


def shown_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join("\t".join(map(shown, line.split("\t"))) for line in text.split("\n"))


def wrapped(text: str, width: int) -> str:
    """A text broken between words, but never inside `a command`: that is there to be copied."""
    return "\n".join(_wrapped_line(line, width) for line in text.split("\n"))


def _wrapped_line(line: str, width: int) -> str:
    lines = [""]
    for word in _WORD.findall(line):
        if lines[-1] and cell_width(lines[-1]) + 1 + cell_width(word) > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":
        # A byte that is no UTF-8, from a file name.
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def size_text(size_bytes: int) -> str:
    """Bytes for people: `1.2 MiB`."""
    size = float(size_bytes)
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        # What would be printed as 1024.0 belongs to the next unit.
        if size < 1023.95:  # noqa: PLR2004 - as the line above says
            break
        size /= 1024
        unit = larger
    return f"{size_bytes} B" if unit == "B" else f"{size:.1f} {unit}"


def duration_text(seconds: float) -> str:
    """A duration for people, in its two largest units: `45 s`, `3 min 12 s`, `5 h 2 min`, `3 d 4 h`."""
    minutes, left_s = divmod(int(seconds), 60)
    hours, left_min = divmod(minutes, 60)
    days, left_h = divmod(hours, 24)
    parts = [(days, "d"), (left_h, "h"), (left_min, "min"), (left_s, "s")]
    first = next((place for place, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count) or "0 s"


def time_text(stamp: str | None) -> str:
    """An RFC 3339 time stamp for people: to the second, still UTC."""
    return shown(stamp).replace("T", " ").split(".")[0].removesuffix("Z")


def cell_width(text: str) -> int:
    """How many places of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def table_lines(
    columns: Sequence[Column], items: Sequence[Item], *, width: int | None, is_bold: bool = False
) -> list[str]:
    """A heading and one line an item; where that does not fit, one block an item, so that ids can be copied whole.

    Args:
        columns: what to show.
        items: the fields of each item.
        width: of the terminal; None where there is none.
        is_bold: whether the heading is to stand out.
    """
    headings = [column.heading for column in columns]
    rows = [[column.show(item) for column in columns] for item in items]
    widths = list(map(cell_width, headings))
    for row in rows:
        widths = list(map(max, widths, map(cell_width, row)))
    if width is not None and sum(widths) + len(GAP) * (len(widths) - 1) > width:
        return _block_lines(headings, rows)
    numbers = [column.is_number for column in columns]
    heading = _row_line(headings, widths, numbers)
    return [f"{BOLD}{heading}{PLAIN}" if is_bold else heading, *(_row_line(row, widths, numbers) for row in rows)]


def pair_lines(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Names and their values, one pair a line."""
    width = max(len(name) for name, _ in pairs)
    return [f"{name:<{width}}{GAP}{value}" for name, value in pairs]


def note_lines(rows: Sequence[tuple[Sequence[str], str]], *, width: int | None) -> list[str]:
    """Short words in columns, then a text of any length, broken between words and indented.

    Args:
        rows: the words, already safe to show, and the text; a text alone goes on below the one before.
        width: of the terminal; None: nothing is broken.
    """
    count = max((len(words) for words, _ in rows), default=0)
    widths = [max((len(words[place]) for words, _ in rows if words), default=0) for place in range(count)]
    indent = sum(widths) + len(GAP) * count
    lines: list[str] = []
    for words, text in rows:
        padded = [word.ljust(size) for word, size in zip(words, widths, strict=True)] if words else []
        first = "".join(f"{word}{GAP}" for word in padded).ljust(indent)
        parts = (text if width is None else wrapped(text, max(width - indent, 1))).split("\n")
        lines += [f"{first}{parts[0]}".rstrip(), *(" " * indent + part for part in parts[1:])]
    return lines


def _row_line(cells: Sequence[str], widths: Sequence[int], numbers: Sequence[bool]) -> str:
    padded = []
    for cell, width, is_number in zip(cells, widths, numbers, strict=True):
        padding = " " * (min(width, ALIGNED_WIDTH_MAX) - cell_width(cell))
        padded.append(padding + cell if is_number else cell + padding)
    return GAP.join(padded).rstrip()


def _block_lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines: list[str] = []
    for row in rows:
        if lines:
            lines.append("")
        lines += pair_lines(list(zip(headings, row, strict=True)))
    return lines
