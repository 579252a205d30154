"""Replies that are dropped: the short form, and a daemon that applies a retry again."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.retries import attack

pytestmark = pytest.mark.slow
ROUNDS = range(60)


def test_retry_changes_nothing() -> None:
    """Whatever was changed meanwhile stays, and the answer is that of the first time."""
    report = Report()
    attack(report, ROUNDS)
    assert report.violations == []
    assert report.counts == {"retries": len(ROUNDS), "double effects": 0}


def test_planted_bug_is_caught() -> None:
    """A daemon that forgets what it has answered."""
    report = Report()
    attack(report, ROUNDS, "retry as new")
    assert report.counts["double effects"] > len(ROUNDS) // 4
