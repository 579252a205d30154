"""Content on its way into a cache directory.

Layer: motools.cache. Imports errors and motoolsd.wire.
Invariant: what is staged is whole and on disk before its name is told, and is removed on every way out; until then it
is locked, so that a daemon that starts takes it for somebody's. Nothing is ever hard-linked to a file of the caller.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from threading import Lock
from types import TracebackType
from typing import Final, NamedTuple, Self

from motools.cache.errors import CacheDirectoryMissing, CacheRequestError, StorageFailed
from motoolsd.wire.names import STAGING

Content = str | os.PathLike[str] | bytes | bytearray | memoryview
"""A path, or the bytes themselves."""
Check = Callable[[], None]
"""Called now and then by what takes long; what it raises ends that."""

CHUNK_SIZE_BYTES: Final = 1_048_576
SHOWN_MAX: Final = 200
"""Characters of a path in an error."""
NAMES_MAX: Final = 16
"""A daemon that is just starting may take a staged name away before it is locked: then another is tried, so often."""
_FICLONE: Final = 0x40049409
"""linux/fs.h: let one file share the blocks of another, copied only when either is written to."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Staged(NamedTuple):
    """Content that lies in staging, on disk.

    Attributes:
        name: below `staging/`.
        digest: SHA-256, 64 hexadecimal digits, as `hash_content` gives it.
        size_bytes, allocated_bytes: its length, and what it occupies.
    """

    name: bytes
    digest: str
    size_bytes: int
    allocated_bytes: int


def proceed() -> None:
    """The check of what nobody stops but by a signal."""


