"""Into the trash and back: what is moved is what was seen, and nothing is ever replaced."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from motoolsd.adapters import trash as module
from motoolsd.adapters.filetree import DirectoryTree
from motoolsd.adapters.renaming import rename
from motoolsd.core.files import Seen
from motoolsd.core.ports import DiskFull, PathChanged, PathMissing, PathTaken, TreeError
from tests.adapters.places import HOSTILE_NAMES, TMPFS, bind, descriptors, failing, mounted, without_privileges, write


def seen(tree: DirectoryTree, path: bytes) -> Seen:
    """What is there now."""
    found = tree.see(path)
    assert found is not None
    return found


@pytest.fixture
def meddle(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Do something, once, between the look at a path and its renaming; or after the latter."""

    def install(*, before: Callable[[], object] | None = None, after: Callable[[], object] | None = None) -> None:
        left = [True]

        def meddling(source: int, name: bytes, target: int, new_name: bytes) -> None:
            is_first, left[:] = bool(left), []
            if is_first and before is not None:
                before()
            rename(source, name, target, new_name)
            if is_first and after is not None:
                after()

        monkeypatch.setattr(module, "rename", meddling)

    return install


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_file_and_directory_go_and_come_back(tree: DirectoryTree, cache_dir: Path, name: bytes) -> None:
    """Whatever they are called; the directories above are made again."""
    file, directory = cache_dir / "evals" / "m" / os.fsdecode(name), cache_dir / "runs" / "m" / os.fsdecode(name)
    write(file, b"file")
    write(directory / "inner", b"inner")
    paths = [b"evals/m/" + name, b"runs/m/" + name]
    for number, path in enumerate(paths):
        tree.move_to_trash(path, 7, number, seen(tree, path))
    tree.sync_trash(7, paths)
    assert (cache_dir / "trash" / "7" / "0").read_bytes() == b"file"
    assert (cache_dir / "trash" / "7" / "1" / "inner").read_bytes() == b"inner"
    assert [tree.is_in_trash(7, number) for number in range(3)] == [True, True, False]
    (cache_dir / "evals" / "m").rmdir()
    for number, path in enumerate(paths):
        tree.move_back(7, number, path)
    assert file.read_bytes() == b"file"
    assert (directory / "inner").read_bytes() == b"inner"
    assert not tree.is_in_trash(7, 0)


def test_directory_is_still_what_was_seen_after_it_was_moved(tree: DirectoryTree, cache_dir: Path) -> None:
    """Moving changes neither its size nor its mtime: else nothing could be moved twice."""
    write(cache_dir / "runs" / "job" / "file")
    before = seen(tree, b"runs/job")
    tree.move_to_trash(b"runs/job", 1, 0, before)
    tree.move_back(1, 0, b"runs/job")
    assert seen(tree, b"runs/job") == before


def test_read_only_directory_goes_and_comes_back(tree: DirectoryTree, cache_dir: Path, short_dir: Path) -> None:
    """It is ours; and it is read-only in the trash, and back in its place."""
    job = cache_dir / "runs" / "job"
    write(job / "file")
    job.chmod(0o500)
    with without_privileges(short_dir):
        before = seen(tree, b"runs/job")
        tree.move_to_trash(b"runs/job", 1, 0, before)
        assert stat.S_IMODE((cache_dir / "trash" / "1" / "0").stat().st_mode) == 0o500
        tree.move_back(1, 0, b"runs/job")
        assert seen(tree, b"runs/job") == before
    assert stat.S_IMODE(job.stat().st_mode) == 0o500


def test_file_in_a_read_only_directory_stays(tree: DirectoryTree, cache_dir: Path, short_dir: Path) -> None:
    """Whoever took away the permission meant it; that is the reason that is told."""
    write(cache_dir / "runs" / "job" / "file")
    (cache_dir / "runs" / "job").chmod(0o500)
    with without_privileges(short_dir), pytest.raises(TreeError, match="Permission denied"):
        tree.move_to_trash(b"runs/job/file", 1, 0, seen(tree, b"runs/job/file"))
    assert (cache_dir / "runs" / "job" / "file").exists()


def test_what_belongs_to_another_stays(tree: DirectoryTree, cache_dir: Path, short_dir: Path) -> None:
    """Neither its directory nor its permissions are ours to change."""
    if os.geteuid() != 0:
        pytest.skip("only root can make files of others")
    write(cache_dir / "runs" / "job" / "file")
    with without_privileges(short_dir):
        os.seteuid(0)
        os.chown(cache_dir / "runs" / "job", 0, 0)
        os.seteuid(65534)
        with pytest.raises(TreeError):
            tree.move_to_trash(b"runs/job", 1, 0, seen(tree, b"runs/job"))
    assert (cache_dir / "runs" / "job" / "file").exists()


