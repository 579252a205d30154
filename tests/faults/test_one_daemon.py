"""Many clients, one daemon: the short form, and daemons without a lock."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.one_daemon import attack

pytestmark = pytest.mark.slow
CLIENTS = 30


def test_one_daemon_serves_all() -> None:
    """Nobody fails, and no other interpreter has served; how long it took is for the long form to judge."""
    report = Report()
    attack(report, range(1), clients=CLIENTS)
    assert [violation for violation in report.violations if "waited for more" not in violation] == []
    assert report.counts["clients"] == CLIENTS


def test_planted_bug_is_caught() -> None:
    """Without locks several daemons serve."""
    report = Report()
    attack(report, range(1), "no lock", clients=8)
    assert any("daemons" in violation for violation in report.violations), report
