"""What a figure belongs to, and what one round gives for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

QUANTILES: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
"""Of the latencies of one cell in one round."""


class Cell(NamedTuple):
    """One workload of one peer, in so many processes."""

    workload: str
    processes: int
    peer: str


class Sample(NamedTuple):
    """What one round gave for one cell."""

    value: float
    unit: str = "op/s"
    latencies_us: tuple[float, ...] = ()
    """At `QUANTILES`; empty where one figure says it all."""


Results = dict[Cell, list[Sample]]
"""A sample a round."""


class Step(NamedTuple):
    """A part of a round that is measured in one go."""

    label: str
    run: Callable[[int], dict[Cell, Sample]]
    """Given the number of the round."""


class WrongAnswer(Exception):
    """A peer gave an answer that is not right: its speed means nothing."""

    def __init__(self, peer: str, what: str) -> None:
        """Name the peer and what it did."""
        super().__init__(f"{peer} {what}")
        self.peer = peer
