"""A failure is remembered for as long as was asked, and no longer."""

from __future__ import annotations

import pytest

from motoolsd.engine import failures as failures_module
from motoolsd.engine.failures import RecordedFailures
from motoolsd.wire.keys import Kind
from tests.fakes import FakeClock


async def test_failure_ends_by_time_or_by_a_value() -> None:
    """Then the key may be tried again."""
    clock = FakeClock()
    failures = RecordedFailures(clock)
    failures.record((Kind.MODEL, "a"), "oom", 10)
    failures.record((Kind.MODEL, "b"), "oom", 10)
    failures.forget((Kind.MODEL, "b"))
    assert failures.reason((Kind.MODEL, "a")) == "oom"
    assert failures.reason((Kind.MODEL, "b")) is None
    await clock.advance(10)
    assert failures.reason((Kind.MODEL, "a")) is None


def test_failures_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than the limit, the oldest go."""
    monkeypatch.setattr(failures_module, "FAILURES_MAX", 2)
    failures = RecordedFailures(FakeClock())
    for name in "abc":
        failures.record((Kind.MODEL, name), "oom", 10)
    assert [failures.reason((Kind.MODEL, name)) for name in "abc"] == [None, "oom", "oom"]
