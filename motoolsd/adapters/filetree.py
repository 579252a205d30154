"""Measuring the files below the cache directory.

Layer: adapters. Fulfils core.ports.FileTree.
Invariant: walks by directory descriptors, follows no link, opens no file: opening and closing cache.db anywhere in
this process would drop SQLite's locks on it.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator

import anyio
import anyio.to_thread

from motoolsd.adapters.directory import CacheDirectory
from motoolsd.core.sizes import FileFacts, SizeFold
from motoolsd.wire.names import DATABASE, FILE_CATEGORIES
from motoolsd.wire.sizes import Size

DEPTH_MAX = 256
"""Directories deeper than this are not entered: each level holds a descriptor."""
DATABASE_CATEGORY = "database"
_DATABASE_FILES = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm")
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class DirectoryTree:
    """The files below one cache directory. Callers that ask at the same time share one walk."""

    def __init__(self, directory: CacheDirectory) -> None:
        """Nothing is measured yet."""
        self._directory = directory
        self._lock = anyio.Lock()
        self._walks_started = 0
        self._last_finished = 0
        self._last: dict[str, Size] = {}

    async def measure(self) -> dict[str, Size]:
        """Walk the tree in a worker thread.

        A caller that finds a walk under way waits for the next one, so that it never gets figures from before it
        asked; those that wait together share that next walk.

        Cancellation: leaves at once, and the walk ends at its next directory.
        """
        needed = self._walks_started + 1
        async with self._lock:
            if self._last_finished >= needed:
                return self._last
            self._walks_started += 1
            number = self._walks_started
            stopped = threading.Event()
            try:
                self._last = await anyio.to_thread.run_sync(
                    measure_tree, self._directory.descriptor, stopped.is_set, abandon_on_cancel=True
                )
            finally:
                stopped.set()
            self._last_finished = number
            return self._last


def measure_tree(root: int, is_stopped: Callable[[], bool]) -> dict[str, Size]:
    """Add up every category below an open cache directory.

    Args:
        root: its descriptor.
        is_stopped: asked before each directory; once true, the walk ends with what it has.
    """
    fold = SizeFold()
    for category in FILE_CATEGORIES:
        fold.open_category(category)
        for facts in _walk(root, category, is_stopped):
            fold.add(category, facts)
    fold.open_category(DATABASE_CATEGORY)
    for name in _DATABASE_FILES:
        if (found := _regular_file(root, name)) is not None:
            fold.add(DATABASE_CATEGORY, found)
    return fold.totals()


def _walk(parent: int, name: str, is_stopped: Callable[[], bool], depth: int = 0) -> Iterator[FileFacts]:
    if is_stopped() or depth >= DEPTH_MAX:
        return
    try:
        descriptor = os.open(name, _ENTER, dir_fd=parent)
    except OSError:
        # Gone meanwhile, a link, or not ours to read: it counts nothing.
        return
    try:
        for child, is_directory in _children(descriptor):
            if is_directory:
                yield from _walk(descriptor, child, is_stopped, depth + 1)
            elif (facts := _regular_file(descriptor, child)) is not None:
                yield facts
    finally:
        os.close(descriptor)


def _children(descriptor: int) -> list[tuple[str, bool]]:
    try:
        with os.scandir(descriptor) as entries:
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except OSError:
        # A directory that cannot be read counts as far as it could be: nothing.
        return []


def _regular_file(parent: int, name: str) -> FileFacts | None:
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return FileFacts(found.st_dev, found.st_ino, found.st_nlink, found.st_size, found.st_blocks)
