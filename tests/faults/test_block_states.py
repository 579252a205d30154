"""States that a power cut may leave: the short form, and a daemon that does not wait for the disk."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.block_states import attack, unavailable

REASON = unavailable()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=str(REASON))]


def test_acknowledged_writes_are_in_every_state() -> None:
    """Whatever the disk did with what was not flushed."""
    report = Report()
    attack(report, range(1), states=12)
    assert report.violations == []
    assert report.counts["rows compared"] > 100


def test_planted_bug_is_caught() -> None:
    """A daemon that leaves it to the operating system when a commit comes to the disk."""
    report = Report()
    attack(report, range(1), "never sync", states=12)
    assert report.counts["lost"] > 0
