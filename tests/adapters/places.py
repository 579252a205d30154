"""Trees that are hard to walk, and what to compare them with."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HOSTILE_NAMES = (
    b"new\nline",
    b"not-utf-8-\xff\xfe",
    b"n" * 255,
    b"-rf *",
    b"...",
    b" ",
    "ü\u202e".encode(),
    b"\x01\x7f",
    b"deep-1",
)
"""All that a file system allows, and somebody's script does not expect."""


BeforeEntering = Callable[[bytes, Callable[[], None]], None]
"""A fixture: do something, once, right before a directory of a name is entered."""


def never() -> bool:
    """Nobody stops anything."""
    return False


def nothing(_count: int) -> None:
    """A step that does nothing."""


def write(path: Path, content: bytes = b"x") -> Path:
    """A file, with the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def errno_of(act: Callable[[], object]) -> int | None:
    """What the system says to it; None if it does it."""
    try:
        act()
    except OSError as error:
        return error.errno
    return None


def files_below(path: Path) -> dict[Path, bytes]:
    """Every regular file below a directory, with its content."""
    files = (Path(directory, name) for directory, _, names in os.walk(path) for name in names)
    return {file: file.read_bytes() for file in files if file.is_file() and not file.is_symlink()}


def make_deep(parent: Path, depth: int, *, name: str = "d", file: bytes | None = b"x") -> None:
    """Directories in directories, so many, far longer than a path may be; with a file in each."""
    descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
        if file is not None:
            content = os.open("file", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=descriptor)
            os.write(content, file)
            os.close(content)
    os.close(descriptor)


def remove_deep(parent: Path) -> None:
    """What shutil.rmtree cannot."""
    subprocess.run(["rm", "-rf", os.fspath(parent)], check=True, timeout=60)


@contextmanager
def mounted(target: Path, *options: str) -> Iterator[None]:
    """Something mounted on a directory or file; the test is skipped where that is not permitted.

    Args:
        target: what it is mounted on.
        options: of mount(8), before the target.
    """
    done = subprocess.run(["mount", *options, os.fspath(target)], check=False, capture_output=True, timeout=30)
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", os.fspath(target)], check=True, timeout=30)


TMPFS = ("-t", "tmpfs", "none")


def bind(source: Path) -> tuple[str, ...]:
    """The options that show a directory or file at a second place, of the same file system."""
    return ("--bind", os.fspath(source))


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


class MostDescriptors:
    """A step that remembers the most that were open."""

    def __init__(self) -> None:
        """Count those that are open anyway."""
        self._before = descriptors()
        self.most = 0

    def __call__(self, _count: int) -> None:
        """Look."""
        self.most = max(self.most, descriptors() - self._before)


def failing(number: int) -> Callable[..., None]:
    """What raises an error of the system."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@contextmanager
def without_privileges(*paths: Path) -> Iterator[None]:
    """Be somebody to whom permissions mean something, and own these."""
    if os.geteuid() != 0:
        yield
        return
    for path in paths:
        for name in (path, *path.rglob("*")):
            os.chown(name, 65534, 65534, follow_symlinks=False)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
