"""People query and edit cache.db by hand, with statements that know only the old columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from motoolsd.store.migration import prepare_database
from motoolsd.store.schema import OLD_TABLES, SCHEMA_VERSION, TABLES_OF
from tests.samples import execute, query

STORED = """
INSERT INTO dataset_files (dataset_hash, file_id, checksum) VALUES ('d', 'file', 1);
INSERT INTO trained_models (cache_key, model_id, checksum) VALUES ('k', 'model', 1);
INSERT INTO eval_results (model_id, task_id, backend_type, log_file_path, checksum) VALUES ('m', 't', 'b', 'log', 1);
"""

INSERTS = {
    "dataset_files": "INTO dataset_files (dataset_hash, file_id) VALUES ('d', 'other')",
    "trained_models": "INTO trained_models (cache_key, model_id) VALUES ('k', 'other')",
    "eval_results": "INTO eval_results (model_id, task_id, backend_type, log_file_path, inspect_kwargs_hash)"
    " VALUES ('m', 't', 'b', 'other', NULL)",
}
VALUES = {"dataset_files": "file_id", "trained_models": "model_id", "eval_results": "log_file_path"}
TABLES = sorted(OLD_TABLES)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A fresh cache.db."""
    prepare_database(str(tmp_path / "cache.db"))
    return tmp_path / "cache.db"


def test_required_columns_are_those_that_the_migration_makes(database: Path) -> None:
    """What is asked of a file of ours is exactly what we make."""
    for table, columns in TABLES_OF[SCHEMA_VERSION].items():
        assert {row[1] for row in query(database, f"PRAGMA table_info({table})")} == columns


@pytest.mark.parametrize("table", TABLES)
def test_old_insert_works_and_is_stamped(database: Path, table: str) -> None:
    """An INSERT that knows only the old columns gets defaults: created now, unused, not pinned, not checked."""
    execute(database, f"INSERT {INSERTS[table]};")
    (row,) = query(
        database, f"SELECT abs(julianday('now') - julianday(created_at)) < 0.01, hits, pinned, checksum FROM {table}"
    )
    assert row == (1, 0, 0, None)


@pytest.mark.parametrize("table", TABLES)
def test_old_insert_or_replace_replaces(database: Path, table: str) -> None:
    """INSERT OR REPLACE, as the older package wrote, leaves one row, also over a NULL kwargs hash."""
    execute(database, STORED + f"INSERT OR REPLACE {INSERTS[table]};")
    assert query(database, f"SELECT {VALUES[table]}, checksum, created_at IS NULL FROM {table}") == [("other", None, 0)]


@pytest.mark.parametrize("table", TABLES)
def test_update_by_hand_unchecks_the_row(database: Path, table: str) -> None:
    """A changed value whose checksum did not change is no damage: the checksum becomes NULL."""
    execute(database, STORED + f"UPDATE {table} SET {VALUES[table]} = 'by hand';")
    assert query(database, f"SELECT {VALUES[table]}, checksum FROM {table}") == [("by hand", None)]


@pytest.mark.parametrize("table", TABLES)
def test_update_of_other_columns_keeps_the_checksum(database: Path, table: str) -> None:
    """Pinning, counting, or writing the same value again says nothing against a value."""
    execute(database, STORED + f"UPDATE {table} SET pinned = 1, hits = 5, {VALUES[table]} = {VALUES[table]};")
    assert query(database, f"SELECT checksum FROM {table}") == [(1,)]


@pytest.mark.parametrize("table", TABLES)
def test_update_of_value_and_checksum_is_believed(database: Path, table: str) -> None:
    """Who writes a checksum of their own means it."""
    execute(database, STORED + f"UPDATE {table} SET {VALUES[table]} = 'new', checksum = 2;")
    assert query(database, f"SELECT checksum FROM {table}") == [(2,)]


NEWER = {
    "files": 2,
    "allocated_bytes": 4096,
    "void_since": "then",
    "void_reason": "file gone",
    "pin_reason": "r",
    "pinned_until": "u",
    "expires_at": "e",
}
FILLED = ", ".join(f"{column} = {value!r}" for column, value in NEWER.items())


@pytest.mark.parametrize("table", TABLES)
def test_old_insert_owns_nothing_and_counts(database: Path, table: str) -> None:
    """The newer columns are empty: no files, no end, nothing that makes it miss."""
    execute(database, f"INSERT {INSERTS[table]};")
    assert query(database, f"SELECT {', '.join(NEWER)} FROM {table}") == [(0, None, None, None, None, None, None)]


@pytest.mark.parametrize("table", TABLES)
def test_old_insert_or_replace_begins_anew(database: Path, table: str) -> None:
    """The row before, with its files, its pin and what made it miss, is gone."""
    execute(database, STORED + f"UPDATE {table} SET {FILLED}; INSERT OR REPLACE {INSERTS[table]};")
    assert query(database, f"SELECT {', '.join(NEWER)} FROM {table}") == [(0, None, None, None, None, None, None)]


@pytest.mark.parametrize("table", TABLES)
def test_old_update_leaves_the_newer_columns(database: Path, table: str) -> None:
    """Who changes a value by hand changes that alone."""
    execute(database, STORED + f"UPDATE {table} SET {FILLED}; UPDATE {table} SET {VALUES[table]} = 'by hand';")
    assert query(database, f"SELECT {', '.join(NEWER)} FROM {table}") == [tuple(NEWER.values())]


@pytest.mark.parametrize("table", TABLES)
def test_newer_columns_say_nothing_against_a_value(database: Path, table: str) -> None:
    """Files, pins and ends are no part of what the checksum vouches for."""
    execute(database, STORED + f"UPDATE {table} SET {FILLED};")
    assert query(database, f"SELECT checksum FROM {table}") == [(1,)]


@pytest.mark.parametrize("table", TABLES)
def test_old_delete_deletes(database: Path, table: str) -> None:
    """Nothing refers to a row in a way that would keep it."""
    execute(database, STORED + f"UPDATE {table} SET {FILLED}; PRAGMA foreign_keys = ON; DELETE FROM {table};")
    assert query(database, f"SELECT count(*) FROM {table}") == [(0,)]


@pytest.mark.parametrize("table", TABLES)
def test_pinned_rows_are_found_without_reading_all(database: Path, table: str) -> None:
    """A clear of a million rows asks for them first."""
    plan = query(database, f"EXPLAIN QUERY PLAN SELECT 1 FROM {table} WHERE pinned != 0")
    assert f"INDEX {table}_pinned" in plan[0][3]
