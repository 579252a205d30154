"""Reading a database for an examination: everything, and nothing is written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from motoolsd.core.deadlines import Moment
from motoolsd.core.errors import CorruptDatabase, SchemaTooNew, StorageFailed
from motoolsd.store.examination import is_far, read_database, read_headers
from motoolsd.store.ownership import OwnedPath
from motoolsd.store.removals import Removal
from motoolsd.store.schema import SCHEMA_VERSION

NOW = "2026-01-31 12:00:00"
PAST = "'2026-01-01 00:00:00'"


def execute(database: str, *statements: str) -> None:
    """Change it as somebody with another program."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_rows_are_counted_and_compared(database: str) -> None:
    """Counts, damage, what is set aside, clean-ups, and times that lie ahead."""
    execute(
        database,
        f"INSERT INTO dataset_files (dataset_hash, file_id, checksum, created_at) VALUES ('d1', 'f', 1, {PAST})",
        "INSERT INTO dataset_files (dataset_hash, file_id, created_at) VALUES ('d2', 'f', '2026-02-01 00:00:00')",
        "INSERT INTO dataset_files (dataset_hash, file_id, created_at) VALUES ('d3', 'f', 'some day')",
        f"UPDATE dataset_files SET void_since = {PAST}, void_reason = 'invalidated' WHERE dataset_hash = 'd3'",
        f"INSERT INTO motoolsd_removals (id, reason, removed_at, state) VALUES (7, 'r', {PAST}, 'trashed')",
        "UPDATE dataset_files SET files = 1 WHERE dataset_hash = 'd2'",
        "INSERT INTO motoolsd_files (kind, entry, path) VALUES ('dataset', 'd2', CAST('datasets/d2.jsonl' AS BLOB))",
    )
    owned: list[OwnedPath] = []
    inspection, found = read_database(database, is_still=True, now=NOW, look=owned.append)
    assert found is not None
    assert inspection.version == SCHEMA_VERSION
    assert found.counts == {"dataset": 3, "model": 0, "eval": 0}
    assert found.damaged == ["dataset d1"]
    assert found.void == {"invalidated": 1}
    assert found.from_future == {"dataset_files": 1}
    assert [(removal.id, has_paths) for removal, has_paths in found.removals] == [(7, False)]
    assert [item.path for item in owned] == [b"datasets/d2.jsonl"]


def test_still_database_gets_no_file_beside_it(database: str) -> None:
    """Neither a log nor shared memory: nothing is made."""
    before = sorted(path.name for path in Path(database).parent.iterdir())
    read_database(database, is_still=True, now=NOW, look=lambda _item: None)
    assert sorted(path.name for path in Path(database).parent.iterdir()) == before


def test_writes_in_the_log_are_seen_beside_a_writer(database: str) -> None:
    """With the locks that SQLite takes for reading."""
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL").fetchone()
        writer.execute("INSERT INTO dataset_files (dataset_hash, file_id) VALUES ('d1', 'f')")
        _, found = read_database(database, is_still=False, now=NOW, look=lambda _item: None)
        assert found is not None
        assert found.counts["dataset"] == 1
        headers = read_headers(database)
    assert headers.database.startswith(b"SQLite format 3\0")
    assert headers.wal[:3] == b"\x37\x7f\x06"


def test_what_cannot_be_read_is_refused_as_the_daemon_refuses_it(database: str, tmp_path: Path) -> None:
    """Newer, older, damaged, missing."""
    older = tmp_path / "older.db"
    execute(str(older), "CREATE TABLE dataset_files (dataset_hash TEXT PRIMARY KEY, file_id TEXT NOT NULL)")
    inspection, found = read_database(str(older), is_still=True, now=NOW, look=lambda _item: None)
    assert (inspection.version, found) == (0, None)
    execute(database, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(SchemaTooNew):
        read_database(database, is_still=True, now=NOW, look=lambda _item: None)
    Path(database).write_bytes(b"nothing of the sort" * 1000)
    with pytest.raises(CorruptDatabase):
        read_database(database, is_still=True, now=NOW, look=lambda _item: None)
    with pytest.raises(StorageFailed):
        read_database(str(tmp_path / "none.db"), is_still=True, now=NOW, look=lambda _item: None)
    assert read_headers(str(tmp_path / "none.db")) == (b"", b"", b"")
    assert not (tmp_path / "none.db").exists()


def test_deadline_is_far_by_the_wall_clock() -> None:
    """None is no deadline."""
    now = Moment("b", 0.0, 1e9)
    removal = Removal(1, "trashed", "r", "", now.after(1_000.0))
    assert is_far(removal, now, 999.0)
    assert not is_far(removal, now, 1_000.0)
    assert not is_far(Removal(1, "trashed", "r", "", None), now, 0.0)
