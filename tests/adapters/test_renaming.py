"""Renaming never replaces anything."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from motoolsd.adapters import renaming
from motoolsd.adapters.renaming import rename
from tests.adapters.places import HOSTILE_NAMES, errno_of, write


@pytest.fixture(params=["renameat2", "old C library", "file system without flags"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one step, and where that is not to be had."""
    if request.param == "old C library":
        monkeypatch.setattr(renaming, "_renameat2", None)
    elif request.param == "file system without flags":
        monkeypatch.setattr(renaming, "_renameat2", lambda *_arguments: -1)
        monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EINVAL)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Two open directories."""
    opened = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        opened.append(os.open(tmp_path / name, os.O_RDONLY))
    yield opened[0], opened[1]
    for descriptor in opened:
        os.close(descriptor)


pytestmark = pytest.mark.usefixtures("_way")


def test_entry_of_any_name_moves(places: tuple[int, int], tmp_path: Path) -> None:
    """Content, link or directory: it is the same afterwards."""
    for number, name in enumerate(HOSTILE_NAMES):
        write(tmp_path / "a" / os.fsdecode(name), name)
        rename(places[0], name, places[1], b"%d" % number)
        assert (tmp_path / "b" / str(number)).read_bytes() == name
    assert not list((tmp_path / "a").iterdir())


@pytest.mark.parametrize("kind", ["file", "directory", "link to nothing"])
def test_what_is_there_stays(places: tuple[int, int], tmp_path: Path, kind: str) -> None:
    """Even an empty directory, which rename(2) alone would replace by another."""
    there = tmp_path / "b" / "name"
    (tmp_path / "a" / "name").mkdir() if kind == "directory" else write(tmp_path / "a" / "name", b"ours")
    if kind == "file":
        write(there, b"theirs")
    elif kind == "directory":
        there.mkdir()
    else:
        there.symlink_to("nowhere")
    before = there.lstat().st_ino
    with pytest.raises(FileExistsError):
        rename(places[0], b"name", places[1], b"name")
    assert there.lstat().st_ino == before
    assert (tmp_path / "a" / "name").exists()


def test_other_refusals_are_handed_on(places: tuple[int, int], tmp_path: Path) -> None:
    """Nothing to move; a directory into itself."""
    assert errno_of(lambda: rename(places[0], b"gone", places[1], b"x")) == errno.ENOENT
    (tmp_path / "a" / "d").mkdir()
    inner = os.open(tmp_path / "a" / "d", os.O_RDONLY)
    assert errno_of(lambda: rename(places[0], b"d", inner, b"x")) == errno.EINVAL
    os.close(inner)
