"""When room is kept, made and given up."""

from __future__ import annotations

import pytest

from motoolsd.core.ballast import Step, next_step

MIB = 1 << 20


@pytest.mark.parametrize(
    ("wanted_bytes", "held_bytes", "free_bytes", "step"),
    [
        (4 * MIB, None, 8 * MIB, Step.MAKE),
        (4 * MIB, None, 8 * MIB - 1, Step.KEEP),
        (4 * MIB, 4 * MIB, 0, Step.KEEP),
        (4 * MIB, 4 * MIB + 4096, 100 * MIB, Step.KEEP),
        (4 * MIB, 3 * MIB, 5 * MIB, Step.MAKE),
        (4 * MIB, 3 * MIB, 5 * MIB - 1, Step.KEEP),
        (4 * MIB, 8 * MIB, 0, Step.MAKE),
        (0, None, 100 * MIB, Step.KEEP),
        (0, 4 * MIB, 0, Step.DROP),
    ],
)
def test_it_is_made_only_where_there_is_room_for_two(
    wanted_bytes: int, held_bytes: int | None, free_bytes: int, step: Step
) -> None:
    """A part of one, or one of another size, counts as free."""
    assert next_step(wanted_bytes=wanted_bytes, held_bytes=held_bytes, free_bytes=free_bytes) is step
