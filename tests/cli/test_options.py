"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from motools.cache import CacheUtils, InMemoryCache
from motools.cli import cache as cache_commands
from motools.cli.options import Format, chosen
from tests.cli.conftest import Motools


@pytest.fixture
def directories(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directories that commands open."""
    opened: list[str] = []

    def open_utils(directory: str) -> CacheUtils:
        opened.append(directory)
        return CacheUtils(InMemoryCache())

    monkeypatch.setattr(cache_commands, "open_utils", open_utils)
    return opened


def test_directory_is_the_one_of_the_option(
    motools: Motools, directories: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`--cache-dir` and `-d` come before the environment, the environment before `.motools`; all become absolute."""
    monkeypatch.chdir(tmp_path)
    motools("cache", "stats")
    monkeypatch.setenv("MOTOOLS_CACHE_DIR", "/from/environment")
    motools("cache", "stats")
    motools("cache", "stats", "--cache-dir", "typed")
    motools("cache", "stats", "-d", "/typed/../elsewhere")
    assert directories == [f"{tmp_path}/.motools", "/from/environment", f"{tmp_path}/typed", "/elsewhere"]


def test_empty_directory_is_refused(motools: Motools, directories: list[str]) -> None:
    """`-d "$UNSET"` does not mean the working directory."""
    done = motools("cache", "clear", "all", "--yes", "-d", "")
    assert done.code == 2
    assert "it is empty" in done.err
    assert directories == []


def test_json_is_short_for_a_format() -> None:
    """`--json` alone is JSON, and may repeat `--format json`."""
    assert chosen(Format.TABLE, json=True) is Format.JSON
    assert chosen(Format.JSON, json=True) is Format.JSON
    assert chosen(Format.CSV, json=False) is Format.CSV


def test_json_and_another_format_exclude_each_other() -> None:
    """Nobody has to guess which of two formats wins."""
    with pytest.raises(typer.BadParameter, match="--json and --format csv"):
        chosen(Format.CSV, json=True)


def test_unknown_format_is_refused_with_those_there_are(motools: Motools, directories: list[str]) -> None:
    """A misspelled format is a usage error that names the formats."""
    done = motools("cache", "stats", "--format", "xml")
    assert done.code == 2
    assert "'xml' is not table, json, jsonl or csv" in done.err
    assert directories == []
