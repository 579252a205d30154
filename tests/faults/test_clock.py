"""A wall clock that is set: the short form, and daemons that look at it."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.clock import attack
from tests.faults.shim import unavailable

pytestmark = [pytest.mark.slow, pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))]


LASTING = ("expiries", "leases kept", "jumps under way", "early or late")
ROUNDS = {0: (*LASTING, "timeouts"), 1: (*LASTING, "restarts"), 10: ("backups",), 3: ("idle exits", "early or late")}
"""An hour ahead, a day back with a restart, a day back between backups, an idle daemon; and what they are to count."""


@pytest.mark.parametrize("number", ROUNDS)
def test_nothing_expires_early_or_late(number: int) -> None:
    """Whatever the clock on the wall says."""
    report = Report()
    attack(report, range(number, number + 1))
    assert report.violations == []
    assert report.counts["early or late"] == 0
    assert {name for name in ROUNDS[number] if name not in report.counts} == set()


@pytest.mark.parametrize("bug", ["leases by the wall", "deadlines by the wall"])
def test_planted_bug_is_caught(bug: str) -> None:
    """A daemon whose leases expire by the wall clock, and one whose deadlines and durations do."""
    report = Report()
    attack(report, range(1), bug)
    assert report.violations, report
