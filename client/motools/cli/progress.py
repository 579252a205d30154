"""Progress of what takes long: a bar at a terminal, now and then a line where there is none.

Layer: motools.cli. Imports output and tables; rich, when there is something to draw.
Invariant: goes to stderr, and leaves nothing behind that is no message.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from motools.cache.clock import monotonic_s
from motools.cli.output import say
from motools.cli.tables import size_text

if TYPE_CHECKING:
    from motools.cache.cleaning import OnProgress, Progress

LINE_INTERVAL_S = 5.0
QUIET_S = 0.3
"""What ends sooner shows nothing: a bar that flashes by tells nobody anything."""


@contextmanager
def progress(what: str) -> Iterator[OnProgress]:
    """Gives what to call with each Progress; the bar is gone when the block is left.

    Args:
        what: is done, in a word or two: "counting".
    """
    can_draw = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    shown = _Bar(what) if can_draw else _Lines(what)
    try:
        yield shown.tell
    finally:
        shown.close()


class _Lines:
    """For logs: a line every few seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._next_s = monotonic_s() + LINE_INTERVAL_S

    def tell(self, told: Progress) -> None:
        """Say it, if it is time."""
        if monotonic_s() >= self._next_s:
            self._next_s = monotonic_s() + LINE_INTERVAL_S
            say(f"{self._what}: {_amount(told)}")

    def close(self) -> None:
        """Nothing is left."""


class _Bar:
    """For people."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._begins_s = monotonic_s() + QUIET_S
        self._bar: Any = None
        self._task: Any = None

    def tell(self, told: Progress) -> None:
        """Draw it."""
        if self._bar is None:
            if monotonic_s() < self._begins_s:
                return
            self._open()
        total = told.total if told.total >= told.done else None
        self._bar.update(self._task, completed=told.done, total=total or None, amount=_amount(told))

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[amount]}"))
        self._bar = RichProgress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(self._what, total=None, amount="")
        self._bar.start()

    def close(self) -> None:
        """Take it away."""
        if self._bar is not None:
            self._bar.stop()


def _amount(told: Progress) -> str:
    done = f"{told.done:,}" if told.total <= told.done else f"{told.done:,} of {told.total:,}"
    freed = f", {size_text(told.freed_bytes)}" if told.freed_bytes else ""
    return f"{done} {told.unit}{freed}"
