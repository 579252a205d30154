"""The whole daemon as a process: its signals, its settings, its directory, its end."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import Cleared, Drain, Draining, Found, GetStatus, Lookup, Status, Stored
from motoolsd.wire.names import BALLAST, BALLAST_SPARES, CONFIG, LOCK, LOG, SOCKET, STAMPS
from tests.daemons import TIMEOUT_S, BlockingGuest, DaemonProcess, running, wait_for_end
from tests.samples import as_retry, clear, execute, make_old_database, put_dataset, query

pytestmark = pytest.mark.slow

PARTS = {"cache.db", "datasets", "evals", "runs", LOCK, LOG, STAMPS, BALLAST, *BALLAST_SPARES}
"""What a stopped daemon leaves in its directory."""


def names_in(directory: Path) -> set[str]:
    """Names of what lies in a directory."""
    return {path.name for path in directory.iterdir()}


def rows(directory: Path) -> set[object]:
    """The datasets on disk."""
    return {row[0] for row in query(directory / "cache.db", "SELECT dataset_hash FROM dataset_files")}


def status_of(guest: BlockingGuest) -> Status:
    """What the daemon says of itself."""
    status = guest.ask(GetStatus())
    assert isinstance(status, Status)
    return status


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does; each look takes a round trip."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline


def look_up(guest: BlockingGuest, key: str) -> bytes | None:
    """What the daemon answers."""
    found = guest.ask(Lookup(kind=Kind.DATASET, keys=[key]))
    assert isinstance(found, Found)
    return found.values[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_leaves_nothing_behind(cache_dir: Path, number: signal.Signals) -> None:
    """No socket, no write-ahead log: the database is one whole file."""
    with running(cache_dir) as daemon:
        with daemon.connect() as guest:
            assert guest.ask(put_dataset("a")) == Stored()
            assert (cache_dir / SOCKET).is_socket()
        daemon.signal(number)
        assert daemon.wait()[0] == 0
    assert names_in(cache_dir) == PARTS
    assert rows(cache_dir) == {"a"}


def test_stop_signal_that_is_repeated_is_one_stop(cache_dir: Path) -> None:
    """Whoever is impatient does not keep the daemon from its last checkpoint, nor from saying that all is well."""
    with running(cache_dir) as daemon:
        with daemon.connect() as guest:
            guest.ask(put_dataset("a"))
        deadline = time.monotonic() + TIMEOUT_S
        while daemon.process.poll() is None and time.monotonic() < deadline:
            daemon.signal(signal.SIGTERM)
            time.sleep(0.0005)
        assert daemon.wait()[0] == 0
    assert names_in(cache_dir) == PARTS


def test_stop_signal_right_after_readiness_is_a_stop(cache_dir: Path) -> None:
    """Whoever starts a daemon may think better of it: it ends as always, and is not killed."""
    for _ in range(3):
        daemon = DaemonProcess(cache_dir)
        assert daemon.stop()[0] == 0
        assert names_in(cache_dir) == PARTS


def test_stop_signal_lets_what_is_in_flight_finish(cache_dir: Path) -> None:
    """Whatever was acknowledged is on disk; whoever had a request open has an answer or an end of the stream."""
    with running(cache_dir) as daemon, daemon.connect() as guest:
        guest.send(*[put_dataset(f"d{number}") for number in range(100)])
        guest.receive()
        daemon.signal(signal.SIGTERM)
        acknowledged = 1
        try:
            while guest.receive() == Stored():
                acknowledged += 1
        except ConnectionError:
            pass
        assert daemon.wait()[0] == 0
    assert len(rows(cache_dir)) >= acknowledged


def test_asking_to_drain_stops_the_daemon(cache_dir: Path) -> None:
    """With the reason in its log."""
    with running(cache_dir) as daemon, daemon.connect() as guest:
        assert guest.ask(Drain(reason="a newer version wants to start")) == Draining()
        assert daemon.wait()[0] == 0
        assert "stopping: a newer version wants to start" in daemon.log


def test_killed_daemon_loses_nothing_and_is_followed(cache_dir: Path) -> None:
    """Kill -9 leaves a socket and a log behind; the next daemon takes both, and answers retries alike."""
    request = clear(Kind.DATASET)
    with running(cache_dir) as daemon, daemon.connect() as guest:
        guest.ask(put_dataset("a"))
        assert guest.ask(request) == Cleared(datasets=1)
        assert guest.ask(put_dataset("b")) == Stored()
        daemon.process.kill()
        daemon.wait()
    assert {SOCKET, "cache.db-wal"} <= names_in(cache_dir)
    with running(cache_dir) as daemon, daemon.connect() as guest:
        assert look_up(guest, "b") == b"file"
        assert guest.ask(as_retry(request)) == Cleared(datasets=1)
        assert look_up(guest, "b") == b"file"


def test_old_database_is_migrated_at_the_start(cache_dir: Path) -> None:
    """Its rows hit, and the log names the copy."""
    cache_dir.mkdir(mode=0o700)
    make_old_database(cache_dir / "cache.db")
    with running(cache_dir) as daemon, daemon.connect() as guest:
        assert look_up(guest, "d1") == b"file-1"
        assert "cache.db.schema-0.bak" in daemon.log


def test_everything_is_private(cache_dir: Path) -> None:
    """Directory, database, its log, lock, socket and log file are for their user alone."""
    cache_dir.mkdir()
    cache_dir.chmod(0o777)
    with running(cache_dir) as daemon, daemon.connect() as guest:
        guest.ask(put_dataset("a"))
        modes = {path.name: path.stat().st_mode & 0o077 for path in cache_dir.iterdir()}
        assert set(modes.values()) == {0}, modes
        assert cache_dir.stat().st_mode & 0o022 == 0
        assert daemon.log.count("was writable by others (mode 777)") == 1


@pytest.mark.parametrize("action", ["remove", "rename", "replace", "unlock"])
def test_directory_taken_away_ends_the_daemon(cache_dir: Path, action: str) -> None:
    """Within seconds, and nothing is made at the path, nor touched that stands there now."""
    with running(cache_dir) as daemon:
        with daemon.connect() as guest:
            guest.ask(put_dataset("a"))
            if action == "remove":
                shutil.rmtree(cache_dir)
            elif action == "unlock":
                (cache_dir / LOCK).unlink()
            else:
                cache_dir.rename(cache_dir.with_name("moved"))
            if action == "replace":
                cache_dir.mkdir()
                (cache_dir / "cache.db-wal").write_text("somebody else's")
            began = time.monotonic()
            code, said = daemon.wait()
        assert time.monotonic() - began < 3
        assert code == 1
        assert "removed or replaced" in said
    if action == "replace":
        assert names_in(cache_dir) == {"cache.db-wal"}
    elif action != "unlock":
        assert not cache_dir.exists()
    if action in {"rename", "replace"}:
        assert rows(cache_dir.with_name("moved")) == {"a"}


def test_outside_edit_is_answered_within_seconds(cache_dir: Path) -> None:
    """Somebody changes a row with another program while the daemon runs."""
    with running(cache_dir) as daemon, daemon.connect() as guest:
        guest.ask(put_dataset("a", b"old"))
        execute(cache_dir / "cache.db", "UPDATE dataset_files SET file_id = 'by hand';")
        began = time.monotonic()
        wait_until(lambda: look_up(guest, "a") == b"by hand")
        assert time.monotonic() - began < 2.5


def test_reload_applies_what_can_change(cache_dir: Path) -> None:
    """SIGHUP reads config.toml again: durability changes, and what needs a restart is named."""
    with running(cache_dir) as daemon, daemon.connect() as guest:
        assert status_of(guest).durability == "full"
        (cache_dir / CONFIG).write_text('durability = "normal"\nbatch_max = 7\n')
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: status_of(guest).durability == "normal")
        wait_until(lambda: "need a restart of the daemon: batch_max" in daemon.log)
        assert guest.ask(put_dataset("a")) == Stored()
        (cache_dir / CONFIG).unlink()
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: status_of(guest).durability == "full")


def test_reload_of_a_bad_file_keeps_the_settings(cache_dir: Path) -> None:
    """It is logged, and the daemon goes on as it was."""
    cache_dir.mkdir(mode=0o700)
    (cache_dir / CONFIG).write_text('durability = "normal"\n')
    with running(cache_dir) as daemon, daemon.connect() as guest:
        (cache_dir / CONFIG).write_text('durability = "sometimes"\n')
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "the settings stay as they were" in daemon.log)
        assert status_of(guest).durability == "normal"
        assert "durability" in daemon.log


def test_reload_shortens_the_idle_timeout(cache_dir: Path) -> None:
    """A daemon in the background that was to wait a quarter of an hour ends soon."""
    daemon = DaemonProcess(cache_dir, "--background")
    assert daemon.readiness is not None
    pid = daemon.readiness.pid
    with daemon.connect() as guest:
        assert status_of(guest).idle_timeout_s == 900
        (cache_dir / CONFIG).write_text("idle_timeout_s = 0.2\n")
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: status_of(guest).idle_timeout_s == 0.2)
    wait_for_end(pid)
    daemon.wait()
    assert names_in(cache_dir) == PARTS | {CONFIG}
    assert "stopping: idle for 0.2 s" in daemon.log


def test_daemon_without_a_client_that_started_it_never_ends_by_itself(cache_dir: Path) -> None:
    """The timeout is for auto-started daemons only."""
    with running(cache_dir, "--idle-timeout", "0.1") as daemon, daemon.connect() as guest:
        assert status_of(guest).idle_timeout_s == 0
