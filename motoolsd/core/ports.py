"""What the daemon needs of the outside world, as protocols that adapters fulfil and tests fake.

Layer: core. Imports files, leases and wire.
Invariant: nothing above the adapters reads a clock, walks a tree or looks at a process except through these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from motoolsd.core.deadlines import Moment
from motoolsd.core.files import Measured, Scan, Seen, StoredBackup
from motoolsd.core.leases import Process
from motoolsd.wire.sizes import Size


class Clock(Protocol):
    """Time stamps and pauses. Timeouts belong to anyio."""

    def monotonic_s(self) -> float:
        """Seconds on a clock that never jumps; only differences mean something."""
        ...

    def utc_text(self) -> str:
        """Now as SQLite writes a time stamp in UTC, with milliseconds: `2026-01-31 23:59:59.123`."""
        ...

    def moment(self) -> Moment:
        """Now, on all clocks that a deadline may need."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Pause. Cancellation: leaves at once."""
        ...

    async def tick(self, interval_s: float) -> None:
        """Pause for an interval at most: all that tick alike wake at the same moments, and the processor once."""
        ...


class TreeError(Exception):
    """The tree cannot be changed as asked; nothing was changed.

    Attributes:
        path: which path, relative to the cache directory.
        reason: why.
    """

    def __init__(self, path: bytes, reason: str) -> None:
        """Name both."""
        super().__init__(f"{path.decode('utf-8', 'backslashreplace')}: {reason}")
        self.path = path
        self.reason = reason


class PathChanged(TreeError):
    """Something else has come into the place of what was to be moved; it stays where it is."""


class PathTaken(TreeError):
    """There is something already where a path was to be put back."""


class PathMissing(TreeError):
    """There is nothing at the path."""


class DiskFull(TreeError):
    """No room is left, or no inode."""


class ReadOnly(TreeError):
    """The file system takes no changes."""


class Draft(Protocol):
    """A file that is being written, under a name that nobody takes for a backup."""

    @property
    def path(self) -> str:
        """Where to write it."""
        ...

    def publish(self, name: bytes, *, force: bool) -> int:
        """Bring it to the disk, then give it its name; its size in bytes.

        Args:
            name: in the directory that it was drafted in.
            force: whether a file of that name is replaced.

        Raises:
            PathTaken: there is something of that name.
            DiskFull, TreeError: the disk refused.
        """
        ...


class BackupFiles(Protocol):
    """The files of backups. Every method blocks: it is called in worker threads."""

    def draft_at(self, path: bytes) -> AbstractContextManager[tuple[Draft, bytes]]:
        """An empty file beside an absolute path, and the name to publish it under; gone afterwards, unless published.

        Raises:
            PathRefused: the path lies in the cache directory.
            PathMissing: its directory is not there.
            DiskFull, TreeError: it cannot be made.
        """
        ...

    def draft_automatic(self) -> AbstractContextManager[Draft]:
        """The same among the automatic backups.

        Raises:
            DiskFull, TreeError: it cannot be made.
        """
        ...

    def publish_automatic(self, draft: Draft, made_at: str) -> bytes:
        """Publish it under the name of its time, written `20260131T235959Z`; that name.

        Raises:
            DiskFull, TreeError: the disk refused.
        """
        ...

    def automatic(self) -> list[StoredBackup]:
        """The automatic backups, the newest first.

        Raises:
            TreeError: it cannot be told.
        """
        ...

    def remove_automatic(self, keep: int, *, latest: bytes | None = None) -> int:
        """Remove all but so many, the oldest first; how many went.

        Args:
            keep: how many stay.
            latest: stays whatever the others are called; None: the one with the latest name is it.

        Raises:
            TreeError: one cannot be removed.
        """
        ...


