"""The file tree as the engine has it: the port's promises, on a real directory."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from motoolsd.adapters.descent import Descent
from motoolsd.adapters.filetree import DirectoryTree
from motoolsd.core.files import Measured, PathRefused
from motoolsd.core.ports import FileTree, PathMissing, TreeError
from tests.adapters.places import (
    HOSTILE_NAMES,
    TMPFS,
    bind,
    descriptors,
    errno_of,
    failing,
    mounted,
    never,
    nothing,
    write,
)

if TYPE_CHECKING:
    # A type checker holds it.
    _: type[FileTree] = DirectoryTree


def purge(tree: DirectoryTree, removal: int) -> bool:
    """Without a pause."""
    return tree.purge(removal, step=nothing, is_stopped=never)


def test_what_is_at_a_path_is_seen(tree: DirectoryTree, cache_dir: Path, outside: Path) -> None:
    """A link itself; nothing behind one."""
    for name in HOSTILE_NAMES:
        write(cache_dir / "runs" / os.fsdecode(name) / "file", b"12345")
        seen = tree.see(b"runs/" + name + b"/file")
        assert seen is not None
        status = (cache_dir / "runs" / os.fsdecode(name) / "file").stat()
        assert seen == (status.st_dev, status.st_ino, False, 5, status.st_mtime_ns)
    (cache_dir / "runs" / "link").symlink_to(outside)
    link = tree.see(b"runs/link")
    assert link is not None
    assert not link.is_directory
    directory = tree.see(b"runs/...")
    assert directory is not None
    assert directory.is_directory


@pytest.mark.parametrize("path", [b"gone", b"gone/x", b"link/precious", b"file/x", b"n" * 256, b"n" * 256 + b"/x"])
def test_nothing_is_nothing(tree: DirectoryTree, cache_dir: Path, outside: Path, path: bytes) -> None:
    """For every method that looks: missing, behind a link, below a file, of a name that no file can have."""
    (cache_dir / "runs" / "link").symlink_to(outside)
    write(cache_dir / "runs" / "file")
    path = b"runs/" + path
    assert tree.see(path) is None
    assert tree.measure(path) is None
    assert tree.digest(path, never) is None
    assert tree.present([path]) == [False]


@pytest.mark.parametrize("path", [b"runs", b"runs/../cache.db", b"/etc/passwd", b"runs//x", b"cache.db"])
def test_path_that_no_entry_may_own_goes_nowhere(tree: DirectoryTree, path: bytes) -> None:
    """Whoever asks."""
    acts: list[Callable[[], object]] = [
        lambda: tree.see(path),
        lambda: tree.measure(path),
        lambda: tree.present([path]),
        lambda: tree.digest(path, never),
        lambda: tree.move_back(1, 0, path),
        lambda: tree.publish(b"s", path),
        lambda: tree.withdraw(b"s", path),
    ]
    for act in acts:
        with pytest.raises(PathRefused):
            act()


def test_files_and_directories_are_present(tree: DirectoryTree, cache_dir: Path, outside: Path) -> None:
    """Links, pipes and what is gone are not; answers stand where the questions stood."""
    (cache_dir / "runs" / "job").mkdir()
    write(cache_dir / "evals" / "m" / "log")
    (cache_dir / "runs" / "link").symlink_to(outside)
    os.mkfifo(cache_dir / "runs" / "pipe")
    paths = [b"runs/job", b"evals/m/log", b"runs/link", b"runs/gone", b"runs/pipe", b"evals/gone/log", b"evals/m"]
    assert tree.present(paths) == [True, True, False, False, False, False, True]
    assert tree.present([]) == []


def test_what_cannot_be_told_counts_as_present(
    tree: DirectoryTree, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry must not go because a directory could not be read for once."""
    write(cache_dir / "runs" / "job")
    with monkeypatch.context() as patch:
        patch.setattr(Descent, "enter_on_mount", failing(errno.EACCES))
        assert tree.present([b"runs/job", b"evals/gone"]) == [True, True]
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", failing(errno.EIO))
        assert tree.present([b"runs/job"]) == [True]


def test_room_of_one_path_is_measured(tree: DirectoryTree, cache_dir: Path, outside: Path) -> None:
    """A file, or a directory with everything in it, each inode once; a link takes nothing."""
    file = write(cache_dir / "runs" / "job" / "file", b"x" * 5000)
    os.link(file, cache_dir / "runs" / "job" / "again")
    (cache_dir / "runs" / "job" / "out").symlink_to(outside)
    (cache_dir / "runs" / "link").symlink_to(outside)
    status = file.stat()
    measured = tree.measure(b"runs/job")
    assert measured is not None
    assert measured[:3] == (5000, status.st_blocks * 512, 1)
    newest_ns = max(status.st_mtime_ns, status.st_ctime_ns)
    assert tree.measure(b"runs/job/file") == Measured(5000, status.st_blocks * 512, 1, newest_ns)
    link = tree.measure(b"runs/link")
    assert link is not None
    assert link[:3] == (0, 0, 0)


