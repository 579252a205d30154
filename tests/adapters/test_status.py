"""What is said of many names at a time is what os.stat says of each."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from motoolsd.adapters import status
from motoolsd.adapters.status import CHUNK_NAMES, Statuses
from tests.adapters.places import HOSTILE_NAMES

FIELDS = ("st_mode", "st_nlink", "st_ino", "st_dev", "st_size", "st_blocks", "st_mtime_ns", "st_ctime_ns")


@pytest.fixture(params=["statx", "stat"])
def statuses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Statuses:
    """With the call, and as on a C library that does not have it."""
    if request.param == "stat":
        monkeypatch.setattr(status, "_statx", None)
    return Statuses()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[int]:
    """An open directory with everything that there is."""
    for name in HOSTILE_NAMES:
        (tmp_path / os.fsdecode(name)).write_bytes(name * 3)
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 40)
    os.link(tmp_path / "sparse", tmp_path / "second")
    os.utime(tmp_path / "second", ns=(1, -1_500_000_000))
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("directory")
    (tmp_path / "nowhere").symlink_to("missing")
    os.mkfifo(tmp_path / "pipe")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_every_name_is_told_as_stat_tells_it(statuses: Statuses, place: int) -> None:
    """Links themselves, hostile names, sizes over 4 GB and times before 1970 included."""
    names = [os.fsencode(name) for name in os.listdir(place)]
    statuses.look_at(place, names)
    rows = zip(names, statuses.brief(), statuses.dated(), strict=False)
    for position, (name, brief, dated) in enumerate(rows):
        found, wanted = statuses.status(position), os.stat(name, dir_fd=place, follow_symlinks=False)
        assert [getattr(found, field) for field in FIELDS] == [getattr(wanted, field) for field in FIELDS], name
        assert brief == (wanted.st_nlink, wanted.st_mode, wanted.st_size, wanted.st_blocks), name
        assert dated == (*brief, *divmod(wanted.st_ctime_ns, 10**9), *divmod(wanted.st_mtime_ns, 10**9)), name
    assert not statuses.errors


def test_missing_name_has_no_type_and_the_others_are_told(statuses: Statuses, place: int) -> None:
    """It vanished between reading the directory and looking."""
    statuses.look_at(place, [b"sparse", b"gone", b"directory"])
    assert [mode != 0 for (_, mode, _, _), _ in zip(statuses.brief(), range(3), strict=False)] == [True, False, True]
    assert {position: error.errno for position, error in statuses.errors.items()} == {1: errno.ENOENT}


def test_buffer_is_used_again(statuses: Statuses, place: int) -> None:
    """What was there before, errors included, says nothing of the names that come after."""
    statuses.look_at(place, [b"gone"] * CHUNK_NAMES)
    statuses.look_at(place, [b"sparse"])
    assert statuses.status(0).st_size == 1 << 40
    assert not statuses.errors


def test_call_that_a_container_refuses_is_replaced(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused once, it is not tried again."""
    calls: list[object] = []

    def refused(*arguments: object) -> int:
        calls.append(arguments)
        return -1

    monkeypatch.setattr(status, "_statx", refused)
    statuses = Statuses()
    for _ in range(2):
        statuses.look_at(place, [b"sparse", b"directory"])
        assert statuses.status(0).st_size == 1 << 40
    assert len(calls) == 2
