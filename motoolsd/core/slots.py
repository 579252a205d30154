"""Slot numbers: the version of every key, folded to 65,536 counters.

Layer: core. Imports wire.keys.
Invariant: a slot's number changes in the same step in which a committed change of one of its keys becomes visible;
between the start of the commit and that step the slot is *moving*, and nothing read from SQLite for it is shown.
"""

from __future__ import annotations

from array import array
from collections.abc import Set as AbstractSet

from motoolsd.wire.keys import SLOT_COUNT

ALL: frozenset[int] = frozenset(range(SLOT_COUNT))
"""Every slot: what clearing a table, or an outside edit, moves."""


class Slots:
    """The numbers, and which of them are about to change."""

    def __init__(self, base: int) -> None:
        """Start every slot at `base`; random, so that numbers of an earlier daemon do not come back."""
        self._numbers = array("Q", [base]) * SLOT_COUNT
        self._moving: AbstractSet[int] = frozenset()

    def number(self, slot: int) -> int:
        """The slot's number now."""
        return self._numbers[slot]

    def snapshot(self) -> array[int]:
        """A copy of all numbers, to be taken before a read transaction begins."""
        return self._numbers[:]

    def is_moving(self, slot: int) -> bool:
        """Whether a commit that touches the slot is under way."""
        return slot in self._moving

    def begin(self, slots: AbstractSet[int]) -> None:
        """Mark slots as moving, before COMMIT. One batch at a time."""
        assert not self._moving, "only the writer moves slots, one batch at a time"
        self._moving = slots

    def finish(self) -> None:
        """Bump what was moving and let it stand: in the same step as the index changes."""
        self.bump(self._moving)
        self._moving = frozenset()

    def bump(self, slots: AbstractSet[int]) -> None:
        """Change the numbers of slots."""
        numbers = self._numbers
        for slot in slots:
            numbers[slot] += 1

    def is_current(self, slot: int, number: int) -> bool:
        """Whether what was read after `number` was taken may be kept: the slot neither changed nor is changing."""
        return self._numbers[slot] == number and slot not in self._moving
