"""Nobody else: every case once, and daemons that let somebody in."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.intruders import ATTACK, CASES, attack

REASON = ATTACK.unavailable()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=str(REASON))]


def test_nobody_else_gets_in() -> None:
    """Other users, planted modules, and links at every other path."""
    report = Report()
    for number in (*range(5), *range(5, len(CASES), 2)):
        attack(report, range(number, number + 1))
    assert report.violations == []


@pytest.mark.parametrize(("bug", "case"), [("serve everybody", 0), ("follow links", 10)])
def test_planted_bug_is_caught(bug: str, case: int) -> None:
    """A daemon that does not ask who connects, and one that follows links."""
    report = Report()
    attack(report, range(case, case + 1), bug)
    assert report.violations != []