class FileTree(Protocol):
    """The files below the cache directory. Every method blocks: it is called in worker threads.

    Paths are relative to the cache directory, checked by `core.files.check_path`. No link is ever followed, no mount
    point crossed, nothing outside the directory touched, whatever others do to the tree meanwhile.
    """

    @property
    def directory(self) -> bytes:
        """The cache directory's absolute path, for what rows may call it."""
        ...

    @property
    def backups(self) -> BackupFiles:
        """Where copies of the database lie."""
        ...

    def see(self, path: bytes) -> Seen | None:
        """What is at a path; None if nothing is, or a component of it is a link.

        A link itself is seen, as what is no directory.
        """
        ...

    def present(self, paths: Sequence[bytes]) -> list[bool]:
        """Whether there is a regular file or directory at each path."""
        ...

    def measure(self, path: bytes) -> Measured | None:
        """Add up what lies at a path; None if nothing does."""
        ...

    def database_size(self) -> Size:
        """What cache.db and its companions, its backups and what a restore has set aside take, now."""
        ...

    def scan(
        self, owned: Sequence[bytes], *, orphans_max: int, step: Callable[[int], None], is_stopped: Callable[[], bool]
    ) -> Scan:
        """Walk the whole tree.

        Args:
            owned: the paths that entries own.
            orphans_max: so many orphans are named; all are counted.
            step: called after every few hundred files with their number so far; it may sleep, to let others work.
            is_stopped: once true, the walk ends soon.
        """
        ...

    def move_to_trash(self, path: bytes, removal: int, number: int, seen: Seen) -> None:
        """Rename to `trash/<removal>/<number>`. `sync_trash` is to follow, before anything counts as done.

        Raises:
            PathMissing: there is nothing.
            PathChanged: what was renamed is not what was seen: it was put back.
            DiskFull: there is no room for the directory entry.
            TreeError: it cannot be done for another reason: a mount point, permissions.
        """
        ...

    def is_in_trash(self, removal: int, number: int) -> bool:
        """Whether `trash/<removal>/<number>` is there."""
        ...

    def move_back(self, removal: int, number: int, path: bytes) -> None:
        """Rename from the trash to a path, making directories above it that are gone.

        Raises:
            PathTaken: there is something at the path.
            PathMissing: it is not in the trash.
            DiskFull, TreeError: as `move_to_trash`.
        """
        ...

    def sync_trash(self, removal: int, paths: Sequence[bytes]) -> None:
        """Bring renames to the disk: the directories above the paths, and the removal's own.

        Raises:
            TreeError: the disk refused.
        """
        ...

    def purge(self, removal: int, *, step: Callable[[int], None], is_stopped: Callable[[], bool]) -> bool:
        """Free the room of `trash/<removal>`, whatever lies in it; False if it was stopped before the end.

        Raises:
            TreeError: something in it cannot be removed; the rest is gone.
        """
        ...

    def discard(self, removal: int) -> bool:
        """Remove the directory `trash/<removal>` that everything was put back from; False if something lies in it."""
        ...

    def trash_names(self) -> list[int]:
        """The removals that have a directory in the trash."""
        ...

    def publish(self, staged: bytes, path: bytes) -> bool:
        """Let the content `staging/<staged>` appear at a path, whole and on disk; what was there is replaced.

        It stays in staging, too, until `unstage`: what a kill leaves behind is known by that.

        Returns:
            Whether there was nothing at the path before.

        Raises:
            PathMissing: nothing is staged under that name.
            DiskFull, TreeError: as above.
        """
        ...

    def withdraw(self, staged: bytes, path: bytes) -> None:
        """Undo a publishing whose row was not stored: the path goes if it still is what was staged, then the staged."""
        ...

    def unstage(self, staged: bytes) -> None:
        """Remove a staged name; harmless if it is gone."""
        ...

    def abandoned(self) -> list[tuple[bytes, bytes | None]]:
        """What lies in staging and nobody holds locked any more; with the path that it was published under, if it was.

        Whoever stages a file keeps a lock (flock) on it until its row is stored.
        """
        ...

    def digest(self, path: bytes, is_stopped: Callable[[], bool]) -> str | None:
        """SHA-256 of a regular file's content, in hexadecimal; None if there is none.

        Raises:
            TreeError: it cannot be read.
        """
        ...

    def free_bytes(self) -> int:
        """What the disk has left for this user."""
        ...


class Ballast(Protocol):
    """Room on the disk that is kept for clean-ups. Every method blocks."""

    def held_bytes(self) -> int | None:
        """What it takes on the disk; None if there is none."""
        ...

    def free_bytes(self) -> int:
        """What the disk has left for this user.

        Raises:
            TreeError: that cannot be told.
        """
        ...

    def make(self, size_bytes: int) -> None:
        """Make it, in the place of one that is there.

        Raises:
            DiskFull, TreeError: it cannot be made; nothing of a new one is left.
        """
        ...

    def release(self, *, keep: float = 0.0) -> bool:
        """Let go of it, but for a share; whether there was anything to let go of. Never fails."""
        ...


class Processes(Protocol):
    """Other processes, and their ends."""

    def identify(self, pid: int) -> Process | None:
        """The process that has a pid now; None if there is none. A pid of 0 is a process that cannot be seen."""
        ...

    def command(self, pid: int) -> str:
        """Its command line; empty if there is none."""
        ...

    def is_alive(self, process: Process) -> bool:
        """Whether it has not ended; a zombie has. One that cannot be seen counts as alive."""
        ...

    def watch(self, process: Process, on_end: Callable[[Process], None]) -> None:
        """Call back once, from the event loop, when it has ended; soon, if it has already. Watching twice is once."""
        ...

    def unwatch(self, process: Process) -> None:
        """Do not call back any more."""
        ...


class Ownership(Protocol):
    """Whether the directory is still ours."""

    def is_intact(self) -> bool:
        """Whether the paths of lock and directory still lead to what we hold."""
        ...
