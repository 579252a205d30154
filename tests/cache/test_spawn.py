"""The new daemon's process: what it gets of the job that starts it, and what its start can say."""

from __future__ import annotations

import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from motools.cache import spawn
from motools.cache.clock import monotonic_s
from motools.cache.errors import CacheError, CorruptDatabase, DaemonBusy, DaemonNotRunning
from motools.cache.spawn import clean_environment, daemon_command, spawn_daemon


@pytest.fixture(autouse=True)
def no_user_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started directly, whatever this machine has."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


def program(path: Path, body: str) -> str:
    """A script that stands in for the interpreter; `$fd` is the pipe that it may speak on."""
    path.write_text(f"#!/bin/sh\necho start >> {path}.starts\nfor fd; do :; done\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


READY = '{"pid": 1}'


def say(text: str) -> str:
    """The shell's words for speaking on the pipe."""
    return f"echo '{text}' > /proc/self/fd/$fd"


def starts(path: Path) -> int:
    """How often it ran."""
    return len(Path(f"{path}.starts").read_text().splitlines())


def spawned(directory: Path, timeout_s: float = 10.0) -> bool:
    """Start one."""
    return spawn_daemon(str(directory), deadline_s=monotonic_s() + timeout_s)


def test_environment_keeps_what_a_daemon_needs_and_nothing_that_changes_what_it_loads() -> None:
    """No PYTHON*, no LD_PRELOAD, no credentials of the job; its language, time zone and settings."""
    job = {
        "HOME": "/home/u",
        "PATH": "/bin",
        "LC_ALL": "C.UTF-8",
        "XDG_CONFIG_HOME": "/c",
        "MOTOOLS_IDLE_TIMEOUT": "5",
        "PYTHONPATH": "/planted",
        "PYTHONHOME": "/planted",
        "LD_PRELOAD": "/planted.so",
        "VIRTUAL_ENV": "/v",
        "API_TOKEN": "kept to itself",
    }
    assert set(clean_environment(job)) == {"HOME", "PATH", "LC_ALL", "XDG_CONFIG_HOME", "MOTOOLS_IDLE_TIMEOUT"}


def test_command_is_absolute_and_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """This interpreter, and no module from the working directory (-P)."""
    command = daemon_command("/dir", 7)
    assert command[:4] == [sys.executable, "-P", "-m", "motoolsd"]
    assert command[4:] == ["serve", "--cache-dir", "/dir", "--background", "--ready-fd", "7"]
    monkeypatch.setenv("MOTOOLS_IDLE_TIMEOUT", " 5 ")
    assert daemon_command("/dir", 7)[-2:] == ["--idle-timeout", "5"]


def test_interpreter_that_does_not_know_its_path_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedded Python has no sys.executable: said, and not tried again."""
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(DaemonNotRunning, match="does not know its own path") as caught:
        daemon_command("/dir", 7)
    assert caught.value.is_final


@pytest.mark.parametrize(
    ("said", "is_ours"),
    [(READY, True), ('{"pid": 1, "already_running": true}', False)],
)
def test_readiness_says_whose_daemon_serves(
    said: str, short_dir: Path, monkeypatch: pytest.MonkeyPatch, *, is_ours: bool
) -> None:
    """Ours, or one that was quicker."""
    monkeypatch.setattr(sys, "executable", program(short_dir / "python", say(said)))
    assert spawned(short_dir) is is_ours


def test_readiness_is_heard_though_somebody_keeps_the_pipe_open(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that another thread forked meanwhile holds the pipe: what was said whole is enough."""
    speak_and_stay = f"{say(READY)}; sleep 2"
    monkeypatch.setattr(sys, "executable", program(short_dir / "python", speak_and_stay))
    begun_s = time.monotonic()
    assert spawned(short_dir)
    assert time.monotonic() - begun_s < 1.5


def test_reason_for_not_starting_is_raised_as_its_class_and_final(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the daemon says of a damaged database reaches the caller word for word."""
    said = '{"pid": 1, "failure": {"op": "failure", "code": "corrupt_database", "message": "restore a backup"}}'
    monkeypatch.setattr(sys, "executable", program(short_dir / "python", say(said)))
    with pytest.raises(CorruptDatabase, match="restore a backup") as caught:
        spawned(short_dir)
    assert caught.value.is_final


def test_death_without_a_word_is_tried_again_a_few_times(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is killed while it starts costs the job nothing; one that cannot start shows the end of its log."""
    path = short_dir / "python"
    monkeypatch.setattr(sys, "executable", program(path, "echo 'no module named motoolsd' >&2; exit 1"))
    with pytest.raises(DaemonNotRunning, match="no module named motoolsd") as caught:
        spawned(short_dir)
    assert caught.value.is_final
    assert starts(path) == spawn.STARTS_MAX
    once = f"[ $(wc -l < {path}.starts) -lt 5 ] && exit 1; {say(READY)}"
    monkeypatch.setattr(sys, "executable", program(path, once))
    assert spawned(short_dir)


def test_program_that_is_not_there_is_named(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that was removed under the job."""
    monkeypatch.setattr(sys, "executable", str(short_dir / "gone"))
    with pytest.raises(DaemonNotRunning, match="No such file"):
        spawned(short_dir)


def test_start_that_hangs_ends_with_the_time(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Busy at the deadline, not later."""
    monkeypatch.setattr(sys, "executable", program(short_dir / "python", "exec sleep 1"))
    begun_s = time.monotonic()
    with pytest.raises(DaemonBusy):
        spawned(short_dir, 0.2)
    assert time.monotonic() - begun_s < 0.3


def test_start_that_takes_longer_than_a_call_is_left_to_the_next_one(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not killed half-way, and no other is started beside it: calls with little time do not pile up processes."""
    path = short_dir / "python"
    monkeypatch.setattr(sys, "executable", program(path, "exec sleep 0.5"))
    with pytest.raises(DaemonBusy):
        spawned(short_dir, 0.2)
    assert not spawned(short_dir)
    assert starts(path) == 1
    for reaper in [thread for thread in threading.enumerate() if thread.name == "motools-reap"]:
        reaper.join(10.0)
    with pytest.raises(DaemonBusy):
        spawned(short_dir, 0.2)
    assert starts(path) == 2


def test_log_cannot_be_redirected_by_a_link(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link in place of the log is not followed."""
    (short_dir / "motoolsd.log").symlink_to(short_dir / "elsewhere")
    with pytest.raises(CacheError, match=r"motoolsd\.log"):
        spawned(short_dir)
    assert not (short_dir / "elsewhere").exists()


def test_log_is_private(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else reads it."""
    monkeypatch.setattr(sys, "executable", program(short_dir / "python", "exit 1"))
    with pytest.raises(DaemonNotRunning):
        spawned(short_dir)
    assert stat.S_IMODE((short_dir / "motoolsd.log").stat().st_mode) == 0o600
