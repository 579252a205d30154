"""Publishing: content appears under its path whole and on disk, or not at all, and what a kill leaves is known."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from motoolsd.adapters import publication as module
from motoolsd.adapters.filetree import DirectoryTree
from motoolsd.core.ports import DiskFull, PathMissing, PathTaken, TreeError
from tests.adapters.places import HOSTILE_NAMES, bind, descriptors, failing, mounted, nothing, write

PATH = b"datasets/hash.jsonl"
TIMEOUT_S = 20


@pytest.fixture
def staging(cache_dir: Path, tree: DirectoryTree) -> Path:
    """Where clients put their files."""
    (cache_dir / "staging").mkdir()
    return cache_dir / "staging"


@pytest.fixture
def published(cache_dir: Path) -> Path:
    """Where they appear."""
    return cache_dir / "datasets" / "hash.jsonl"


@pytest.fixture(params=["links", "no links"])
def _links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has hard links, and one that has none."""
    if request.param == "no links":
        monkeypatch.setattr(os, "link", failing(errno.EPERM))


@pytest.mark.usefixtures("_links")
@pytest.mark.parametrize("name", HOSTILE_NAMES[:3])
def test_content_appears_and_replaces(tree: DirectoryTree, staging: Path, published: Path, name: bytes) -> None:
    """Whatever it is called in staging; whether there was something is told."""
    write(staging / os.fsdecode(name), b"first")
    assert tree.publish(name, PATH)
    assert published.read_bytes() == b"first"
    tree.unstage(name)
    write(staging / os.fsdecode(name), b"second")
    assert not tree.publish(name, PATH)
    assert published.read_bytes() == b"second"
    tree.unstage(name)
    assert not list(staging.iterdir())


def test_publishing_twice_is_publishing_once(tree: DirectoryTree, staging: Path, published: Path) -> None:
    """A retry finds what it has published."""
    write(staging / "s", b"content")
    assert tree.publish(b"s", PATH)
    inode = published.stat().st_ino
    assert not tree.publish(b"s", PATH)
    assert published.stat().st_ino == inode == (staging / "s").stat().st_ino
    assert [path.name for path in staging.iterdir()] == ["s"]


def test_content_is_on_disk_before_its_name_and_the_name_before_the_end(
    tree: DirectoryTree, staging: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so is every directory that was made for it."""
    write(staging / "s", b"content")
    synced: list[tuple[str, bool]] = []
    path = published.parent / "a" / "b" / "c.jsonl"

    def fsync(descriptor: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), path.exists()))  # noqa: PTH115

    monkeypatch.setattr(os, "fsync", fsync)
    tree.publish(b"s", b"datasets/a/b/c.jsonl")
    datasets = str(published.parent)
    assert synced == [
        (str(staging / "s"), False),
        (datasets, False),
        (f"{datasets}/a", False),
        (f"{datasets}/a/b", True),
    ]


def test_what_is_no_staged_file_is_not_published(
    tree: DirectoryTree, staging: Path, published: Path, outside: Path
) -> None:
    """Nothing, a link, a directory; names that lead out of staging."""
    (staging / "link").symlink_to(outside / "precious")
    (staging / "directory").mkdir()
    for name in (b"gone", b"link", b"directory"):
        with pytest.raises(PathMissing):
            tree.publish(name, PATH)
    for name in (b"", b".", b"..", b"../cache.db", b"a/b", b"a\0b"):
        for act in (lambda name=name: tree.publish(name, PATH), lambda name=name: tree.unstage(name)):
            with pytest.raises(TreeError, match="no name in staging"):
                act()
    assert not published.exists()


def test_database_is_not_published(tree: DirectoryTree, staging: Path, cache_dir: Path, published: Path) -> None:
    """Though somebody has linked it into staging; the link goes, the database stays."""
    write(cache_dir / "cache.db", b"rows")
    os.link(cache_dir / "cache.db", staging / "s")
    with pytest.raises(TreeError):
        tree.publish(b"s", PATH)
    assert not published.exists()
    assert tree.abandoned() == []
    tree.unstage(b"s")
    assert (cache_dir / "cache.db").read_bytes() == b"rows"


def test_links_on_the_way_are_not_followed(tree: DirectoryTree, staging: Path, cache_dir: Path, outside: Path) -> None:
    """Of the path, or of staging itself."""
    write(staging / "s", b"content")
    (cache_dir / "datasets").rmdir()
    (cache_dir / "datasets").symlink_to(outside)
    with pytest.raises(PathTaken):
        tree.publish(b"s", PATH)
    tree.withdraw(b"other", b"datasets/precious")
    staging.rename(cache_dir / "away")
    staging.symlink_to(outside)
    with pytest.raises(PathMissing):
        tree.publish(b"precious", PATH)
    tree.unstage(b"precious")
    assert tree.abandoned() == []


def test_directory_is_not_replaced(tree: DirectoryTree, staging: Path, published: Path) -> None:
    """It is told, and nothing is left behind."""
    published.mkdir()
    write(staging / "s", b"content")
    with pytest.raises(TreeError):
        tree.publish(b"s", PATH)
    assert published.is_dir()
    assert [path.name for path in staging.iterdir()] == ["s"]


def test_link_at_the_path_is_replaced_itself(
    tree: DirectoryTree, staging: Path, published: Path, outside: Path
) -> None:
    """Not what it points to."""
    published.symlink_to(outside / "precious")
    write(staging / "s", b"content")
    assert not tree.publish(b"s", PATH)
    assert not published.is_symlink()
    assert published.read_bytes() == b"content"


@pytest.mark.parametrize("call", ["link", "fsync", "mkdir"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_refusal_of_the_disk_is_told_and_leaves_nothing(
    tree: DirectoryTree, staging: Path, published: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """No path; what is staged goes with `withdraw`."""
    write(staging / "s", b"content")
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(number))
        with pytest.raises(TreeError) as caught:
            tree.publish(b"s", b"datasets/new/hash.jsonl")
    assert isinstance(caught.value, DiskFull) == (number != errno.EIO)
    tree.withdraw(b"s", b"datasets/new/hash.jsonl")
    assert not list(staging.iterdir())
    assert not [path for path in published.parent.rglob("*") if path.is_file()]
    assert descriptors() == before


def test_disk_that_is_full_while_replacing_keeps_the_old(
    tree: DirectoryTree, staging: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second name in staging goes again."""
    write(published, b"old")
    write(staging / "s", b"new")
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing(errno.ENOSPC))
        with pytest.raises(DiskFull):
            tree.publish(b"s", PATH)
    assert published.read_bytes() == b"old"
    assert [path.name for path in staging.iterdir()] == ["s"]


