"""What is wrong with a cache directory, from what was seen of it: everything but the database.

Layer: core. Imports wire and errors.
Invariant: pure: facts in, checks out. What was not looked at is not judged; a state that every healthy directory goes
through is never a warning.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

from motoolsd.wire.diagnosis import HealthCheck, Mend, SqliteHealth, Verdict
from motoolsd.wire.keys import STAMPS_SIZE_BYTES
from motoolsd.wire.names import LOCK, LOG, SOCKET, SOCKET_PATH_SIZE_MAX, STAMPS

FREE_LOW_BYTES: Final = 64 * 1024 * 1024
FREE_NONE_BYTES: Final = 1024 * 1024
"""Below it the next write is likely to fail."""
INODES_LOW: Final = 1_000
INODES_NONE: Final = 10
LOG_LARGE_BYTES: Final = 100 * 1024 * 1024
OTHERS_WRITE: Final = 0o022
SOCKET_MODE: Final = 0o600
STAMPS_MODE: Final = 0o400
"""Read-only for ourselves, too: a client maps them, and its slip changes nothing."""
NAMES_SHOWN_MAX: Final = 3

_BUG_SINCE: Final = (3, 7, 0)
_BUG_UNTIL: Final = (3, 51, 2)
_BUG_MENDED: Final = frozenset({(3, 44, 6), (3, 50, 7)})


class FileKind(StrEnum):
    """What a name leads to, links not followed."""

    FILE = "regular file"
    SOCKET = "socket"
    LINK = "symbolic link"
    DIRECTORY = "directory"
    OTHER = "special file"


class FileFacts(Struct, frozen=True, kw_only=True):
    """One name in the directory."""

    name: str
    kind: FileKind
    owner: int
    mode: int
    """Permission bits."""
    size_bytes: int = 0


class PlaceFacts(Struct, frozen=True, kw_only=True):
    """The directory itself."""

    path: str
    path_size_bytes: int
    user: int
    """Our effective uid."""
    error: str | None = None
    """Why it cannot be entered; what follows is not known then."""
    is_missing: bool = False
    owner: int = 0
    mode: int = 0
    network_filesystem: str | None = None
    is_read_only: bool = False
    free_bytes: int = 0
    free_inodes: int | None = None
    """None where the file system does not count them."""

    def command(self, words: str) -> str:
        """A command about this directory, in backquotes, to be copied."""
        return f"`{words} -d {shlex.quote(self.path)}`"

    def file(self, name: str) -> str:
        """A file of it, as a shell takes it."""
        return shlex.quote(f"{self.path}/{name}")


class LockFacts(Struct, frozen=True, kw_only=True):
    """motoolsd.lock, and whoever it names."""

    is_held: bool
    pid: int = 0
    """0: it names nobody."""
    host: str = ""
    version: str = ""
    started_at: str = ""
    is_alive: bool = False
    """Whether that very process (pid, start time, boot) runs here."""
    is_stopped: bool = False
    """By a signal."""
    is_here: bool = True
    """Whether it named this host, and this boot."""


def has_wal_reset_bug(version: str) -> bool:
    """Whether a version of SQLite, as "3.40.1", may damage a WAL database that two connections write at once."""
    number = tuple(int(part) for part in version.split(".")[:3])
    return _BUG_SINCE <= number <= _BUG_UNTIL and number not in _BUG_MENDED


def judge_sqlite(version: str) -> SqliteHealth:
    """What to say of the library."""
    if not has_wal_reset_bug(version):
        return SqliteHealth(
            version=version, has_wal_reset_bug=False, is_safe=True, detail=f"SQLite {version} has no WAL-reset bug"
        )
    detail = (
        f"SQLite {version} has the WAL-reset bug (3.7.0 to 3.51.2 but 3.44.6 and 3.50.7). motoolsd is safe from it: "
        "one connection writes. Let no other program write to cache.db while the daemon runs"
    )
    return SqliteHealth(version=version, has_wal_reset_bug=True, is_safe=True, detail=detail)


def sqlite_check(health: SqliteHealth) -> HealthCheck:
    """The same as a check."""
    return ok("sqlite", health.detail)


def ok(name: str, detail: str) -> HealthCheck:
    """All is well."""
    return HealthCheck(name=name, status=Verdict.OK, detail=detail)


def warning(name: str, detail: str, remedy: str, mend: Mend | None = None) -> HealthCheck:
    """Not as it should be."""
    return HealthCheck(name=name, status=Verdict.WARNING, detail=detail, remedy=remedy, mend=mend)


def problem(name: str, detail: str, remedy: str, mend: Mend | None = None) -> HealthCheck:
    """It keeps something from working, or harms."""
    return HealthCheck(name=name, status=Verdict.PROBLEM, detail=detail, remedy=remedy, mend=mend)


def check_place(place: PlaceFacts) -> HealthCheck:
    """Whether the directory is there, and ours. If not, there is nothing more to look at."""
    other = "name another with `--cache-dir` or MOTOOLS_CACHE_DIR"
    if place.is_missing:
        return problem(
            "directory", f"there is no {place.path}", f"{place.command('motools daemon start')} makes it; or {other}"
        )
    if place.error is not None:
        return problem("directory", f"{place.path} cannot be entered: {place.error}", f"check its path; or {other}")
    if place.owner != place.user:
        detail = f"{place.path} belongs to uid {place.owner}, you are uid {place.user}: a cache belongs to one user"
        return problem("directory", detail, f"{other}, or run this as its owner")
    return ok("directory", f"{place.path}, yours")


def check_path(place: PlaceFacts) -> HealthCheck:
    """Whether the socket's path fits into an address; a longer one is reached all the same, but not by systemd."""
    length = place.path_size_bytes + 1 + len(SOCKET)
    if length <= SOCKET_PATH_SIZE_MAX:
        return ok("path", f"the socket's path has {length} of {SOCKET_PATH_SIZE_MAX} bytes")
    detail = (
        f"the socket's path has {length} bytes, {SOCKET_PATH_SIZE_MAX} fit: the daemon and its clients know a way "
        "round that; a systemd socket unit cannot have this directory"
    )
    return ok("path", detail)


