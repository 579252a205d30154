"""`kill -9` at every named point of a restore."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from motoolsd.adapters.points import KILL_AT, POINTS_FILE
from motoolsd.store.copying import copy_database
from motoolsd.store.migration import prepare_database
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import Found, Lookup
from tests.daemons import running
from tests.samples import insert

TIMEOUT_S = 30.0
OLD, IN_LOG, NEW = "old", "only in the log", "new"


def scene(directory: Path) -> None:
    """A cache whose last write stands in the write-ahead log alone, and a backup beside it."""
    directory.mkdir()
    database = directory / "cache.db"
    made = directory / "made.db"
    prepare_database(str(made))
    insert(made, NEW, "file")
    (directory / "backup.db").touch()
    copy_database(str(made), str(directory / "backup.db"))
    made.unlink()
    prepare_database(str(database))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for name in (OLD, IN_LOG):
            with connection:
                connection.execute("INSERT INTO dataset_files (dataset_hash, file_id) VALUES (?, 'file')", (name,))
            if name == OLD:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        for name in ("cache.db", "cache.db-wal"):
            shutil.copy(directory / name, directory / f"{name}.killed")
    for name in ("cache.db", "cache.db-wal"):
        (directory / f"{name}.killed").rename(directory / name)


def restore(directory: Path, **environment: str) -> int:
    """Run the daemon's own command; how it ended."""
    command = [sys.executable, "-P", "-m", "motoolsd", "restore-backup", "-d", str(directory), "--json"]
    return subprocess.run(
        [*command, str(directory / "backup.db")],
        env={**os.environ, **environment},
        cwd="/",
        stdout=subprocess.DEVNULL,
        timeout=TIMEOUT_S,
        check=False,
    ).returncode


def served(directory: Path) -> set[str]:
    """What the next daemon answers."""
    names = [OLD, IN_LOG, NEW]
    with running(directory) as daemon, daemon.connect() as guest:
        reply = guest.ask(Lookup(kind=Kind.DATASET, keys=names))
        assert isinstance(reply, Found), reply
        return {name for name, value in zip(names, reply.values, strict=True) if value is not None}


def set_aside(directory: Path) -> set[str]:
    """What the database holds that was replaced."""
    (path,) = [
        path for path in directory.glob("cache.db.replaced-*") if not path.name.endswith(("-wal", "-shm", "-journal"))
    ]
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT dataset_hash FROM dataset_files")}


@pytest.mark.slow
def test_killed_restore_leaves_the_old_database_or_the_new_one(tmp_path: Path) -> None:
    """Whole, with its log, and the next daemon serves it; a restore after it works; what was replaced is whole."""
    file = tmp_path / "points.txt"
    scene(tmp_path / "points")
    assert restore(tmp_path / "points", **{POINTS_FILE: str(file)}) == 0
    assert set_aside(tmp_path / "points") == {OLD, IN_LOG}
    points = [line for line in file.read_text().splitlines() if line.startswith("restore: ")]
    assert len(points) >= 6, points
    seen = set()
    for number, point in enumerate(points):
        directory = tmp_path / str(number)
        scene(directory)
        assert restore(directory, **{KILL_AT: point}) == -signal.SIGKILL, point
        found = served(directory)
        assert found in ({OLD, IN_LOG}, {NEW}), point
        seen.add(frozenset(found))
        if found == {NEW}:
            assert set_aside(directory) == {OLD, IN_LOG}, point
        assert restore(directory) == 0, point
        assert served(directory) == {NEW}, point
        assert not list(directory.glob("cache.db.restor*")), point
    assert len(seen) == 2, "some kills come before the decision, some after it"
