"""Backups and restoring, with a real daemon and the real commands."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from motools.cache import Cache, CacheRequestError, CacheUtils, CorruptDatabase, SyncCache
from tests.e2e.daemons import daemon_pid, end_daemon
from tests.e2e.test_commands import at_terminal, motools

TIMEOUT_S = 30.0
BACKUPS = 8

pytestmark = pytest.mark.slow


def datasets(path: Path | str) -> set[str]:
    """The datasets in a copy."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {name for (name,) in connection.execute("SELECT dataset_hash FROM dataset_files")}


def restored(directory: Path, *words: str | Path) -> None:
    """Restore, without being asked."""
    done = motools("cache", "restore-backup", *words, "--yes", "-d", directory)
    assert done.returncode == 0, done.stderr


def test_backup_under_writes_is_a_prefix_of_them(shared_dir: Path, tmp_path: Path) -> None:
    """What was acknowledged before is in it; of what follows, nothing without all that came before it."""
    acknowledged = 0
    stopped = threading.Event()

    def write() -> None:
        nonlocal acknowledged
        with SyncCache(shared_dir) as cache:
            while not stopped.is_set():
                cache.set_file_id(str(acknowledged), "f" * 200)
                acknowledged += 1

    with SyncCache(shared_dir) as cache:
        cache.set_file_id("first", "f")
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(BACKUPS):
                before = acknowledged
                made = cache.backup(tmp_path / f"{number}.db")
                after = acknowledged
                found = datasets(made.path) - {"first"}
                assert found == {str(one) for one in range(len(found))}
                # One more may be committed that its writer has not heard of yet.
                assert before <= len(found) <= after + 1
                assert made.datasets == len(found) + 1
        finally:
            stopped.set()
            writer.join(TIMEOUT_S)
    assert acknowledged > BACKUPS, "writes went on"


async def _back_up_async(directory: Path, path: Path) -> int:
    async with Cache(directory) as cache:
        return (await cache.backup(path)).datasets


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_every_client_makes_backups(shared_dir: Path, tmp_path: Path, backend: str) -> None:
    """`Cache`, `SyncCache` and `CacheUtils` alike; a file that is there is refused by all."""
    with SyncCache(shared_dir) as cache:
        cache.set_file_id("a", "f")
        assert cache.backup(tmp_path / "1.db").datasets == 1
    with CacheUtils(shared_dir) as utils:
        assert utils.backup(tmp_path / "2.db").datasets == 1
        with pytest.raises(CacheRequestError, match="--force"):
            utils.backup(tmp_path / "1.db")
    assert anyio.run(_back_up_async, shared_dir, tmp_path / "3.db", backend=backend) == 1
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.db")} == {0o600}


def test_remembered_answers_are_not_given_after_a_restore(shared_dir: Path, tmp_path: Path) -> None:
    """A client that goes on all the time: values that were replaced, stored and removed since the backup."""
    with SyncCache(shared_dir) as cache, SyncCache(shared_dir) as other:
        cache.set_file_id("replaced", "then")
        cache.set_file_id("removed", "then")
        cache.backup(tmp_path / "b.db")
        other.set_file_id("replaced", "now")
        other.set_file_id("stored", "now")
        other.clear_datasets(["removed"])
        for _ in range(3):
            assert [cache.get_file_id(name) for name in ("replaced", "stored", "removed")] == ["now", "now", None]
        pid = daemon_pid(shared_dir)
        restored(shared_dir, tmp_path / "b.db")
        assert daemon_pid(shared_dir) not in (None, pid)
        for client in (cache, other):
            assert [client.get_file_id(name) for name in ("replaced", "stored", "removed")] == ["then", None, "then"]
        cache.set_file_id("stored", "again")
        assert other.get_file_id("stored") == "again"


def test_remembered_answers_are_not_given_while_no_daemon_runs(shared_dir: Path, tmp_path: Path) -> None:
    """The restore is done, the next daemon is not there yet."""
    with SyncCache(shared_dir, on_unavailable="miss", autostart=False) as warm, SyncCache(shared_dir) as cache:
        cache.backup(tmp_path / "b.db")
        cache.set_file_id("a", "now")
        assert warm.get_file_id("a") == "now"
        assert warm.get_file_id("a") == "now"
        end_daemon(shared_dir)
        restored(shared_dir, tmp_path / "b.db")
        assert daemon_pid(shared_dir) is None, "none ran before"
        assert warm.get_file_id("a") is None


def wait_for_backup(directory: Path, count: int) -> None:
    """Until the daemon has made so many backups by itself."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while len(list(directory.glob("backups/cache-*.db"))) < count:
        assert time.monotonic() < deadline_s, "no backup was made"
        time.sleep(0.05)


def test_damaged_database_is_restored_from_the_daemons_own_backup(shared_dir: Path) -> None:
    """The error names the command, and the command brings the entries back; the damaged file stays."""
    shared_dir.mkdir(mode=0o700)
    (shared_dir / "config.toml").write_text('backup_interval = "1s"\nbackups_keep = 2\n')
    with SyncCache(shared_dir) as cache:
        cache.set_file_id("a", "f")
        wait_for_backup(shared_dir, 1)
        cache.set_file_id("b", "f")
        wait_for_backup(shared_dir, 2)
    end_daemon(shared_dir)
    (shared_dir / "cache.db").write_bytes(b"no database any more" * 1_000)
    with SyncCache(shared_dir) as cache, pytest.raises(CorruptDatabase, match="motools cache restore-backup"):
        cache.get_file_id("a")
    listed = json.loads(motools("cache", "restore-backup", "--list", "--json", "-d", shared_dir).stdout)["items"]
    assert [item["datasets"] for item in listed] == [2, 1]
    restored(shared_dir)
    with SyncCache(shared_dir) as cache:
        assert [cache.get_file_id(name) for name in "ab"] == ["f", "f"]
    (aside,) = shared_dir.glob("cache.db.replaced-*Z")
    assert aside.read_bytes().startswith(b"no database any more")


def test_entry_whose_file_is_gone_since_misses(shared_dir: Path, tmp_path: Path) -> None:
    """It came back with the backup; its file did not."""
    (tmp_path / "data").write_text("content")
    with SyncCache(shared_dir) as cache:
        entry = cache.put_dataset(tmp_path / "data", "f")
        cache.set_file_id("plain", "f")
        cache.backup(tmp_path / "b.db")
        cache.clear_datasets(delete_files=True)
        cache.empty_trash()
        restored(shared_dir, tmp_path / "b.db")
        assert (cache.get_file_id(entry.dataset_hash), cache.get_file_id("plain")) == (None, "f")


@pytest.mark.parametrize(("typed", "code"), [(b"y\n", 0), (b"n\n", 1)])
def test_restore_asks_at_a_terminal(shared_dir: Path, tmp_path: Path, typed: bytes, code: int) -> None:
    """With what there is now and in the backup."""
    with SyncCache(shared_dir) as cache:
        cache.set_file_id("a", "f")
        cache.backup(tmp_path / "b.db")
        cache.clear_all()
        words = ["cache", "restore-backup", str(tmp_path / "b.db"), "-d", str(shared_dir)]
        ended, screen = at_terminal(words, typed)
        assert ended == code
        assert "the database now: 0 datasets" in screen
        assert cache.get_file_id("a") == (None if code else "f")
