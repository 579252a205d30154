"""Freeing a directory: everything in it goes, nothing else does."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from motoolsd.adapters import removal as module
from motoolsd.adapters.descent import Descent
from motoolsd.adapters.removal import LEVELS_MAX, TreeRemoval
from tests.adapters.places import (
    HOSTILE_NAMES,
    TMPFS,
    BeforeEntering,
    MostDescriptors,
    bind,
    descriptors,
    failing,
    make_deep,
    mounted,
    never,
    nothing,
    remove_deep,
    without_privileges,
    write,
)


@pytest.fixture
def top(cache_dir: Path, descent: Descent) -> Iterator[Path]:
    """The directory that what goes lies in; it may get deeper than pytest can remove."""
    (cache_dir / "trash").mkdir()
    yield cache_dir / "trash"
    remove_deep(cache_dir / "trash")


def remove(
    descent: Descent,
    name: bytes = b"1",
    *,
    step: Callable[[int], None] = nothing,
    is_stopped: Callable[[], bool] = never,
) -> tuple[bool, TreeRemoval]:
    """Remove `trash/<name>`; whether that came to its end, and what it has to say."""
    before = descriptors()
    with descent.opened((b"trash",)) as parent:
        removal = TreeRemoval(descent, parent, above=b"trash", step=step, is_stopped=is_stopped)
        is_done = removal.remove(name)
    assert descriptors() == before
    return is_done, removal


def removed(descent: Descent, name: bytes = b"1") -> bool:
    """Whether all of it went."""
    is_done, removal = remove(descent, name)
    return is_done and removal.refused is None


def test_everything_goes(descent: Descent, top: Path, outside: Path) -> None:
    """Names of any kind, links themselves, pipes, empty directories; what lies beside it stays."""
    for name in map(os.fsdecode, HOSTILE_NAMES):
        write(top / "1" / name / name)
        (top / "1" / f"l{name}"[:255]).symlink_to(outside)
    (top / "1" / "loop").symlink_to("loop")
    os.mkfifo(top / "1" / "pipe")
    os.link(write(top / "beside"), top / "1" / "link")
    assert removed(descent)
    assert [path.name for path in top.iterdir()] == ["beside"]
    assert removed(descent)


def test_what_is_no_directory_goes_too(descent: Descent, top: Path, outside: Path) -> None:
    """A link in its place goes itself."""
    (top / "1").symlink_to(outside)
    write(top / "2")
    assert removed(descent, b"1")
    assert removed(descent, b"2")
    assert not list(top.iterdir())


@pytest.mark.slow
def test_deep_tree_goes_with_few_descriptors(descent: Descent, top: Path) -> None:
    """Five thousand levels: no recursion, and no descriptor for each."""
    (top / "1").mkdir()
    make_deep(top / "1", 5_000, file=None)
    most = MostDescriptors()
    is_done, removal = remove(descent, step=most)
    assert is_done
    assert removal.refused is None
    assert not list(top.iterdir())
    assert 0 < most.most <= 2 * LEVELS_MAX + 10


def test_names_that_look_like_ours_do_no_harm(descent: Descent, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies too deep is moved up under a name that may be taken: by files and by directories."""
    monkeypatch.setattr(module, "LEVELS_MAX", 3)
    (top / "1").mkdir()
    make_deep(top / "1", 20, name="deep-1")
    for number in range(2, 30):
        write(top / "1" / f"deep-{number}" / "deep-1" / "deep-2" / "deep-3" / "x") if number % 2 else write(
            top / "1" / f"deep-{number}"
        )
    assert removed(descent)
    assert not list(top.iterdir())


@pytest.mark.slow
def test_wide_directory_goes_in_steps(descent: Descent, top: Path) -> None:
    """With the number of what has gone so far."""
    (top / "1").mkdir()
    for number in range(5_000):
        (top / "1" / str(number)).touch()
    steps: list[int] = []
    assert remove(descent, step=steps.append)[0]
    assert len(steps) == 5_000 // 256
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_removal_that_is_stopped_goes_on_later(descent: Descent, top: Path) -> None:
    """It stops at the next step."""
    for number in range(600):
        write(top / "1" / "job" / str(number))
    steps: list[int] = []
    assert not remove(descent, step=steps.append, is_stopped=lambda: bool(steps))[0]
    assert len(list((top / "1" / "job").iterdir())) == 600 - 256
    assert not remove(descent, is_stopped=lambda: True)[0]
    assert removed(descent)
    assert not list(top.iterdir())


@pytest.mark.parametrize("options", ["tmpfs", "bind"])
def test_mount_stays_with_what_is_above_it(descent: Descent, top: Path, outside: Path, options: str) -> None:
    """It is named, and what could go is gone."""
    target = top / "1" / "job" / "mount"
    target.mkdir(parents=True)
    write(top / "1" / "job" / "file")
    write(top / "1" / "other" / "file")
    with mounted(target, *(TMPFS if options == "tmpfs" else bind(outside))):
        if options == "tmpfs":
            write(target / "kept")
        is_done, removal = remove(descent)
        assert is_done
        assert removal.refused is not None
        assert removal.refused.path == b"trash/1/job/mount"
        assert [path.name for path in (top / "1").iterdir()] == ["job"]
        assert [path.name for path in (top / "1" / "job").iterdir()] == ["mount"]
        assert list(target.iterdir())
    assert removed(descent)


