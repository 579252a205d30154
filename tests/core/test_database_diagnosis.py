"""What is said of a database, from what was read of it."""

from __future__ import annotations

import msgspec
import pytest

from motoolsd.core.database_diagnosis import (
    WAL_LARGE_BYTES,
    DatabaseFacts,
    LeaseFacts,
    RemovalFacts,
    RowFacts,
    check_clock,
    check_database,
    check_leases,
    check_rows,
    check_trash,
    check_wal,
    foreign_wal,
)
from motoolsd.core.diagnosis import FileFacts, FileKind, LockFacts, PlaceFacts
from motoolsd.wire.diagnosis import Mend, Verdict
from motoolsd.wire.errors import ErrorCode

PLACE = PlaceFacts(path="/c", path_size_bytes=2, user=1000, owner=1000, mode=0o700)
FREE, RUNNING = LockFacts(is_held=False), LockFacts(is_held=True, pid=7, is_alive=True)
FILE = FileFacts(name="cache.db", kind=FileKind.FILE, owner=1000, mode=0o600, size_bytes=8192)
WAL = msgspec.structs.replace(FILE, name="cache.db-wal", size_bytes=4152)


def header(page_size: int = 4096, write_version: int = 2) -> bytes:
    """The beginning of a database."""
    return b"SQLite format 3\0" + page_size.to_bytes(2, "big") + bytes([write_version, write_version]) + bytes(80)


def wal_header(page_size: int = 4096, magic: int = 0x377F0682) -> bytes:
    """The beginning of a write-ahead log."""
    return magic.to_bytes(4, "big") + (3_007_000).to_bytes(4, "big") + page_size.to_bytes(4, "big") + bytes(20)


HEALTHY = DatabaseFacts(
    file=FILE, wal=None, header=header(), supported=4, version=4, rows=RowFacts(counts={"dataset": 2})
)


def facts(**changes: object) -> DatabaseFacts:
    """A healthy database, but for that."""
    return msgspec.structs.replace(HEALTHY, **changes)


def with_wal(**changes: object) -> DatabaseFacts:
    """The same with a log of its own."""
    return msgspec.structs.replace(facts(wal=WAL, wal_header=wal_header()), **changes)


DATABASES = [
    (facts(), FREE, Verdict.OK, "sound, schema 4; 2 datasets", ""),
    (facts(version=2, rows=None), FREE, Verdict.OK, "migrates", ""),
    (facts(version=0, is_empty=True, rows=None), FREE, Verdict.OK, "empty", ""),
    (DatabaseFacts(), FREE, Verdict.OK, "none yet", ""),
    (DatabaseFacts(held_files=["stamps"]), FREE, Verdict.PROBLEM, "stamps", "restore-backup"),
    (DatabaseFacts(), RUNNING, Verdict.PROBLEM, "gone", "restore-backup"),
    (facts(file=msgspec.structs.replace(FILE, kind=FileKind.LINK)), FREE, Verdict.PROBLEM, "link", "restore-backup"),
    (facts(error="x", error_code=ErrorCode.SCHEMA_TOO_NEW), FREE, Verdict.PROBLEM, "x", "pip install --upgrade"),
    (facts(error="x", error_code=ErrorCode.CORRUPT_DATABASE), FREE, Verdict.PROBLEM, "x", "dmesg"),
    (facts(error="x", error_code=ErrorCode.CORRUPT_DATABASE), FREE, Verdict.PROBLEM, "x", "restore-backup -d /c"),
    (with_wal(error="x", error_code=ErrorCode.CORRUPT_DATABASE), FREE, Verdict.PROBLEM, "x", "mv /c/cache.db-wal"),
    (facts(error="x", error_code=ErrorCode.STORAGE_FAILED), FREE, Verdict.PROBLEM, "cannot be read: x", "dmesg"),
]


@pytest.mark.parametrize(("found", "lock", "status", "detail", "remedy"), DATABASES)
def test_database_is_judged_and_never_mended(
    found: DatabaseFacts, lock: LockFacts, status: Verdict, detail: str, remedy: str
) -> None:
    """What looks like damage may be the disk: the remedy says so, and nothing is done by itself."""
    check = check_database(PLACE, found, lock)
    assert check.status is status
    assert detail in check.detail
    assert remedy in check.remedy
    assert bool(check.remedy) == bool(remedy)
    assert check.mend is None


def test_transaction_that_was_not_ended_is_undone_by_the_next_daemon() -> None:
    """A journal of which SQLite has zeroed the beginning is over."""
    hot = facts(journal_header=bytes.fromhex("d9d505f920a163d7"), rows=None)
    check = check_database(PLACE, hot, FREE)
    assert (check.status, check.mend) == (Verdict.WARNING, Mend.START)
    assert check_database(PLACE, facts(journal_header=bytes(8)), FREE).status is Verdict.OK