def check_filesystem(place: PlaceFacts) -> HealthCheck:
    """Whether it lies where locks hold and something can be written."""
    if place.network_filesystem is not None:
        detail = f"it lies on {place.network_filesystem}, where locks and shared memory do not hold: no daemon starts"
        return problem("filesystem", detail, "use a local disk: `--cache-dir /var/tmp/$USER/motools`")
    if place.is_read_only:
        detail = "it is mounted read-only: nothing can be stored"
        return problem("filesystem", detail, "see `dmesg` for disk errors, then have it mounted writable")
    return ok("filesystem", "a local one, writable")


def check_space(place: PlaceFacts) -> HealthCheck:
    """Whether there is room."""
    inodes = "" if place.free_inodes is None else f", {place.free_inodes:,} inodes"
    detail = f"{size_text(place.free_bytes)} free{inodes}"
    remedy = f"{place.command('motools cache trash empty')} or {place.command('motools cache prune --to SIZE')}"
    free_inodes = INODES_LOW if place.free_inodes is None else place.free_inodes
    if place.free_bytes < FREE_NONE_BYTES or free_inodes < INODES_NONE:
        return problem("space", f"the disk is full: {detail}", f"free some, for example by {remedy}")
    if place.free_bytes < FREE_LOW_BYTES or free_inodes < INODES_LOW:
        return warning("space", f"the disk is nearly full: {detail}", f"free some, for example by {remedy}")
    return ok("space", detail)


def check_permissions(place: PlaceFacts, files: Sequence[FileFacts]) -> HealthCheck:
    """Whether anybody else may change what is there, or owns it."""
    foreign = [f"{file.name} (uid {file.owner})" for file in files if file.owner != place.user]
    if foreign:
        remedy = f"have them given to you: `sudo chown -R {place.user} {shlex.quote(place.path)}`"
        return problem("permissions", f"not yours: {named(foreign)}", remedy)
    fix = place.command("motools cache doctor --fix")
    # The socket has a check of its own.
    found = [file for file in files if file.kind is not FileKind.SOCKET and is_open_to_others(file)]
    names = [f"{file.name} (mode {file.mode:o})" for file in found]
    if place.mode & OTHERS_WRITE:
        names.insert(0, f"the directory (mode {place.mode:o})")
        return problem("permissions", f"others may write: {named(names)}", fix, Mend.PERMISSIONS)
    if names:
        return warning("permissions", f"others may write: {named(names)}", fix, Mend.PERMISSIONS)
    return ok("permissions", "nobody else may write")


