"""A cache directory between an attacker who swaps directories for links, and the product's file tree."""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from motoolsd.adapters.directory import open_directory
from motoolsd.adapters.filetree import DirectoryTree
from motoolsd.core.ports import TreeError
from tests.adapters.places import files_below, never, nothing, write
from tests.crash import attacker

REST_TIMEOUT_S = 20.0
VICTIMS = ("runs", "runs/job", "runs/job/sub", "trash", "trash/1", "trash/1/0", "trash/1/0/sub", "datasets", "staging")
JOB = ("model", "sub/a", "sub/b", "sub/deeper/c")
STAGED, PUBLISHED = b"staged", b"datasets/hash.jsonl"


class Arena:
    """A cache directory, what lies outside of it, and the attacker between the two."""

    def __init__(self, top: Path) -> None:
        """Build everything; the attacker rests."""
        self.cache = top / "cache"
        self.attic = top / "attic"
        """Where directories are while a link stands in their place."""
        self.outside = top / "outside"
        for names in (JOB, [f"job/{name}" for name in JOB], [f"1/0/{name}" for name in JOB], [f"0/{n}" for n in JOB]):
            for name in names:
                write(self.outside / name, b"precious")
        for name in ("hash.jsonl", "staged"):
            write(self.outside / name, b"precious")
        self.before = self.all_outside()
        self._word_file = write(top / "word", attacker.REST)

    def all_outside(self) -> dict[Path, tuple[int, bytes]]:
        """Every file there: its inode and content."""
        return {path: (path.stat().st_ino, content) for path, content in files_below(self.outside).items()}

    def build(self) -> None:
        """Make what a round works on; the attacker rests."""
        for directory in (self.cache, self.attic):
            shutil.rmtree(directory, ignore_errors=True)
        self.cache.mkdir(parents=True)
        self.attic.mkdir()
        for name in JOB:
            write(self.cache / "runs" / "job" / name, name.encode())
        for name in ("datasets", "evals", "staging", "trash"):
            (self.cache / name).mkdir()
        write(self.cache / "staging" / os.fsdecode(STAGED), b"staged")
        for number in range(len(VICTIMS)):
            (self.attic / str(number)).symlink_to(self.outside)

    def left_of_job(self) -> Counter[bytes]:
        """The files of the job that there are, wherever."""
        contents = [*files_below(self.cache).values(), *files_below(self.attic).values()]
        return Counter(content for content in contents if content.decode() in JOB)

    @contextmanager
    def attacked(self) -> Iterator[Callable[[], None]]:
        """Start the attacker; yields what wakes it up. It rests at first, and is ended in the end."""
        pairs = [(f"{self.cache}/./{name}", self.attic / str(number)) for number, name in enumerate(VICTIMS)]
        with self._word_file.open("r+b") as file, mmap.mmap(file.fileno(), 1) as self._word:
            arguments = [self._word_file, *(path for pair in pairs for path in pair)]
            process = subprocess.Popen([sys.executable, "-I", attacker.__file__, *arguments])
            try:
                self.rest(process)
                yield lambda: self._say(attacker.GO)
            finally:
                process.kill()
                process.wait()

    def _say(self, word: bytes) -> None:
        self._word[:1] = word

    def rest(self, process: subprocess.Popen[bytes] | None = None) -> None:
        """Let the attacker put everything back, as far as it is still there, and wait."""
        self._say(attacker.REST)
        end_s = time.monotonic() + REST_TIMEOUT_S
        while self._word[:1] != attacker.RESTING:
            assert process is None or process.poll() is None, "the attacker has ended"
            assert time.monotonic() < end_s, "the attacker does not rest"
            os.sched_yield()


@contextmanager
def opened(arena: Arena) -> Iterator[DirectoryTree]:
    """The tree as the daemon has it."""
    with open_directory(str(arena.cache)) as directory:
        yield DirectoryTree(directory)


def trash(tree: DirectoryTree, told: Counter[str]) -> bool:
    """Move the job away; whether that was said to be done."""
    try:
        seen = tree.see(b"runs/job")
        if seen is None:
            told["not seen"] += 1
            return False
        tree.move_to_trash(b"runs/job", 1, 0, seen)
    except TreeError as error:
        told[f"not moved: {error.reason[:40]}"] += 1
        return False
    told["moved"] += 1
    return True


def trash_and_scan(arena: Arena, tree: DirectoryTree, told: Counter[str], wake: Callable[[], None]) -> None:
    """What is moved is whole, wherever it is; and nothing outside is counted."""
    wake()
    for _ in range(3):
        trash(tree, told)
        scan = tree.scan([b"runs/job"], orphans_max=100, step=nothing, is_stopped=never)
        assert scan.files <= 2 * len(JOB) + 2
        tree.present([b"runs/job/model", b"runs/job"])
        with suppress(TreeError):
            assert tree.digest(b"runs/job/model", never) in (None, DIGEST)
        with suppress(TreeError):
            tree.measure(b"runs/job/sub")
    arena.rest()
    assert arena.left_of_job() == Counter(name.encode() for name in JOB)


def trash_and_undo(arena: Arena, tree: DirectoryTree, told: Counter[str], wake: Callable[[], None]) -> None:
    """Wherever it is in the end: nothing of it is lost."""
    wake()
    for _ in range(3):
        trash(tree, told)
        with suppress(TreeError):
            tree.sync_trash(1, [b"runs/job"])
        try:
            tree.move_back(1, 0, b"runs/job")
        except TreeError as error:
            told[f"not put back: {error.reason[:40]}"] += 1
        else:
            told["put back"] += 1
    arena.rest()
    assert arena.left_of_job() == Counter(name.encode() for name in JOB)


def purge(arena: Arena, tree: DirectoryTree, told: Counter[str], wake: Callable[[], None]) -> None:
    """What was to go is gone, or was taken away in the meantime, or somebody was told that it stays."""
    assert trash(tree, told)
    wake()
    try:
        assert tree.purge(1, step=nothing, is_stopped=never)
    except TreeError as error:
        told[f"not purged: {error.reason[:60]}"] += 1
    else:
        told["purged"] += 1
        arena.rest()
        assert not [path for path, content in files_below(arena.cache).items() if content.decode() in JOB]
    arena.rest()


def publish(arena: Arena, tree: DirectoryTree, told: Counter[str], wake: Callable[[], None]) -> None:
    """What is published lies in the tree, or it is told that it does not."""
    with (arena.cache / "staging" / os.fsdecode(STAGED)).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        wake()
        for _ in range(3):
            try:
                tree.publish(STAGED, PUBLISHED)
            except TreeError as error:
                told[f"not published: {error.reason[:40]}"] += 1
            else:
                told["published"] += 1
            with suppress(TreeError):
                tree.abandoned()
            with suppress(TreeError):
                tree.withdraw(b"other", PUBLISHED)
        with suppress(TreeError):
            tree.withdraw(STAGED, PUBLISHED)
        arena.rest()


KINDS = (trash_and_scan, trash_and_undo, purge, publish)
DIGEST = "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4"
"""Of `model`, which is what the file of this name contains."""


def naive(path: str) -> None:
    """What shutil.rmtree would be without descriptors: it looks at a path, then uses it."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                naive(entry.path)
            else:
                os.unlink(entry.path)  # noqa: PTH108
    os.rmdir(path)  # noqa: PTH106
