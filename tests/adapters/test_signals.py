"""Signals are received in order, and never end the process by themselves once they are taken."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import anyio
import pytest

from motoolsd.adapters.signals import OBEYED, Signals
from tests.daemons import TIMEOUT_S


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in OBEYED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_signals_are_received_in_order() -> None:
    """One is not lost for another."""
    signals = Signals()
    signals.take()
    for number in OBEYED:
        signal.raise_signal(number)
    with anyio.fail_after(TIMEOUT_S):
        assert [await signals.receive() for _ in OBEYED] == list(OBEYED)


async def test_nothing_is_taken_before_it_is_asked_for() -> None:
    """A start that hangs ends as any process does."""
    before = [signal.getsignal(number) for number in OBEYED]
    Signals()
    assert [signal.getsignal(number) for number in OBEYED] == before


async def test_ignored_signals_do_nothing() -> None:
    """At the end of the process, which they would kill otherwise."""
    signals = Signals()
    signals.take()
    signals.ignore()
    for number in OBEYED:
        signal.raise_signal(number)
