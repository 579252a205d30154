"""A failed fsync: the short form, and daemons that it must find guilty."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.failed_fsync import attack
from tests.faults.shim import unavailable

pytestmark = [pytest.mark.slow, pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))]
ROUNDS = range(4)


def test_failed_sync_loses_nothing() -> None:
    """What was answered is there, also after a kill; no descriptor is used again."""
    report = Report()
    attack(report, ROUNDS)
    assert report.violations == []
    assert report.counts["failed syncs"] > 0


@pytest.mark.parametrize("bug", ["keep the connection", "swallow failures"])
def test_planted_bug_is_caught(bug: str) -> None:
    """A daemon that goes on with the connection whose commit failed, and one that calls failed writes stored."""
    report = Report()
    for number in range(8):
        attack(report, range(number, number + 1), bug)
        if report.violations:
            return
    raise AssertionError(report)
