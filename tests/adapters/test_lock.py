"""One daemon a directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from motoolsd.adapters import lock as lock_module
from motoolsd.adapters.directory import CacheDirectory, open_directory
from motoolsd.adapters.lock import Owner, hold_lock
from motoolsd.adapters.processes import boot_id, start_time
from motoolsd.core.errors import AlreadyRunning, StartFailed
from motoolsd.wire.names import LOCK

NOW = "2026-01-31 23:59:59.123"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse a held lock at once."""
    monkeypatch.setattr(lock_module, "PAUSE_S", 0)


def test_holder_is_named_in_the_file(directory: CacheDirectory, cache_dir: Path) -> None:
    """Pid, start time, host, boot and version, as JSON, for whoever wants to know."""
    with hold_lock(directory, now=NOW) as lock:
        assert lock.is_intact()
        owner = msgspec.json.decode((cache_dir / LOCK).read_bytes(), type=Owner)
    assert (owner.pid, owner.started_at) == (os.getpid(), NOW)
    assert (owner.start_time, owner.boot_id) == (start_time(os.getpid()), boot_id())
    assert (cache_dir / LOCK).stat().st_mode & 0o777 == 0o600


def test_second_holder_is_refused_naming_the_first(directory: CacheDirectory, cache_dir: Path) -> None:
    """Also over another path to the same directory; once the first lets go, the second may."""
    with open_directory(f"{cache_dir}/../{cache_dir.name}") as again:
        with hold_lock(directory, now=NOW):
            with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}") as caught, hold_lock(again, now=NOW):
                pass
            assert NOW in caught.value.owner
        with hold_lock(again, now=NOW):
            pass


def test_holder_that_has_not_said_its_name_is_refused_too(directory: CacheDirectory, cache_dir: Path) -> None:
    """The kernel's lock counts, not the text."""
    with open_directory(str(cache_dir)) as again, hold_lock(directory, now=NOW):
        (cache_dir / LOCK).write_text("{")
        with pytest.raises(AlreadyRunning, match="has not said"), hold_lock(again, now=NOW):
            pass


def test_longer_name_of_an_earlier_holder_is_replaced_whole(directory: CacheDirectory, cache_dir: Path) -> None:
    """Nothing of the old text stays."""
    (cache_dir / LOCK).write_text("x" * 5000)
    with hold_lock(directory, now=NOW):
        msgspec.json.decode((cache_dir / LOCK).read_bytes(), type=Owner)


def test_lock_that_was_replaced_under_us_is_noticed(directory: CacheDirectory, cache_dir: Path) -> None:
    """Removed or replaced, somebody else may hold another one: ours is worth nothing any more."""
    with hold_lock(directory, now=NOW) as lock:
        (cache_dir / LOCK).rename(cache_dir / "old")
        assert not lock.is_intact()
        (cache_dir / LOCK).write_text("")
        assert not lock.is_intact()
        (cache_dir / "old").rename(cache_dir / LOCK)
        assert lock.is_intact()
        cache_dir.rename(cache_dir.with_name("moved"))
        assert not lock.is_intact()


def test_directory_replaced_while_starting_is_refused(directory: CacheDirectory, cache_dir: Path) -> None:
    """The lock would be in a directory that no path leads to."""
    cache_dir.rename(cache_dir.with_name("moved"))
    with pytest.raises(StartFailed, match="replaced"), hold_lock(directory, now=NOW):
        pass


def test_lock_file_that_is_a_link_is_refused(directory: CacheDirectory, cache_dir: Path) -> None:
    """Nothing outside the directory is ever written to."""
    (cache_dir / LOCK).symlink_to(cache_dir.parent / "outside")
    with pytest.raises(StartFailed, match="cannot be opened"), hold_lock(directory, now=NOW):
        pass
    assert not (cache_dir.parent / "outside").exists()


HOLD = """
import signal, sys, time
from motoolsd.adapters.directory import open_directory
from motoolsd.adapters.lock import hold_lock
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1) if sys.argv[2] == "polite" else None)
with open_directory(sys.argv[1]) as directory, hold_lock(directory, now="then"):
    print("held", flush=True)
    while not ended:
        time.sleep(0.01)
    time.sleep(0.1)  # as one that drains
"""


def holder(cache_dir: Path, manners: str) -> subprocess.Popen[str]:
    """Another process that holds the lock, and ends at SIGTERM if it is polite."""
    command = [sys.executable, "-c", HOLD, str(cache_dir), manners]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_holder_is_asked_to_end_and_followed(directory: CacheDirectory, cache_dir: Path) -> None:
    """Whoever was given its socket takes over: SIGTERM, then the lock once it is free, also of a stopped process."""
    with holder(cache_dir, "polite") as process:
        process.send_signal(signal.SIGSTOP)
        with hold_lock(directory, now=NOW, takes_over_s=20.0):
            assert process.wait(10) == 0
            assert any(f"pid {process.pid}" in note for note in directory.notes)


def test_holder_that_does_not_end_is_named(directory: CacheDirectory, cache_dir: Path) -> None:
    """After the time that it may take."""
    with holder(cache_dir, "rude") as process:
        refused = pytest.raises(AlreadyRunning, match=f"pid {process.pid}")
        with refused, hold_lock(directory, now=NOW, takes_over_s=0.3):
            pass
        process.kill()


def test_process_that_only_has_the_number_is_left_alone(directory: CacheDirectory, cache_dir: Path) -> None:
    """The lock file may be older than whoever has that pid now."""
    with subprocess.Popen(["sleep", "60"]) as bystander, open_directory(str(cache_dir)) as again:
        with hold_lock(again, now=NOW):
            stale = Owner(bystander.pid, 1, boot_id=boot_id())
            (cache_dir / LOCK).write_bytes(msgspec.json.encode(stale))
            with pytest.raises(AlreadyRunning), hold_lock(directory, now=NOW, takes_over_s=0.2):
                pass
        assert bystander.poll() is None
        bystander.kill()
