"""SIGTERM under load: the short form, and daemons that it must find guilty."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.stop import attack

pytestmark = pytest.mark.slow
ROUNDS = range(4)


def test_everybody_gets_a_reply_or_an_end() -> None:
    """Nothing is lost, cut or left over, and the next daemon starts."""
    report = Report()
    attack(report, ROUNDS)
    assert report.violations == []
    assert report.rounds == report.counts["stops"] == len(ROUNDS)
    assert report.counts["acknowledged changes"] > 0


@pytest.mark.parametrize(("bug", "symptom"), [("exit at once", "left over"), ("cut on stop", "raw ")])
def test_planted_bug_is_caught(bug: str, symptom: str) -> None:
    """A daemon that drops everything on SIGTERM, and one that carries out what it does not answer."""
    report = Report()
    attack(report, range(2), bug)
    assert any(symptom in violation for violation in report.violations), report