def test_mount_on_a_file_stays(descent: Descent, top: Path, outside: Path) -> None:
    """Its name cannot go, and what is seen there lies elsewhere."""
    with mounted(write(top / "1" / "file"), *bind(outside / "precious")):
        _, removal = remove(descent)
        assert removal.refused is not None
        assert removal.refused.path == b"trash/1/file"
    assert removed(descent)


def test_directories_without_permissions_go(descent: Descent, top: Path, short_dir: Path) -> None:
    """They are ours: read-only ones, those that may not be entered, deep ones that have to be moved up."""
    for mode in (0o000, 0o111, 0o444, 0o555):
        write(top / "1" / f"{mode:o}" / "inner" / "file")
    make_deep(top / "1" / "555", 40)
    for path in sorted((top / "1").rglob("*"), reverse=True):
        if path.is_dir():
            path.chmod(0o555)
    for mode in (0o000, 0o111, 0o444, 0o555):
        (top / "1" / f"{mode:o}").chmod(mode)
    with without_privileges(short_dir):
        assert removed(descent)
    assert not list(top.iterdir())


def test_what_belongs_to_another_stays_and_is_named(descent: Descent, top: Path, short_dir: Path) -> None:
    """Only with more than our own rights could it go."""
    if os.geteuid() != 0:
        pytest.skip("only root can make files of others")
    write(top / "1" / "theirs" / "file")
    write(top / "1" / "ours" / "file")
    with without_privileges(short_dir):
        os.seteuid(0)
        os.chown(top / "1" / "theirs", 0, 0)
        os.seteuid(65534)
        is_done, removal = remove(descent)
    assert is_done
    assert removal.refused is not None
    assert removal.refused.path == b"trash/1/theirs/file"
    assert "Permission denied" in removal.refused.reason
    assert [path.name for path in (top / "1").iterdir()] == ["theirs"]


def test_directory_that_becomes_a_link_is_not_followed(
    descent: Descent, top: Path, outside: Path, before_entering: BeforeEntering
) -> None:
    """After it was seen to be a directory: the link goes itself, where it is met again."""
    write(top / "1" / "job" / "file")

    def swap() -> None:
        (top / "1" / "job").rename(top / "away")
        (top / "1" / "job").symlink_to(outside)

    before_entering(b"job", swap)
    assert removed(descent)
    assert [path.name for path in top.iterdir()] == ["away"]
    assert (top / "away" / "file").exists()


def test_first_directory_that_is_swapped_is_met_again(
    descent: Descent, top: Path, outside: Path, before_entering: BeforeEntering
) -> None:
    """What stands in its place in the end goes, too."""
    write(top / "1" / "job" / "file")

    def swap() -> None:
        (top / "1").rename(top / "away")
        write(top / "1" / "new" / "file")
        (top / "1" / "link").symlink_to(outside)

    before_entering(b"job", swap)
    assert removed(descent)
    assert not (top / "1").exists()
    assert not list((top / "away").iterdir())


def test_file_that_becomes_a_directory_is_met_again(
    descent: Descent, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what vanishes by itself is no reason to stay."""
    for name in ("a", "b", "c"):
        write(top / "1" / name)
    unlink, left = os.unlink, [True]

    def meddling(name: bytes, *, dir_fd: int) -> None:
        if left:
            left.pop()
            for path in (top / "1").iterdir():
                unlink(path)
            write(top / "1" / os.fsdecode(name) / "inner")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", meddling)
    assert removed(descent)
    assert not list(top.iterdir())


def test_directory_that_others_fill_is_given_up_in_the_end(
    descent: Descent, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named; nothing goes on for ever."""
    write(top / "1" / "file")
    rmdir = os.rmdir

    def filled(name: bytes, *, dir_fd: int) -> None:
        write(top / "1" / "file")
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", filled)
    monkeypatch.setattr(module, "PASSES_MAX", 5)
    is_done, removal = remove(descent)
    assert is_done
    assert removal.refused is not None
    assert removal.refused.path == b"trash/1"


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EBUSY])
def test_first_refusal_is_named_and_the_rest_goes(
    descent: Descent, top: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Directories above it stay, too."""
    write(top / "1" / "a" / "stays")
    write(top / "1" / "a" / "goes")
    write(top / "1" / "b" / "goes")
    unlink = os.unlink

    def refusing(name: bytes, *, dir_fd: int) -> None:
        if name == b"stays":
            failing(number)()
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refusing)
    is_done, removal = remove(descent)
    assert is_done
    assert removal.refused is not None
    assert removal.refused.path == b"trash/1/a/stays"
    assert [path.relative_to(top) for path in (top / "1").rglob("*")] == [Path("1/a"), Path("1/a/stays")]