class Staging:
    """One piece of content on its way in; to be closed, or used as a context manager.

    Concurrency: `stage` may run in another thread than `close`; whichever comes last removes what there is.
    """

    def __init__(self, directory: str) -> None:
        """Make nothing yet; `directory` is the cache's."""
        self._directory = directory
        self._lock = Lock()
        self._pid = os.getpid()
        self._place: int | None = None
        self._file: int | None = None
        self._name = ""
        self._is_busy = False
        self._is_closed = False

    def __enter__(self) -> Self:
        """Use it in a `with` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def stage(self, content: Content, check: Check = proceed) -> Staged:
        """Copy content into the cache directory, chunk by chunk, and bring it to disk.

        Raises:
            CacheRequestError: there is no regular file that can be read, or it changed meanwhile.
            StorageFailed: the disk is full, or failed.
            CacheDirectoryMissing: there is no cache directory.
        """
        with self._lock:
            self._is_busy = True
        try:
            with open_source(content) as source:
                file, place = self._create()
                try:
                    digest = _copied(source, file, check)
                    os.fsync(file)
                    os.fsync(place)
                    found = os.fstat(file)
                except OSError as error:
                    raise _not_staged(error) from error
            return Staged(self._name.encode(), digest, found.st_size, found.st_blocks * 512)
        finally:
            with self._lock:
                self._is_busy = False
                if self._is_closed:
                    self._remove()

    def close(self) -> None:
        """Remove what was staged, unless the daemon has taken it over, and let go of it; harmless when repeated."""
        with self._lock:
            self._is_closed = True
            if not self._is_busy:
                self._remove()

    def _create(self) -> tuple[int, int]:
        try:
            place = self._place = _open_staging(self._directory)
            for _ in range(NAMES_MAX):
                self._name = os.urandom(16).hex()
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                file = self._file = os.open(self._name, flags, 0o600, dir_fd=place)
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file).st_nlink:
                    return file, place
                os.close(file)
                self._file = None
        except CacheDirectoryMissing:
            raise
        except OSError as error:
            raise _not_staged(error) from error
        raise StorageFailed("somebody removes what is staged, again and again: look who cleans up the cache directory")

    def _remove(self) -> None:
        file, place = self._file, self._place
        self._file = self._place = None
        # A forked child owns nothing of it. A second name is the daemon's: in the middle of storing it, the daemon, or
        # the next one that starts, takes both away or keeps both.
        with ExitStack() as closing:
            for descriptor in (file, place):
                if descriptor is not None:
                    closing.callback(os.close, descriptor)
            if file is None or self._pid != os.getpid():
                return
            # A disk that fails may not even tell; then the next daemon takes it away.
            with suppress(OSError):
                if os.fstat(file).st_nlink == 1:
                    os.unlink(self._name, dir_fd=place)


def _open_staging(directory: str) -> int:
    try:
        above = os.open(directory, _DIRECTORY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CacheDirectoryMissing(f"no cache directory {directory}: it was removed meanwhile") from error
    try:
        try:
            return os.open(STAGING, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(STAGING, 0o700, dir_fd=above)
            return os.open(STAGING, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    finally:
        os.close(above)


def _not_staged(error: OSError) -> StorageFailed:
    if error.errno in _FULL:
        return StorageFailed(
            f"the disk is full ({error.strerror}): nothing of this was stored, and what was stored before remains. "
            "Make room with `motools cache prune` or `motools cache trash empty`, then try again"
        )
    remedy = ""
    if error.errno in (errno.ENOTDIR, errno.ELOOP):
        remedy = f". {STAGING} in it is a link, or no directory: remove it"
    text = f"the content could not be copied into the cache directory ({error}); nothing was stored{remedy}"
    return StorageFailed(text)


# Sources.


class Source:
    """Content to be read once, from its beginning to its end.

    Attributes:
        descriptor: of the file; None: the bytes are here.
    """

    def __init__(self, data: memoryview | None, descriptor: int | None, shown: str) -> None:
        """Wrap one of both; `shown` names it in errors."""
        self._data = data
        self.descriptor = descriptor
        self._shown = shown
        self._before = None if descriptor is None else _state_of(descriptor)

    def chunks(self) -> Iterator[memoryview]:
        """Its bytes; a chunk is valid until the next one.

        Raises:
            CacheRequestError: it cannot be read, or changes meanwhile.
        """
        if self._data is not None:
            for start in range(0, len(self._data), CHUNK_SIZE_BYTES):
                yield self._data[start : start + CHUNK_SIZE_BYTES]
            return
        assert self.descriptor is not None, "one of both"
        assert self._before is not None, "read with the descriptor"
        buffer = memoryview(bytearray(CHUNK_SIZE_BYTES))
        # No further than it reached at first: one that is appended to for ever would have no end.
        left = self._before[0]
        while left > 0 and (count := self._read(self.descriptor, buffer[: min(left, CHUNK_SIZE_BYTES)])):
            left -= count
            yield buffer[:count]
        self.check()

    def check(self) -> None:
        """Make sure that it is what it was when it was opened.

        Raises:
            CacheRequestError: it is not.
        """
        if self.descriptor is not None and _state_of(self.descriptor) != self._before:
            raise CacheRequestError(f"{self._shown} changed while it was copied: store it again when it is finished")

    def _read(self, descriptor: int, buffer: memoryview) -> int:
        try:
            return os.readv(descriptor, [buffer])
        except OSError as error:
            raise unreadable(self._shown, error) from error


@contextmanager
def open_source(content: Content) -> Iterator[Source]:
    """What a caller gave as content.

    Raises:
        CacheRequestError: it is neither bytes nor the path of a regular file that can be read.
    """
    if isinstance(content, bytes | bytearray | memoryview):
        data = memoryview(content)
        yield Source(data.cast("B") if data.c_contiguous else memoryview(bytes(data)), None, "the content")
        return
    if not isinstance(content, str | os.PathLike):
        raise CacheRequestError(f"content is a path or bytes, not {type(content).__name__}")
    shown = repr(os.fspath(content))
    if len(shown) > SHOWN_MAX:
        shown = f"{shown[:SHOWN_MAX]}... (a text is a path: give content as bytes)"
    try:
        # Not blocking: opening a pipe would wait for whoever writes into it.
        descriptor = os.open(content, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise unreadable(shown, error) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            what = "a directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "no regular file"
            raise CacheRequestError(f"{shown} is {what}: a dataset's content is one file, or bytes")
        yield Source(None, descriptor, shown)
    finally:
        os.close(descriptor)


def digest_of(content: Content, check: Check = proceed) -> tuple[str, int]:
    """SHA-256 and length of content, without copying it.

    Raises:
        CacheRequestError: as `Staging.stage`.
    """
    digest, size_bytes = sha256(), 0
    with open_source(content) as source:
        for chunk in source.chunks():
            check()
            digest.update(chunk)
            size_bytes += len(chunk)
    return digest.hexdigest(), size_bytes


def _copied(source: Source, file: int, check: Check) -> str:
    """Bring all of a source into a file; its digest."""
    digest = sha256()
    if source.descriptor is not None and _is_cloned(source.descriptor, file):
        # What is hashed is the copy: whatever happens to the original, the two belong together.
        buffer = memoryview(bytearray(CHUNK_SIZE_BYTES))
        while count := os.readv(file, [buffer]):
            check()
            digest.update(buffer[:count])
        source.check()
        return digest.hexdigest()
    for chunk in source.chunks():
        check()
        digest.update(chunk)
        left = chunk
        while left:
            left = left[os.write(file, left) :]
    return digest.hexdigest()


def _is_cloned(descriptor: int, file: int) -> bool:
    try:
        fcntl.ioctl(file, _FICLONE, descriptor)
    except OSError:
        return False  # this file system cannot, or the two lie on different ones
    return True


def _state_of(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_size, found.st_mtime_ns


def unreadable(shown: str, error: OSError | ValueError) -> CacheRequestError:
    """The error for what cannot be read."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return CacheRequestError(f"{shown} cannot be read: {reason}")
