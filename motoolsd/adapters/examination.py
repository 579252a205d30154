"""Looking at a cache directory without changing anything in it.

Layer: adapters. Imports backups, directory, lock, processes, replacement and core.
Invariant: nothing is made, opened for writing or waited for; files of the database are not opened here.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from contextlib import suppress
from typing import Final

import msgspec

from motoolsd.adapters.backups import COMPANIONS
from motoolsd.adapters.directory import CacheDirectory, filesystem_type
from motoolsd.adapters.lock import PAUSE_S, read_owner
from motoolsd.adapters.processes import SystemProcesses, boot_id, host_name, process_state
from motoolsd.adapters.replacement import ASIDE_PREFIX
from motoolsd.core.diagnosis import FileFacts, FileKind, LockFacts, PlaceFacts
from motoolsd.core.filesystems import network_filesystem
from motoolsd.core.leases import Process
from motoolsd.wire.names import LOCK, SOCKET, STAMPS

DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
BACKUPS: Final = "backups"
_BACKUP: Final = re.compile(r"cache-.*\.db")
_UNDER_CONSTRUCTION: Final = re.compile(rf"{re.escape(SOCKET)}\.[0-9]+|{re.escape(STAMPS)}\.new")
_KINDS: Final = {
    stat.S_IFREG: FileKind.FILE,
    stat.S_IFSOCK: FileKind.SOCKET,
    stat.S_IFLNK: FileKind.LINK,
    stat.S_IFDIR: FileKind.DIRECTORY,
}
LOCK_LOOKS: Final = 3
"""A client that looks whether the lock is held takes it for a moment itself."""


def shown_path(path: str) -> str:
    """A path as it can be sent and shown."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def look_at_place(path: str) -> PlaceFacts:
    """What is at the path of a cache directory."""
    facts = PlaceFacts(path=shown_path(path), path_size_bytes=len(os.fsencode(path)), user=os.geteuid())
    try:
        descriptor = os.open(path, DIRECTORY_FLAGS)
    except FileNotFoundError:
        return msgspec.structs.replace(facts, is_missing=True)
    except OSError as error:
        return _closed_to_us(path, facts, error)
    try:
        found, room = os.fstat(descriptor), os.fstatvfs(descriptor)
        return msgspec.structs.replace(
            facts,
            owner=found.st_uid,
            mode=stat.S_IMODE(found.st_mode),
            network_filesystem=network_filesystem(filesystem_type(descriptor)),
            is_read_only=bool(room.f_flag & os.ST_RDONLY),
            free_bytes=room.f_bavail * room.f_frsize,
            # btrfs and others make them as they are needed, and say 0.
            free_inodes=room.f_favail if room.f_files else None,
        )
    except OSError as error:
        return msgspec.structs.replace(facts, error=error.strerror)
    finally:
        os.close(descriptor)


def _closed_to_us(path: str, facts: PlaceFacts, error: OSError) -> PlaceFacts:
    """Somebody else's directory is worth naming as such, also where it may not be read."""
    with suppress(OSError):
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode) and found.st_uid != facts.user:
            return msgspec.structs.replace(facts, owner=found.st_uid, mode=stat.S_IMODE(found.st_mode))
    return msgspec.structs.replace(facts, error=error.strerror)


def look_at_file(directory: CacheDirectory, name: str) -> FileFacts | None:
    """What a name of the directory leads to; None if there is nothing."""
    try:
        found = os.stat(name, dir_fd=directory.descriptor, follow_symlinks=False)
    except OSError:
        return None
    return FileFacts(
        name=name,
        kind=_KINDS.get(stat.S_IFMT(found.st_mode), FileKind.OTHER),
        owner=found.st_uid,
        mode=stat.S_IMODE(found.st_mode),
        size_bytes=found.st_size,
    )


def look_at_lock(directory: CacheDirectory) -> LockFacts:
    """Whether the lock is held, and by whom."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(LOCK, flags, dir_fd=directory.descriptor)
    except OSError:
        return LockFacts(is_held=False)
    try:
        is_held = _is_held(descriptor)
        owner = read_owner(descriptor)
    finally:
        os.close(descriptor)
    if owner is None:
        return LockFacts(is_held=is_held)
    process = Process(owner.pid, owner.start_time, owner.boot_id)
    is_alive = owner.pid > 0 and SystemProcesses().is_alive(process)
    return LockFacts(
        is_held=is_held,
        pid=owner.pid,
        host=owner.host,
        version=owner.version,
        started_at=owner.started_at,
        is_alive=is_alive,
        is_stopped=is_alive and process_state(owner.pid) in ("T", "t"),
        is_here=(owner.host, owner.boot_id) == (host_name(), boot_id()),
    )


def _is_held(descriptor: int) -> bool:
    for look in range(LOCK_LOOKS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if look < LOCK_LOOKS - 1:
                time.sleep(PAUSE_S)
        except OSError:
            return False
        else:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            return False
    return True


def names_under_construction(directory: CacheDirectory) -> list[str]:
    """Files that a daemon makes under another name first."""
    try:
        names = os.listdir(directory.descriptor)
    except OSError:
        return []
    return sorted(name for name in names if _UNDER_CONSTRUCTION.fullmatch(name))


def names_set_aside(directory: CacheDirectory) -> list[str]:
    """Databases in whose place a restore has put another, oldest first."""
    try:
        names = os.listdir(directory.descriptor)
    except OSError:
        return []
    return sorted(name for name in names if name.startswith(ASIDE_PREFIX) and not name.endswith(COMPANIONS[1:]))


def users_of(directory: CacheDirectory, name: str) -> list[int]:
    """Processes that have a file mapped, as far as we may look at them."""
    try:
        found = os.stat(name, dir_fd=directory.descriptor, follow_symlinks=False)
    except OSError:
        return []
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    # btrfs and overlayfs give stat another device than the one that is mapped: there the name decides.
    names = {device, os.path.join(os.readlink(f"/proc/self/fd/{directory.descriptor}"), name)}
    return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if _maps(pid, found.st_ino, names)]


def _maps(pid: int, inode: int, names: set[str]) -> bool:
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as lines:
            # Addresses, permissions, offset, device, inode, path.
            parts = (line.rstrip("\n").split(maxsplit=5) for line in lines)
            return any(part[4] == str(inode) and not names.isdisjoint({part[3], part[-1]}) for part in parts)
    except OSError:
        return False


def look_at_backups(directory: CacheDirectory) -> tuple[int, float | None]:
    """How many copies of the database there are, and the age of the newest in seconds; None if there is none."""
    try:
        descriptor = os.open(BACKUPS, DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=directory.descriptor)
    except OSError:
        return 0, None
    try:
        names = [name for name in os.listdir(descriptor) if _BACKUP.fullmatch(name)]
        times = [os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mtime for name in names]
    except OSError:
        return 0, None
    finally:
        os.close(descriptor)
    return len(times), max(0.0, time.time() - max(times)) if times else None
