"""`motools cache doctor`: what it prints, asks and ends with."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from motools.cache import doctor
from motools.cli import output
from motools.cli.doctor import MEND_WORDS
from motoolsd.wire.diagnosis import Diagnosis, HealthCheck, Mend, Mended, SqliteHealth, Verdict
from tests.cli.conftest import Motools

SQLITE = SqliteHealth(version="3.40.1", has_wal_reset_bug=True, is_safe=True, detail="safe")
FINE = HealthCheck(name="directory", status=Verdict.OK, detail="/c, yours")
STALE = HealthCheck(
    name="socket",
    status=Verdict.WARNING,
    detail="left over",
    remedy="`motools cache doctor --fix -d /c`",
    mend=Mend.LEFTOVERS,
)
BROKEN = HealthCheck(name="database", status=Verdict.PROBLEM, detail="it is\x1b[31m\nbroken", remedy="`do this`")


class Patient:
    """What is examined, and what was done to it."""

    def __init__(self) -> None:
        """Well."""
        self.checks = [FINE]
        self.checks_afterwards = [FINE]
        self.is_mended = False
        self.works = True
        self.options: list[dict[str, Any]] = []

    def examine(self, directory: str, **options: Any) -> Diagnosis:  # noqa: ANN401 - whatever the command passes
        """As `motools.cache.doctor.examine`."""
        self.options.append(options)
        return Diagnosis(directory=directory, checks=self.checks, sqlite=SQLITE, versions={"python": "3.11"})

    def mend(self, directory: str, found: Diagnosis, **_options: object) -> Diagnosis:
        """As `motools.cache.doctor.mend`."""
        self.is_mended = True
        mends = [Mended(mend=Mend.LEFTOVERS, is_done=self.works, detail="removed motoolsd.sock")]
        return Diagnosis(directory=directory, checks=self.checks_afterwards, sqlite=SQLITE, mends=mends)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Patient:
    """Whom the command looks at."""
    patient = Patient()
    monkeypatch.setattr(doctor, "examine", patient.examine)
    monkeypatch.setattr(doctor, "mend", patient.mend)
    return patient


def test_all_is_well(patient: Patient, motools: Motools) -> None:
    """A line for each check, exit code 0."""
    done = motools("cache", "doctor", "-d", "/c", "--deep")
    assert done.code == 0
    assert done.out == "ok  directory  /c, yours\nok  versions   python 3.11\n"
    assert "all is well" in done.err
    assert patient.options == [{"deep": True}]


def test_problem_is_shown_safely_with_the_next_command(patient: Patient, motools: Motools) -> None:
    """Exit code 1; nothing in it moves the cursor or breaks the line."""
    patient.checks = [FINE, BROKEN, STALE]
    done = motools("cache", "doctor", "-d", "/c")
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[1:3] == ["problem  database   it is\\x1b[31m\\nbroken", f"{' ' * 20}next: `do this`"]
    assert "1 problem, 1 warning" in done.err
    assert not patient.is_mended


def test_warning_alone_is_no_failure(patient: Patient, motools: Motools) -> None:
    """It mends itself, or waits."""
    patient.checks = [FINE, STALE]
    assert motools("cache", "doctor", "-d", "/c").code == 0


def test_json_has_everything(patient: Patient, motools: Motools) -> None:
    """One object; JSON lines and CSV have the checks."""
    patient.checks = [FINE, BROKEN]
    document = json.loads(motools("cache", "doctor", "-d", "/c", "--json").out)
    assert document["schema_version"] == 1
    assert list(document)[2:] == ["directory", "is_well", "checks", "sqlite", "versions", "mends"]
    assert document["is_well"] is False
    assert document["checks"][0] == {
        "name": "directory",
        "status": "ok",
        "detail": "/c, yours",
        "remedy": "",
        "mend": None,
    }
    assert document["sqlite"]["has_wal_reset_bug"] is True
    lines = motools("cache", "doctor", "-d", "/c", "--format", "jsonl").out.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["directory", "database"]
    assert motools("cache", "doctor", "-d", "/c", "--format", "csv").out.startswith("name,status,detail,remedy,mend\n")


def test_without_a_terminal_nothing_is_mended_unless_told(patient: Patient, motools: Motools) -> None:
    """Exit code 2, and nothing was even looked at."""
    patient.checks = [STALE]
    done = motools("cache", "doctor", "-d", "/c", "--fix")
    assert done.code == 2
    assert "--yes" in done.err
    assert patient.options == []


def test_mending_says_what_was_done(patient: Patient, motools: Motools) -> None:
    """Exit code 0 if all is well afterwards."""
    patient.checks = [FINE, STALE]
    done = motools("cache", "doctor", "-d", "/c", "--fix", "--yes")
    assert done.code == 0
    assert "mended (leftovers): removed motoolsd.sock" in done.err
    assert "warning" not in done.out


def test_mend_that_was_refused_is_a_failure(patient: Patient, motools: Motools) -> None:
    """Even if only a warning is left."""
    patient.checks, patient.works = [STALE], False
    patient.checks_afterwards = [STALE]
    done = motools("cache", "doctor", "-d", "/c", "--fix", "--yes")
    assert done.code == 1
    assert "not mended (leftovers)" in done.err


def test_nothing_to_mend_is_not_asked_about(patient: Patient, motools: Motools) -> None:
    """What --fix does not mend stays, and is said."""
    patient.checks = [BROKEN]
    assert motools("cache", "doctor", "-d", "/c", "--fix", "--yes").code == 1
    assert not patient.is_mended


@pytest.mark.parametrize(("answer", "is_mended"), [("y\n", True), ("\n", False)])
def test_it_asks_before_it_mends(
    patient: Patient, motools: Motools, monkeypatch: pytest.MonkeyPatch, answer: str, *, is_mended: bool
) -> None:
    """Naming what it would do; a no leaves everything, and is exit code 1."""
    from io import StringIO

    patient.checks = [STALE]
    monkeypatch.setattr(output, "can_ask", lambda: True)
    monkeypatch.setattr("motools.cli.doctor.can_ask", lambda: True)
    monkeypatch.setattr(sys, "stdin", StringIO(answer))
    done = motools("cache", "doctor", "-d", "/c", "--fix")
    assert MEND_WORDS["leftovers"] in done.err
    assert patient.is_mended is is_mended
    assert done.code == (0 if is_mended else 1)


def test_every_mend_has_words() -> None:
    """For the question."""
    assert set(MEND_WORDS) == {mend.value for mend in Mend}
