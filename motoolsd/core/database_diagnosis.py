"""What is wrong with cache.db, from what was read of it.

Layer: core. Imports diagnosis, guards and wire.
Invariant: pure. No check of the database itself can be mended by removing or rebuilding it: an error of the disk looks
like damage, and the file is whole later.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct, field

from motoolsd.core.diagnosis import FileFacts, FileKind, LockFacts, PlaceFacts, named, ok, problem, size_text, warning
from motoolsd.wire.diagnosis import HealthCheck, Mend
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.names import DATABASE

WAL_LARGE_BYTES: Final = 256 * 1024 * 1024
"""Checkpoints are made when the daemon is idle, and from 20,000 pages on: more means that something keeps them off."""
WAL_HEADER_SIZE_BYTES: Final = 32
DATABASE_HEADER_SIZE_BYTES: Final = 100
JOURNAL_HEADER_SIZE_BYTES: Final = 8
_JOURNAL_MAGIC: Final = bytes.fromhex("d9d505f920a163d7")
_MAGIC: Final = b"SQLite format 3\0"
_WAL_MAGICS: Final = frozenset({0x377F0682, 0x377F0683})
_WRITE_VERSION_WAL: Final = 2
_PAGE_SIZE_MAX: Final = 65_536


class LeaseFacts(Struct, frozen=True, kw_only=True):
    """A lease as it is stored."""

    kind: str
    key: str
    pid: int
    is_alive: bool


class RemovalFacts(Struct, frozen=True, kw_only=True):
    """A clean-up as it is stored, and whether its files lie in the trash."""

    number: int
    state: str
    has_paths: bool
    has_directory: bool


class RowFacts(Struct, frozen=True, kw_only=True):
    """What the tables hold."""

    counts: dict[str, int] = {}
    damaged: list[str] = []
    """Rows that do not fit their checksum and still count."""
    void: dict[str, int] = {}
    """Reason -> how many miss for it."""
    leases: list[LeaseFacts] = []
    removals: list[RemovalFacts] = []
    strays: list[int] = []
    """Numbers in trash/ of which no clean-up knows."""
    from_future: dict[str, int] = {}
    """Table -> rows that were stored later than it is now."""
    is_deadline_far: bool = False
    """Whether something in the trash is to expire in many years only."""
    missing_files: list[str] = []
    damaged_files: list[str] = []
    unreadable_files: list[str] = []


class DatabaseFacts(Struct, frozen=True, kw_only=True):
    """The files of the database, and what came of reading them."""

    file: FileFacts | None = None
    wal: FileFacts | None = None
    header: bytes = b""
    wal_header: bytes = b""
    journal_header: bytes = b""
    """Of a rollback journal, which a database has while it is in no WAL mode."""
    supported: int = 0
    """The schema that this version writes."""
    version: int = 0
    is_empty: bool = False
    error: str | None = None
    """Why it could not be read."""
    error_code: ErrorCode | None = None
    rows: RowFacts | None = None
    """None: not read."""
    held_files: list[str] = field(default_factory=list)
    """Other things of a cache that lie in the directory: it was used."""


def foreign_wal(facts: DatabaseFacts) -> str | None:
    """Why the write-ahead log cannot be of this database; None if it may be."""
    if facts.wal is None or facts.wal.size_bytes < WAL_HEADER_SIZE_BYTES:
        return None
    if facts.file is None:
        return f"there is no {DATABASE} beside it"
    if facts.file.size_bytes == 0:
        return f"{DATABASE} beside it is empty"
    if int.from_bytes(facts.wal_header[:4], "big") not in _WAL_MAGICS or facts.header[:16] != _MAGIC:
        # The former is what a power cut leaves before the log's first fsync: SQLite passes over it.
        return None
    if facts.header[18] != _WRITE_VERSION_WAL:
        return f"{DATABASE} has none, by its header"
    page_size = int.from_bytes(facts.header[16:18], "big")
    wal_page_size = int.from_bytes(facts.wal_header[8:12], "big")
    if wal_page_size != (_PAGE_SIZE_MAX if page_size == 1 else page_size):
        return f"its pages have {wal_page_size} bytes, those of {DATABASE} {page_size}"
    return None


def has_open_journal(facts: DatabaseFacts) -> bool:
    """Whether a transaction was begun and not ended: what the file holds is to be undone before it is read."""
    return facts.journal_header == _JOURNAL_MAGIC


def check_database(place: PlaceFacts, facts: DatabaseFacts, lock: LockFacts) -> HealthCheck:
    """Whether cache.db can be used."""
    restore = place.command("motools cache restore-backup")
    if facts.file is None:
        return _missing(facts, lock, restore)
    if facts.file.kind is not FileKind.FILE:
        detail = f"{DATABASE} is a {facts.file.kind}: motoolsd does not follow it"
        return problem("database", detail, f"put the file itself there, or {restore}")
    if has_open_journal(facts):
        detail = f"another program writes to {DATABASE}, or died while it did: the next daemon undoes what is half done"
        return warning("database", detail, place.command("motools cache doctor --fix"), Mend.START)
    if facts.error is not None:
        return _refused(place, facts, restore)
    if facts.is_empty:
        return ok("database", "empty: the next daemon makes its tables")
    if facts.version < facts.supported:
        detail = f"schema {facts.version}: the next daemon migrates it to {facts.supported}, after a backup copy"
        return ok("database", detail)
    counts = {} if facts.rows is None else facts.rows.counts
    entries = ", ".join(f"{count:,} {kind}{'' if count == 1 else 's'}" for kind, count in counts.items())
    return ok("database", f"sound, schema {facts.version}; {entries}")


def _missing(facts: DatabaseFacts, lock: LockFacts, restore: str) -> HealthCheck:
    if lock.is_held:
        return problem("database", f"a daemon runs, but {DATABASE} is gone: it was removed or renamed", restore)
    if facts.held_files:
        detail = f"{DATABASE} is gone, though the cache was used ({named(facts.held_files)})"
        return problem("database", detail, f"put it back: {restore}, or begin with an empty one by the next job")
    return ok("database", "none yet: the first job makes it")


def _refused(place: PlaceFacts, facts: DatabaseFacts, restore: str) -> HealthCheck:
    error = facts.error or ""
    if facts.error_code is ErrorCode.SCHEMA_TOO_NEW:
        return problem("database", error, "`pip install --upgrade motoolsd`")
    if facts.error_code is ErrorCode.CORRUPT_DATABASE:
        aside = ""
        if facts.wal is not None and facts.wal.size_bytes:
            aside = (
                f" If {DATABASE}-wal came from elsewhere, move it away first: `mv {place.file(DATABASE)}-wal /var/tmp`."
            )
        remedy = f"see `dmesg`: after disk errors the file may be whole. If it is not: {restore}.{aside}"
        return problem("database", error, f"{remedy} It is never removed or rebuilt by itself")
    return problem(
        "database", f"it cannot be read: {error}", "see `dmesg`, the permissions, and whether the disk is full"
    )


def check_wal(place: PlaceFacts, facts: DatabaseFacts, lock: LockFacts) -> HealthCheck:
    """Whether the write-ahead log is of this database, and of a bearable size."""
    size_bytes = 0 if facts.wal is None else facts.wal.size_bytes
    size = size_text(size_bytes)
    if (reason := foreign_wal(facts)) is not None:
        detail = f"{DATABASE}-wal ({size}) is of another database: {reason}. A start would use or remove it"
        aside = f"`mv {place.file(DATABASE)}-wal {place.file(DATABASE)}-shm /var/tmp`"
        remedy = f"if {DATABASE} was moved, put it back; else move the log away: {aside}"
        return problem("wal", detail, remedy)
    if not size_bytes:
        return ok("wal", "empty")
    if not lock.is_held:
        detail = f"{size} are left from a daemon that was killed: acknowledged writes, which the next one takes over"
        return warning("wal", detail, place.command("motools cache doctor --fix"), Mend.START)
    if size_bytes > WAL_LARGE_BYTES:
        detail = f"{size}: something keeps a read open, or the disk does not keep up"
        return warning("wal", detail, f"see who: `fuser -v {place.file(DATABASE)}`")
    return ok("wal", size)


def check_rows(place: PlaceFacts, rows: RowFacts) -> list[HealthCheck]:
    """What the rows say."""
    return [
        _damaged_rows(place, rows),
        _void_rows(rows),
        _files(place, rows),
    ]


def _damaged_rows(place: PlaceFacts, rows: RowFacts) -> HealthCheck:
    if not rows.damaged:
        return ok("rows", f"{sum(rows.counts.values()):,} fit their checksums")
    detail = f"{len(rows.damaged):,} do not fit their checksums, and miss: {named(rows.damaged)}"
    return problem("rows", detail, place.command("motools cache doctor --fix"), Mend.VERIFY)


def _void_rows(rows: RowFacts) -> HealthCheck:
    if not rows.void:
        return ok("void", "no entry is set aside")
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(rows.void.items()))
    return ok("void", f"entries that miss, and are made anew when asked for: {reasons}")


def _files(place: PlaceFacts, rows: RowFacts) -> HealthCheck:
    wrong = {"gone": rows.missing_files, "damaged": rows.damaged_files}
    found = [f"{len(names):,} {what} ({named(names)})" for what, names in wrong.items() if names]
    if found:
        detail = f"files of entries: {'; '.join(found)}"
        return problem("files", detail, place.command("motools cache doctor --fix"), Mend.VERIFY)
    if rows.unreadable_files:
        detail = f"files of entries that cannot be read: {named(rows.unreadable_files)}"
        return problem("files", detail, "see their permissions, and `dmesg`")
    return ok("files", "those of entries are there")


def check_leases(place: PlaceFacts, rows: RowFacts, lock: LockFacts) -> HealthCheck:
    """Whether somebody holds a key who cannot finish."""
    dead = [f"{lease.kind} {lease.key} (pid {lease.pid})" for lease in rows.leases if not lease.is_alive]
    if not dead:
        return ok("leases", f"{len(rows.leases):,} held")
    detail = f"of processes that have ended: {named(dead)}"
    if lock.is_held:
        # The daemon hears of an end at once, and may just be writing this down.
        remedy = f"if it stays: {place.command('motools cache leases --break KEY')}"
        return warning("leases", detail, remedy)
    return warning("leases", detail, place.command("motools cache doctor --fix"), Mend.START)


def check_trash(place: PlaceFacts, rows: RowFacts, lock: LockFacts) -> HealthCheck:
    """Whether clean-ups came to their end."""
    half = [f"{removal.number} ({removal.state})" for removal in rows.removals if removal.state != "trashed"]
    if half and not lock.is_held:
        detail = f"clean-ups that a daemon's end interrupted: {named(half)}"
        return warning("trash", detail, place.command("motools cache doctor --fix"), Mend.START)
    empty = [
        str(one.number) for one in rows.removals if one.state == "trashed" and one.has_paths and not one.has_directory
    ]
    empty_trash = place.command("motools cache trash empty")
    if empty:
        detail = f"the files of clean-ups are gone from trash/, and cannot be put back: {named(empty)}"
        return warning("trash", detail, empty_trash)
    if rows.strays and not half:
        detail = f"no clean-up knows what lies in trash/: {named([str(number) for number in rows.strays])}"
        return warning("trash", detail, f"look at it; {empty_trash} removes it")
    return ok("trash", f"{len(rows.removals):,} clean-ups can be undone" if rows.removals else "empty")


def check_clock(rows: RowFacts) -> HealthCheck:
    """Whether what is stored fits the clock."""
    remedy = "see `timedatectl`: the clock was ahead once, or is behind now"
    if rows.from_future:
        found = ", ".join(f"{count:,} in {table}" for table, count in rows.from_future.items())
        return warning("clock", f"rows from the future: {found}", remedy)
    if rows.is_deadline_far:
        return warning("clock", "something in the trash is to expire in many years only", remedy)
    return ok("clock", "no time that is stored lies ahead")
