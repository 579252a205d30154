"""The files of backups: written under another name, given their own once they are whole and on disk.

Layer: adapters. Imports descent, directory, renaming, core and wire.
Invariant: whatever has the name of a backup is whole. What is half written has a name of its own, which nobody takes
for a backup, and goes when writing ends, however it ends; after a kill, when the next one begins.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from motoolsd.adapters.descent import OPEN_DIRECTORY, Descent, describing, look
from motoolsd.adapters.renaming import rename
from motoolsd.core.files import PathRefused, StoredBackup
from motoolsd.core.ports import Draft, PathTaken, TreeError
from motoolsd.wire.names import BACKUPS

PARTIAL_PREFIX: Final = ".motools-"
PARTIAL_SUFFIX: Final = ".partial"
COMPANIONS: Final = ("", "-journal", "-wal", "-shm")
"""What SQLite may make beside a file while it writes it."""
NAME: Final = re.compile(r"cache-(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z(?:-\d+)?\.db")
"""What an automatic backup is called: after the time of its making, in UTC."""
FILE_MODE: Final = 0o600
NUMBERED_MAX: Final = 1_000
"""Backups of one second that are told apart."""


class DraftFile:
    """A file that is being written, in an open directory."""

    def __init__(self, directory: int, name: bytes, place: bytes) -> None:
        """Made by `draft_in`."""
        self._directory = directory
        self._place = place
        self.name = name

    @property
    def path(self) -> str:
        """Where to write it: leads there whatever becomes of the directory's own path."""
        return f"/proc/self/fd/{self._directory}/{os.fsdecode(self.name)}"

    def publish(self, name: bytes, *, force: bool) -> int:
        """Bring it to the disk and give it its name; its size in bytes.

        Args:
            name: in the directory that it was drafted in.
            force: whether a regular file, or a link, of that name is replaced.

        Raises:
            PathTaken: there is something of that name.
            TreeError: the disk refused.
        """
        with describing(self._place + b"/" + name):
            size_bytes = _bring_to_disk(self._directory, self.name)
            if force:
                found = look(self._directory, name)
                if found is not None and not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                os.rename(self.name, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            else:
                rename(self._directory, self.name, self._directory, name)
            os.fsync(self._directory)
        return size_bytes


@contextmanager
def draft_in(directory: int, place: bytes) -> Iterator[DraftFile]:
    """An empty file of ours in an open directory; gone when the block is left, unless it was published.

    Args:
        directory: its descriptor.
        place: its path, for what errors say.

    Raises:
        TreeError: it cannot be made.
    """
    name = f"{PARTIAL_PREFIX}{secrets.token_hex(8)}{PARTIAL_SUFFIX}".encode()
    with describing(place + b"/" + name):
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        os.close(os.open(name, flags, FILE_MODE, dir_fd=directory))
    try:
        yield DraftFile(directory, name, place)
    finally:
        remove_draft(directory, name)


def remove_draft(directory: int, name: bytes) -> None:
    """Remove a half-written file with what SQLite made beside it; harmless if there is none."""
    for companion in COMPANIONS:
        with suppress(OSError):  # what cannot be removed stays, under a name that means nothing
            os.unlink(name + companion.encode(), dir_fd=directory)


def _bring_to_disk(directory: int, name: bytes) -> int:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
    try:
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


class BackupFiles:
    """Where backups lie. Fulfils core.ports.BackupFiles: every method blocks, threads may share it."""

    def __init__(self, descent: Descent, path: bytes) -> None:
        """Make nothing before it is needed; `path` is the cache directory's."""
        self._descent = descent
        self._path = path

    @contextmanager
    def draft_at(self, path: bytes) -> Iterator[tuple[DraftFile, bytes]]:
        """Draft a file that is to have a path outside of the cache directory."""
        parent, name = os.path.split(path)
        with describing(path):
            directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._check_outside(directory, path)
            with draft_in(directory, parent) as draft:
                yield draft, name
        finally:
            os.close(directory)

    def _check_outside(self, directory: int, path: bytes) -> None:
        """Everything in the cache directory belongs to somebody, and the database is among it."""
        own = os.fstat(self._descent.root)
        above = os.fsencode(os.readlink(f"/proc/self/fd/{directory}"))
        while True:
            with suppress(OSError):
                if os.path.samestat(os.stat(above), own):
                    shown = path.decode("utf-8", "backslashreplace")
                    raise PathRefused(f"{shown} lies in the cache directory itself: name a place outside of it")
            if above in (b"/", b""):
                return
            above = os.path.dirname(above)

    @contextmanager
    def draft_automatic(self) -> Iterator[DraftFile]:
        """Draft one in `backups/`; what an earlier one left half written goes first."""
        place = BACKUPS.encode()
        with describing(place), self._descent.opened((place,), make=True) as directory:
            for name in os.listdir(directory):
                if name.startswith(PARTIAL_PREFIX):
                    os.unlink(name, dir_fd=directory)
            with draft_in(directory, place) as draft:
                yield draft

    def publish_automatic(self, draft: Draft, made_at: str) -> bytes:
        """Name an automatic backup after its time, `20260131T235959Z`; its name."""
        for number in range(1, NUMBERED_MAX):
            name = f"cache-{made_at}.db" if number == 1 else f"cache-{made_at}-{number}.db"
            try:
                draft.publish(name.encode(), force=False)
            except PathTaken:
                continue
            return name.encode()
        raise TreeError(BACKUPS.encode(), "there are too many backups of one second")

    def automatic(self) -> list[StoredBackup]:
        """Those in `backups/`, the newest first."""
        try:
            directory = os.open(BACKUPS, OPEN_DIRECTORY, dir_fd=self._descent.root)
        except OSError:
            return []
        try:
            with describing(BACKUPS.encode()):
                names = [name for name in os.listdir(directory) if NAME.fullmatch(name)]
                found = [(name, look(directory, name)) for name in names]
        finally:
            os.close(directory)
        backups = [
            StoredBackup(
                path=b"%b/%b/%b" % (self._path, BACKUPS.encode(), name.encode()),
                name=name.encode(),
                size_bytes=seen.st_size,
                modified_ns=seen.st_mtime_ns,
                made_at=_time_of(name),
            )
            for name, seen in found
            if seen is not None and stat.S_ISREG(seen.st_mode)
        ]
        return sorted(backups, key=lambda one: (one.made_at, one.modified_ns), reverse=True)

    def remove_automatic(self, keep: int, *, latest: bytes | None = None) -> int:
        """Remove the oldest above a number; how many there were."""
        # A clock that was set back has given the latest the name of the oldest: it is no candidate.
        surplus = [one for one in self.automatic() if one.name != latest][keep - (latest is not None) :]
        if surplus:
            place = BACKUPS.encode()
            with describing(place), self._descent.opened((place,)) as directory:
                for one in surplus:
                    os.unlink(one.name, dir_fd=directory)
                os.fsync(directory)
        return len(surplus)


def _time_of(name: str) -> str:
    """RFC 3339, of a name that fits."""
    found = NAME.fullmatch(name)
    assert found is not None
    year, month, day, hour, minute, second = found.groups()
    return f"{year}-{month}-{day}T{hour}:{minute}:{second}Z"