def is_open_to_others(file: FileFacts) -> bool:
    """Whether somebody else may change a file, or connect to a socket. A link has no permissions of its own."""
    if file.kind is FileKind.LINK:
        return False
    if file.kind is FileKind.SOCKET:
        return bool(file.mode & 0o077)
    return bool(file.mode & OTHERS_WRITE)


def check_lock(place: PlaceFacts, file: FileFacts | None, lock: LockFacts) -> HealthCheck:
    """Who holds the directory."""
    if file is not None and file.kind is not FileKind.FILE:
        remedy = f"look at it, then remove it: `rm {place.file(LOCK)}`"
        return problem("lock", f"{LOCK} is a {file.kind}: no daemon can start", remedy)
    who = f"pid {lock.pid}, version {shown_or(lock.version)}, since {shown_or(lock.started_at)}"
    if not lock.is_held:
        if not lock.pid:
            return ok("lock", "free: no daemon runs")
        return ok("lock", f"free: the daemon it names ({who}) has ended; the next one takes it over")
    if lock.is_alive:
        return ok("lock", f"held by the daemon, {who}")
    if not lock.pid:
        return ok("lock", "held by a process that has not named itself yet")
    where = "on this machine" if lock.is_here else f"on host {shown_or(lock.host)}, or before this machine's last boot"
    detail = f"it is held, but not visibly by whom it names ({who}, {where}): another container, or a child of it"
    return warning("lock", detail, f"find the holder: `fuser -v {place.file(LOCK)}`")


def check_socket(place: PlaceFacts, file: FileFacts | None, lock: LockFacts) -> HealthCheck:
    """Whether the socket is what the state of the daemon asks for."""
    remove = f"look at it, then remove it: `rm -ri {place.file(SOCKET)}`"
    if file is None:
        if lock.is_held and lock.is_alive:
            detail = "the daemon runs, and its socket is gone: nobody reaches it (unless it is only just starting)"
            return problem("socket", detail, place.command("motools daemon restart"))
        return ok("socket", "none, as no daemon runs")
    if file.kind is not FileKind.SOCKET:
        return problem("socket", f"{SOCKET} is a {file.kind}, no socket", remove)
    if file.owner != place.user:
        return problem("socket", f"{SOCKET} belongs to uid {file.owner}: clients refuse it", remove)
    if not lock.is_held:
        detail = "left over from a daemon that was killed; the next one replaces it"
        return warning("socket", detail, place.command("motools cache doctor --fix"), Mend.LEFTOVERS)
    if file.mode != SOCKET_MODE:
        fix = place.command("motools cache doctor --fix")
        return problem("socket", f"its mode is {file.mode:o} instead of {SOCKET_MODE:o}", fix, Mend.PERMISSIONS)
    return ok("socket", "there, yours alone")


def check_leftovers(place: PlaceFacts, names: Sequence[str]) -> HealthCheck:
    """What was under construction when a daemon was killed."""
    if not names:
        return ok("leftovers", "nothing half made lies about")
    fix = place.command("motools cache doctor --fix")
    return warning("leftovers", f"half made by a daemon that was killed: {named(names)}", fix, Mend.LEFTOVERS)


