"""One daemon a directory: flock on motoolsd.lock.

Layer: adapters. Imports core, wire and processes.
Invariant: held from before anything else until the process ends; the kernel lets go of it, nobody else.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec

from motoolsd.adapters.directory import CacheDirectory
from motoolsd.adapters.processes import boot_id, host_name, start_time, terminate
from motoolsd.core.errors import AlreadyRunning, StartFailed
from motoolsd.core.leases import Process
from motoolsd.wire.names import LOCK
from motoolsd.wire.version import __version__

ATTEMPTS = 5
PAUSE_S = 0.05
"""A client that looks whether the lock is held takes it for a moment itself: try again before giving up."""
OWNER_SIZE_MAX_BYTES = 4096


class Owner(msgspec.Struct, frozen=True):
    """What the lock file says of its holder."""

    pid: int
    start_time: int = 0
    host: str = ""
    boot_id: str = ""
    version: str = ""
    started_at: str = ""


class DirectoryLock:
    """The held lock. Made by `hold_lock`."""

    def __init__(self, directory: CacheDirectory, descriptor: int) -> None:
        """Remember which file is locked."""
        self._directory = directory
        self._descriptor = descriptor

    def is_intact(self) -> bool:
        """Whether both the directory and the lock file are still what their paths lead to."""
        if not self._directory.is_intact():
            return False
        try:
            named = os.stat(LOCK, dir_fd=self._directory.descriptor, follow_symlinks=False)
        except OSError:
            return False
        held = os.fstat(self._descriptor)
        return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)


@contextmanager
def hold_lock(directory: CacheDirectory, *, now: str, takes_over_s: float = 0.0) -> Iterator[DirectoryLock]:
    """Become the directory's one daemon.

    Args:
        directory: of which.
        now: for the file, which names us.
        takes_over_s: how long to wait for a daemon that has it, which is sent SIGTERM; 0: not at all.

    Raises:
        AlreadyRunning: another process is.
        StartFailed: the lock file cannot be used.
    """
    with keep_daemons_away(directory, takes_over_s=takes_over_s) as descriptor:
        lock = DirectoryLock(directory, descriptor)
        if not lock.is_intact():
            message = f"{directory.path} was replaced while the daemon started: start it again"
            raise StartFailed(message)
        _name_owner(directory, descriptor, now)
        yield lock


@contextmanager
def keep_daemons_away(directory: CacheDirectory, *, takes_over_s: float = 0.0) -> Iterator[int]:
    """Hold the lock without becoming the daemon: what it says of the last one stays as it is.

    Returns:
        The lock file's descriptor.

    Raises:
        AlreadyRunning: a daemon serves the directory.
        StartFailed: the lock file cannot be used.
    """
    try:
        descriptor = os.open(
            LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=directory.descriptor
        )
    except OSError as error:
        message = f"{os.path.join(directory.path, LOCK)} cannot be opened: {error.strerror}"
        raise StartFailed(message) from error
    try:
        _take(descriptor, directory, takes_over_s)
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int, directory: CacheDirectory, takes_over_s: float) -> None:
    ends_s = time.monotonic() + max(takes_over_s, (ATTEMPTS - 1) * PAUSE_S)
    asked: set[Owner] = set()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = read_owner(descriptor)
            if time.monotonic() >= ends_s:
                raise AlreadyRunning(directory.path, _described(owner)) from error
            if takes_over_s and owner is not None and owner not in asked:
                asked.add(owner)
                _ask_to_end(owner, directory)
            time.sleep(PAUSE_S)
        else:
            return


def _ask_to_end(owner: Owner, directory: CacheDirectory) -> None:
    """Send SIGTERM to the process that the lock file names, if it is that one, and ours."""
    process = Process(owner.pid, owner.start_time, owner.boot_id)
    if terminate(process):
        directory.notes.append(f"took over from the daemon of {_described(owner)}")


def read_owner(descriptor: int) -> Owner | None:
    """What a lock file says of its last holder; None if it cannot be read."""
    try:
        return msgspec.json.decode(os.pread(descriptor, OWNER_SIZE_MAX_BYTES, 0), type=Owner)
    except (OSError, msgspec.MsgspecError):
        return None


def _described(owner: Owner | None) -> str:
    if owner is None:
        return "its lock is held; it has not said by whom"
    return f"pid {owner.pid}, version {owner.version}, since {owner.started_at}"


def _name_owner(directory: CacheDirectory, descriptor: int, now: str) -> None:
    pid = os.getpid()
    owner = Owner(pid, start_time(pid) or 0, host_name(), boot_id(), __version__, now)
    text = msgspec.json.encode(owner) + b"\n"
    try:
        # In this order: a block that was given up may not be had again on a full disk.
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))
    except OSError as error:
        # It is locked all the same; what it says of its owner is for people.
        directory.notes.append(f"{LOCK} does not name its owner: {error.strerror}")
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
