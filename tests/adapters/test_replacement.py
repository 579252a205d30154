"""Another database comes into the place of cache.db."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from motoolsd.adapters.directory import CacheDirectory, open_directory
from motoolsd.adapters.replacement import (
    abandon_replacement,
    begin_replacement,
    decide_replacement,
    finish_replacement,
)

NOW = "20260131T235959Z"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[CacheDirectory]:
    """A cache directory with a database and its write-ahead log."""
    with open_directory(str(tmp_path)) as opened:
        for name in ("cache.db", "cache.db-wal", "cache.db-shm"):
            (tmp_path / name).write_text(f"old {name}")
        yield opened


def files(directory: CacheDirectory) -> dict[str, str]:
    """What lies right in it."""
    return {path.name: path.read_text() for path in Path(directory.path).iterdir() if path.is_file()}


def decide(directory: CacheDirectory, text: str = "new") -> None:
    """Come as far as the decision."""
    Path(begin_replacement(directory)).write_text(text)
    decide_replacement(directory, NOW)


def test_old_one_is_set_aside_with_its_log(directory: CacheDirectory) -> None:
    """Under names by which SQLite finds the log again."""
    decide(directory)
    aside = finish_replacement(directory)
    assert aside == os.fsencode(f"{directory.path}/cache.db.replaced-{NOW}")
    assert files(directory) == {
        "cache.db": "new",
        f"cache.db.replaced-{NOW}": "old cache.db",
        f"cache.db.replaced-{NOW}-wal": "old cache.db-wal",
        f"cache.db.replaced-{NOW}-shm": "old cache.db-shm",
    }


def test_nothing_is_done_before_it_is_decided(directory: CacheDirectory) -> None:
    """What was only begun goes; the old one stays in its place."""
    before = files(directory)
    Path(begin_replacement(directory)).write_text("half")
    assert finish_replacement(directory) is None
    assert files(directory) == before
    begin_replacement(directory)
    abandon_replacement(directory)
    assert files(directory) == before


@pytest.mark.parametrize("moved", [[], ["cache.db"], ["cache.db", "cache.db-wal"], ["cache.db-wal"]])
def test_what_was_half_done_is_finished(directory: CacheDirectory, moved: list[str]) -> None:
    """Whatever was moved aside before the kill stays together with what follows."""
    decide(directory)
    for name in moved:
        aside = name.replace("cache.db", f"cache.db.replaced-{NOW}")
        Path(directory.path, name).rename(Path(directory.path, aside))
    finish_replacement(directory)
    assert files(directory)["cache.db"] == "new"
    assert files(directory)[f"cache.db.replaced-{NOW}-wal"] == "old cache.db-wal"
    assert "cache.db-wal" not in files(directory)
    assert finish_replacement(directory) is None


def test_second_of_one_second_gets_names_of_its_own(directory: CacheDirectory) -> None:
    """Nothing that was set aside is replaced."""
    for text in ("one", "two"):
        decide(directory, text)
        finish_replacement(directory)
    found = files(directory)
    assert found["cache.db"] == "two"
    assert found[f"cache.db.replaced-{NOW}"] == "old cache.db"
    assert found[f"cache.db.replaced-{NOW}.2"] == "one"


def test_missing_database_is_no_hindrance(directory: CacheDirectory) -> None:
    """Somebody moved it away."""
    for name in list(files(directory)):
        Path(directory.path, name).unlink()
    decide(directory)
    finish_replacement(directory)
    assert files(directory) == {"cache.db": "new"}
