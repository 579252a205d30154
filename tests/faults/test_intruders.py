"""Nobody else: the short form, a daemon that asks nobody who it is, and clients that trust too much."""

from __future__ import annotations

import pytest

from motools.cache import endpoint
from tests.faults import intruders
from tests.faults.attack import Report
from tests.faults.intruders import CASES, attack, links, unavailable

pytestmark = [pytest.mark.slow, pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))]


def rounds_of(name: str, count: int) -> list[int]:
    """The first rounds of a case."""
    (first, *_) = [number for number, case in enumerate(CASES) if case.__name__ == name]
    return [first + turn * len(CASES) for turn in range(count)]


def test_nobody_else_hears_runs_or_changes_anything() -> None:
    """Each case once."""
    report = Report()
    rounds = range(CASES.index(links) + 1)
    attack(report, rounds)
    assert report.violations == []
    assert all(report.counts[case.__name__.replace("_", " ")] == 1 for case in CASES)
    assert report.rounds == len(rounds)


def test_planted_trust_in_everybody_is_caught() -> None:
    """A daemon that does not ask who its peer is."""
    report = Report()
    for number in rounds_of("stranger_knocks", 3):
        attack(report, range(number, number + 1), "ask no peer")
    assert any("a stranger heard" in violation for violation in report.violations), report


def test_planted_trust_in_every_socket_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that looks at neither directory nor peer."""
    monkeypatch.setattr(endpoint, "check_owner", lambda _directory: None)
    monkeypatch.setattr(endpoint, "_check_peer", lambda _connection, _directory: None)
    monkeypatch.setattr(intruders, "CALL_TIMEOUT_S", 1.0)
    report = Report()
    for number in rounds_of("prepared_socket", 4):
        attack(report, range(number, number + 1))
        if any("somebody else heard" in violation for violation in report.violations):
            return
    raise AssertionError(report)


def test_planted_inheritance_is_caught() -> None:
    """A client that starts a daemon with all that the job was given."""
    report = Report()
    for number in rounds_of("planted_where_a_job_runs", 1):
        attack(report, range(number, number + 1), "start anywhere")
    assert any("was planted" in violation for violation in report.violations), report
