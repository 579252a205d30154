"""Whole copies of a database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from motoolsd.core.errors import CorruptDatabase, SchemaTooNew, StorageFailed
from motoolsd.store import copying
from motoolsd.store.copying import (
    TOKEN_JUMP,
    Contents,
    Stopped,
    copy_database,
    count_on,
    glance,
    inspect_copy,
    select_fingerprint,
)
from motoolsd.store.entries import SetPin, SetVoid
from motoolsd.store.facts import SetFact
from motoolsd.store.schema import SCHEMA_VERSION
from motoolsd.wire.keys import Kind
from tests.samples import OLD_DDL, OLD_ROWS, clear, committed, execute, insert, put_dataset, put_model


@pytest.fixture
def target(tmp_path: Path) -> str:
    """An empty file."""
    path = tmp_path / "copy.db"
    path.touch(mode=0o600)
    return str(path)


def fill(database: str, count: int) -> None:
    """Enough rows for several steps."""
    with closing(sqlite3.connect(database)) as connection, connection:
        rows = [(f"hash-{number}", "f" * 4_000) for number in range(count)]
        connection.executemany("INSERT INTO dataset_files (dataset_hash, file_id) VALUES (?, ?)", rows)


def hashes(database: str) -> set[str]:
    """The datasets in it."""
    with closing(sqlite3.connect(database)) as connection:
        return {name for (name,) in connection.execute("SELECT dataset_hash FROM dataset_files")}


def test_copy_holds_what_the_database_holds(database: str, target: str) -> None:
    """Rows, counts and the schema's version; rows that stand in the write-ahead log alone, too."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        with connection:
            connection.execute("INSERT INTO dataset_files (dataset_hash, file_id) VALUES ('a', 'file')")
        assert Path(f"{database}-wal").stat().st_size
        found = copy_database(database, target)
    assert found == Contents(SCHEMA_VERSION, {Kind.DATASET: 1, Kind.MODEL: 0, Kind.EVAL: 0})
    assert hashes(target) == {"a"}


def test_copy_is_one_file(database: str, target: str) -> None:
    """It needs no companion, and is read where nothing can be written."""
    execute(database, "PRAGMA journal_mode = WAL")
    insert(database, "a", "file")
    copy_database(database, target)
    assert {path.name for path in Path(target).parent.glob("copy*")} == {"copy.db"}
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_rows_keep_their_numbers(database: str, target: str) -> None:
    """Tables without a number of their own keep the order in which they are listed."""
    for name in "abc":
        insert(database, name, "file")
    execute(database, "DELETE FROM dataset_files WHERE dataset_hash = 'a'")
    copy_database(database, target)
    query = "SELECT rowid, dataset_hash FROM dataset_files ORDER BY rowid"
    with closing(sqlite3.connect(database)) as one, closing(sqlite3.connect(target)) as other:
        assert other.execute(query).fetchall() == one.execute(query).fetchall() == [(2, "b"), (3, "c")]


