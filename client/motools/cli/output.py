"""Printing: tables for people; JSON, JSON lines and CSV for programs.

Layer: motools.cli. Imports options and tables.
Invariant: data leaves by `write`, messages by `say`; a reader that closes its pipe ends the command quietly.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from json import dumps
from typing import Any

import typer

from motools.cache.clock import utc_text
from motools.cli.exits import DONE
from motools.cli.options import Format
from motools.cli.tables import Column, Item, pair_lines, shown, shown_lines, table_lines, wrapped

SCHEMA_VERSION = 1


class OutputFailed(Exception):
    """Stdout cannot be written, because the disk is full for example."""


def print_items(
    items: Sequence[Item],
    names: Sequence[str],
    columns: Sequence[Column],
    output: Format,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Print a list.

    Args:
        items: all fields of each item.
        names: those fields, known even if there is no item.
        columns: what a table shows.
        output: how.
        more: what JSON shows beside them.
    """
    if output is Format.TABLE:
        _write_lines(table_lines(columns, items, width=terminal_width(), is_bold=_has_style()))
    else:
        _write_data({**(more or {}), "items": items}, items, names, output)


def print_document(
    document: Mapping[str, Any],
    table: Callable[[], Sequence[str]],
    output: Format,
    *,
    items: Sequence[Item] | None = None,
) -> None:
    """Print one object.

    Args:
        document: what JSON shows.
        table: makes the lines of a table.
        output: how.
        items: what JSON lines and CSV show, if that is not the document on one line.
    """
    if output is Format.TABLE:
        _write_lines(table())
    else:
        lines = [document] if items is None else items
        _write_data(document, lines, tuple(lines[0]), output)


def pairs(found: Sequence[tuple[str, str]]) -> Callable[[], Sequence[str]]:
    """A table of names and values."""
    return lambda: pair_lines(found)


def confirm(question: str) -> bool:
    """Ask at the terminal; anything but a yes, the end of the input included, is a no."""
    sys.stderr.write(f"{shown_lines(question)} [y/N] ")
    sys.stderr.flush()
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        say("")
        raise
    if not answer.endswith("\n"):
        sys.stderr.write("\n")
    return answer.strip().lower() in {"y", "yes"}


def can_ask() -> bool:
    """Whether somebody sits at the other end of stdin."""
    return sys.stdin is not None and sys.stdin.isatty()


def say(text: str) -> None:
    """A message for the person at the terminal, broken between words there."""
    text = shown_lines(text)
    if sys.stderr is not None and sys.stderr.isatty():
        text = wrapped(text, _columns())
    typer.echo(text, err=True)


def say_error(text: str) -> None:
    """Why the command fails, and what to do next."""
    say(f"motools: error: {text}")


def write(text: str) -> None:
    """Data, to stdout.

    File names that are no UTF-8 leave as the bytes that they are; a character that stdout's encoding does not have
    leaves as an escape.

    Raises:
        typer.Exit: nobody reads any more.
        OutputFailed: it cannot be written.
    """
    stream = sys.stdout
    if stream is None:
        # The command was started with stdout closed.
        return
    try:
        stream.flush()
        stream.buffer.write(_encoded(text, stream.encoding))
        stream.flush()
    except BrokenPipeError as error:
        _discard_stdout()
        raise typer.Exit(DONE) from error
    except OSError as error:
        _discard_stdout()
        raise OutputFailed(f"the output cannot be written: {error.strerror}") from error


def _encoded(text: str, encoding: str) -> bytes:
    try:
        return text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace")


def _discard_stdout() -> None:
    """Python flushes stdout once more when it exits, and would complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _write_data(document: Mapping[str, Any], items: Sequence[Item], names: Sequence[str], output: Format) -> None:
    if output is Format.JSON:
        write(_json_text({"schema_version": SCHEMA_VERSION, "as_of": utc_text(), **document}))
    elif output is Format.JSONL:
        write("".join(f"{dumps(item)}\n" for item in items))
    else:
        write(_csv_text(items, names))


def _json_text(document: Mapping[str, Any]) -> str:
    """One document as JSON, all ASCII; an item of a list on one line, which both people and `grep` can read."""
    if not document.get("items"):
        return f"{dumps(document, indent=2)}\n"
    head = dumps({name: value for name, value in document.items() if name != "items"})
    lines = ",\n".join(map(dumps, document["items"]))
    return f'{head[:-1]}, "items": [\n{lines}\n]}}\n'


def _csv_text(items: Sequence[Item], names: Sequence[str]) -> str:
    import csv
    from io import StringIO

    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    # At a terminal somebody looks at it, and what was stored is not to be obeyed by the terminal.
    safe = shown if _is_terminal() else str
    writer.writerows([_csv_cell(item[name], safe) for name in names] for item in items)
    return text.getvalue()


def _csv_cell(value: object, safe: Callable[[str], str]) -> str:
    if value is None:
        return ""
    return safe(value) if isinstance(value, str) else dumps(value)


def _write_lines(lines: Sequence[str]) -> None:
    write("".join(f"{line}\n" for line in lines))


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _has_style() -> bool:
    return _is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def terminal_width() -> int | None:
    """Columns of the terminal; None where stdout is none."""
    return _columns() if _is_terminal() else None


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns
