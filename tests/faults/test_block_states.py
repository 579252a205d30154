"""States that a power cut may leave: the short form, and a daemon that does not wait for the disk."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults import block_states
from tests.faults.attack import Report
from tests.faults.block_states import attack, unavailable

REASON = unavailable()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=str(REASON))]


def test_acknowledged_writes_are_in_every_state() -> None:
    """Whatever the disk did with what was not flushed."""
    report = Report()
    attack(report, range(1), states=12)
    assert report.violations == []
    assert report.counts["rows compared"] > 100


def test_planted_bug_is_caught() -> None:
    """A daemon that leaves it to the operating system when a commit comes to the disk."""
    report = Report()
    attack(report, range(1), "never sync", states=12)
    assert report.counts["lost"] > 0


def test_state_that_another_namespace_keeps_stands_for_no_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody makes a mount namespace while the first state is mounted, as a container's start does."""
    real, were_looked_at = block_states.check, list[bool]()
    with ExitStack() as keepers:

        def check(directory: Path, rows: dict[str, str], files: Sequence[str], *rest: Any) -> None:  # noqa: ANN401
            mark = directory / "looked at"
            were_looked_at.append(mark.exists())
            mark.touch()
            real(directory, rows, files, *rest)
            if len(were_looked_at) == 1:
                keepers.enter_context(_kept_by_a_namespace())

        monkeypatch.setattr(block_states, "check", check)
        report = Report()
        attack(report, range(1), states=6)
    assert were_looked_at == [False] * 6
    assert report.violations == []


@contextmanager
def _kept_by_a_namespace() -> Iterator[None]:
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 60"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()
