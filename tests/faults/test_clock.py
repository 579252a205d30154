"""A wall clock that is set: the short form, and a daemon that it must find guilty."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.daemons import running
from tests.faults.attack import Report
from tests.faults.clock import attack, open_clock
from tests.faults.shim import unavailable

pytestmark = [pytest.mark.slow, pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))]


def test_nothing_expires_early_or_late() -> None:
    """An hour ahead, and a day back."""
    report = Report()
    attack(report, range(2))
    assert report.violations == []
    assert report.counts["jumps"] >= 2


def test_planted_bug_is_caught() -> None:
    """A daemon that goes by the wall clock."""
    report = Report()
    attack(report, range(1), "expire by the wall clock")
    assert report.violations != []


def test_clock_of_the_daemon_is_set(cache_dir: Path) -> None:
    """Else nothing was attacked: its log is dated with what it believes."""
    with open_clock() as clock:
        clock.set(86_400 * 400)
        with running(cache_dir, environment=clock.environment) as daemon:
            year = time.gmtime(time.time() + 86_400 * 400).tm_year
            assert str(year) in daemon.log[:30]
