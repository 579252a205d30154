"""Other versions: some exchanges of each kind, and a daemon that misreads."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.versions import CASES, attack

pytestmark = pytest.mark.slow
OWN = [number for number, case in enumerate(CASES) if not case.name.startswith("frame ")]
FRAMES = [number for number, case in enumerate(CASES) if case.name.startswith("frame ")]


def test_other_versions_are_served_or_refused_in_words() -> None:
    """All greetings and daemons; of the frames every eighth, which are all read by the tests of messages."""
    report = Report()
    for number in (*OWN, *FRAMES[::8]):
        attack(report, range(number, number + 1))
    assert report.violations == []


def test_planted_bug_is_caught() -> None:
    """A daemon that takes an operation that it does not know for another."""
    report = Report()
    number = next(number for number, case in enumerate(CASES) if case.name == "hello of protocol 1")
    attack(report, range(number, number + 1), "guess the operation")
    assert report.violations != []
