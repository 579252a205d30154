"""The file has its blocks, nobody else may read it, and letting go of it never fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest

from motoolsd.adapters.ballast import BallastFile
from motoolsd.adapters.directory import CacheDirectory
from motoolsd.core.ports import DiskFull
from motoolsd.wire.names import BALLAST, BALLAST_SPARES

SIZE_BYTES = 1 << 20


def names_in(cache_dir: Path) -> set[str]:
    """The files of the ballast that are there."""
    return {path.name for path in cache_dir.iterdir() if path.name.startswith(BALLAST)}


def test_it_takes_real_blocks(directory: CacheDirectory, cache_dir: Path) -> None:
    """A hole would be no room."""
    ballast = BallastFile(directory)
    assert ballast.held_bytes() is None
    ballast.make(SIZE_BYTES)
    assert ballast.held_bytes() is not None
    assert (cache_dir / BALLAST).stat().st_blocks * 512 >= SIZE_BYTES
    assert (cache_dir / BALLAST).stat().st_mode & 0o7777 == 0o600
    assert names_in(cache_dir) == {BALLAST, *BALLAST_SPARES}


def test_it_is_made_anew_in_another_size(directory: CacheDirectory, cache_dir: Path) -> None:
    """What a kill has left of an earlier try does not stand in the way."""
    ballast = BallastFile(directory)
    ballast.make(SIZE_BYTES)
    (cache_dir / f"{BALLAST}.new").write_bytes(b"half")
    ballast.make(2 * SIZE_BYTES)
    assert (cache_dir / BALLAST).stat().st_size == 2 * SIZE_BYTES
    assert names_in(cache_dir) == {BALLAST, *BALLAST_SPARES}


def test_it_can_be_let_go_of_once(directory: CacheDirectory, cache_dir: Path) -> None:
    """Whoever asks again learns that there is nothing more to be had."""
    ballast = BallastFile(directory)
    ballast.make(SIZE_BYTES)
    assert ballast.release()
    assert names_in(cache_dir) == set()
    assert ballast.held_bytes() is None
    assert not ballast.release()


def test_a_part_can_be_let_go_of(directory: CacheDirectory, cache_dir: Path) -> None:
    """With all spare inodes, which are what a start needs."""
    ballast = BallastFile(directory)
    ballast.make(SIZE_BYTES)
    assert ballast.release(keep=0.75)
    assert names_in(cache_dir) == {BALLAST}
    assert (cache_dir / BALLAST).stat().st_size == SIZE_BYTES * 3 // 4


def test_full_disk_leaves_nothing_of_it(
    directory: CacheDirectory, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not be what fills the disk."""

    def fail(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(DiskFull):
        BallastFile(directory).make(SIZE_BYTES)
    assert names_in(cache_dir) == set()


def test_link_in_its_place_is_neither_counted_nor_followed(
    directory: CacheDirectory, cache_dir: Path, short_dir: Path
) -> None:
    """What it leads to is not ours to cut."""
    outside = short_dir / "outside"
    outside.write_bytes(b"precious")
    (cache_dir / BALLAST).symlink_to(outside)
    ballast = BallastFile(directory)
    assert ballast.held_bytes() is None
    ballast.release()
    assert outside.read_bytes() == b"precious"


def test_free_room_is_the_disks(directory: CacheDirectory) -> None:
    """In bytes."""
    assert BallastFile(directory).free_bytes() > 0
