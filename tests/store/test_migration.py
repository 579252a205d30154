"""A cache.db becomes today's schema, or is refused with its bytes as they were."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from motoolsd.core.errors import CorruptDatabase, RequestError, SchemaTooNew, StorageFailed
from motoolsd.store import migration
from motoolsd.store.migration import prepare_database
from motoolsd.store.reads import FROM_START, select_slice, select_values
from motoolsd.store.schema import MIGRATIONS, OLD_TABLES, SCHEMA_VERSION, VERSION_0, VERSION_1, VERSION_3
from motoolsd.wire.keys import Kind, eval_key
from tests.samples import OLD_DDL, OLD_ROWS, execute, make_old_database, query

ROWS_1 = """
UPDATE dataset_files SET created_at = 'then', last_used_at = 'later', hits = 7, size_bytes = 5, version = '1',
  labels = '{"a":"b"}', checksum = 1;
UPDATE trained_models SET dataset_hash = 'd1', config = '{}', backend_type = 'openai', hits = 8, pinned = 1;
UPDATE eval_results SET inspect_kwargs = '{}', hits = 9;
INSERT INTO motoolsd_replies VALUES (x'00', 3, x'01', 'then');
"""
ROWS_2 = "INSERT INTO motoolsd_leases VALUES (7, 'model', 'k', x'02');"
"""What stands in the columns and tables that each version brought."""
UNOWNED = [b"runs/job", b"runs/caf\xe9\n"]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where a cache.db may be."""
    return tmp_path / "cache.db"


def as_bytes(database: Path) -> sqlite3.Connection:
    """A connection as the daemon's readers are."""
    connection = sqlite3.connect(database)
    connection.text_factory = bytes
    return connection


def make_database(database: Path, version: int) -> None:
    """A cache.db as an earlier version of the daemon left it, every column filled; 0: of the older package."""
    execute(database, "".join(f"{statement};" for statement in VERSION_0) + OLD_ROWS)
    for step, rows in enumerate((ROWS_1, ROWS_2)[:version], 1):
        script = "".join(f"{statement};" for statement in MIGRATIONS[step])
        execute(database, f"BEGIN; {script} COMMIT; {rows}")
    execute(database, f"PRAGMA user_version = {version};")


def rows_of(database: Path, like: Path) -> dict[str, list[tuple[object, ...]]]:
    """What stands in the tables and columns that another database has."""
    found = {}
    for (table,) in query(like, "SELECT name FROM sqlite_master WHERE type = 'table'"):
        columns = ", ".join(row[1] for row in query(like, f"PRAGMA table_info({table})"))
        found[table] = query(database, f"SELECT {columns} FROM {table} ORDER BY 1")
    return found


