"""What of the daemon's program is run for a restore, and what its reply means."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from motools.cache import restoring
from motools.cache.errors import CacheDirectoryMissing, CacheError, DaemonBusy, DaemonNotRunning, EntryNotFound
from motools.cache.restoring import list_backups, plan_restore, restore_backup
from motoolsd.wire.backups import BackupFile, Restoring
from motoolsd.wire.errors import ErrorCode

FILE = BackupFile(path=b"/b\xff.db", size_bytes=7, made_at="2026-01-31T23:59:59Z", datasets=1, schema_version=4)
DONE = Restoring(chosen=FILE, current=BackupFile(path=b"/c", problem="damaged"), replaced=b"/c.replaced")


class Program:
    """Stands for the daemon's program, and for stopping and starting."""

    def __init__(self) -> None:
        """It succeeds, and no daemon runs."""
        self.replies: list[Restoring | bytes] = []
        self.commands: list[list[str]] = []
        self.options: dict[str, Any] = {}
        self.pids: list[int | None] = []
        self.events: list[str] = []

    def run(self, command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        """What `subprocess.run` does."""
        self.events.append("run")
        self.commands.append(command)
        self.options = options
        reply = self.replies.pop(0) if self.replies else DONE
        said = reply if isinstance(reply, bytes) else msgspec.json.encode(reply)
        return subprocess.CompletedProcess(command, 0, said, b"Traceback: \xff")

    def stop(self, _directory: str, _timeout_s: float) -> int | None:
        """What `stop_daemon` does."""
        self.events.append("stop")
        return self.pids.pop(0) if self.pids else None

    def start(self, _directory: str, _timeout_s: float) -> None:
        """What `start_daemon` does."""
        self.events.append("start")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Program:
    """In place of the real one."""
    program = Program()
    monkeypatch.setattr(subprocess, "run", program.run)
    monkeypatch.setattr(restoring, "stop_daemon", program.stop)
    monkeypatch.setattr(restoring, "start_daemon", program.start)
    monkeypatch.setattr(restoring, "pause", lambda _seconds: None)
    return program


def test_program_gets_nothing_of_the_job(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No modules of its working directory, no PYTHON variables; a name with dashes is a name."""
    monkeypatch.setenv("PYTHONPATH", "/evil")
    restore_backup(str(tmp_path), "--list")
    (command,) = program.commands
    assert command[1:5] == ["-P", "-m", "motoolsd", "restore-backup"]
    assert command[-2:] == ["--", "--list"]
    assert (program.options["cwd"], "PYTHONPATH" in program.options["env"]) == ("/", False)


def test_reply_is_told(program: Program, tmp_path: Path) -> None:
    """Paths are texts again, and no problem is None."""
    plan = plan_restore(str(tmp_path), None)
    assert (plan.backup.path, plan.backup.problem, plan.backup.datasets) == ("/b\udcff.db", None, 1)
    assert plan.current is not None
    assert plan.current.problem == "damaged"
    program.replies = [Restoring(backups=[FILE, FILE])]
    assert list_backups(str(tmp_path)) == [plan.backup, plan.backup]
    assert program.events == ["run", "run"]


@pytest.mark.parametrize("pid", [None, 42])
def test_daemon_is_started_again_if_one_ran(program: Program, tmp_path: Path, pid: int | None) -> None:
    """And only then."""
    program.pids = [pid]
    done = restore_backup(str(tmp_path), None)
    assert program.events == ["stop", "run", *(["start"] if pid else [])]
    assert (done.is_started, done.replaced) == (pid is not None, "/c.replaced")


def test_daemon_that_a_job_started_in_between_is_stopped_too(program: Program, tmp_path: Path) -> None:
    """The restore found the lock held."""
    program.pids = [None, 43]
    program.replies = [Restoring(code=ErrorCode.NOT_RUNNING.value, message="served", is_busy=True)]
    assert restore_backup(str(tmp_path), None).is_started
    assert program.events == ["stop", "run", "stop", "run", "start"]


def test_daemons_without_end_are_said(program: Program, tmp_path: Path) -> None:
    """The jobs that start them have to stop; theirs runs again."""
    program.pids = [42] * 20
    program.replies = [Restoring(code=ErrorCode.NOT_RUNNING.value, message="served", is_busy=True)] * 20
    with pytest.raises(DaemonBusy, match="nothing was replaced"):
        restore_backup(str(tmp_path), None)
    assert program.events[-1] == "start"


def test_refusal_is_its_error_and_the_daemon_runs_again(program: Program, tmp_path: Path) -> None:
    """A backup that cannot be used costs nobody the daemon."""
    program.pids = [42]
    program.replies = [Restoring(code=ErrorCode.NOT_FOUND.value, message="there is no file")]
    with pytest.raises(EntryNotFound, match="there is no file"):
        restore_backup(str(tmp_path), "/b")
    assert program.events == ["stop", "run", "start"]


def test_program_that_says_nothing_is_told_with_its_last_words(program: Program, tmp_path: Path) -> None:
    """A defect, or a broken installation."""
    program.replies = [b""]
    with pytest.raises(CacheError, match="Traceback"):
        plan_restore(str(tmp_path), None)


def test_program_that_cannot_be_run_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This Python is gone."""

    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, os.strerror(2))

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(DaemonNotRunning, match="cannot be run"):
        plan_restore(str(tmp_path), None)


def test_missing_directory_is_not_made(program: Program, tmp_path: Path) -> None:
    """Nothing is run for it."""
    with pytest.raises(CacheDirectoryMissing):
        list_backups(str(tmp_path / "none"))
    assert program.events == []
