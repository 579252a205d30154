"""Options that several commands take, and how their values are read.

Layer: motools.cli. Imports typer.
Invariant: one option is spelled, explained and defaulted in one place.
"""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer


class Kind(StrEnum):
    """What can be listed."""

    DATASETS = "datasets"
    MODELS = "models"
    EVALS = "evals"


class Clearable(StrEnum):
    """What can be cleared."""

    DATASETS = "datasets"
    MODELS = "models"
    EVALS = "evals"
    ALL = "all"


class LeaseKind(StrEnum):
    """What can be computed once."""

    DATASET = "dataset"
    MODEL = "model"
    EVAL = "eval"


class Result(StrEnum):
    """Where a command leaves its result."""

    FILE = "file"
    STDOUT = "stdout"


class OnFailureChoice(StrEnum):
    """What to do when whoever computes it has failed."""

    RAISE = "raise"
    TAKE_OVER = "take-over"


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


def _absolute(name: str) -> str:
    """The directory's absolute path. An empty name, which an unset variable leaves, does not mean the working one."""
    if not name:
        raise typer.BadParameter("it is empty")
    return os.path.abspath(name)  # noqa: PTH100 - links stay as they were typed


CacheDir = Annotated[
    str,
    typer.Option(
        "--cache-dir",
        "-d",
        metavar="DIR",
        envvar="MOTOOLS_CACHE_DIR",
        callback=_absolute,
        help="The cache directory.",
    ),
]
DEFAULT_DIR = ".motools"

FormatOption = Annotated[Format, typer.Option("--format", metavar="FORMAT", help="table, json, jsonl or csv.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]

LeaseKindOption = Annotated[
    LeaseKind | None, typer.Option("--kind", metavar="KIND", help="Only of this kind: dataset, model or eval.")
]
KindsOption = Annotated[
    list[LeaseKind] | None,
    typer.Option("--kind", metavar="KIND", help="Only dataset, model or eval. Repeatable."),
]
Downstream = Annotated[bool, typer.Option("--downstream", help="Also what was made from them.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Force = Annotated[bool, typer.Option("--force", help="Pinned entries, too.")]
NoTrash = Annotated[bool, typer.Option("--no-trash", help="Free the room at once: no undo.")]


def chosen(output: Format, *, json: bool) -> Format:
    """The format asked for.

    Raises:
        typer.BadParameter: `--json` together with another format.
    """
    if not json:
        return output
    if output not in (Format.TABLE, Format.JSON):
        raise typer.BadParameter(f"--json and --format {output.value} exclude each other")
    return Format.JSON


def whole_number(text: str, option: str, highest: int) -> int:
    """A number from 1; read here, because typer would load pydantic for it.

    Raises:
        typer.BadParameter: it is none, or too large.
    """
    if not text.isascii() or not text.isdigit() or len(text) > len(str(highest)) or not 1 <= int(text) <= highest:
        raise typer.BadParameter(f"{text!r} is no whole number from 1 to {highest}", param_hint=option)
    return int(text)
