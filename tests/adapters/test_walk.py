"""Walking: each inode once, nothing followed, bounded however deep or wide a tree is."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from motoolsd.adapters import walk as module
from motoolsd.adapters.descent import Descent
from motoolsd.adapters.status import CHUNK_NAMES, Statuses
from motoolsd.adapters.walk import LEVELS_HELD_MAX, Pending, Tally, Walk
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
    write,
)

LookAt = Callable[[Statuses, int, list[bytes]], None]


def count(descent: Descent, *, step: Callable[[int], None] = nothing, is_stopped: Callable[[], bool] = never) -> Tally:
    """What lies below `runs`."""
    tally = Tally()
    Walk(descent, step=step, is_stopped=is_stopped).run(descent.root, Pending(b"runs", tally, None), Tally())
    return tally


@pytest.fixture
def runs(cache_dir: Path, descent: Descent) -> Iterator[Path]:
    """The directory that is walked; it may get deeper than pytest can remove."""
    yield cache_dir / "runs"
    remove_deep(cache_dir / "runs")


@pytest.fixture
def meddle(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Do something, once, when the names of a directory are read and nothing was looked at yet."""

    def install(act: Callable[[], None]) -> None:
        look_at: LookAt = Statuses.look_at
        left = [act]

        def meddling(statuses: Statuses, directory: int, names: list[bytes]) -> None:
            if left and names:
                left.pop()()
            look_at(statuses, directory, names)

        monkeypatch.setattr(Statuses, "look_at", meddling)

    return install