def test_writes_meanwhile_are_not_in_the_copy(database: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows the moment at which it began, and is not begun anew."""
    execute(database, "PRAGMA journal_mode = WAL")
    fill(database, 200)
    before = hashes(database)
    monkeypatch.setattr(copying, "STEP_PAGES", 20)
    told: list[int] = []

    def step(done: int, _total: int) -> None:
        told.append(done)
        insert(database, f"late-{done}", "file")

    copy_database(database, target, step=step)
    assert hashes(target) == before
    assert len(told) >= 5
    assert told == sorted(set(told))
    assert len(hashes(database)) == len(before) + len(told)


def test_stopped_copy_ends_at_the_next_step(database: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it any more."""
    fill(database, 200)
    monkeypatch.setattr(copying, "STEP_PAGES", 20)
    looks = iter([False, True])
    with pytest.raises(Stopped):
        copy_database(database, target, is_stopped=lambda: next(looks))
    assert next(looks, None) is None


def test_check_of_a_copy_is_stopped_too(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large copy takes long to check."""
    fill(database, 200)
    monkeypatch.setattr(copying, "CHECK_STEP", 1)
    with pytest.raises(Stopped):
        inspect_copy(database, is_stopped=lambda: True)


def test_damaged_database_is_not_copied_as_if_it_were_whole(database: str, target: str) -> None:
    """A page of zeros in the middle is found by the check, however well it was copied."""
    fill(database, 50)
    with Path(database).open("r+b") as file:
        file.seek(10 * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(CorruptDatabase, match="restore-backup"):
        copy_database(database, target)


def test_file_of_another_program_is_no_backup(tmp_path: Path, target: str) -> None:
    """Nor is a text, nor a later version's database."""
    other, text, later = (tmp_path / name for name in ("other.db", "text.db", "later.db"))
    execute(other, "CREATE TABLE songs (title)")
    text.write_text("no database\n" * 1_000)
    execute(later, f"{OLD_DDL}; PRAGMA user_version = {SCHEMA_VERSION + 1}")
    for path, error in ((other, CorruptDatabase), (text, CorruptDatabase), (later, SchemaTooNew)):
        with pytest.raises(error):
            glance(str(path))
        with pytest.raises(error):
            copy_database(str(path), target)


def test_database_of_the_older_package_can_be_used(tmp_path: Path, target: str) -> None:
    """The next daemon migrates it."""
    execute(tmp_path / "old.db", OLD_DDL + OLD_ROWS)
    assert copy_database(str(tmp_path / "old.db"), target).counts == {Kind.DATASET: 2, Kind.MODEL: 1, Kind.EVAL: 4}
    count_on(target, removals_min=7)
    assert glance(target).version == 0


def test_empty_file_is_no_backup(target: str) -> None:
    """SQLite takes it for an empty database; restoring it would lose everything."""
    with pytest.raises(CorruptDatabase, match="empty"):
        glance(target)


def test_missing_file_is_said(tmp_path: Path, target: str) -> None:
    """It is not made."""
    with pytest.raises(StorageFailed):
        copy_database(str(tmp_path / "none.db"), target)
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("known", [0, 9])
def test_restored_copy_counts_on(database: str, known: int) -> None:
    """No token that was granted since is granted again, and no removal gets the number of one in the trash."""
    execute(database, "INSERT INTO motoolsd_removals (id, reason, removed_at, state) VALUES (5, '', '', 'trashed')")
    execute(database, "INSERT INTO sqlite_sequence (name, seq) VALUES ('motoolsd_leases', 3)")
    count_on(database, removals_min=known)
    with closing(sqlite3.connect(database)) as connection:
        found = dict(connection.execute("SELECT name, seq FROM sqlite_sequence WHERE name LIKE 'motoolsd_%'"))
    assert found == {"motoolsd_leases": 3 + TOKEN_JUMP, "motoolsd_removals": max(5, known)}


def test_fingerprint_changes_with_what_would_be_lost(raw: sqlite3.Connection) -> None:
    """Entries, other values, pins and marks; not what the daemon notes for itself."""
    assert select_fingerprint(raw).is_empty
    seen = {select_fingerprint(raw).text}
    for change in (
        put_dataset("a"),
        put_dataset("a", b"other"),
        put_model("a"),
        SetPin(kinds=(Kind.DATASET,), name="a", is_pinned=True),
        SetVoid(((Kind.DATASET, "a"),), "missing"),
        clear(Kind.MODEL),
    ):
        committed(raw, change)
        found = select_fingerprint(raw)
        assert found.text not in seen, change
        assert not found.is_empty
        seen.add(found.text)
    committed(raw, SetFact("last_scan", b"x"))
    assert select_fingerprint(raw).text in seen
    assert select_fingerprint(raw).size_bytes >= 4096


def test_copy_does_not_fill_a_full_disk_silently(database: str, tmp_path: Path) -> None:
    """What cannot be written is an error that says so."""
    target = tmp_path / "full.db"
    target.symlink_to("/dev/full")
    with pytest.raises(StorageFailed):
        copy_database(database, str(target))