def schema_of(database: Path) -> dict[str, object]:
    """Columns of every table, and the text of every index and trigger."""
    tables = [str(row[0]) for row in query(database, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    others = query(database, "SELECT name, sql FROM sqlite_master WHERE type != 'table'")
    columns = {table: query(database, f"PRAGMA table_info({table})") for table in tables}
    return {"columns": columns, "others": sorted(others, key=str), "version": query(database, "PRAGMA user_version")}


def refuse(database: Path, error: type[RequestError]) -> RequestError:
    """Prepare a file that must be refused, and see that it was left alone."""
    before = database.read_bytes()
    with pytest.raises(error) as caught:
        prepare_database(str(database))
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir() if ".bak" in path.name] == []
    return caught.value


def test_fresh_file_is_made_private(database: Path) -> None:
    """A missing cache.db is made with mode 0600, at today's schema, without a backup."""
    assert prepare_database(str(database)) is None
    assert database.stat().st_mode & 0o777 == 0o600
    assert query(database, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_fresh_and_migrated_files_have_the_same_schema(database: Path, tmp_path: Path) -> None:
    """There is one schema, however it came about."""
    prepare_database(str(database))
    make_old_database(tmp_path / "old.db")
    prepare_database(str(tmp_path / "old.db"))
    assert schema_of(database) == schema_of(tmp_path / "old.db")


def test_preparing_twice_changes_nothing(database: Path) -> None:
    """A file of today's schema is looked at and left alone."""
    make_old_database(database)
    assert prepare_database(str(database)) is not None
    before = database.read_bytes()
    assert prepare_database(str(database)) is None
    assert database.read_bytes() == before


def test_old_file_is_backed_up_before_it_migrates(database: Path) -> None:
    """The copy beside it holds what the file held before, duplicates included."""
    make_old_database(database)
    backup = prepare_database(str(database))
    assert backup == f"{database}.schema-0.bak"
    assert query(backup, "PRAGMA user_version") == [(0,)]
    assert query(backup, "SELECT count(*) FROM eval_results") == [(4,)]
    assert query(backup, "PRAGMA integrity_check") == [("ok",)]


def test_earlier_backup_is_kept(database: Path) -> None:
    """A second migration takes another name for its copy."""
    make_old_database(database)
    Path(f"{database}.schema-0.bak").write_text("precious")
    assert prepare_database(str(database)) == f"{database}.schema-0.2.bak"
    assert Path(f"{database}.schema-0.bak").read_text() == "precious"


def test_every_old_row_hits_by_its_key(database: Path) -> None:
    """Datasets, models and evaluations of the older package are found; of duplicates, the newest."""
    make_old_database(database)
    prepare_database(str(database))
    evals = {
        eval_key("m", "t1", "inspect", None): b"/logs/newest",
        eval_key("m", "t2", "inspect", "hash"): b"/logs/t2",
    }
    with closing(as_bytes(database)) as connection:
        assert select_values(connection, Kind.DATASET, ["d1", "d2", "d3"]).found == {"d1": b"file-1", "d2": b"file-2"}
        assert select_values(connection, Kind.MODEL, ["k1"]).found == {"k1": b"model-1"}
        assert select_values(connection, Kind.EVAL, list(evals)).found == evals
        assert dict(select_slice(connection, Kind.EVAL, FROM_START, 10).entries) == evals
    assert query(database, "SELECT id FROM eval_results ORDER BY id") == [(3,), (4,)]


def test_empty_kwargs_hash_counts_as_null(database: Path) -> None:
    """A row with '' and one with NULL are the same evaluation: the newer stays, and memory and SQLite agree on it."""
    execute(
        database,
        OLD_DDL + "INSERT INTO eval_results (model_id, task_id, backend_type, log_file_path, inspect_kwargs_hash)"
        " VALUES ('m', 't', 'b', 'old', NULL), ('m', 't', 'b', 'new', '');",
    )
    prepare_database(str(database))
    key = eval_key("m", "t", "b", None)
    with closing(as_bytes(database)) as connection:
        assert select_slice(connection, Kind.EVAL, FROM_START, 10).entries == [(key, b"new")]
        assert select_values(connection, Kind.EVAL, [key]).found == {key: b"new"}


def test_old_file_without_all_tables_is_completed(database: Path) -> None:
    """The older package made tables when they were first needed; those that are missing are added."""
    execute(database, "CREATE TABLE dataset_files (dataset_hash TEXT PRIMARY KEY, file_id TEXT NOT NULL);")
    prepare_database(str(database))
    assert query(database, "SELECT count(*) FROM eval_results") == [(0,)]


def test_old_file_in_wal_mode_migrates(database: Path) -> None:
    """Rows that still stand in a write-ahead log are migrated too."""
    make_old_database(database)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("INSERT INTO dataset_files VALUES ('in-wal', 'file-3')")
        connection.commit()
        prepare_database(str(database))
    assert query(database, "SELECT file_id FROM dataset_files WHERE dataset_hash = 'in-wal'") == [("file-3",)]


def test_newer_schema_is_refused_untouched(database: Path) -> None:
    """A file of a later version is left alone; the error says which version, and to upgrade."""
    make_old_database(database)
    execute(database, f"PRAGMA user_version = {SCHEMA_VERSION + 1};")
    error = refuse(database, SchemaTooNew)
    assert "Upgrade" in error.message
    assert error.detail == {"version": SCHEMA_VERSION + 1, "supported": SCHEMA_VERSION}


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION, 7])
def test_database_of_another_program_is_refused_whatever_its_version(database: Path, version: int) -> None:
    """Other programs number their schemas too: the tables say whose file it is."""
    execute(database, f"CREATE TABLE songs (title TEXT); PRAGMA user_version = {version};")
    assert "another program" in refuse(database, CorruptDatabase).message


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE dataset_files (dataset_hash TEXT PRIMARY KEY);",
        OLD_DDL + f"PRAGMA user_version = {SCHEMA_VERSION};",
        f"PRAGMA user_version = {SCHEMA_VERSION};",
        OLD_DDL + "PRAGMA user_version = -1;",
    ],
)
def test_tables_that_are_not_ours_are_refused(database: Path, script: str) -> None:
    """Neither a table name nor a version number alone makes a file ours."""
    execute(database, script)
    refuse(database, CorruptDatabase)