@pytest.mark.parametrize("options", ["tmpfs", "bind"])
def test_mount_is_measured_as_nothing(tree: DirectoryTree, cache_dir: Path, outside: Path, options: str) -> None:
    """It lies elsewhere."""
    (cache_dir / "runs" / "mount").mkdir()
    with mounted(cache_dir / "runs" / "mount", *(TMPFS if options == "tmpfs" else bind(outside))):
        measured = tree.measure(b"runs/mount")
        assert measured is not None
        assert measured.files == 0
        with pytest.raises(TreeError, match="another file system"):
            tree.see(b"runs/mount/precious")


def test_database_counts_with_its_companions(tree: DirectoryTree, cache_dir: Path, outside: Path) -> None:
    """They are only looked at; a link is not the database."""
    assert tree.database_size().size_bytes == 0
    write(cache_dir / "cache.db", b"x" * 10)
    write(cache_dir / "cache.db-shm", b"x" * 5)
    (cache_dir / "cache.db-wal").symlink_to(outside / "precious")
    assert tree.database_size().size_bytes == 15


def test_digest_is_that_of_the_content(tree: DirectoryTree, cache_dir: Path) -> None:
    """Also of more than is read at a time, and of nothing."""
    for number, content in enumerate((b"", b"x" * 3_000_001)):
        write(cache_dir / "datasets" / str(number), content)
        assert tree.digest(b"datasets/%d" % number, never) == hashlib.sha256(content).hexdigest()


def test_digest_of_what_is_no_file_is_none(tree: DirectoryTree, cache_dir: Path, outside: Path) -> None:
    """A pipe is not waited for; a link is not followed; stopped, there is none either."""
    os.mkfifo(cache_dir / "runs" / "pipe")
    (cache_dir / "runs" / "link").symlink_to(outside / "precious")
    (cache_dir / "runs" / "job").mkdir()
    write(cache_dir / "runs" / "file")
    before = descriptors()
    for name in (b"pipe", b"link", b"job"):
        assert tree.digest(b"runs/" + name, never) is None
    assert tree.digest(b"runs/file", lambda: True) is None
    assert descriptors() == before


def test_file_that_becomes_a_link_is_not_read(
    tree: DirectoryTree, cache_dir: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the opening."""
    file = write(cache_dir / "runs" / "file")
    open_file = Descent.open_file

    def meddling(self: Descent, parent: int, name: bytes) -> int:
        file.unlink()
        file.symlink_to(outside / "precious")
        return open_file(self, parent, name)

    monkeypatch.setattr(Descent, "open_file", meddling)
    with pytest.raises(TreeError):
        tree.digest(b"runs/file", never)


def test_scan_is_that_of_the_whole_directory(tree: DirectoryTree, cache_dir: Path) -> None:
    """What it finds is tested with the scanner."""
    write(cache_dir / "runs" / "job")
    found = tree.scan([b"runs/job"], orphans_max=1, step=nothing, is_stopped=never)
    assert found.owned[b"runs/job"].size_bytes == 1
    assert not tree.scan([], orphans_max=1, step=nothing, is_stopped=lambda: True).is_whole


def test_purge_frees_one_removal(tree: DirectoryTree, cache_dir: Path, outside: Path) -> None:
    """Whatever lies in it; again, or of none, it is done already."""
    for removal in (1, 2):
        write(cache_dir / "trash" / str(removal) / "0" / "inner" / "file")
        (cache_dir / "trash" / str(removal) / "1").symlink_to(outside)
    assert not tree.purge(1, step=nothing, is_stopped=lambda: True)
    assert purge(tree, 1)
    assert tree.trash_names() == [2]
    assert purge(tree, 1)
    assert purge(tree, 7)


def test_purge_says_what_stays(tree: DirectoryTree, cache_dir: Path, outside: Path) -> None:
    """And a trash that is hidden by a link has not been emptied."""
    target = cache_dir / "trash" / "1" / "0" / "mount"
    target.mkdir(parents=True)
    write(cache_dir / "trash" / "1" / "0" / "file")
    with mounted(target, *bind(outside)), pytest.raises(TreeError, match="trash/1/0/mount"):
        purge(tree, 1)
    assert tree.trash_names() == [1]
    (cache_dir / "trash").rename(cache_dir / "away")
    (cache_dir / "trash").symlink_to(outside)
    with pytest.raises(TreeError, match="a link") as caught:
        purge(tree, 1)
    assert not isinstance(caught.value, PathMissing)


def test_room_on_the_disk_is_what_the_system_says(tree: DirectoryTree, cache_dir: Path) -> None:
    """For this user, in bytes."""
    before = os.statvfs(cache_dir)
    free_bytes = tree.free_bytes()
    after = os.statvfs(cache_dir)
    low, high = sorted(disk.f_bavail * disk.f_frsize for disk in (before, after))
    # Others write to the same disk.
    assert low * 0.9 <= free_bytes <= high * 1.1


def test_directory_is_the_absolute_path(tree: DirectoryTree, cache_dir: Path) -> None:
    """For what rows may call it."""
    assert tree.directory == os.fsencode(cache_dir)
    assert errno_of(lambda: os.stat(tree.directory)) is None  # noqa: PTH116