def test_missing_path_is_told(tree: DirectoryTree, cache_dir: Path) -> None:
    """Either way."""
    write(cache_dir / "runs" / "file")
    old = seen(tree, b"runs/file")
    (cache_dir / "runs" / "file").unlink()
    with pytest.raises(PathMissing):
        tree.move_to_trash(b"runs/file", 1, 0, old)
    with pytest.raises(PathMissing):
        tree.move_back(1, 0, b"runs/file")
    assert not (cache_dir / "trash" / "1").exists()


def test_changed_file_is_not_moved(tree: DirectoryTree, cache_dir: Path) -> None:
    """It got more content, or another took its place."""
    file = write(cache_dir / "runs" / "file")
    old = seen(tree, b"runs/file")
    write(file, b"more")
    with pytest.raises(PathChanged, match="not what was seen"):
        tree.move_to_trash(b"runs/file", 1, 0, old)
    assert file.read_bytes() == b"more"


def test_what_comes_into_the_place_while_it_is_moved_is_put_back(
    tree: DirectoryTree, cache_dir: Path, outside: Path, meddle: Callable[..., None]
) -> None:
    """A link to elsewhere, here."""
    write(cache_dir / "runs" / "job" / "file", b"content")
    job = cache_dir / "runs" / "job"

    def swap() -> None:
        job.rename(cache_dir / "runs" / "away")
        job.symlink_to(outside)

    meddle(before=swap)
    with pytest.raises(PathChanged):
        tree.move_to_trash(b"runs/job", 1, 0, seen(tree, b"runs/job"))
    assert job.readlink() == outside
    assert (cache_dir / "runs" / "away" / "file").read_bytes() == b"content"
    assert not tree.is_in_trash(1, 0)


def test_what_cannot_be_put_back_under_its_name_gets_one_beside_it(
    tree: DirectoryTree, cache_dir: Path, meddle: Callable[..., None]
) -> None:
    """Its name was taken in the meantime, too; the error says where it is."""
    name = "n" * 255
    file = write(cache_dir / "runs" / name, b"first")
    old = seen(tree, b"runs/" + name.encode())
    meddle(before=lambda: write(file, b"second"), after=lambda: write(file, b"third"))
    with pytest.raises(PathChanged, match="put-back-1-0"):
        tree.move_to_trash(b"runs/" + name.encode(), 1, 0, old)
    contents = {path.read_bytes() for path in (cache_dir / "runs").iterdir()}
    assert contents == {b"second", b"third"}


def test_nothing_is_replaced_by_coming_back(tree: DirectoryTree, cache_dir: Path) -> None:
    """Not even an empty directory; it stays in the trash."""
    write(cache_dir / "runs" / "job" / "file")
    tree.move_to_trash(b"runs/job", 1, 0, seen(tree, b"runs/job"))
    (cache_dir / "runs" / "job").mkdir()
    with pytest.raises(PathTaken):
        tree.move_back(1, 0, b"runs/job")
    assert tree.is_in_trash(1, 0)
    assert not list((cache_dir / "runs" / "job").iterdir())


def test_taken_place_in_the_trash_is_told(tree: DirectoryTree, cache_dir: Path) -> None:
    """And the path stays where it is."""
    write(cache_dir / "trash" / "1" / "0")
    write(cache_dir / "runs" / "file")
    with pytest.raises(TreeError, match="trash/1/0 is taken"):
        tree.move_to_trash(b"runs/file", 1, 0, seen(tree, b"runs/file"))
    assert (cache_dir / "runs" / "file").exists()


def test_trash_that_is_a_link_is_not_followed(tree: DirectoryTree, cache_dir: Path, outside: Path) -> None:
    """Into it, out of it, or in it."""
    write(cache_dir / "runs" / "file")
    (cache_dir / "trash").symlink_to(outside)
    (outside / "1").mkdir()
    with pytest.raises(TreeError, match="is a link or no directory: remove it"):
        tree.move_to_trash(b"runs/file", 1, 0, seen(tree, b"runs/file"))
    with pytest.raises(TreeError):
        tree.move_back(1, 0, b"runs/back")
    assert (cache_dir / "runs" / "file").exists()
    assert not list((outside / "1").iterdir())
    assert tree.trash_names() == []


