"""A backup comes into the place of cache.db."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from motoolsd.adapters.directory import open_directory
from motoolsd.adapters.lock import hold_lock
from motoolsd.core.errors import AlreadyRunning, CorruptDatabase, EntryNotFound, RequestError
from motoolsd.restoration import attempt, list_backups, plan_restore, restore
from motoolsd.store.copying import TOKEN_JUMP, copy_database
from motoolsd.store.migration import prepare_database
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.names import STAMPS
from tests.samples import execute, insert


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A cache directory with one dataset."""
    path = tmp_path / "cache"
    path.mkdir()
    prepare_database(str(path / "cache.db"))
    insert(path / "cache.db", "now", "file")
    return str(path)


@pytest.fixture
def backup(tmp_path: Path) -> str:
    """A backup with two others."""
    made, path = tmp_path / "made.db", tmp_path / "backup.db"
    prepare_database(str(made))
    for name in ("then-1", "then-2"):
        insert(made, name, "file")
    path.touch()
    copy_database(str(made), str(path))
    return str(path)


def datasets(path: str | bytes) -> set[str]:
    """The datasets in a database."""
    with closing(sqlite3.connect(os.fsdecode(path))) as connection:
        return {name for (name,) in connection.execute("SELECT dataset_hash FROM dataset_files")}


def names_in(place: str) -> set[str]:
    """What lies there."""
    return {path.name for path in Path(place).iterdir() if path.name.startswith("cache.db")}


def test_backup_comes_into_its_place(place: str, backup: str) -> None:
    """What was there stays under a name that is told; the backup stays, too."""
    done = restore(place, backup)
    assert datasets(f"{place}/cache.db") == datasets(backup) == {"then-1", "then-2"}
    assert datasets(done.replaced) == {"now"}
    assert done.chosen is not None
    assert done.current is not None
    assert (done.chosen.datasets, done.current.datasets) == (2, 1)
    assert Path(place, "cache.db").stat().st_mode & 0o777 == 0o600


