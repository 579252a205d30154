"""The framing under a fuzzer: the short form, and one that it breaks."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.framing import attack, unavailable

pytestmark = [pytest.mark.slow, pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))]


def test_framing_stands() -> None:
    """A few thousand runs."""
    report = Report()
    attack(report, range(1), runs=3_000)
    assert report.violations == []


def test_planted_bug_is_caught() -> None:
    """A length that is divided by."""
    report = Report()
    attack(report, range(1), "planted", runs=3_000)
    assert report.violations != []
