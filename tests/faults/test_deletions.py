"""Deletes only its own: hostile trees, and what is not careful. Swapping has its own test, in tests/crash."""

from __future__ import annotations

import pytest

from tests.crash.arena import KINDS
from tests.faults.attack import Report
from tests.faults.deletions import ATTACK, attack

REASON = ATTACK.unavailable()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=str(REASON))]
HOSTILE = len(KINDS)
MOUNTED = HOSTILE + 3 * (len(KINDS) + 1)
"""A round whose tree has something mounted in it, where we may mount."""


def test_hostile_trees_are_removed_and_nothing_else() -> None:
    """With something mounted in one of them, as far as that is possible here."""
    report = Report()
    for number in (HOSTILE, MOUNTED):
        attack(report, range(number, number + 1))
    assert report.violations == []
    assert report.counts["hostile trees"] + report.counts.get("refused in words", 0) == 2


def test_operations_under_swapping_touch_nothing_outside() -> None:
    """A moment of each."""
    report = Report()
    attack(report, range(len(KINDS)), swapping_s=0.5)
    assert report.violations == []


@pytest.mark.parametrize("number", [0, HOSTILE])
def test_planted_bug_is_caught(number: int) -> None:
    """What works by paths loses files outside."""
    report = Report()
    attack(report, range(number, number + 1), "naive", swapping_s=20.0)
    assert report.violations != []
