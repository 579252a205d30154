"""A slot's number changes in the step in which a change becomes visible."""

from __future__ import annotations

import pytest

from motoolsd.core.slots import ALL, Slots
from motoolsd.wire.keys import SLOT_COUNT


def test_moving_slot_is_not_current() -> None:
    """What is read while a commit may change it is not to be kept."""
    slots = Slots(base=5)
    slots.begin({3})
    assert slots.is_moving(3)
    assert not slots.is_current(3, 5)
    assert slots.is_current(4, 5)


def test_finish_bumps_what_was_moving() -> None:
    """After the change is visible, older numbers are out of date, and new ones hold."""
    slots = Slots(base=5)
    slots.begin({3})
    slots.finish()
    assert (slots.number(3), slots.number(4)) == (6, 5)
    assert slots.is_current(3, 6)


def test_batches_move_one_after_another() -> None:
    """There is one writer: a second batch under way is a bug of ours."""
    slots = Slots(base=0)
    slots.begin({1})
    with pytest.raises(AssertionError, match="one batch"):
        slots.begin({2})


def test_snapshot_does_not_follow() -> None:
    """Numbers that were copied before a read stay what they were."""
    slots = Slots(base=5)
    before = slots.snapshot()
    slots.bump(ALL)
    assert (before[0], slots.number(0), slots.number(SLOT_COUNT - 1)) == (5, 6, 6)


def test_largest_random_base_does_not_overflow() -> None:
    """62 random bits leave room for more bumps than there will be."""
    slots = Slots(base=2**62 - 1)
    slots.bump({0})
    assert slots.number(0) == 2**62
