"""Options that several commands take.

Layer: motools.cli. Imports typer.
Invariant: one option is spelled, explained and defaulted in one place.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
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


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


CacheDir = Annotated[
    Path, typer.Option("--cache-dir", "-d", envvar="MOTOOLS_CACHE_DIR", help="The cache directory.", show_default=True)
]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How to print it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
DEFAULT_DIR = Path(".motools")


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
