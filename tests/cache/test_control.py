"""Starting, stopping and asking a daemon: what is signalled, what is waited for, and what never is."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from motools.cache import CacheDirectoryMissing, DaemonBusy, DaemonNotRunning, control
from motools.cache.control import get_status, is_starting, stop_daemon

LOCK = "motoolsd.lock"
HOLD = """
import fcntl, signal, sys
with open(sys.argv[1], "a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if "deaf" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("holding", flush=True)
    sys.stdin.read()
"""
Holder = Callable[..., subprocess.Popen[str]]


def owner_of(process: subprocess.Popen[str], **changes: object) -> str:
    """What a daemon writes into its lock file."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return json.dumps({"pid": process.pid, "start_time": int(fields[19]), "boot_id": boot_id, **changes})


@pytest.fixture
def hold() -> Iterator[Holder]:
    """Starts processes that hold a directory's lock, and do nothing else that a daemon does."""
    started: list[subprocess.Popen[str]] = []

    def start(directory: Path, *words: str, **changes: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(directory / LOCK), *words]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        (directory / LOCK).write_text(owner_of(process, **changes), encoding="utf-8")
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_missing_directory_is_said(tmp_path: Path) -> None:
    """Neither stop nor status takes a misspelled directory for one without a daemon."""
    with pytest.raises(CacheDirectoryMissing):
        stop_daemon(str(tmp_path / "none"))
    with pytest.raises(CacheDirectoryMissing):
        get_status(str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


def test_stop_of_nothing_is_nothing(tmp_path: Path) -> None:
    """A directory where no daemon runs, or ever ran."""
    assert stop_daemon(str(tmp_path)) is None


@pytest.mark.slow
def test_daemon_that_does_not_answer_is_terminated(tmp_path: Path, hold: Holder) -> None:
    """Whoever holds the lock and does not listen gets SIGTERM, and is waited for."""
    process = hold(tmp_path)
    assert stop_daemon(str(tmp_path), timeout_s=5) == process.pid
    assert process.wait(0) == -signal.SIGTERM


@pytest.mark.slow
def test_stopped_process_is_woken_to_end(tmp_path: Path, hold: Holder) -> None:
    """A daemon under SIGSTOP ends too."""
    process = hold(tmp_path)
    process.send_signal(signal.SIGSTOP)
    assert stop_daemon(str(tmp_path), timeout_s=5) == process.pid


@pytest.mark.slow
def test_daemon_that_does_not_end_is_given_up(tmp_path: Path, hold: Holder) -> None:
    """The wait is bounded, and the text says what to do."""
    process = hold(tmp_path, "deaf")
    with pytest.raises(DaemonBusy, match=f"kill -9 {process.pid}"):
        stop_daemon(str(tmp_path), timeout_s=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"start_time": 1}, {"boot_id": "another"}])
def test_recycled_pid_is_never_signalled(tmp_path: Path, hold: Holder, changes: dict[str, object]) -> None:
    """A process that only has the number that a lock file names is left alone."""
    process = hold(tmp_path, **changes)
    with pytest.raises(DaemonBusy):
        stop_daemon(str(tmp_path), timeout_s=0.05)
    assert process.poll() is None


@pytest.mark.slow
def test_daemon_of_a_copied_directory_is_never_signalled(tmp_path: Path, hold: Holder) -> None:
    """A lock file goes along when a directory is copied; the daemon of the original does not."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    copy.mkdir()
    process = hold(original)
    (copy / LOCK).write_bytes((original / LOCK).read_bytes())
    assert stop_daemon(str(copy), timeout_s=1) is None
    assert process.poll() is None


@pytest.mark.parametrize("text", ["", "no json", '{"pid": "x"}', '{"pid": 99999999999999999999}', '{"pid": -1}'])
def test_unreadable_lock_file_stops_nothing(tmp_path: Path, text: str) -> None:
    """Whatever stands in the file while nobody holds it."""
    (tmp_path / LOCK).write_text(text, encoding="utf-8")
    assert stop_daemon(str(tmp_path)) is None


@pytest.mark.parametrize("text", ["", '{"pid": 99999999999999999999}', '{"pid": -1}'])
def test_held_lock_without_a_known_owner_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """A daemon that has just taken the lock has not named itself yet; one that lets go meanwhile is gone."""
    (tmp_path / LOCK).write_text(text, encoding="utf-8")
    with (tmp_path / LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        monkeypatch.setattr(control, "pause", lambda _: fcntl.flock(lock, fcntl.LOCK_UN))
        assert stop_daemon(str(tmp_path), timeout_s=5) is None


def test_status_where_nobody_starts_a_daemon_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no wait where there is nothing to wait for, and nothing is started or made."""
    monkeypatch.setattr(control, "pause", pytest.fail)
    with pytest.raises(DaemonNotRunning, match="motools daemon start"):
        get_status(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [LOCK, "motoolsd.start"])
def test_status_waits_while_a_daemon_is_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As long as somebody starts one, or one holds the lock without listening yet; no longer."""
    pauses: list[float] = []
    with (tmp_path / name).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_starting(str(tmp_path))

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                fcntl.flock(lock, fcntl.LOCK_UN)

        monkeypatch.setattr(control, "pause", pause)
        with pytest.raises(DaemonNotRunning):
            get_status(str(tmp_path))
    assert len(pauses) == 3


def test_status_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that never listens is given up after two seconds."""
    now_s = iter(range(100))
    monkeypatch.setattr(control, "monotonic_s", lambda: float(next(now_s)))
    monkeypatch.setattr(control, "pause", lambda _: None)
    with (tmp_path / LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DaemonNotRunning):
            get_status(str(tmp_path))
    assert next(now_s) <= 5
