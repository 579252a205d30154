"""The scan: what takes how much room, what belongs to whom, and what to nobody."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoolsd.adapters.descent import Descent
from motoolsd.adapters.directory import open_directory
from motoolsd.adapters.scan import Scanner
from motoolsd.core.files import Scan, is_within
from motoolsd.wire.names import BALLAST
from motoolsd.wire.sizes import Size
from tests.adapters.places import (
    HOSTILE_NAMES,
    TMPFS,
    BeforeEntering,
    bind,
    failing,
    make_deep,
    mounted,
    never,
    nothing,
    remove_deep,
    write,
)

ORPHANS_MAX = 1000


def scan(
    descent: Descent,
    owned: Sequence[bytes] = (),
    *,
    orphans_max: int = ORPHANS_MAX,
    step: Callable[[int], None] = nothing,
    is_stopped: Callable[[], bool] = never,
) -> Scan:
    """Walk everything."""
    return Scanner(descent, owned, orphans_max=orphans_max, step=step, is_stopped=is_stopped).run()


def size_of(*files: Path) -> Size:
    """What stat says."""
    return Size(sum(file.stat().st_size for file in files), sum(file.stat().st_blocks * 512 for file in files))


def orphans_of(found: Scan) -> dict[bytes, int]:
    """Path -> files."""
    return {orphan.path: orphan.measured.files for orphan in found.orphans}


def test_empty_directory_has_every_category(descent: Descent) -> None:
    """A category without files takes no room; it is there all the same."""
    found = scan(descent)
    names = ("datasets", "runs", "evals", "database", "trash", "staging", "ballast")
    assert found.categories == dict.fromkeys(names, Size())
    assert found.is_whole


def test_each_file_counts_where_it_lies(descent: Descent, cache_dir: Path) -> None:
    """The database with its log; what lies beside the categories nowhere."""
    files = {
        "runs": [write(cache_dir / "runs" / "a" / "b", b"x" * 100), write(cache_dir / "runs" / "c", b"x" * 10)],
        "evals": [write(cache_dir / "evals" / "log", b"x" * 5)],
        "datasets": [],
        "database": [write(cache_dir / "cache.db", b"x" * 3), write(cache_dir / "cache.db-wal", b"x" * 4)],
        "trash": [write(cache_dir / "trash" / "1" / "0" / "old", b"x" * 6)],
        "staging": [write(cache_dir / "staging" / "new", b"x" * 7)],
        "ballast": [write(cache_dir / BALLAST, b"x" * 8)],
    }
    write(cache_dir / "elsewhere", b"x" * 1000)
    found = scan(descent)
    assert found.categories == {category: size_of(*paths) for category, paths in files.items()}
    assert found.files == 5


def test_ballast_is_told_apart_and_no_orphan(descent: Descent, cache_dir: Path) -> None:
    """Only the file itself, by what it takes on the disk, counts."""
    ballast = write(cache_dir / BALLAST, b"x" * 9000)
    found = scan(descent)
    assert found.categories[BALLAST] == size_of(ballast)
    assert not found.orphans


def test_inode_counts_once_in_all_categories(descent: Descent, cache_dir: Path) -> None:
    """For the first of its owners that is met; to the others it is there and takes nothing."""
    first = write(cache_dir / "runs" / "a" / "file", b"x" * 100)
    for name in ("runs/b", "evals/c", "trash/d", "datasets/e"):
        (cache_dir / name).parent.mkdir(exist_ok=True)
        os.link(first, cache_dir / name)
    found = scan(descent, [b"runs/a", b"runs/b", b"datasets/e"])
    assert sum(size.size_bytes for size in found.categories.values()) == 100
    assert sum(size.size_bytes for size in found.owned.values()) == 100
    assert set(found.owned) == {b"runs/a", b"runs/b", b"datasets/e"}
    assert orphans_of(found) == {b"evals/c": 0}


def test_owner_of_a_file_is_the_innermost(descent: Descent, cache_dir: Path) -> None:
    """A directory that is owned holds a file that another entry owns."""
    run = cache_dir / "runs" / "job"
    outer = [write(run / "model", b"x" * 1000), write(run / "sub" / "log", b"x" * 30)]
    inner = write(run / "sub" / "eval.json", b"x" * 7)
    found = scan(descent, [b"runs/job", b"runs/job/sub/eval.json"])
    assert found.owned == {b"runs/job": size_of(*outer), b"runs/job/sub/eval.json": size_of(inner)}
    assert found.orphan_count == 0


def test_orphan_is_the_topmost_path_that_nobody_owns_anything_in(descent: Descent, cache_dir: Path) -> None:
    """What lies beside an owned file is an orphan by itself; what holds one, or should, is none."""
    write(cache_dir / "evals" / "m" / "owned.json")
    write(cache_dir / "evals" / "m" / "stray.json")
    write(cache_dir / "evals" / "m" / "deeper" / "a" / "b")
    write(cache_dir / "evals" / "m" / "deeper" / "c")
    write(cache_dir / "evals" / "gone" / "other.json")
    write(cache_dir / "evals" / "file-where-a-directory-was")
    (cache_dir / "runs" / "empty").mkdir()
    owned = [b"evals/m/owned.json", b"evals/gone/missing.json", b"evals/file-where-a-directory-was/log"]
    found = scan(descent, owned)
    assert orphans_of(found) == {
        b"evals/m/stray.json": 1,
        b"evals/m/deeper": 2,
        b"evals/gone/other.json": 1,
        b"runs/empty": 0,
    }
    assert list(found.owned) == [b"evals/m/owned.json"]
    assert found.orphan_count == 3, "an empty directory is no file that nobody names"


def test_links_are_orphans_themselves_and_never_followed(descent: Descent, cache_dir: Path, outside: Path) -> None:
    """Neither is what an entry owns behind one."""
    (cache_dir / "runs" / "out").symlink_to(outside)
    (cache_dir / "runs" / "loop").symlink_to("loop")
    (cache_dir / "runs" / "owned").symlink_to(outside / "precious")
    found = scan(descent, [b"runs/owned", b"runs/out/a/b/deep"])
    assert found.files == 0
    assert orphans_of(found) == {b"runs/loop": 0}
    assert found.owned == {b"runs/owned": Size()}


def test_category_that_is_a_link_takes_nothing(descent: Descent, cache_dir: Path, outside: Path) -> None:
    """Nor does the trash."""
    for name in ("runs", "trash"):
        if (cache_dir / name).exists():
            (cache_dir / name).rmdir()
        (cache_dir / name).symlink_to(outside)
    found = scan(descent, [b"runs/precious"])
    assert found.files == 0
    assert not found.owned


def test_names_of_any_kind_are_found_again(descent: Descent, cache_dir: Path) -> None:
    """As owned files, owned directories, and orphans."""
    for name, (category, below) in product(HOSTILE_NAMES, [("evals", "log"), ("runs", "")]):
        write(cache_dir / category / os.fsdecode(name) / below if below else cache_dir / category / os.fsdecode(name))
    owned = [b"evals/" + name for name in HOSTILE_NAMES[::2]] + [b"runs/" + name for name in HOSTILE_NAMES[::2]]
    found = scan(descent, owned)
    assert set(found.owned) == set(owned)
    strays = {category + name for category in (b"evals/", b"runs/") for name in HOSTILE_NAMES[1::2]}
    assert set(orphans_of(found)) == strays


def test_orphans_are_counted_beyond_those_that_are_listed(descent: Descent, cache_dir: Path) -> None:
    """Files and directories alike."""
    files = [write(cache_dir / "evals" / str(number), bytes(number)) for number in range(10)]
    files += [write(cache_dir / "runs" / str(number) / "file", bytes(number)) for number in range(10)]
    found = scan(descent, orphans_max=3)
    assert len(found.orphans) == 3
    assert found.orphan_count == 20
    assert found.orphan_size == size_of(*files)


def test_orphan_is_seen_as_a_later_look_sees_it(descent: Descent, cache_dir: Path) -> None:
    """Else a plan would refuse what has not changed; its newest time is that of anything in it."""
    write(cache_dir / "evals" / "file", b"x" * 10)
    inner = write(cache_dir / "runs" / "directory" / "inner")
    os.utime(inner, ns=(0, 4_000_000_000_000_000_001))
    found = {orphan.path: orphan for orphan in scan(descent).orphans}
    for path in (b"evals/file", b"runs/directory"):
        status = (cache_dir / os.fsdecode(path)).lstat()
        seen = found[path].seen
        assert (seen.device, seen.inode, seen.mtime_ns) == (status.st_dev, status.st_ino, status.st_mtime_ns)
        assert seen.size_bytes == status.st_size
    assert found[b"runs/directory"].measured.newest_ns == 4_000_000_000_000_000_001
    assert found[b"runs/directory"].seen.is_directory


@pytest.mark.parametrize("options", ["tmpfs", "bind"])
def test_what_is_mounted_is_neither_counted_nor_an_orphan(
    descent: Descent, cache_dir: Path, outside: Path, options: str
) -> None:
    """Nor is a directory that holds a mount point; what an entry owns there is found, and takes nothing."""
    for name in ("alone", "above/mount"):
        (cache_dir / "runs" / name).mkdir(parents=True)
    what = TMPFS if options == "tmpfs" else bind(outside)
    with mounted(cache_dir / "runs" / "alone", *what), mounted(cache_dir / "runs" / "above" / "mount", *what):
        write(cache_dir / "runs" / "above" / "file")
        found = scan(descent, [b"runs/alone"])
        assert found.files == 1
        assert found.owned == {b"runs/alone": Size()}
        assert not found.orphans


def test_what_cannot_be_looked_at_is_no_orphan(
    descent: Descent, cache_dir: Path, before_entering: BeforeEntering
) -> None:
    """Whether somebody owns something in it, or it is young, cannot be told."""
    write(cache_dir / "runs" / "above" / "closed" / "file")
    write(cache_dir / "runs" / "other")
    before_entering(b"closed", failing(errno.EACCES))
    assert orphans_of(scan(descent)) == {b"runs/other": 1}


def test_directory_that_becomes_a_link_is_not_followed(
    descent: Descent, cache_dir: Path, outside: Path, before_entering: BeforeEntering
) -> None:
    """After it was seen to be a directory."""
    write(cache_dir / "runs" / "a" / "precious")

    def swap() -> None:
        (cache_dir / "runs" / "a").rename(cache_dir / "away")
        (cache_dir / "runs" / "a").symlink_to(outside)

    before_entering(b"a", swap)
    found = scan(descent)
    assert found.files == 0
    assert not found.orphans


@pytest.mark.slow
def test_stopped_scan_says_that_it_is_not_whole(descent: Descent, cache_dir: Path) -> None:
    """Its figures are to be thrown away; a directory that it was in is no orphan."""
    for number in range(600):
        write(cache_dir / "runs" / "job" / str(number))
    steps: list[int] = []
    found = scan(descent, step=steps.append, is_stopped=lambda: bool(steps))
    assert not found.is_whole
    assert not found.orphans
    assert found.files < 600


@pytest.mark.slow
def test_very_deep_orphan_is_one(descent: Descent, cache_dir: Path) -> None:
    """Its path is short, however deep it is."""
    make_deep(cache_dir / "runs", 3_000)
    assert orphans_of(scan(descent)) == {b"runs/d": 3_000}
    remove_deep(cache_dir / "runs" / "d")


PATHS = st.lists(st.sampled_from([b"a", b"b", b"\xff"]), min_size=1, max_size=4).map(b"/".join)


@pytest.mark.slow
@given(files=st.sets(PATHS, max_size=12), owned=st.sets(PATHS, max_size=6))
def test_every_file_has_one_owner_or_is_in_one_orphan(files: set[bytes], owned: set[bytes]) -> None:
    """Against what one writes down without thinking of speed, for any tree and any owners."""
    with tempfile.TemporaryDirectory(prefix="mt-") as top, open_directory(top) as opened:
        runs = Path(top, "runs")
        for number, name in enumerate(sorted(files)):
            path = runs / os.fsdecode(name)
            # A path may be a file of one and a directory of another: who comes first has it.
            if not path.exists() and all(above.is_dir() or not above.exists() for above in path.parents):
                write(path, bytes(number + 1))
        paths = [path for path in runs.rglob("*") if path.is_file()]
        found = scan(Descent(opened.descriptor), [b"runs/" + name for name in owned])
        owners: dict[bytes, int] = {}
        left = 0
        for path in paths:
            name = os.fsencode(path.relative_to(runs))
            mine = [one for one in owned if is_within(name, one)]
            if mine:
                owner = b"runs/" + max(mine, key=len)
                owners[owner] = owners.get(owner, 0) + path.stat().st_size
            elif not any(is_within(one, name) for one in owned):
                left += path.stat().st_size
        assert {path: size.size_bytes for path, size in found.owned.items() if size.size_bytes} == owners
        assert found.orphan_size.size_bytes == left == sum(orphan.measured.size_bytes for orphan in found.orphans)
        assert not any(is_within(b"runs/" + one, orphan.path) for one in owned for orphan in found.orphans)
        assert found.categories["runs"] == size_of(*paths)
