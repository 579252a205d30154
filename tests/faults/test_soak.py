"""A mixed load for some seconds, and daemons that leak."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.soak import attack

pytestmark = pytest.mark.slow


def test_nothing_grows() -> None:
    """No call fails, and what is used at the end was used before."""
    report = Report()
    attack(report, range(4), round_s=1.0)
    assert report.violations == []
    assert report.counts["calls"] > 100


@pytest.mark.parametrize("bug", ["keep what came", "keep a descriptor"])
def test_planted_bug_is_caught(bug: str) -> None:
    """A daemon that keeps every request, and one that keeps a file open for each connection."""
    report = Report()
    attack(report, range(4), bug, round_s=1.0)
    assert any("grew" in violation for violation in report.violations), report