def test_leftover_of_a_kill_does_not_stand_in_the_way(tree: DirectoryTree, staging: Path, published: Path) -> None:
    """The second name, given before the rename."""
    write(published, b"old")
    staged = write(staging / "s", b"new")
    os.link(staged, staging / f".second-{staged.stat().st_ino}")
    assert not tree.publish(b"s", PATH)
    assert published.read_bytes() == b"new"
    assert [path.name for path in staging.iterdir()] == ["s"]


def test_withdrawing_takes_only_what_was_published(tree: DirectoryTree, staging: Path, published: Path) -> None:
    """Another has come into its place: that stays."""
    write(staging / "s", b"content")
    tree.publish(b"s", PATH)
    tree.withdraw(b"s", PATH)
    assert not published.exists()
    assert not list(staging.iterdir())
    write(staging / "s", b"content")
    write(published, b"another")
    tree.withdraw(b"s", PATH)
    assert published.read_bytes() == b"another"
    assert not list(staging.iterdir())
    tree.withdraw(b"s", b"datasets/no/such/place")


def test_directory_in_staging_goes_with_everything(
    tree: DirectoryTree, staging: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody of ours has put it there; what cannot go is told."""
    write(staging / "d" / "a" / "b")
    (staging / "d" / "link").symlink_to(outside)
    tree.unstage(b"d")
    assert not list(staging.iterdir())
    with mounted_in(staging / "d" / "mount", outside), pytest.raises(TreeError):
        tree.unstage(b"d")


@contextmanager
def mounted_in(target: Path, source: Path) -> Iterator[None]:
    """A directory that is also shown here."""
    target.mkdir(parents=True)
    with mounted(target, *bind(source)):
        yield


def test_abandoned_is_what_nobody_holds(tree: DirectoryTree, staging: Path, cache_dir: Path) -> None:
    """With the path that it was published under, if it was; another process that holds one keeps it."""
    for name in ("held", "left", "published"):
        write(staging / name, name.encode())
    tree.publish(b"published", b"datasets/\xff.jsonl")
    with (staging / "held").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert sorted(tree.abandoned()) == [(b"left", None), (b"published", b"datasets/\xff.jsonl")]
    assert len(tree.abandoned()) == 3


def test_lock_goes_with_the_process_that_has_it(tree: DirectoryTree, staging: Path) -> None:
    """Killed, it holds nothing any more."""
    write(staging / "s")
    script = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-I", "-c", script, str(staging / "s")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert tree.abandoned() == []
        process.kill()
        process.wait(TIMEOUT_S)
    assert tree.abandoned() == [(b"s", None)]


def test_looking_for_what_is_abandoned_survives_whatever_lies_there(
    tree: DirectoryTree, staging: Path, cache_dir: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pipes, links, directories, a file that vanishes meanwhile, one that may not be opened."""
    os.mkfifo(staging / "pipe")
    (staging / "link").symlink_to(outside / "precious")
    (staging / "directory").mkdir()
    for name in ("gone", "closed", "left"):
        write(staging / name)
    open_file = tree._descent.open_file  # noqa: SLF001 - between the look and the opening

    def meddling(parent: int, name: bytes) -> int:
        if name == b"gone":
            (staging / "gone").unlink()
        if name == b"closed":
            failing(errno.EACCES)()
        return open_file(parent, name)

    monkeypatch.setattr(tree._descent, "open_file", meddling)  # noqa: SLF001
    assert {name for name, _ in tree.abandoned()} == {b"pipe", b"link", b"directory", b"left"}


def test_file_system_that_knows_no_links_at_all(
    tree: DirectoryTree, staging: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its only name moves: nothing is left to unstage, and nothing to withdraw."""
    monkeypatch.setattr(os, "link", failing(errno.EOPNOTSUPP))
    monkeypatch.setattr(os, "fsync", nothing)
    write(staging / "s", b"content")
    assert tree.publish(b"s", PATH)
    assert not list(staging.iterdir())
    tree.withdraw(b"s", PATH)
    assert published.read_bytes() == b"content"
    assert module.STAGING_NAME == b"staging"
