"""System calls that fail under a script of changes: the short form, and a daemon that hides what failed."""

from __future__ import annotations

import pytest

from tests.faults import every_call
from tests.faults.attack import Report
from tests.faults.every_call import FAULTS, attack, fault_of
from tests.faults.shim import Call, unavailable

pytestmark = [pytest.mark.slow, pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))]
ANSWER_S = 30.0
"""The machine may be busy; the long form is stricter."""


def first_round(call: Call) -> int:
    """The round in which the first of these calls fails once; in the next one all of them fail."""
    calls = list(FAULTS)
    return 2 * sum(FAULTS[one][0] for one in calls[: calls.index(call)])


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is judged by the clock."""
    monkeypatch.setattr(every_call, "ANSWER_S", ANSWER_S)


def test_every_call_fails_once_and_for_good() -> None:
    """In the order of the calls, and in both ways."""
    faults = [fault_of(number) for number in range(2 * sum(most for most, _, _ in FAULTS.values()))]
    assert len(set(faults)) == len(faults)
    assert {(fault.call, fault.sticky) for fault in faults} == {(call, sticky) for call in FAULTS for sticky in (0, 1)}
    assert fault_of(first_round("sync")) == ("sync", 1, False, FAULTS["sync"][1])


@pytest.mark.parametrize("call", ["write", "sync", "open", "rename", "unlink", "mkdir", "link"])
def test_fault_is_an_error_and_not_an_end(call: Call) -> None:
    """Whether it happens once or from then on: what was acknowledged stands, and the daemon works again afterwards."""
    report = Report()
    place = first_round(call) + 4
    attack(report, [place, place + 1])
    assert report.violations == []
    assert report.counts["faults"] >= report.rounds > 0


def test_planted_bug_is_caught() -> None:
    """A daemon that answers what was refused as if it were stored."""
    report = Report()
    attack(report, [first_round("write") + 5], "swallow failures")
    assert report.counts["lost or wrong"] > 0
