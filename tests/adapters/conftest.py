"""An open cache directory, and something outside of it that nobody may touch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from motoolsd.adapters.descent import OPEN_DIRECTORY, Descent
from motoolsd.adapters.directory import CacheDirectory, open_directory
from motoolsd.adapters.filetree import DirectoryTree
from tests.adapters.places import BeforeEntering, files_below


@pytest.fixture
def directory(cache_dir: Path) -> Iterator[CacheDirectory]:
    """A fresh cache directory, held open."""
    with open_directory(str(cache_dir)) as opened:
        yield opened


@pytest.fixture
def descent(directory: CacheDirectory) -> Descent:
    """The way into it."""
    return Descent(directory.descriptor)


@pytest.fixture
def tree(directory: CacheDirectory) -> DirectoryTree:
    """Its files, as the engine has them."""
    return DirectoryTree(directory)


@pytest.fixture
def outside(short_dir: Path) -> Iterator[Path]:
    """A directory beside the cache; a test that changes a file in it fails."""
    path = short_dir / "outside"
    (path / "a" / "b").mkdir(parents=True)
    (path / "precious").write_bytes(b"precious" * 100)
    (path / "a" / "b" / "deep").write_bytes(b"deep" * 100)
    before = files_below(path)
    yield path
    assert files_below(path) == before


@pytest.fixture
def before_entering(monkeypatch: pytest.MonkeyPatch) -> BeforeEntering:
    """Do something, once, right before a directory of a name is entered, after it was seen to be one; or raise."""

    def install(name: bytes, act: Callable[[], None]) -> None:
        enter = Descent.enter_on_mount
        left = [act]

        def meddling(self: Descent, parent: int, entered: bytes, flags: int = OPEN_DIRECTORY) -> int:
            if entered == name and left:
                left.pop()()
            return enter(self, parent, entered, flags)

        monkeypatch.setattr(Descent, "enter_on_mount", meddling)

    return install
