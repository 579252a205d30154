"""Clients that start a daemon at the same moment: the short form, and a daemon that it must find guilty."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.one_daemon import attack

pytestmark = pytest.mark.slow
CLIENTS = 30
STALE, STALE_WITH_RIVALS = 0, 1


def test_one_daemon_is_started() -> None:
    """Whoever else starts one, and whatever lies there."""
    report = Report()
    attack(report, range(STALE, STALE_WITH_RIVALS + 1), clients=CLIENTS)
    assert report.violations == []
    assert report.counts["clients"] == 2 * CLIENTS
    assert report.counts["daemons"] == 2


def test_planted_bug_is_caught() -> None:
    """Daemons that take no lock: two are there."""
    report = Report()
    attack(report, range(STALE_WITH_RIVALS, STALE_WITH_RIVALS + 1), "take no lock", clients=CLIENTS)
    assert any("daemons served" in violation for violation in report.violations), report
