"""Being killed at a named point, for the tests that prove that it does no harm.

Layer: adapters. Imports core.points.
Invariant: without the variable nothing is armed.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Mapping
from typing import Final

from motoolsd.core.points import Points

KILL_AT: Final = "MOTOOLSD_KILL_AT"
"""`name:count`: this process kills itself when the point is reached for the count-th time."""
POINTS_FILE: Final = "MOTOOLSD_POINTS_FILE"
"""A file that gets one line for each point that is reached, with how often it was by then."""


def arm(environment: Mapping[str, str]) -> None:
    """Do at named points what the environment asks for."""
    name, _, count = environment.get(KILL_AT, "").rpartition(":")
    file = environment.get(POINTS_FILE)
    if not name and file is None:
        return
    seen: Counter[str] = Counter()

    def hook(point: str) -> None:
        seen[point] += 1
        if file is not None:
            with open(file, "a", encoding="utf-8") as points:
                points.write(f"{point}:{seen[point]}\n")
        if point == name and seen[point] == int(count):
            os.kill(os.getpid(), signal.SIGKILL)

    Points.hook = hook
