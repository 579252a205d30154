"""Registers and leases over kills and pauses: the short form, and daemons that it must find guilty."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.linearizable import Turn, attack, judge_turns

pytestmark = pytest.mark.slow


def test_what_is_seen_has_an_order() -> None:
    """Over two kills and some pauses."""
    report = Report()
    attack(report, range(1), operations=3_000, kills=2)
    assert report.violations == []
    assert report.counts["kills"] == 2
    assert report.counts["claims"] > 100


@pytest.mark.parametrize("bug", ["never stamp", "grant held leases"])
def test_planted_bug_is_caught(bug: str) -> None:
    """A daemon whose remembered answers last for ever, and one that gives a lease to whoever asks."""
    report = Report()
    attack(report, range(1), bug, operations=3_000)
    assert report.violations != []


def test_turns_are_judged() -> None:
    """Two at once, two values, a value of nobody, one that is given too early: each is found."""

    def violations(*turns: Turn) -> int:
        report = Report()
        judge_turns(turns, report, "here")
        return report.violation_count

    stored = Turn("k", 10, 20, is_owner=True, value="v")
    given = Turn("k", 30, 30, is_owner=False, value="v")
    assert violations(Turn("k", 0, 5, is_owner=True, value=None), stored, given) == 0
    assert violations(Turn("k", 0, 15, is_owner=True, value=None), stored) == 1
    assert violations(stored, Turn("k", 25, 26, is_owner=True, value="w")) == 1
    assert violations(stored, Turn("k", 30, 30, is_owner=False, value="w")) == 1
    assert violations(stored, Turn("k", 15, 15, is_owner=False, value="v")) == 1
    assert violations(stored, Turn("k", 0, 0, is_owner=False, value=None, failure="DaemonBusy")) == 1
