"""Load: the short form, and a daemon that it must find guilty. How quick it was is for the long form to judge."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.load import KINDS, Size, attack
from tests.faults.shim import unavailable

pytestmark = [pytest.mark.slow, pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))]
SHORT = Size(half_open=400, readers=10, refused=10, seconds=1.0)


def test_honest_client_is_served_beside_everything() -> None:
    """Nothing fails, memory comes back, and the log is no flood."""
    report = Report()
    attack(report, range(len(KINDS)), size=SHORT)
    assert [violation for violation in report.violations if "p99" not in violation] == []
    assert report.counts["half-open connections"] == SHORT.half_open
    assert report.counts["writes to a slow disk"] > 0


def test_planted_bug_is_caught() -> None:
    """A daemon that waits for the disk before it answers a lookup."""
    report = Report()
    attack(report, range(3, 4), "wait for the disk", size=SHORT)
    assert any("p99" in violation for violation in report.violations), report
