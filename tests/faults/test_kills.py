"""`kill -9` under all kinds of changes: the short form, and daemons that it must find guilty."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.kills import attack

pytestmark = pytest.mark.slow
ROUNDS = range(8)
ROUNDS_MAX = 12
"""Within which a planted bug shows; nearly always in the first three."""


def test_acknowledged_changes_survive() -> None:
    """Index, stamps and database say the same after each kill."""
    report = Report()
    attack(report, ROUNDS)
    assert report.violations == []
    assert report.rounds == len(ROUNDS)
    assert report.counts["acknowledged changes"] > 10 * len(ROUNDS)
    assert report.counts["killed at a named point"] > 0


@pytest.mark.parametrize("bug", ["answer before commit", "never stamp"])
def test_planted_bug_is_caught(bug: str) -> None:
    """A daemon that answers too early, and one whose remembered answers last for ever."""
    report = Report()
    for number in range(ROUNDS_MAX // 3):
        attack(report, range(3 * number, 3 * number + 3), bug)
        if report.violations:
            return
    raise AssertionError(report)
