"""Down the tree one component at a time: never through a link, never onto another mount."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from motoolsd.adapters import descent as module
from motoolsd.adapters.descent import Descent, described, describing, look, split
from motoolsd.adapters.directory import CacheDirectory
from motoolsd.core.files import PathRefused
from motoolsd.core.ports import DiskFull, PathMissing, PathTaken, TreeError
from tests.adapters.places import HOSTILE_NAMES, TMPFS, bind, descriptors, errno_of, mounted, write


@pytest.fixture(params=["openat2", "older kernel", "filtered"])
def any_descent(request: pytest.FixtureRequest, directory: CacheDirectory, monkeypatch: pytest.MonkeyPatch) -> Descent:
    """With openat2; on a kernel without it; in a container that refuses it."""
    number = {"older kernel": errno.ENOSYS, "filtered": errno.EPERM}.get(request.param)
    if number is not None:
        monkeypatch.setattr(module, "_syscall", lambda *_arguments: -1)
        monkeypatch.setattr(ctypes, "get_errno", lambda: number)
    return Descent(directory.descriptor)


def test_directory_is_entered_by_any_name(any_descent: Descent, cache_dir: Path) -> None:
    """And the descriptor leads to just it."""
    for name in HOSTILE_NAMES:
        path = cache_dir / "runs" / os.fsdecode(name)
        path.mkdir()
        with any_descent.opened((b"runs", name)) as found:
            assert os.path.samestat(os.fstat(found), path.stat())


def test_links_are_not_entered(any_descent: Descent, cache_dir: Path, outside: Path) -> None:
    """Whatever they point to, at any place of a path; nor files."""
    (cache_dir / "runs" / "out").symlink_to(outside)
    (cache_dir / "runs" / "loop").symlink_to("loop")
    (cache_dir / "runs" / "here").symlink_to(".")
    write(cache_dir / "runs" / "file")
    before = descriptors()
    for name in (b"out", b"loop", b"here", b"file"):
        for names in ((b"runs", name), (b"runs", name, b"a"), (b"runs", name, b"runs", name)):
            opened = partial(ExitStack().enter_context, any_descent.opened(names))
            assert errno_of(opened) in (errno.ELOOP, errno.ENOTDIR)
    assert descriptors() == before


@pytest.mark.parametrize("options", ["tmpfs", "bind"])
def test_mount_is_not_entered(any_descent: Descent, cache_dir: Path, outside: Path, options: str) -> None:
    """Neither another file system, nor a directory of the same one that is shown at a second place."""
    target = cache_dir / "runs" / "mount"
    target.mkdir()
    before = descriptors()
    with mounted(target, *(TMPFS if options == "tmpfs" else bind(outside))):
        runs = os.open(cache_dir / "runs", os.O_RDONLY)
        for enter in (any_descent.enter, any_descent.enter_on_mount, any_descent.point_at):
            assert errno_of(partial(enter, runs, b"mount")) == errno.EXDEV
        os.close(runs)
    assert descriptors() == before


def test_open_directory_stays_the_same_whatever_comes_into_its_place(
    descent: Descent, cache_dir: Path, outside: Path
) -> None:
    """Work goes on in what was opened."""
    (cache_dir / "runs" / "a").mkdir()
    with descent.opened((b"runs", b"a")) as opened:
        (cache_dir / "runs" / "a").rename(cache_dir / "runs" / "b")
        (cache_dir / "runs" / "a").symlink_to(outside)
        os.mkdir("new", dir_fd=opened)
    assert (cache_dir / "runs" / "b" / "new").is_dir()


def test_missing_directories_are_made_for_us_alone(descent: Descent, cache_dir: Path) -> None:
    """All of them, mode 0700; what is there is left as it is."""
    (cache_dir / "runs").chmod(0o755)
    with descent.opened((b"runs", b"x", b"y"), make=True):
        pass
    modes = [stat.S_IMODE((cache_dir / name).stat().st_mode) for name in ("runs", "runs/x", "runs/x/y")]
    assert modes == [0o755, 0o700, 0o700]


def test_directory_that_is_in_the_way_is_no_missing_one(descent: Descent, cache_dir: Path, outside: Path) -> None:
    """A link or file where a directory is to be made: EEXIST, and nothing is made behind it."""
    (cache_dir / "runs" / "link").symlink_to(outside)
    write(cache_dir / "runs" / "file")
    for name in (b"link", b"file"):
        with pytest.raises(FileExistsError), descent.opened((b"runs", name, b"new"), make=True):
            pass


def test_link_that_comes_before_the_directory_is_made(
    descent: Descent, cache_dir: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody is faster, between looking and making."""
    mkdir = os.mkdir

    def faster(name: bytes, mode: int, *, dir_fd: int) -> None:
        os.symlink(outside, name, dir_fd=dir_fd)
        mkdir(name, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", faster)
    with pytest.raises(FileExistsError), descent.opened((b"runs", b"new"), make=True):
        pass


def test_only_regular_files_are_opened(descent: Descent, cache_dir: Path, outside: Path) -> None:
    """A pipe would block, a link lead elsewhere."""
    runs = cache_dir / "runs"
    os.mkfifo(runs / "pipe")
    (runs / "link").symlink_to(outside / "precious")
    (runs / "directory").mkdir()
    write(runs / "file", b"content")
    with descent.opened((b"runs",)) as parent:
        for name in (b"pipe", b"link", b"directory"):
            assert errno_of(partial(descent.open_file, parent, name)) == errno.EINVAL
        descriptor = descent.open_file(parent, b"file")
        assert os.read(descriptor, 100) == b"content"
        os.close(descriptor)


def test_database_is_not_opened_under_any_name(descent: Descent, cache_dir: Path) -> None:
    """Closing it again would drop SQLite's locks."""
    write(cache_dir / "cache.db-wal")
    os.link(cache_dir / "cache.db-wal", cache_dir / "runs" / "innocent")
    before = descriptors()
    with descent.opened((b"runs",)) as parent:
        assert errno_of(partial(descent.open_file, parent, b"innocent")) == errno.EPERM
    assert descriptors() == before


def test_file_that_something_is_mounted_on_is_not_opened(any_descent: Descent, cache_dir: Path, outside: Path) -> None:
    """What is seen there lies elsewhere."""
    target = write(cache_dir / "runs" / "file")
    with mounted(target, *bind(outside / "precious")), any_descent.opened((b"runs",)) as parent:
        assert errno_of(partial(any_descent.open_file, parent, b"file")) == errno.EXDEV


def test_name_that_is_too_long_is_not_there(descent: Descent) -> None:
    """No file has it, so nothing can be in it."""
    assert look(descent.root, b"n" * 256) is None


@pytest.mark.parametrize(
    "path", [b"runs", b"/etc/passwd", b"runs/../x", b"runs//x", b"runs/.", b"other/x", b"runs/a\0b"]
)
def test_path_that_no_entry_may_own_is_refused(path: bytes) -> None:
    """Though whoever hands it down has checked it."""
    with pytest.raises(PathRefused):
        split(path)


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        (errno.ENOENT, PathMissing),
        (errno.ENOTDIR, PathMissing),
        (errno.ELOOP, PathMissing),
        (errno.ENAMETOOLONG, PathMissing),
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EEXIST, PathTaken),
        (errno.EXDEV, TreeError),
        (errno.EBUSY, TreeError),
        (errno.EACCES, TreeError),
        (errno.EIO, TreeError),
    ],
)
def test_refusals_of_the_system_are_told_apart(number: int, wanted: type[TreeError]) -> None:
    """The engine decides by them."""
    with pytest.raises(TreeError) as caught, describing(b"runs/\xff"):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is wanted
    assert caught.value.path == b"runs/\xff"
    assert type(described(b"runs/x", OSError(number, "no"))) is wanted
