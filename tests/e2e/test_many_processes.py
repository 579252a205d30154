"""Many processes share one cache, and nothing is lost."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from pathlib import Path

import pytest

from motools.cache import CacheUtils, SyncCache
from tests.e2e.daemons import daemon_pid, end_daemon
from tests.e2e.processes import ask_in_fork, first_call, remember_barrier, write_and_note, write_many

POOL_TIMEOUT_S = 120.0
spawn = multiprocessing.get_context("spawn")


@pytest.mark.slow
def test_32_processes_write_6400_rows_without_an_error(shared_dir: Path) -> None:
    """Every write of 32 processes at once is stored, and no process sees an error or a retry."""
    with spawn.Pool(32) as pool:
        work = [(str(shared_dir), worker, 200) for worker in range(32)]
        errors = pool.starmap_async(write_many, work, chunksize=1).get(POOL_TIMEOUT_S)
    assert [error for part in errors for error in part] == []
    with CacheUtils(shared_dir) as utils:
        entries = {entry.dataset_hash: entry.file_id for entry in utils.list_datasets()}
    assert entries == {f"dataset-{w}-{n}": f"file-{w}-{n}" for w in range(32) for n in range(200)}


@pytest.mark.slow
def test_50_clients_at_once_start_one_daemon(shared_dir: Path) -> None:
    """However many clients find no daemon at the same moment, beside a stale socket, one interpreter is started."""
    with SyncCache(shared_dir) as cache:
        cache.set_file_id("before", "file")
    end_daemon(shared_dir, signal.SIGKILL)
    assert (shared_dir / "motoolsd.sock").exists(), "kill -9 leaves a stale socket"
    (shared_dir / "motoolsd.log").unlink()
    with spawn.Pool(50, initializer=remember_barrier, initargs=(spawn.Barrier(50),)) as pool:
        work = [(str(shared_dir), worker) for worker in range(50)]
        errors = pool.starmap_async(first_call, work, chunksize=1).get(POOL_TIMEOUT_S)
    assert [error for error in errors if error] == []
    log = (shared_dir / "motoolsd.log").read_text()
    assert log.count(" serves ") == 1
    assert "already running" not in log
    with CacheUtils(shared_dir) as utils:
        assert utils.get_stats().num_datasets == 51


@pytest.mark.slow
def test_acknowledged_writes_survive_kill_9_and_clients_carry_on(shared_dir: Path, short_dir: Path) -> None:
    """The daemon is killed again and again under eight writers: what was acknowledged is there, without an error."""
    notes = short_dir / "notes"
    notes.mkdir()
    with spawn.Pool(8) as pool:
        work = [(str(shared_dir), worker, 150, str(notes)) for worker in range(8)]
        outcome = pool.starmap_async(write_and_note, work, chunksize=1)
        kills = noted = 0
        while not outcome.ready() and kills < 5:
            outcome.wait(0.4)
            # One that is starting is left alone: three that never come up are taken for a daemon that cannot start.
            before, noted = noted, sum(path.stat().st_size for path in notes.iterdir())
            kills += noted > before and end_daemon(shared_dir, signal.SIGKILL) is not None
        errors = outcome.get(POOL_TIMEOUT_S)
    assert kills >= 2, "the daemon was to be killed under load"
    assert [error for part in errors for error in part] == []
    acknowledged = {f"dataset-{path.stem}-{line}" for path in notes.iterdir() for line in path.read_text().splitlines()}
    assert len(acknowledged) == 8 * 150
    with CacheUtils(shared_dir) as utils:
        assert {entry.dataset_hash for entry in utils.list_datasets()} == acknowledged


def test_stale_socket_after_kill_9_is_replaced(shared_dir: Path) -> None:
    """A client that meets the socket of a killed daemon starts a new one, and finds what was stored."""
    with SyncCache(shared_dir) as cache:
        cache.set_file_id("dataset", "file")
        killed = end_daemon(shared_dir, signal.SIGKILL)
        assert cache.get_file_id("dataset") == "file"
        assert daemon_pid(shared_dir) not in (None, killed)


def test_forked_child_uses_a_connection_of_its_own(shared_dir: Path) -> None:
    """A child that inherited a client gets its own answers, and the parent's connection is none the worse."""
    with SyncCache(shared_dir) as cache:
        cache.set_file_id("dataset", "file")
        assert ask_in_fork(cache, "dataset") == "file"
        assert cache.get_file_id("dataset") == "file"


def test_threads_share_one_client(shared_dir: Path) -> None:
    """Eight threads write through one SyncCache, and nothing is lost or mixed up."""
    with SyncCache(shared_dir) as cache:

        def write(worker: int) -> None:
            for number in range(25):
                cache.set_file_id(f"{worker}-{number}", f"file-{worker}-{number}")
                assert cache.get_file_id(f"{worker}-{number}") == f"file-{worker}-{number}"

        threads = [threading.Thread(target=write, args=(worker,)) for worker in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(POOL_TIMEOUT_S)
        assert cache.get_stats().num_datasets == 200


def test_path_longer_than_a_socket_address_works(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache directory whose socket path is over 107 bytes is reached all the same, from both sides."""
    monkeypatch.setenv("MOTOOLS_IDLE_TIMEOUT", "20")
    directory = short_dir / ("d" * 120) / ("e" * 120) / ".motools"
    try:
        with SyncCache(directory) as cache:
            cache.set_file_id("dataset", "file")
            assert cache.get_file_id("dataset") == "file"
        assert CacheUtils(directory).get_stats().num_datasets == 1
    finally:
        end_daemon(directory)
