"""SIGTERM under load: the short form, and daemons that it must find guilty."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.stop import attack

pytestmark = pytest.mark.slow
ROUNDS = range(4)


def test_clients_are_told_and_nothing_is_left() -> None:
    """A reply or an end for each; the next daemon finds everything."""
    report = Report()
    attack(report, ROUNDS)
    assert report.violations == []
    assert report.rounds == len(ROUNDS)
    assert report.counts["acknowledged changes"] > len(ROUNDS)
    assert report.counts["waiting clients that were told"] > 0


def test_planted_bug_is_caught() -> None:
    """A daemon that ends at once leaves its log behind."""
    report = Report()
    attack(report, range(1), "exit at once")
    assert any("cache.db-wal" in violation for violation in report.violations), report
