"""Most values depend on nothing; those that do are told apart from them."""

from __future__ import annotations

from motoolsd.core.deadlines import Moment
from motoolsd.core.guards import DAMAGED, EXPIRED, MISSING, Guard

END = Moment("boot", 1.0, 2.0)


def test_guard_of_nothing_is_no_guard() -> None:
    """It compares equal to the empty one, by which it is left out."""
    assert Guard((), None) == Guard()
    assert Guard((b"runs/a",)) != Guard() != Guard(expires=END)


def test_reasons_to_miss_are_told_apart() -> None:
    """They stand in rows: an entry that misses for one is not healed of another."""
    assert len({MISSING, EXPIRED, DAMAGED}) == 3
