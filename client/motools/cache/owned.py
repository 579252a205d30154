"""Paths that entries own: which those are, and bringing them to disk.

Layer: motools.cache. Imports errors, files and motoolsd.wire.
Invariant: what is not below `datasets/`, `runs/` or `evals/` of the cache directory, links resolved, is never owned.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from motools.cache.errors import CacheRequestError, StorageFailed
from motools.cache.files import Check, proceed, unreadable
from motoolsd.wire.names import FILE_CATEGORIES

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_LOOK: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def relative_path(directory: str, path: str | os.PathLike[str]) -> str | None:
    """Where a path lies below the cache directory, links resolved; None: elsewhere, or it has a scheme."""
    named = os.fspath(path)
    if _SCHEME.match(named) or "\0" in named:
        return None
    base, real = os.path.realpath(directory), os.path.realpath(named)
    return os.path.relpath(real, base) if real.startswith(base + os.sep) else None


def owned_path(directory: str, path: object) -> bytes | None:
    """What an entry owns that names this path, relative to the cache directory.

    None: it lies outside of `datasets/`, `runs/` and `evals/` of the cache directory, or there is nothing: then it is
    remembered as it stands and never touched.
    """
    if not isinstance(path, str | os.PathLike):
        return None
    relative = relative_path(directory, path)
    if relative is None or not _is_ownable(relative) or not os.path.lexists(os.path.join(directory, relative)):
        return None
    return os.fsencode(relative)


def run_path(directory: str, run_dir: object) -> bytes:
    """A model's run directory, relative to the cache directory.

    Raises:
        CacheRequestError: it is no directory, or lies where no entry can own it.
    """
    relative = _inside(directory, run_dir, "run_dir")
    if not os.path.isdir(os.path.join(directory, relative)):
        raise CacheRequestError(f"run_dir is no directory: {relative} in {directory}")
    return os.fsencode(relative)


def work_path(directory: str, work_dir: object) -> bytes:
    """A directory to be worked in, relative to the cache directory; it need not be there yet.

    Raises:
        CacheRequestError: it lies where no entry could own it.
    """
    return os.fsencode(_inside(directory, work_dir, "work_dir"))


def _inside(directory: str, path: object, what: str) -> str:
    if not isinstance(path, str | os.PathLike):
        raise CacheRequestError(f"{what} must be a path, not {type(path).__name__}")
    relative = relative_path(directory, path)
    if relative is None or not _is_ownable(relative):
        places = ", ".join(f"{name}/" for name in FILE_CATEGORIES)
        raise CacheRequestError(
            f"{what} must lie below one of {places} in {directory}: {os.fspath(path)!r} does not. Make it there, as in"
            f" {os.path.join(directory, 'runs', 'my-run')}, or leave {what} away: then its files are never touched"
        )
    return relative


def _is_ownable(relative: str) -> bool:
    category, _, rest = relative.partition(os.sep)
    return category in FILE_CATEGORIES and bool(rest)


def make_durable(directory: str, path: bytes, check: Check = proceed) -> None:
    """Bring a file, or a directory with everything in it, to disk, with the directories above it.

    Links are not followed, and what is neither file nor directory is left out.

    Raises:
        CacheRequestError: something in it cannot be opened.
        StorageFailed: the disk failed.
    """
    base = os.fsencode(os.path.realpath(directory))
    pending = [os.path.join(base, path)]
    while pending:
        check()
        current = pending.pop()
        with _opened(current) as descriptor:
            if descriptor is None:
                continue
            found = os.fstat(descriptor)
            if stat.S_ISDIR(found.st_mode):
                pending += [os.path.join(current, name) for name in map(os.fsencode, os.listdir(descriptor))]
            if stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode):
                _sync(descriptor)
    above = os.path.dirname(path)
    while above:
        with _opened(os.path.join(base, above)) as descriptor:
            if descriptor is not None:
                _sync(descriptor)
        above = os.path.dirname(above)


@contextmanager
def _opened(path: bytes) -> Iterator[int | None]:
    """A descriptor; None where there is nothing to bring to disk: a link, a socket, or what went meanwhile."""
    try:
        descriptor = os.open(path, _LOOK)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise unreadable(repr(os.fsdecode(path)), error) from error
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise StorageFailed(f"what belongs to the entry could not be brought to disk: {error.strerror}") from error


def own_run(directory: str, run_dir: object, check: Check = proceed) -> tuple[bytes, ...]:
    """What a model owns, brought to disk; `run_dir` None: nothing.

    Raises:
        CacheRequestError: as `run_path`.
        StorageFailed: as `make_durable`.
    """
    if run_dir is None:
        return ()
    path = run_path(directory, run_dir)
    make_durable(directory, path, check)
    return (path,)


def own_logs(directory: str, logs: object, check: Check = proceed) -> dict[str, bytes]:
    """Which of the logs, by task id, their entries own; brought to disk.

    Raises:
        CacheRequestError, StorageFailed: as `make_durable`.
    """
    if not isinstance(logs, Mapping):
        return {}  # refused by the table of calls, with its reason
    owned = {task: path for task, log in logs.items() if (path := owned_path(directory, log)) is not None}
    for path in owned.values():
        make_durable(directory, path, check)
    return owned