EMPTY = msgspec.structs.replace(FILE, size_bytes=0)
FOREIGN = [
    (facts(), None),
    (with_wal(), None),
    (with_wal(wal_header=wal_header(magic=0x377F0683)), None),
    (with_wal(header=header(page_size=1), wal_header=wal_header(page_size=65_536)), None),
    (with_wal(wal_header=bytes(32)), None),
    (with_wal(wal=msgspec.structs.replace(WAL, size_bytes=0), file=None), None),
    (with_wal(file=None), "no cache.db"),
    (with_wal(file=EMPTY), "empty"),
    (with_wal(header=header(write_version=1)), "by its header"),
    (with_wal(wal_header=wal_header(page_size=8192)), "8192 bytes"),
]


@pytest.mark.parametrize(("found", "reason"), FOREIGN)
def test_log_of_another_database_is_told_by_the_headers(found: DatabaseFacts, reason: str | None) -> None:
    """As far as they can tell it; a torn header is what a power cut leaves, and SQLite passes over it."""
    said = foreign_wal(found)
    assert (said is None) == (reason is None)
    if reason is not None:
        assert reason in str(said)
        check = check_wal(PLACE, found, FREE)
        assert (check.status, check.mend) == (Verdict.PROBLEM, None)
        assert "mv /c/cache.db-wal" in check.remedy


def test_log_is_judged_by_the_lock_and_its_size() -> None:
    """Left over where no daemon runs; large where one does."""
    assert check_wal(PLACE, facts(), FREE).status is Verdict.OK
    assert check_wal(PLACE, with_wal(), RUNNING).status is Verdict.OK
    assert check_wal(PLACE, with_wal(), FREE).mend is Mend.START
    large = with_wal(wal=msgspec.structs.replace(WAL, size_bytes=WAL_LARGE_BYTES + 1))
    assert check_wal(PLACE, large, RUNNING).status is Verdict.WARNING


def test_rows_and_files_are_judged() -> None:
    """Damaged rows and files are for the daemon's verifying; what is set aside is no fault."""
    assert [check.status for check in check_rows(PLACE, RowFacts(void={"invalidated": 3}))] == [Verdict.OK] * 3
    rows, void, files = check_rows(
        PLACE, RowFacts(damaged=["dataset d"], void={"file gone": 1, "damaged": 2}, missing_files=["runs/a"])
    )
    assert (rows.status, rows.mend) == (Verdict.PROBLEM, Mend.VERIFY)
    assert "2 damaged, 1 file gone" in void.detail
    assert (files.status, files.mend) == (Verdict.PROBLEM, Mend.VERIFY)
    assert "runs/a" in files.detail
    *_, files = check_rows(PLACE, RowFacts(unreadable_files=["runs/a"]))
    assert (files.status, files.mend) == (Verdict.PROBLEM, None)


def test_leases_of_the_dead_are_the_next_daemons() -> None:
    """A running one has just heard of it, or somebody breaks them."""
    dead = RowFacts(leases=[LeaseFacts(kind="model", key="k", pid=9, is_alive=False)])
    alive = RowFacts(leases=[LeaseFacts(kind="model", key="k", pid=9, is_alive=True)])
    assert check_leases(PLACE, alive, RUNNING).status is Verdict.OK
    assert check_leases(PLACE, dead, FREE).mend is Mend.START
    check = check_leases(PLACE, dead, RUNNING)
    assert (check.status, check.mend) == (Verdict.WARNING, None)
    assert "--break" in check.remedy


def removal(state: str = "trashed", *, has_directory: bool = True) -> RemovalFacts:
    """A clean-up that took files."""
    return RemovalFacts(number=5, state=state, has_paths=True, has_directory=has_directory)


def test_clean_ups_are_judged_by_their_state() -> None:
    """Half done is how it is while a daemon works, and a fault when none does."""
    half, whole = RowFacts(removals=[removal("removing")], strays=[5]), RowFacts(removals=[removal()])
    assert check_trash(PLACE, RowFacts(), FREE).status is Verdict.OK
    assert check_trash(PLACE, whole, FREE).status is Verdict.OK
    assert check_trash(PLACE, half, RUNNING).status is Verdict.OK
    assert check_trash(PLACE, half, FREE).mend is Mend.START
    gone = check_trash(PLACE, RowFacts(removals=[removal(has_directory=False)]), FREE)
    assert (gone.status, gone.mend) == (Verdict.WARNING, None)
    strays = check_trash(PLACE, RowFacts(strays=[9]), RUNNING)
    assert (strays.status, strays.mend) == (Verdict.WARNING, None)


def test_times_ahead_are_said() -> None:
    """Of rows, and of what waits to expire."""
    assert check_clock(RowFacts()).status is Verdict.OK
    assert "2 in eval_results" in check_clock(RowFacts(from_future={"eval_results": 2})).detail
    assert check_clock(RowFacts(is_deadline_far=True)).status is Verdict.WARNING
