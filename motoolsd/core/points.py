"""Named points in what must survive a kill: nothing happens there, unless a test has asked for it.

Layer: core. Imports nothing of motoolsd.
Invariant: without a test every point is one call of a function that does nothing. (Fail points, as in TiKV and
FreeBSD's fail(9).)
"""

from __future__ import annotations

from collections.abc import Callable

Hook = Callable[[str], None]


class Points:
    """Where a hook is kept. One for the process: what is killed is the process."""

    hook: Hook | None = None


def reached(name: str) -> None:
    """Say that a point was reached. May be called from any thread."""
    if Points.hook is not None:
        Points.hook(name)