def test_log_of_the_old_one_is_not_left_to_the_new_one(place: str, backup: str) -> None:
    """What a killed daemon had only in its write-ahead log goes along with the old one."""
    with closing(sqlite3.connect(f"{place}/cache.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        with connection:
            connection.execute("INSERT INTO dataset_files (dataset_hash, file_id) VALUES ('in the log', 'f')")
        log = Path(place, "cache.db-wal").read_bytes()
    Path(place, "cache.db-wal").write_bytes(log)
    execute(f"{place}/cache.db", "DELETE FROM dataset_files WHERE dataset_hash = 'in the log'")
    Path(place, "cache.db-wal").write_bytes(log)
    done = restore(place, backup)
    assert datasets(f"{place}/cache.db") == {"then-1", "then-2"}
    assert Path(f"{os.fsdecode(done.replaced)}-wal").read_bytes() == log


@pytest.mark.parametrize("damage", ["garbage", "empty", "missing"])
def test_damaged_database_is_replaced_all_the_same(place: str, backup: str, damage: str) -> None:
    """That is what backups are for; the damaged one stays as it is."""
    database = Path(place, "cache.db")
    match damage:
        case "garbage":
            database.write_bytes(b"no database\n" * 1_000)
        case "empty":
            database.write_bytes(b"")
        case _:
            database.unlink()
    before = database.read_bytes() if database.exists() else None
    done = restore(place, backup)
    assert datasets(str(database)) == {"then-1", "then-2"}
    assert (None if not done.replaced else Path(os.fsdecode(done.replaced)).read_bytes()) == before
    assert done.current is None if before is None else done.current is not None and done.current.problem


@pytest.mark.parametrize("what", ["damaged", "cut", "text", "empty", "later", "directory", "missing", "none"])
def test_backup_that_cannot_be_used_replaces_nothing(place: str, backup: str, what: str) -> None:
    """Each is refused by name; the database stays, and nothing lies about."""
    path, source = Path(backup), backup
    error: type[RequestError] = CorruptDatabase
    match what:
        case "damaged":
            with path.open("r+b") as file:
                file.seek(8 * 4096)
                file.write(b"\xff" * 4096)
        case "cut":
            os.truncate(path, path.stat().st_size // 2)
        case "text":
            path.write_text("notes\n" * 1_000)
        case "empty":
            path.write_bytes(b"")
        case "later":
            execute(path, "PRAGMA user_version = 99")
        case "directory":
            path.unlink()
            path.mkdir()
        case "missing":
            path.unlink()
            error = EntryNotFound
        case _:
            source, error = "", EntryNotFound
    before = Path(place, "cache.db").read_bytes()
    with pytest.raises(RequestError) as refused:
        restore(place, source or None)
    named = place if what == "none" else backup
    assert named in refused.value.message
    assert isinstance(refused.value, error), refused.value
    assert names_in(place) == {"cache.db"}
    assert Path(place, "cache.db").read_bytes() == before


def test_running_daemon_is_not_disturbed(place: str, backup: str) -> None:
    """Whoever holds the lock has the database."""
    with open_directory(place) as directory, hold_lock(directory, now=""):
        with pytest.raises(AlreadyRunning):
            restore(place, backup)
        assert attempt(place, backup, is_list=False, is_plan=False).is_busy
        assert plan_restore(place, backup).chosen is not None
    assert datasets(f"{place}/cache.db") == {"now"}


def test_newest_automatic_backup_is_the_default(place: str, backup: str) -> None:
    """The list shows all, the newest first."""
    backups = Path(place, "backups")
    backups.mkdir()
    for number, name in enumerate(("cache-20260201T000000Z.db", "cache-20260131T235959Z.db")):
        (backups / name).write_bytes(Path(backup).read_bytes())
        insert(backups / name, f"of-{number}", "file")
    (backups / "cache-20260101T000000Z.db").write_text("damaged")
    found = list_backups(place).backups
    assert [(one.made_at, one.datasets, bool(one.problem)) for one in found] == [
        ("2026-02-01T00:00:00Z", 3, False),
        ("2026-01-31T23:59:59Z", 3, False),
        ("2026-01-01T00:00:00Z", 0, True),
    ]
    assert plan_restore(place, None).chosen == found[0]
    restore(place, None)
    assert "of-0" in datasets(f"{place}/cache.db")


def test_what_clients_remember_counts_no_more(place: str, backup: str) -> None:
    """Every slot's number changes, though no daemon has started yet."""
    restore(place, backup)
    before = Path(place, STAMPS).read_bytes()
    restore(place, backup)
    after = Path(place, STAMPS).read_bytes()
    assert all(before[start : start + 8] != after[start : start + 8] for start in range(0, len(after), 8))


def test_numbers_that_were_given_out_are_not_given_out_again(place: str, backup: str) -> None:
    """Tokens of leases, and removals whose files lie in the trash."""
    Path(place, "trash/12").mkdir(parents=True)
    restore(place, backup)
    with closing(sqlite3.connect(f"{place}/cache.db")) as connection:
        found = dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))
    assert (found["motoolsd_leases"], found["motoolsd_removals"]) == (TOKEN_JUMP, 12)


def test_what_was_set_aside_can_be_restored(place: str, backup: str) -> None:
    """A restore is undone by another."""
    done = restore(place, backup)
    restore(place, os.fsdecode(done.replaced))
    assert datasets(f"{place}/cache.db") == {"now"}


def test_refusal_is_a_reply(place: str, tmp_path: Path) -> None:
    """The command that asked has only that."""
    done = attempt(place, str(tmp_path / "none"), is_list=False, is_plan=True)
    assert (done.code, done.is_busy) == (ErrorCode.NOT_FOUND.value, False)
    assert str(tmp_path / "none") in done.message


def test_missing_directory_is_not_made(tmp_path: Path, backup: str) -> None:
    """A misspelled name would hold a cache else."""
    for is_list in (True, False):
        done = attempt(str(tmp_path / "none"), backup, is_list=is_list, is_plan=False)
        assert done.code == ErrorCode.DIRECTORY_MISSING.value
    assert not (tmp_path / "none").exists()
