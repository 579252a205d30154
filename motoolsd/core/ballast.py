"""When room is kept for a full disk, and when it is not.

Layer: core. Imports nothing.
Invariant: pure. A ballast never takes more than half of what is free: it must not be what fills a disk.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

FREE_FACTOR: Final = 2
"""It is made only where so many times its size is free: else it would be let go of soon, and made again."""


class Step(Enum):
    """What is to be done about the ballast now."""

    KEEP = auto()
    MAKE = auto()
    """Let go of what there is, and make it."""
    DROP = auto()


def next_step(*, wanted_bytes: int, held_bytes: int | None, free_bytes: int) -> Step:
    """Decide.

    Args:
        wanted_bytes: its size by the settings; 0: there is to be none.
        held_bytes: what it takes on the disk now; None: there is none.
        free_bytes: what the disk has left beside it.
    """
    if wanted_bytes == 0:
        return Step.KEEP if held_bytes is None else Step.DROP
    if held_bytes is not None and held_bytes >= wanted_bytes and held_bytes < FREE_FACTOR * wanted_bytes:
        return Step.KEEP
    # What there is of another size is as good as free.
    has_room = free_bytes + (held_bytes or 0) >= FREE_FACTOR * wanted_bytes
    return Step.MAKE if has_room else Step.KEEP
