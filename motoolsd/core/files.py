"""Files as decisions see them: which paths an entry may own, what stat(2) says of them, what a scan found.

Layer: core. Imports wire.
Invariant: pure. A path is relative to the cache directory and stays below one of its categories, whatever it is made
of: no `..`, no empty part, never a category itself.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from msgspec import Struct, field

from motoolsd.core.errors import RequestError
from motoolsd.wire import names
from motoolsd.wire.names import DATASETS, EVALS, FILE_CATEGORIES
from motoolsd.wire.sizes import Size

DATASET_SUFFIX: Final = names.DATASET_SUFFIX.encode()
PATH_SIZE_MAX_BYTES: Final = 4095
_CATEGORIES: Final = tuple(name.encode() for name in FILE_CATEGORIES)


class Seen(NamedTuple):
    """What tells a file or directory from another that has come into its place."""

    device: int
    inode: int
    is_directory: bool
    size_bytes: int
    """st_size; of a directory, the directory's own."""
    mtime_ns: int


class StoredBackup(NamedTuple):
    """An automatic backup, as its file lies there."""

    path: bytes
    """Absolute."""
    name: bytes
    size_bytes: int
    modified_ns: int
    made_at: str
    """As its name says, RFC 3339 UTC."""


class Measured(NamedTuple):
    """Room taken by the regular files of one path, each inode once."""

    size_bytes: int = 0
    allocated_bytes: int = 0
    files: int = 0
    newest_ns: int = 0
    """The newest mtime or ctime of anything in it, since the epoch; ctime counts because a file may be moved in with
    an old mtime."""


class Orphan(NamedTuple):
    """A file or a directory with everything in it that no entry names; the topmost such path."""

    path: bytes
    seen: Seen
    measured: Measured

    @property
    def is_empty(self) -> bool:
        """Whether it is a directory without files: it goes with a clean-up, but nobody need hear of it."""
        return self.seen.is_directory and not self.measured.files


class Scan(Struct, kw_only=True):
    """What a walk of the whole tree found."""

    categories: dict[str, Size] = field(default_factory=dict)
    """`datasets`, `runs`, `evals`, `database`, `trash`, `staging`: each file counts where it lies."""
    owned: dict[bytes, Size] = field(default_factory=dict)
    """Of each owned path that was found. A file below two owned paths counts for the inner one."""
    orphans: list[Orphan] = field(default_factory=list)
    """At most as many as were asked for, the first met."""
    orphan_size: Size = Size()
    orphan_count: int = 0
    """Empty ones not counted."""
    files: int = 0
    is_whole: bool = True
    """Whether it came to its end; else all of it is to be thrown away."""


class PathRefused(RequestError):
    """A path that no entry may own."""


def check_path(path: bytes) -> None:
    """Make sure that a path may belong to an entry.

    Raises:
        PathRefused: it may not; the text says why.
    """
    parts = path.split(b"/")
    shown = path.decode("utf-8", "backslashreplace")[:200]
    if len(path) > PATH_SIZE_MAX_BYTES or b"\0" in path:
        raise PathRefused(f"no file of the cache can have the path {shown!r}")
    if len(parts) < 2 or parts[0] not in _CATEGORIES:  # noqa: PLR2004 - a category, and something in it
        wanted = ", ".join(f"{name}/" for name in FILE_CATEGORIES)
        raise PathRefused(f"files of entries lie below {wanted} in the cache directory: {shown!r} does not")
    if any(part in (b"", b".", b"..") for part in parts):
        raise PathRefused(f"the path {shown!r} is not in its simplest form")


def category_of(path: bytes) -> str:
    """The category that a checked path lies in."""
    return path.split(b"/", 1)[0].decode()


def is_within(path: bytes, ancestor: bytes) -> bool:
    """Whether a path is another one or lies below it."""
    return path == ancestor or path.startswith(ancestor + b"/")


def overlaps(path: bytes, other: bytes) -> bool:
    """Whether one of two paths is the other, or lies below it."""
    return is_within(path, other) or is_within(other, path)


def ancestors_of(path: bytes) -> list[bytes]:
    """The directories above a path, the outermost first: `runs`, `runs/a` of `runs/a/b`."""
    parts = path.split(b"/")
    return [b"/".join(parts[:count]) for count in range(1, len(parts))]


def dataset_path(dataset_hash: str) -> bytes | None:
    """Where the older package kept a dataset's content, and where it is published; None if the hash is no file name."""
    name = dataset_hash.encode() + DATASET_SUFFIX
    path = DATASETS.encode() + b"/" + name
    try:
        check_path(path)
    except PathRefused:
        return None
    return None if dataset_hash.encode().count(b"/") else path


def dataset_of(path: bytes) -> str | None:
    """The hash of the dataset whose content would be kept at a path."""
    category, _, name = path.partition(b"/")
    if category != DATASETS.encode() or b"/" in name or not name.endswith(DATASET_SUFFIX):
        return None
    try:
        return name.removesuffix(DATASET_SUFFIX).decode()
    except UnicodeDecodeError:
        return None


def spellings(path: bytes, directory: bytes) -> list[bytes]:
    """How an evaluation's row may name a log below the cache directory: absolute, or relative as jobs had it.

    Args:
        path: relative to the cache directory.
        directory: the cache directory's absolute path.
    """
    name = directory.rsplit(b"/", 1)[-1]
    return [directory + b"/" + path, name + b"/" + path, b"./" + name + b"/" + path, path]


def relative_of(value: bytes, directory: bytes) -> bytes | None:
    """The path below the cache directory that a row's value names, as far as its text tells; None if none."""
    for prefix in spellings(b"", directory)[:-1]:
        if value.startswith(prefix):
            value = value.removeprefix(prefix)
            break
    try:
        check_path(value)
    except PathRefused:
        return None
    return value


LOGS: Final = EVALS.encode()
