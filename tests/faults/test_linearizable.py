"""Registers and leases over kills and pauses: the short form, and daemons that it must find guilty."""

from __future__ import annotations

import pytest

from tests import linearizability
from tests.faults.attack import Report
from tests.faults.linearizable import CLAIMERS, GENERATIONS, Turn, attack, judge_histories, judge_turns
from tests.linearizability import read, write

pytestmark = pytest.mark.slow


def test_what_is_seen_has_an_order() -> None:
    """Over two kills and some pauses."""
    report = Report()
    attack(report, range(1), operations=3_000, kills=2)
    assert report.violations == []
    assert report.counts["kills"] == 2
    assert report.counts["operations"] > 2_000
    assert report.counts["claims"] == CLAIMERS * GENERATIONS


@pytest.mark.parametrize("bug", ["never stamp", "grant held leases"])
def test_planted_bug_is_caught(bug: str) -> None:
    """A daemon whose remembered answers last for ever, and one that gives a lease to whoever asks."""
    report = Report()
    attack(report, range(1), bug, operations=3_000)
    assert report.violations != []


def test_turns_are_judged() -> None:
    """Two at once, a token twice or too late, two values, a value of nobody or too early: each is found."""

    def violations(*turns: Turn) -> int:
        report = Report()
        judge_turns(turns, report, "here")
        return report.violation_count

    stored = Turn("k", 10, 20, is_owner=True, value="v", token=2)
    given = Turn("k", 30, 30, is_owner=False, value="v")
    assert violations(Turn("k", 0, 5, is_owner=True, value=None, token=1), stored, given) == 0
    assert violations(Turn("k", 0, 5, is_owner=True, value=None, token=2), stored) == 1
    assert violations(Turn("k", 0, 5, is_owner=True, value=None, token=3), stored) == 1
    assert violations(Turn("k", 0, 15, is_owner=True, value=None, token=1), stored) == 1
    assert violations(stored, Turn("k", 25, 26, is_owner=True, value="w", token=3)) == 1
    assert violations(stored, Turn("k", 30, 30, is_owner=False, value="w")) == 1
    assert violations(stored, Turn("k", 15, 15, is_owner=False, value="v")) == 1
    assert violations(stored, Turn("k", 0, 0, is_owner=False, value=None, failure="DaemonBusy")) == 1


def test_history_that_cannot_be_judged_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted, its operations are not, and a stale answer of another key is found all the same."""
    monkeypatch.setattr(linearizability, "CONFIGURATIONS_MAX", 20)
    open_ones = [write(f"v{number}", number, 1_000 + number) for number in range(12)]
    # All at once, and each of them is read meanwhile: in any order.
    open_ones += [read(f"v{number}", 100, 2_000) for number in range(12)]
    stale = [write("v", 0, 1), write("w", 2, 3), read("v", 4, 5)]
    report = Report()
    judge_histories({"open": open_ones, "stale": stale}, report, "here")
    assert report.violation_count == 1
    assert report.counts == {"histories that could not be judged": 1, "operations": len(stale)}
