"""What an attack on a promise is, and what its rounds have found."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

VIOLATIONS_MAX = 100
"""Kept in words; all are counted."""


class Report(msgspec.Struct):
    """What rounds have found so far."""

    rounds: int = 0
    counts: dict[str, int] = {}
    """What was done and seen, such as "acknowledged writes"."""
    worst: dict[str, float] = {}
    """The highest of each, with its unit in the name, such as "answer, s"."""
    violations: list[str] = []
    violation_count: int = 0

    def count(self, name: str, by: int = 1) -> None:
        """Add to a count; 0 makes it appear."""
        self.counts[name] = self.counts.get(name, 0) + by

    def note(self, name: str, value: float) -> None:
        """Keep the highest."""
        self.worst[name] = round(max(value, self.worst.get(name, value)), 3)

    def violate(self, text: str) -> None:
        """The promise is broken; the text names the round, so that it can be run again."""
        self.violation_count += 1
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(text)

    def expect(self, is_so: bool, text: str) -> None:  # noqa: FBT001 - as `assert`
        """Violated if it is not so."""
        if not is_so:
            self.violate(text)


class Attack(NamedTuple):
    """One row of the table of promises. A round's number is its seed: the same number does the same."""

    name: str
    """As in `make torture PART=name`."""
    promise: str
    says: str
    """How it is attacked."""
    wanted: str
    """What the long form must reach, in words."""
    rounds: int
    """Of the long form."""
    chunk: int
    """Rounds that share what is expensive to set up; what was found is saved after each chunk."""
    run: Callable[[Report, range], None]
    """Carries rounds out and adds to the report; whatever it starts has ended when it returns or raises."""
    unavailable: Callable[[], str | None] = lambda: None
    """Why it cannot be done on this machine, or None."""


def needs(*programs: str, root: bool = False) -> Callable[[], str | None]:
    """For `Attack.unavailable`: programs that must be there, and whether one must be root."""

    def reason() -> str | None:
        if root and os.geteuid() != 0:
            return "needs root"
        missing = [program for program in programs if shutil.which(program) is None]
        return f"needs {', '.join(missing)}" if missing else None

    return reason


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory with a short path, removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="mt-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