def test_files_of_any_name_are_added_up(descent: Descent, runs: Path) -> None:
    """What they hold, and the blocks that it takes: a sparse file is long and takes none."""
    for name in HOSTILE_NAMES:
        write(runs / os.fsdecode(name) / os.fsdecode(name), name)
    write(runs / "sparse")
    os.truncate(runs / "sparse", 1 << 33)
    tally = count(descent)
    files = [path for path in runs.rglob("*") if path.is_file()]
    assert tally.files == len(files) == len(HOSTILE_NAMES) + 1
    assert tally.size.size_bytes == sum(path.stat().st_size for path in files)
    assert tally.size.allocated_bytes == sum(path.stat().st_blocks * 512 for path in files)
    newest = max(max(path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in files)
    assert tally.measured.newest_ns >= newest
    assert tally.is_whole


def test_newest_is_exact_to_the_nanosecond(descent: Descent, runs: Path) -> None:
    """Of files alone, whichever comes first, and whether it is the content or the entry that is new."""
    for number, time_ns in enumerate((4_000_000_000_123_456_789, 4_000_000_000_123_456_788, 3_999_999_999_999_999_999)):
        os.utime(write(runs / str(number)), ns=(0, time_ns))
    assert count(descent).newest_ns == 4_000_000_000_123_456_789


def test_inode_counts_once(descent: Descent, runs: Path) -> None:
    """However many names it has, in however many directories."""
    first = write(runs / "a" / "first", b"x" * 1000)
    for number in range(5):
        (runs / str(number)).mkdir()
        os.link(first, runs / str(number) / "other")
    assert count(descent).measured[:3] == (1000, first.stat().st_blocks * 512, 1)


def test_only_regular_files_count(descent: Descent, runs: Path, outside: Path) -> None:
    """Links, those that form a loop, pipes and directories take nothing, and nothing is followed."""
    (runs / "out").symlink_to(outside)
    (runs / "file").symlink_to(outside / "precious")
    (runs / "loop").symlink_to("loop")
    (runs / "a" / "b").mkdir(parents=True)
    (runs / "a" / "b" / "up").symlink_to("../..")
    os.mkfifo(runs / "pipe")
    tally = count(descent)
    assert tally.measured[:3] == (0, 0, 0)
    assert tally.is_whole


@pytest.mark.parametrize("options", ["tmpfs", "bind"])
def test_mounts_are_not_crossed(descent: Descent, runs: Path, outside: Path, options: str) -> None:
    """And the sum is known not to be whole."""
    target = runs / "mount"
    target.mkdir()
    with mounted(target, *(TMPFS if options == "tmpfs" else bind(outside))):
        if options == "tmpfs":
            write(target / "file")
        write(runs / "file")
        tally = count(descent)
        assert tally.files == 1
        assert not tally.is_whole


@pytest.mark.slow
def test_deep_tree_is_walked_with_few_descriptors(descent: Descent, runs: Path) -> None:
    """Five thousand levels: no recursion, and no descriptor for each."""
    make_deep(runs, 5_000)
    most, before = MostDescriptors(), descriptors()
    assert count(descent, step=most).files == 5_000
    assert 0 < most.most < 2 * LEVELS_HELD_MAX + 20
    assert descriptors() == before


@pytest.mark.slow
def test_wide_directories_are_walked_in_parts(descent: Descent, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More directories than are noted at a time, at each depth: where descriptors are kept and where they are not."""
    monkeypatch.setattr(module, "PENDING_MAX", 2)
    monkeypatch.setattr(module, "LEVELS_HELD_MAX", 3)
    wide = runs
    for _ in range(6):
        for number in range(CHUNK_NAMES + 20):
            (wide / str(number)).mkdir()
            if number % 50 == 0:
                write(wide / str(number) / "file")
        wide /= "1"
    assert count(descent).files == 6 * 6


@pytest.mark.slow
def test_steps_come_as_often_as_promised(descent: Descent, runs: Path) -> None:
    """After every few hundred entries, with the number of files so far; directories weigh more."""
    for number in range(1000):
        write(runs / str(number))
    steps: list[int] = []
    count(descent, step=steps.append)
    assert len(steps) == 3
    assert steps == sorted(steps)
    (runs / "more").mkdir()
    for number in range(256):
        (runs / "more" / str(number)).mkdir()
    count(descent, step=steps.append)
    assert len(steps) > 9


def test_walk_that_is_stopped_ends_at_the_next_step(descent: Descent, runs: Path) -> None:
    """And leaves no descriptor open."""
    make_deep(runs, 300)
    for number in range(600):
        write(runs / str(number))
    before = descriptors()
    steps: list[int] = []
    tally = count(descent, step=steps.append, is_stopped=lambda: bool(steps))
    assert len(steps) == 1
    assert tally.files < 900
    assert count(descent, is_stopped=lambda: True).files == 0
    assert descriptors() == before


def test_what_vanishes_meanwhile_is_not_missing(
    descent: Descent, runs: Path, meddle: Callable[[Callable[[], None]], None]
) -> None:
    """A file, and a directory with what is in it."""
    write(runs / "stays")
    file, directory = write(runs / "goes"), runs / "directory"
    directory.mkdir()

    def vanish() -> None:
        file.unlink()
        directory.rmdir()

    meddle(vanish)
    tally = count(descent)
    assert tally.files == 1
    assert tally.is_whole


def test_directory_that_becomes_a_link_is_not_followed(
    descent: Descent, runs: Path, outside: Path, before_entering: BeforeEntering
) -> None:
    """After it was seen to be a directory."""
    write(runs / "directory" / "file")

    def swap() -> None:
        (runs / "directory").rename(runs / "away")
        (runs / "directory").symlink_to(outside)

    before_entering(b"directory", swap)
    tally = count(descent)
    assert tally.files == 0
    assert not tally.is_whole


def test_deep_directory_that_is_moved_away_is_missed(
    descent: Descent, runs: Path, outside: Path, before_entering: BeforeEntering
) -> None:
    """The way back up would lead elsewhere: nothing there is read, and the rest is counted."""
    make_deep(runs, LEVELS_HELD_MAX + 30)
    middle = runs.joinpath(*["d"] * (LEVELS_HELD_MAX + 30))
    (middle / "middle").mkdir()
    make_deep(middle / "middle", 30)
    (middle / "middle").joinpath(*["d"] * 30).joinpath("last").mkdir()
    write(runs / "other" / "file")
    elsewhere = outside.parent / "elsewhere"
    write(elsewhere / "file")
    before_entering(b"last", lambda: os.rename(middle / "middle", elsewhere / "moved"))  # noqa: PTH104 - returns None
    before = descriptors()
    tally = count(descent)
    assert descriptors() == before
    assert not tally.is_whole
    assert LEVELS_HELD_MAX <= tally.files <= LEVELS_HELD_MAX + 61
    assert count(descent).measured.files == LEVELS_HELD_MAX + 31


def test_directory_that_may_not_be_read_is_missed(
    descent: Descent, runs: Path, before_entering: BeforeEntering
) -> None:
    """The rest is counted, and the sum is known not to be whole."""
    write(runs / "closed" / "file")
    write(runs / "open" / "file")
    before_entering(b"closed", failing(errno.EACCES))
    tally = count(descent)
    assert tally.files == 1
    assert not tally.is_whole


def test_walk_without_descriptors_fails_instead_of_counting_less(
    descent: Descent, runs: Path, before_entering: BeforeEntering
) -> None:
    """It says nothing of the directory that no descriptor was left for it."""
    write(runs / "a" / "file")
    before = descriptors()
    before_entering(b"a", failing(errno.EMFILE))
    with pytest.raises(OSError, match="Too many open files"):
        count(descent)
    assert descriptors() == before
