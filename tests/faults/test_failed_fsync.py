"""A failed fsync: the short form, and daemons that it must find guilty."""

from __future__ import annotations

from typing import get_args

import pytest

from tests.faults.attack import Report
from tests.faults.failed_fsync import Place, attack
from tests.faults.shim import unavailable

pytestmark = [pytest.mark.slow, pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))]
ROUNDS = range(3)


def test_failed_sync_loses_nothing() -> None:
    """What was answered is there, also after a kill; no descriptor is used again, wherever the sync failed."""
    report = Report()
    attack(report, ROUNDS)
    assert report.violations == []
    assert [report.counts[f"failed syncs of a {place}"] for place in get_args(Place)] == [1, 1, 1]
    assert report.counts["checkpoints repeated, all pages written anew"] > 0
    assert report.counts["batches of unknown outcome"] > 0


@pytest.mark.parametrize(
    ("bug", "first"), [("keep the connection", 0), ("swallow failures", 0), ("trust a failed checkpoint", 1)]
)
def test_planted_bug_is_caught(bug: str, first: int) -> None:
    """Daemons that go on with the connection whose commit or checkpoint failed, or call failed writes stored."""
    report = Report()
    for number in range(first, first + 24, 3):
        attack(report, range(number, number + 1), bug)
        if report.violations:
            return
    raise AssertionError(report)
