"""Slot numbers: the version of every key, folded to 65,536 counters.

The array is the one that clients map (design: versioned slots instead of invalidation messages): what they compare
with what they remember is written here and nowhere else.

Layer: core. Imports wire.keys.
Invariant: a slot's number changes in the same step in which a committed change of one of its keys becomes visible;
from the moment such a change is asked for until that step the slot is *moving*, and nothing read from SQLite for it is
shown.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from motoolsd.wire.keys import SLOT_COUNT

ALL: frozenset[int] = frozenset(range(SLOT_COUNT))
"""Every slot: what clearing a table, or an outside edit, moves."""


class Slots:
    """The numbers, and which of them are about to change."""

    def __init__(self, base: int, numbers: memoryview[int] | None = None) -> None:
        """Start every slot at `base`.

        Args:
            base: random, so that numbers of an earlier daemon do not come back.
            numbers: where they are kept, `SLOT_COUNT` unsigned 64-bit numbers, writable; None: in memory of our own.
        """
        self._numbers = memoryview(array("Q", bytes(8 * SLOT_COUNT))) if numbers is None else numbers
        # Every change takes the next number, whichever slots it is for: none comes twice in one slot.
        self._last = base - 1
        self.bump(ALL)
        # How many changes under way touch a slot; those that touch all are counted apart.
        self._moving: dict[int, int] = {}
        self._all_moving = 0

    def number(self, slot: int) -> int:
        """The slot's number now."""
        return self._numbers[slot]

    def snapshot(self) -> Sequence[int]:
        """A copy of all numbers, to be taken before a read transaction begins."""
        return array("Q", self._numbers.tobytes())

    def is_moving(self, slot: int) -> bool:
        """Whether a change that touches the slot is under way."""
        return self._all_moving > 0 or slot in self._moving

    def begin(self, slots: AbstractSet[int]) -> None:
        """Mark the slots of one change as moving, before its COMMIT; `finish` must follow."""
        if slots is ALL:
            self._all_moving += 1
            return
        for slot in slots:
            self._moving[slot] = self._moving.get(slot, 0) + 1

    def finish(self, slots: AbstractSet[int]) -> None:
        """Bump the slots of a change that began, and let them stand: in the same step as the index changes."""
        self.bump(slots)
        if slots is ALL:
            assert self._all_moving > 0, "finish() without begin()"
            self._all_moving -= 1
            return
        for slot in slots:
            if (left := self._moving[slot] - 1) > 0:
                self._moving[slot] = left
            else:
                del self._moving[slot]

    def bump(self, slots: AbstractSet[int]) -> None:
        """Change the numbers of slots."""
        numbers = self._numbers
        self._last = number = self._last + 1
        if slots is ALL:
            numbers[:] = memoryview(array("Q", [number]) * SLOT_COUNT)
            return
        for slot in slots:
            numbers[slot] = number

    def is_current(self, slot: int, number: int) -> bool:
        """Whether what was read after `number` was taken may be kept: the slot neither changed nor is changing."""
        return self._numbers[slot] == number and not self.is_moving(slot)