def check_stamps(place: PlaceFacts, file: FileFacts | None, lock: LockFacts, users: Sequence[int]) -> HealthCheck:
    """Whether clients can be told of changes by shared memory."""
    if file is None:
        if not lock.is_held:
            return ok("stamps", "none yet: the next daemon makes them")
        detail = "there is no file of stamps: every lookup asks the daemon"
        return warning("stamps", detail, f"see that there is room, then {place.command('motools daemon restart')}")
    if is_usable_as_stamps(place, file):
        return _usable_stamps(place, file, lock)
    what = f"{file.size_bytes:,} bytes" if file.kind is FileKind.FILE else f"a {file.kind}"
    detail = f"{STAMPS} is {what} instead of a file of yours of {STAMPS_SIZE_BYTES:,} bytes: no daemon can start"
    if users:
        jobs = named([str(pid) for pid in users])
        return problem("stamps", f"{detail}; jobs have it mapped (pid {jobs})", "stop these jobs, then fix it")
    if lock.is_held:
        return problem("stamps", detail, f"{place.command('motools daemon stop')}, then fix it")
    if file.kind not in (FileKind.FILE, FileKind.LINK):
        return problem("stamps", detail, f"look at it, then remove it: `rm -ri {place.file(STAMPS)}`")
    return problem("stamps", detail, place.command("motools cache doctor --fix"), Mend.STAMPS)


def _usable_stamps(place: PlaceFacts, file: FileFacts, lock: LockFacts) -> HealthCheck:
    # Without a daemon they may be as one left them that was killed while it opened them: the next one sees to it.
    if file.mode == STAMPS_MODE or not lock.is_held:
        return ok("stamps", size_text(file.size_bytes))
    fix = place.command("motools cache doctor --fix")
    return warning("stamps", f"their mode is {file.mode:o} instead of {STAMPS_MODE:o}", fix, Mend.PERMISSIONS)


def is_usable_as_stamps(place: PlaceFacts, file: FileFacts) -> bool:
    """Whether a daemon would map it."""
    return file.kind is FileKind.FILE and file.owner == place.user and file.size_bytes >= STAMPS_SIZE_BYTES


def check_log(place: PlaceFacts, file: FileFacts | None) -> HealthCheck:
    """Whether the log can be written, and does not fill the disk."""
    if file is None:
        return ok("log", "none yet")
    if file.kind is not FileKind.FILE:
        remedy = f"look at it, then remove it: `rm {place.file(LOG)}`"
        return problem("log", f"{LOG} is a {file.kind}: no daemon can start", remedy)
    size = size_text(file.size_bytes)
    if file.size_bytes > LOG_LARGE_BYTES:
        return warning("log", f"{LOG} has {size}", f"see why, then empty it: `truncate --size 0 {place.file(LOG)}`")
    return ok("log", size)


def check_settings(place: PlaceFacts, error: str | None, *, is_there: bool) -> HealthCheck:
    """Whether config.toml can be read."""
    if error is None:
        return ok("settings", "config.toml can be read" if is_there else "no config.toml: the defaults")
    return problem("settings", error, f"mend the file, then {place.command('motools daemon start')}")


def check_staging(place: PlaceFacts, left: Sequence[str], lock: LockFacts) -> HealthCheck:
    """What clients left on its way in."""
    if not left:
        return ok("staging", "nothing was left by a client that has ended")
    detail = f"left by clients that have ended: {named(left)}"
    if lock.is_held:
        return ok("staging", f"{detail}; the daemon removes it when it starts the next time")
    return warning("staging", detail, place.command("motools cache doctor --fix"), Mend.START)


def check_backups(count: int, newest_age_s: float | None, aside: Sequence[str] = ()) -> HealthCheck:
    """How old the newest copy of the database is, and what restores have set aside."""
    backups = "none lies in the directory"
    if newest_age_s is not None:
        backups = f"{count}, the newest {newest_age_s / 3600:,.1f} hours old"
    if aside:
        backups += f"; set aside by restores, yours to remove when you are sure: {named(aside)}"
    return ok("backups", backups)


def size_text(size_bytes: int) -> str:
    """Bytes for people."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:,.1f} {unit}"
    return f"{size_bytes} B"


def named(names: Sequence[str]) -> str:
    """Some of the names, and how many more there are."""
    some = ", ".join(names[:NAMES_SHOWN_MAX])
    more = len(names) - NAMES_SHOWN_MAX
    return some if more <= 0 else f"{some} and {more:,} more"


def shown_or(text: str) -> str:
    """A text, or a word for none."""
    return text or "unknown"