def test_text_file_is_refused(database: Path) -> None:
    """A file that is no database is refused, and kept."""
    database.write_text("these are my notes, not a database\n" * 100)
    assert "Nothing was changed" in refuse(database, CorruptDatabase).message


def test_truncated_database_is_refused(database: Path) -> None:
    """A database that lost its end is refused with what to do."""
    make_old_database(database)
    os.truncate(database, database.stat().st_size // 2 + 100)
    assert ".recover" in refuse(database, CorruptDatabase).message


@pytest.mark.parametrize("prepared", [False, True])
def test_garbage_in_the_middle_is_refused(database: Path, *, prepared: bool) -> None:
    """A database with an overwritten page is refused, old or new."""
    make_old_database(database)
    if prepared:
        prepare_database(str(database))
        Path(f"{database}.schema-0.bak").unlink()
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096))
    refuse(database, CorruptDatabase)


def test_file_that_cannot_be_opened_is_refused(database: Path) -> None:
    """What the system does not let us open is no damage: a directory, a link, a pipe, each with its reason."""
    database.mkdir()
    with pytest.raises(StorageFailed, match="directory"):
        prepare_database(str(database))
    database.rmdir()
    (database.parent / "elsewhere").write_bytes(b"")
    database.symlink_to("elsewhere")
    with pytest.raises(StorageFailed, match="cannot be used"):
        prepare_database(str(database))
    database.unlink()
    os.mkfifo(database)
    with pytest.raises(CorruptDatabase, match="regular"):
        prepare_database(str(database))


def test_unreadable_file_is_refused(database: Path) -> None:
    """A file without read permission is refused as unusable, not as damaged."""
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    make_old_database(database)
    database.chmod(0)
    with pytest.raises(StorageFailed, match="permissions"):
        prepare_database(str(database))


