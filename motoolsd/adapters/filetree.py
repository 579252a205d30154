"""The files below the cache directory.

Layer: adapters. Imports directory, descent, backups, scan, trash, removal, publication and core.
Invariant: everything starts at the directory's descriptor and goes down by descriptors; no regular file is opened but
to read its digest or to bring it to the disk, and none of the database ever (see `Descent.open_file`).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from typing import Final

from motoolsd.adapters.backups import BackupFiles
from motoolsd.adapters.descent import Descent, described, describing, look, seen_as, split
from motoolsd.adapters.directory import CacheDirectory
from motoolsd.adapters.publication import Publication
from motoolsd.adapters.removal import TreeRemoval
from motoolsd.adapters.scan import Scanner, database_size
from motoolsd.adapters.trash import TRASH_NAME, Trash
from motoolsd.adapters.walk import Pending, Tally, Walk
from motoolsd.core.files import Measured, Scan, Seen
from motoolsd.core.ports import BackupFiles as BackupPlaces
from motoolsd.core.ports import PathMissing
from motoolsd.wire.names import DATABASE
from motoolsd.wire.sizes import Size

READ_SIZE_BYTES: Final = 1024 * 1024


class DirectoryTree:
    """The files below one cache directory. Fulfils core.ports.FileTree: every method blocks, threads may share it."""

    def __init__(self, directory: CacheDirectory) -> None:
        """Touch nothing yet."""
        self._path = os.fsencode(directory.path)
        self._descent = Descent(directory.descriptor)
        self._trash = Trash(self._descent)
        self._publication = Publication(self._descent)
        self._backups: BackupPlaces = BackupFiles(self._descent, self._path)

    @property
    def directory(self) -> bytes:
        """The cache directory's absolute path."""
        return self._path

    @property
    def backups(self) -> BackupPlaces:
        """Where copies of the database lie."""
        return self._backups

    def see(self, path: bytes) -> Seen | None:
        """What is at a path."""
        found = self._look(path)
        return None if found is None else seen_as(found)

    def _look(self, path: bytes) -> os.stat_result | None:
        parents, name = split(path)
        try:
            with describing(path), self._descent.opened(parents) as parent:
                return look(parent, name)
        except PathMissing:
            return None

    def present(self, paths: Sequence[bytes]) -> list[bool]:
        """Whether there is a regular file or directory at each path."""
        answers = [False] * len(paths)
        places: dict[tuple[bytes, ...], list[tuple[int, bytes]]] = {}
        for number, path in enumerate(paths):
            parents, name = split(path)
            places.setdefault(parents, []).append((number, name))
        for parents, names in places.items():
            try:
                with self._descent.opened(parents) as parent:
                    for number, name in names:
                        answers[number] = _is_content(parent, name)
            except OSError as error:
                for number, _ in names:
                    answers[number] = not isinstance(described(paths[number], error), PathMissing)
        return answers

    def measure(self, path: bytes) -> Measured | None:
        """Add up what lies at a path."""
        parents, name = split(path)
        try:
            with describing(path), self._descent.opened(parents) as parent:
                found = look(parent, name)
                return None if found is None else self._measure(parent, name, found)
        except PathMissing:
            return None

    def _measure(self, parent: int, name: bytes, found: os.stat_result) -> Measured:
        tally = Tally(max(found.st_mtime_ns, found.st_ctime_ns))
        if stat.S_ISREG(found.st_mode):
            tally.add(1, found.st_size, found.st_blocks)
        elif stat.S_ISDIR(found.st_mode):
            Walk(self._descent).run(parent, Pending(name, tally, None), Tally())
        return tally.measured

    def database_size(self) -> Size:
        """What cache.db, its companions and all copies of it take, now."""
        with describing(DATABASE.encode()):
            return database_size(self._descent)

    def scan(
        self, owned: Sequence[bytes], *, orphans_max: int, step: Callable[[int], None], is_stopped: Callable[[], bool]
    ) -> Scan:
        """Walk the whole tree."""
        with describing(b"."):
            return Scanner(self._descent, owned, orphans_max=orphans_max, step=step, is_stopped=is_stopped).run()

    def move_to_trash(self, path: bytes, removal: int, number: int, seen: Seen) -> None:
        """Rename to `trash/<removal>/<number>`, if it is what was seen."""
        self._trash.move(path, removal, number, seen)

    def is_in_trash(self, removal: int, number: int) -> bool:
        """Whether `trash/<removal>/<number>` is there."""
        return self._trash.holds(removal, number)

    def move_back(self, removal: int, number: int, path: bytes) -> None:
        """Rename from the trash to a path, making directories above it that are gone."""
        self._trash.move_back(removal, number, path)

    def sync_trash(self, removal: int, paths: Sequence[bytes]) -> None:
        """Bring renames to the disk."""
        self._trash.sync(removal, paths)

    def purge(self, removal: int, *, step: Callable[[int], None], is_stopped: Callable[[], bool]) -> bool:
        """Free the room of `trash/<removal>`, whatever lies in it."""
        try:
            with describing(TRASH_NAME, strictly=True), self._descent.opened((TRASH_NAME,)) as trash:
                gone = TreeRemoval(self._descent, trash, above=TRASH_NAME, step=step, is_stopped=is_stopped)
                if not gone.remove(b"%d" % removal):
                    return False
                os.fsync(trash)
        except PathMissing:
            return True
        if gone.refused is not None:
            raise gone.refused
        return True

    def discard(self, removal: int) -> bool:
        """Remove the directory `trash/<removal>`, if it is empty."""
        return self._trash.discard(removal)

    def trash_names(self) -> list[int]:
        """The removals that have a directory in the trash."""
        return self._trash.removals()

    def publish(self, staged: bytes, path: bytes) -> bool:
        """Let the content `staging/<staged>` appear at a path, whole and on disk."""
        return self._publication.publish(staged, path)

    def withdraw(self, staged: bytes, path: bytes) -> None:
        """Undo a publishing whose row was not stored."""
        self._publication.withdraw(staged, path)

    def unstage(self, staged: bytes) -> None:
        """Remove a staged name."""
        self._publication.unstage(staged)

    def abandoned(self) -> list[tuple[bytes, bytes | None]]:
        """What lies in staging and nobody holds locked any more; with the path that it was published under."""
        return self._publication.abandoned()

    def digest(self, path: bytes, is_stopped: Callable[[], bool]) -> str | None:
        """SHA-256 of a regular file's content; None also if it was stopped."""
        parents, name = split(path)
        assert parents, "the database lies right in the cache directory"
        try:
            with describing(path), self._descent.opened(parents) as parent:
                found = look(parent, name)
                if found is None or not stat.S_ISREG(found.st_mode):
                    return None
                descriptor = self._descent.open_file(parent, name)
                try:
                    return _digest(descriptor, is_stopped)
                finally:
                    os.close(descriptor)
        except PathMissing:
            return None

    def free_bytes(self) -> int:
        """What the disk has left for this user."""
        with describing(b"."):
            disk = os.fstatvfs(self._descent.root)
        return disk.f_bavail * disk.f_frsize


def _is_content(parent: int, name: bytes) -> bool:
    """Whether there is a regular file or directory; also where that cannot be told."""
    try:
        found = look(parent, name)
    except OSError:
        return True
    return found is not None and (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode))


def _digest(descriptor: int, is_stopped: Callable[[], bool]) -> str | None:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(READ_SIZE_BYTES))
    while not is_stopped():
        if (size_bytes := os.readv(descriptor, [buffer])) == 0:
            return digest.hexdigest()
        digest.update(buffer[:size_bytes])
    return None
