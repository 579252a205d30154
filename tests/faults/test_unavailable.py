"""Every call is back, whatever became of the daemon: the short form, and clients that are too patient or too strict."""

from __future__ import annotations

from typing import Any

import pytest

from motools.cache import client, sync
from motools.cache.recovery import Recovery
from tests.faults.attack import Report
from tests.faults.unavailable import STATES, TIMEOUT_S, attack

pytestmark = pytest.mark.slow
MARGIN_S = 3.0
"""The machine may be busy; the long form is stricter."""


def test_every_call_is_back_as_its_caller_chose() -> None:
    """A miss or a typed error, in each state."""
    report = Report()
    attack(report, range(len(STATES)), MARGIN_S)
    assert report.violations == []
    assert report.counts["calls"] >= len(STATES)


def test_planted_patience_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes its timeout for a hint."""

    class Patient(Recovery):
        def __init__(self, timeout_s: float, *rest: Any, **named: Any) -> None:  # noqa: ANN401
            super().__init__(timeout_s + TIMEOUT_S + 2.0, *rest, **named)

    monkeypatch.setattr(sync, "Recovery", Patient)
    report = Report()
    first = list(STATES).index("silent")
    for number in range(first, 8 * len(STATES), len(STATES)):
        attack(report, range(number, number + 1), margin_s=1.0)
        if report.violations:
            break
    assert any("back after" in violation for violation in report.violations), report


def test_planted_strictness_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that raises where misses were asked for."""

    def strict(_self: object, _call: object, error: Exception) -> None:
        raise error

    monkeypatch.setattr(client.Client, "_fall_back", strict)
    report = Report()
    for number in range(0, 8 * len(STATES), len(STATES)):  # absent
        attack(report, range(number, number + 1), MARGIN_S)
    assert any("raised" in violation for violation in report.violations), report
