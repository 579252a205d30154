"""Named points: a process that kills itself at one, and one that lists them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from motoolsd.adapters.points import KILL_AT, POINTS_FILE, arm
from motoolsd.core.points import Points, reached

SCRIPT = """
import os
from motoolsd.adapters.points import arm
from motoolsd.core.points import reached
arm(os.environ)
for name in ("a", "b:c", "a", "a"):
    reached(name)
    print(name, flush=True)
"""


def run(**environment: str) -> tuple[int, list[str]]:
    """Come by some points; the exit code, and those that were passed alive."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], check=False, capture_output=True, text=True, timeout=30, env=environment
    )
    return done.returncode, done.stdout.split()


@pytest.mark.slow
def test_process_ends_where_it_is_told_to() -> None:
    """By a signal that nothing can catch; at the second time, not the first."""
    assert run(**{KILL_AT: "a:2"}) == (-signal.SIGKILL, ["a", "b:c"])
    assert run(**{KILL_AT: "b:c:1"}) == (-signal.SIGKILL, ["a"])
    assert run(**{KILL_AT: "a:9"}) == (0, ["a", "b:c", "a", "a"])


@pytest.mark.slow
def test_points_are_listed_in_their_order(tmp_path: Path) -> None:
    """With how often each was reached by then: what `KILL_AT` takes."""
    file = tmp_path / "points"
    assert run(**{POINTS_FILE: str(file)})[0] == 0
    assert file.read_text().splitlines() == ["a:1", "b:c:1", "a:2", "a:3"]


def test_nothing_is_armed_without_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """No daemon kills itself by chance."""
    monkeypatch.setattr(Points, "hook", None)
    arm({"MOTOOLSD_OTHER": "a:1"})
    assert Points.hook is None
    reached("a")
