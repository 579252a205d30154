"""Databases that were damaged: the short form, and a daemon that believes whatever it reads."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.damage import attack

pytestmark = pytest.mark.slow


def test_damage_is_said_and_never_served() -> None:
    """A miss or a refusal; the database that is refused stays as it is, and files stay where they are."""
    report = Report()
    attack(report, range(10))
    assert report.violations == []
    assert report.counts["wrong values"] == 0
    assert report.counts["hits"] > 0


def test_planted_bug_is_caught() -> None:
    """A daemon that does not look at checksums."""
    report = Report()
    for number in range(0, 60, 10):
        attack(report, range(number, number + 10), "believe every row")
        if report.counts["wrong values"]:
            return
    raise AssertionError(report)