def test_link_on_the_way_does_not_mean_that_nothing_is_there(
    tree: DirectoryTree, cache_dir: Path, outside: Path
) -> None:
    """Whoever removes the row must hear that the file stays: what the link hides may come back."""
    write(cache_dir / "runs" / "job" / "file")
    old = seen(tree, b"runs/job/file")
    (cache_dir / "runs" / "job").rename(cache_dir / "away")
    (cache_dir / "runs" / "job").symlink_to(outside)
    with pytest.raises(TreeError, match="a link") as caught:
        tree.move_to_trash(b"runs/job/file", 1, 0, old)
    assert not isinstance(caught.value, PathMissing)
    write(cache_dir / "trash" / "1" / "0")
    with pytest.raises(PathMissing):
        tree.move_to_trash(b"runs/job/file", 1, 0, old)
    (cache_dir / "trash" / "1").rename(cache_dir / "trash" / "away")
    (cache_dir / "trash" / "1").symlink_to("away")
    with pytest.raises(TreeError, match="a link") as caught:
        tree.move_back(1, 0, b"runs/back")
    assert not isinstance(caught.value, PathMissing)


@pytest.mark.parametrize("options", ["tmpfs", "bind"])
def test_mount_point_stays(tree: DirectoryTree, cache_dir: Path, outside: Path, options: str) -> None:
    """Nothing can be moved from under a mount, nor out of one."""
    target = cache_dir / "runs" / "mount"
    target.mkdir()
    with mounted(target, *(TMPFS if options == "tmpfs" else bind(outside))):
        with pytest.raises(TreeError):
            tree.move_to_trash(b"runs/mount", 1, 0, seen(tree, b"runs/mount"))
        (target / "a").mkdir(exist_ok=True)
        status = (target / "a").stat()
        inner = Seen(status.st_dev, status.st_ino, True, status.st_size, status.st_mtime_ns)
        with pytest.raises(TreeError, match="another file system"):
            tree.move_to_trash(b"runs/mount/a", 1, 1, inner)
    assert not tree.is_in_trash(1, 0)


@pytest.mark.parametrize(
    ("number", "wanted"), [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EXDEV, TreeError)]
)
def test_refusal_of_the_disk_is_told_and_nothing_moved(
    tree: DirectoryTree, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, number: int, wanted: type[TreeError]
) -> None:
    """There is no room for the entry; the file system is another one in disguise."""
    write(cache_dir / "runs" / "file")
    before = descriptors()
    monkeypatch.setattr(module, "rename", failing(number))
    with pytest.raises(wanted):
        tree.move_to_trash(b"runs/file", 1, 0, seen(tree, b"runs/file"))
    assert (cache_dir / "runs" / "file").exists()
    assert descriptors() == before


def test_renames_are_brought_to_the_disk(tree: DirectoryTree, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends of each, and what holds the removal; a directory that went itself needs none."""
    for name in ("evals/m/log", "runs/job"):
        write(cache_dir / name)
    for number, path in enumerate((b"evals/m/log", b"runs/job")):
        tree.move_to_trash(path, 1, number, seen(tree, path))
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))  # noqa: PTH115
    tree.sync_trash(1, [b"evals/m/log", b"runs/job", b"runs/gone/log"])
    assert sorted(synced) == sorted(str(cache_dir / name) for name in ("evals/m", "runs", "trash", "trash/1"))
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(TreeError):
        tree.sync_trash(1, [b"runs/job"])


def test_only_numbers_as_we_write_them_are_removals(tree: DirectoryTree, cache_dir: Path, outside: Path) -> None:
    """Whatever else lies in the trash is nobody's number."""
    assert tree.trash_names() == []
    for name in ("3", "12", "07", "-1", "+1", "1_0", "x", "٣", "9" * 19, " 1"):
        (cache_dir / "trash" / name).mkdir(parents=True)
    write(cache_dir / "trash" / "4")
    (cache_dir / "trash" / "5").symlink_to(outside)
    assert tree.trash_names() == [3, 12]


def test_directory_of_a_removal_goes_only_when_it_is_empty(tree: DirectoryTree, cache_dir: Path) -> None:
    """What somebody put into it is not ours to remove: an undo leaves it."""
    (cache_dir / "trash" / "3").mkdir(parents=True)
    (cache_dir / "trash" / "3" / "foreign").write_bytes(b"theirs")
    assert not tree.discard(3)
    assert (cache_dir / "trash" / "3" / "foreign").read_bytes() == b"theirs"
    (cache_dir / "trash" / "3" / "foreign").unlink()
    assert tree.discard(3)
    assert not (cache_dir / "trash" / "3").exists()
    assert tree.discard(3), "it is gone already"