@pytest.mark.parametrize("step", range(len(VERSION_1) + 1))
def test_interrupted_migration_leaves_the_old_file(database: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Whichever statement fails, the file is byte for byte what it was, no copy is left, and a later try succeeds."""
    make_old_database(database)
    with monkeypatch.context() as patch:
        broken = (*VERSION_1[:step], "INSERT INTO nowhere VALUES (1)", *VERSION_1[step:])
        patch.setitem(MIGRATIONS, 1, broken)
        refuse(database, StorageFailed)
    prepare_database(str(database))
    assert query(database, "SELECT count(*) FROM eval_results") == [(2,)]


KILLED = """
import os, signal, sys
from motoolsd.store import migration
from motoolsd.store.schema import MIGRATIONS
real_open = migration.open_raw
def open_raw(database, mode):
    connection = real_open(database, mode)
    if mode == "rw":
        connection.execute("PRAGMA cache_size = 1")  # pages go to disk before the commit
        connection.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
    return connection
migration.open_raw = open_raw
MIGRATIONS[1] = (*MIGRATIONS[1], "SELECT die()")
migration.prepare_database(sys.argv[1])
"""


@pytest.mark.slow
def test_migration_killed_in_the_middle_is_undone_at_the_next_start(database: Path) -> None:
    """A journal that a killed process left is rolled back, though the file is first looked at read-only."""
    make_old_database(database)
    execute(
        database,
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
        " INSERT INTO dataset_files SELECT 'h' || i, 'f' || i FROM n;",
    )
    killed = subprocess.run([sys.executable, "-c", KILLED, database], timeout=30, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert Path(f"{database}-journal").stat().st_size > 0
    prepare_database(str(database))
    assert query(database, "SELECT count(*) FROM dataset_files") == [(5002,)]
    assert query(database, "PRAGMA integrity_check") == [("ok",)]


def test_failed_backup_leaves_nothing(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that cannot be finished stops the migration, and its beginning is removed."""
    make_old_database(database)
    before = database.read_bytes()

    def fail(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(migration, "_sync_path", fail)
    with pytest.raises(StorageFailed, match="No space left"):
        prepare_database(str(database))
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == ["cache.db"]


def test_path_that_is_no_utf8_works(tmp_path: Path) -> None:
    """The cache directory may have any name that the kernel takes, also for the backup copy."""
    directory = tmp_path / os.fsdecode(b"caf\xe9 100%?#")
    directory.mkdir()
    make_old_database(directory / "cache.db")
    assert prepare_database(str(directory / "cache.db")) is not None


@pytest.mark.parametrize("version", [1, 2])
def test_database_of_an_earlier_version_keeps_every_cell(database: Path, tmp_path: Path, version: int) -> None:
    """Entries, replies and leases; what is new beside them is empty. The copy beside it is what it was."""
    make_database(database, version)
    before = tmp_path / "before.db"
    before.write_bytes(database.read_bytes())
    backup = prepare_database(str(database))
    assert backup == f"{database}.schema-{version}.bak"
    assert rows_of(Path(backup), before) == rows_of(before, before) == rows_of(database, before)
    for table in OLD_TABLES:
        new = "files, allocated_bytes, void_since, void_reason, pin_reason, pinned_until, expires_at"
        assert set(query(database, f"SELECT {new} FROM {table}")) == {(0, None, None, None, None, None, None)}


@pytest.mark.parametrize("version", [0, 1, 2])
def test_every_version_becomes_the_same_schema(database: Path, tmp_path: Path, version: int) -> None:
    """Whichever it comes from."""
    prepare_database(str(tmp_path / "fresh.db"))
    make_database(database, version)
    prepare_database(str(database))
    assert schema_of(database) == schema_of(tmp_path / "fresh.db")


@pytest.mark.parametrize("version", [0, 1, 2])
def test_what_lay_under_runs_before_the_migration_is_nobody_s(database: Path, version: int) -> None:
    """It is remembered as unowned, byte for byte: never an orphan, never removed."""
    make_database(database, version)
    prepare_database(str(database), UNOWNED)
    assert sorted(query(database, "SELECT path FROM motoolsd_unowned")) == sorted((path,) for path in UNOWNED)


def test_what_lies_there_later_is_not_remembered(database: Path) -> None:
    """Once owners are told, a directory that no entry names is an orphan."""
    prepare_database(str(database))
    before = database.read_bytes()
    assert prepare_database(str(database), UNOWNED) is None
    assert database.read_bytes() == before
    assert query(database, "SELECT path FROM motoolsd_unowned") == []


def test_lost_database_makes_no_run_an_orphan(database: Path) -> None:
    """A fresh cache.db knows nothing of what lies in the directory: none of it is taken for left over."""
    prepare_database(str(database), UNOWNED)
    assert len(query(database, "SELECT path FROM motoolsd_unowned")) == len(UNOWNED)


def test_time_of_the_migration_stands_for_times_that_nobody_knows(database: Path) -> None:
    """Rows of the older package are no older than that, for all that is known."""
    make_database(database, 0)
    prepare_database(str(database))
    near = query(
        database, "SELECT abs(julianday('now') - julianday(value)) < 0.01 FROM motoolsd_facts WHERE name = 'since'"
    )
    assert near == [(1,)]


@pytest.mark.parametrize("step", [*range(0, len(VERSION_3), 4), len(VERSION_3)])
def test_interrupted_migration_to_owners_leaves_the_old_file(
    database: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Whichever statement fails, the file is byte for byte what it was, and a later try finds the runs unowned."""
    make_database(database, 2)
    with monkeypatch.context() as patch:
        broken = (*VERSION_3[:step], "INSERT INTO nowhere VALUES (1)", *VERSION_3[step:])
        patch.setitem(MIGRATIONS, 3, broken)
        refuse(database, StorageFailed)
    prepare_database(str(database), UNOWNED)
    assert query(database, "SELECT count(*) FROM motoolsd_unowned") == [(len(UNOWNED),)]
    assert query(database, "SELECT count(*) FROM motoolsd_leases") == [(1,)]


@pytest.mark.parametrize("version", [1, 2])
def test_earlier_version_without_its_tables_is_refused(database: Path, version: int) -> None:
    """A number alone proves nothing: what should be there is looked for."""
    make_database(database, version)
    execute(database, "DROP TABLE motoolsd_replies;")
    assert "motoolsd_replies" in refuse(database, CorruptDatabase).message


@pytest.mark.parametrize("table", ["motoolsd_files", "motoolsd_removals", "motoolsd_unowned"])
def test_database_that_lost_a_table_is_refused(database: Path, table: str) -> None:
    """It is not made anew without what stood in it."""
    prepare_database(str(database))
    execute(database, f"DROP TABLE {table};")
    assert table in refuse(database, CorruptDatabase).message
