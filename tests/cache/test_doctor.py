"""The client's half: running the examination, asking the daemon, and what is mended in which order."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from motools.cache import CacheUtils, InMemoryCache, doctor
from motools.cache.control import ANSWER_TIMEOUT_S
from motools.cache.doctor import examine, mend, planned_mends
from motools.cache.errors import CacheError, CacheRequestError, ConnectionLost, DaemonBusy, DaemonNotRunning
from motoolsd.wire.diagnosis import Diagnosis, HealthCheck, LockHolder, Mend, Mended, SqliteHealth, Verdict
from motoolsd.wire.messages import Status

SQLITE = SqliteHealth(version="3.40.1", has_wal_reset_bug=True, is_safe=True, detail="safe")


def check(name: str, status: Verdict = Verdict.OK, how: Mend | None = None) -> HealthCheck:
    """A check."""
    return HealthCheck(name=name, status=status, detail="d", mend=how)


def diagnosis(*checks: HealthCheck, holder: LockHolder | None = None) -> Diagnosis:
    """What was found."""
    return Diagnosis(directory="/c d", checks=[check("directory"), *checks], sqlite=SQLITE, holder=holder)


def test_mends_are_planned_in_order_and_once() -> None:
    """Whatever the order of the checks."""
    found = diagnosis(check("a", how=Mend.VERIFY), check("b", how=Mend.START), check("c", how=Mend.VERIFY), check("d"))
    assert planned_mends(found) == [Mend.START, Mend.VERIFY]


@pytest.mark.parametrize("name", doctor.BLOCKING)
def test_no_daemon_mends_while_it_could_do_harm(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """None is even started; the refusal names what comes first."""
    found = diagnosis(check(name, Verdict.PROBLEM), check("rows", Verdict.PROBLEM, Mend.VERIFY))
    monkeypatch.setattr(doctor, "examine", lambda _directory, *, deep: found)
    monkeypatch.setattr(doctor, "start_daemon", lambda _directory: pytest.fail("it was started"))
    (refused,) = mend("/c", found).mends
    assert (refused.mend, refused.is_done) == (Mend.VERIFY, False)
    assert name in refused.detail


def test_mend_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error's own text; it ends nothing."""
    found = diagnosis(check("wal", Verdict.WARNING, Mend.START))

    def fail(_directory: str) -> None:
        raise DaemonNotRunning("it will not")

    monkeypatch.setattr(doctor, "examine", lambda _directory, *, deep: found)
    monkeypatch.setattr(doctor, "start_daemon", fail)
    assert mend("/c", found).mends == [Mended(mend=Mend.START, is_done=False, detail="it will not")]


ANSWERS = [
    (DaemonNotRunning("none"), None, Verdict.OK, "none runs"),
    (DaemonNotRunning("none"), LockHolder(pid=7), Verdict.PROBLEM, "pid 7"),
    (DaemonNotRunning("none"), LockHolder(), Verdict.PROBLEM, "cannot be seen from here"),
    (DaemonBusy("no answer"), LockHolder(pid=7, is_stopped=True), Verdict.PROBLEM, "SIGSTOP"),
    (ConnectionLost("garbage"), LockHolder(pid=7), Verdict.PROBLEM, "garbage"),
]


@pytest.mark.parametrize(("error", "holder", "status", "said"), ANSWERS)
def test_daemon_is_judged_by_its_answer_and_the_lock(
    monkeypatch: pytest.MonkeyPatch, error: CacheError, holder: LockHolder | None, status: Verdict, said: str
) -> None:
    """None is fine; one that is there and does not answer has a way out, with the directory as a shell takes it."""
    found = diagnosis(check("lock"), check("socket"), holder=holder)

    def fail(_directory: str, *, timeout_s: float) -> None:
        assert timeout_s == ANSWER_TIMEOUT_S
        raise error

    monkeypatch.setattr(doctor, "_run", lambda _words, _kind: found)
    monkeypatch.setattr(doctor, "get_status", fail)
    names = [one.name for one in examine("/c d").checks]
    assert names == ["directory", "lock", "daemon", "socket"]
    daemon = examine("/c d").checks[2]
    assert daemon.status is status
    assert said in daemon.detail
    if status is Verdict.PROBLEM:
        assert "`motools daemon restart -d '/c d'`" in daemon.remedy


def test_directory_that_cannot_be_used_has_no_check_of_a_daemon(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to be learnt from it."""
    found = Diagnosis(directory="/c", checks=[check("directory", Verdict.PROBLEM)], sqlite=SQLITE)
    monkeypatch.setattr(doctor, "_run", lambda _words, _kind: found)
    assert examine(str(short_dir / "none")) == found


def test_daemon_that_comes_up_meanwhile_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not there when it was asked first, and held the lock when the directory was looked at."""
    found = diagnosis(check("lock"), holder=LockHolder(pid=7))
    answers: list[CacheError | Status] = [
        DaemonNotRunning("none"),
        Status(pid=7, version="1", socket=b"", uptime_s=0.0, clients=1, entries=0),
    ]
    monkeypatch.setattr(doctor, "_run", lambda _words, _kind: found)
    monkeypatch.setattr(doctor, "_ask", lambda _directory: answers.pop(0))
    daemon = examine("/c").checks[2]
    assert (daemon.name, daemon.status) == ("daemon", Verdict.OK)
    assert "pid 7" in daemon.detail


def script(path: Path, body: str) -> str:
    """Something that stands in for the interpreter."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return str(path)


def test_examination_that_cannot_be_run_is_an_error_with_its_words(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it said on stderr, or why it could not be started; never that no daemon runs."""
    broken = script(short_dir / "python", "echo no module named motoolsd >&2; exit 3")
    for interpreter, said in ((broken, "code 3: no module"), (str(short_dir / "none"), "No such file"), ("", "empty")):
        monkeypatch.setattr(sys, "executable", interpreter)
        with pytest.raises(CacheError, match=said) as raised:
            examine(str(short_dir))
        assert type(raised.value) is CacheError


def test_examination_gets_nothing_of_the_job_that_changes_what_it_loads(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its variables nor its working directory."""
    answer = msgspec.json.encode(
        Diagnosis(directory="/c", checks=[check("directory", Verdict.PROBLEM)], sqlite=SQLITE)
    ).decode()
    told = short_dir / "told"
    interpreter = script(short_dir / "python", f"(pwd; env; echo $@) > {told}; echo '{answer}'")
    monkeypatch.setattr(sys, "executable", interpreter)
    monkeypatch.setenv("PYTHONPATH", "/planted")
    examine("/c", deep=True)
    lines = told.read_text().splitlines()
    assert lines[0] == "/"
    assert not [line for line in lines if line.startswith("PYTHONPATH")]
    assert lines[-1] == "-P -m motoolsd doctor --cache-dir /c --deep"


def test_backend_without_a_directory_has_nothing_to_examine() -> None:
    """It says so."""
    with pytest.raises(CacheRequestError, match="InMemoryCache"):
        CacheUtils(InMemoryCache()).doctor()
