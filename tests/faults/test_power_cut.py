"""The power is cut under writers: the short form, and a daemon that does not wait for the disk."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.disk import Kind, unavailable
from tests.faults.power_cut import attack

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_acknowledged_changes_survive(kind: Kind) -> None:
    """Rows, and the files that belong to them."""
    if (reason := unavailable(kind)()) is not None:
        pytest.skip(reason)
    report = Report()
    attack(report, range(4), kind=kind)
    assert report.violations == []
    assert report.counts["power cuts"] == 4
    assert report.counts["acknowledged changes"] > 0


@pytest.mark.skipif(unavailable("ext4")() is not None, reason="no loop devices, or not root")
def test_planted_bug_is_caught() -> None:
    """It leaves it to the kernel when something is written."""
    report = Report()
    for number in range(0, 12, 3):
        attack(report, range(number, number + 3), "never sync")
        if report.violations:
            return
    raise AssertionError(report)
