"""Measuring: each inode once, no link followed, no figure from before one asked."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from motoolsd.adapters import filetree as filetree_module
from motoolsd.adapters.directory import CacheDirectory
from motoolsd.adapters.filetree import DEPTH_MAX, DirectoryTree, measure_tree
from motoolsd.wire.sizes import Size


def measure(directory: CacheDirectory) -> dict[str, int]:
    """Bytes of each category."""
    return {name: size.size_bytes for name, size in measure_tree(directory.descriptor, lambda: False).items()}


def test_empty_directory_has_every_category(directory: CacheDirectory) -> None:
    """A category without files takes no room; it is there all the same."""
    assert measure(directory) == {"datasets": 0, "runs": 0, "evals": 0, "database": 0}


def test_files_are_added_up_by_category(directory: CacheDirectory, cache_dir: Path) -> None:
    """Nested ones included; the database counts with its log."""
    (cache_dir / "runs" / "a" / "b").mkdir(parents=True)
    (cache_dir / "runs" / "a" / "b" / "model").write_bytes(b"x" * 100)
    (cache_dir / "runs" / "note").write_bytes(b"x" * 10)
    (cache_dir / "evals" / "log").write_bytes(b"x" * 5)
    (cache_dir / "cache.db").write_bytes(b"x" * 3)
    (cache_dir / "cache.db-wal").write_bytes(b"x" * 4)
    (cache_dir / "elsewhere").write_bytes(b"x" * 1000)
    assert measure(directory) == {"datasets": 0, "runs": 110, "evals": 5, "database": 7}
    assert measure_tree(directory.descriptor, lambda: False)["runs"].allocated_bytes % 512 == 0


def test_hard_links_are_counted_once(directory: CacheDirectory, cache_dir: Path) -> None:
    """However many names a file has, in one category or several."""
    (cache_dir / "runs" / "a").write_bytes(b"x" * 100)
    for name in ("runs/b", "evals/c"):
        os.link(cache_dir / "runs" / "a", cache_dir / name)
    assert measure(directory) == {"datasets": 0, "runs": 100, "evals": 0, "database": 0}


def test_links_are_never_followed(directory: CacheDirectory, cache_dir: Path) -> None:
    """Neither to files nor to directories, nor where a category should be; pipes are no files."""
    outside = cache_dir.parent / "outside"
    outside.mkdir()
    (outside / "big").write_bytes(b"x" * 1000)
    (cache_dir / "runs" / "directory").symlink_to(outside)
    (cache_dir / "runs" / "file").symlink_to(outside / "big")
    (cache_dir / "runs" / "loop").symlink_to(".")
    os.mkfifo(cache_dir / "runs" / "pipe")
    (cache_dir / "evals").rmdir()
    (cache_dir / "evals").symlink_to(outside)
    assert sum(measure(directory).values()) == 0


def test_very_deep_tree_ends(directory: CacheDirectory) -> None:
    """Each level holds a descriptor: below the limit nothing is entered."""
    parent = os.open("runs", os.O_RDONLY, dir_fd=directory.descriptor)
    for depth in range(DEPTH_MAX + 5):
        os.close(os.open(f"file-{depth}", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=parent))
        os.truncate(f"/proc/self/fd/{parent}/file-{depth}", 1)
        os.mkdir("d", dir_fd=parent)
        child = os.open("d", os.O_RDONLY, dir_fd=parent)
        os.close(parent)
        parent = child
    os.close(parent)
    assert measure(directory)["runs"] == DEPTH_MAX


def test_stopped_walk_ends_with_what_it_has(directory: CacheDirectory, cache_dir: Path) -> None:
    """It is asked before each directory."""
    (cache_dir / "runs" / "a").write_bytes(b"x")
    assert measure_tree(directory.descriptor, lambda: True)["runs"] == Size()


class Walks:
    """Counts walks, and holds each until it is let go."""

    def __init__(self) -> None:
        """No walk yet."""
        self.started = 0
        self.turn = threading.Semaphore(0)

    def walk(self, _root: int, is_stopped: Callable[[], bool]) -> dict[str, Size]:
        """Stand in for `measure_tree`: tells which walk it was."""
        self.started += 1
        number = self.started
        while not self.turn.acquire(timeout=0.005):
            if is_stopped():
                break
        return {"runs": Size(size_bytes=number)}

    async def wait_for(self, started: int) -> None:
        """Wait until so many walks have begun."""
        while self.started < started:
            await anyio.lowlevel.checkpoint()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Replace the real walk, and let everything go at the end."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(filetree_module, "measure_tree", self.walk)
            yield
            self.turn.release(100)


async def test_callers_share_the_next_walk_and_never_get_earlier_figures(directory: CacheDirectory) -> None:
    """Who asks while a walk is under way waits for the next one; all that wait share it."""
    tree, walks, answers = DirectoryTree(directory), Walks(), []

    async def ask() -> None:
        answers.append((await tree.measure())["runs"].size_bytes)

    with anyio.fail_after(5), walks.installed():
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await walks.wait_for(1)
            for _ in range(3):
                group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            walks.turn.release()
            await walks.wait_for(2)
            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            walks.turn.release(2)
    assert answers == [1, 2, 2, 2, 3]


async def test_figures_of_a_cancelled_walk_are_not_handed_out(directory: CacheDirectory) -> None:
    """Who waited for a walk that was cancelled has one of its own, not the figures from before it asked."""
    tree, walks = DirectoryTree(directory), Walks()
    answers: list[int] = []

    async def ask(scope: anyio.CancelScope) -> None:
        with scope:
            answers.append((await tree.measure())["runs"].size_bytes)

    with anyio.fail_after(5), walks.installed():
        async with anyio.create_task_group() as group:
            group.start_soon(ask, anyio.CancelScope())
            await walks.wait_for(1)
            second = anyio.CancelScope()
            group.start_soon(ask, second)
            group.start_soon(ask, anyio.CancelScope())
            await anyio.wait_all_tasks_blocked()
            walks.turn.release()
            await walks.wait_for(2)
            second.cancel()
            await walks.wait_for(3)
            walks.turn.release(2)
    assert answers == [1, 3]
