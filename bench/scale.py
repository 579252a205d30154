"""How much of everything a run measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Sizes and times."""

    rounds: int
    slice_s: float
    """How long one peer works on one workload in one round."""
    entries: int = 10_000
    """In every store before it is asked."""
    many_entries: int = 1_000_000
    files: int = 200_000
    """Of the directory whose size is added up."""
    processes_max: int = 32
    stampede_keys: int = 20
    listings: int = 2
    """Of all entries, in the first rounds: it takes as long as all other workloads of a peer together."""
    hand_overs: int = 20
    """A round, of each kind."""
    command_runs: int = 3
    """A round, of each kind."""


FULL: Final = Scale(rounds=5, slice_s=0.5)
QUICK: Final = Scale(rounds=1, slice_s=0.1, files=10_000, stampede_keys=5, hand_overs=5, command_runs=1)
TINY: Final = Scale(
    rounds=1,
    slice_s=0.005,
    entries=20,
    many_entries=2_000,
    files=200,
    processes_max=2,
    stampede_keys=2,
    hand_overs=1,
    command_runs=1,
)
"""A few operations a cell: whether the suite works."""
