"""Malformed frames: the short form, and daemons that they end or fill."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.attack import Report
from tests.faults.malformed import attack, feed_framing, golden_frames

pytestmark = pytest.mark.slow


def test_nothing_ends_the_daemon() -> None:
    """Nor fills it; an honest client is served beside it."""
    report = Report()
    attack(report, range(4), frames=500)
    assert report.violations == []
    assert report.counts["frames"] >= 2_000


@pytest.mark.parametrize("bug", ["die of a bad frame", "keep bad frames"])
def test_planted_bug_is_caught(bug: str) -> None:
    """A daemon that ends at what it cannot read, and one that keeps it."""
    report = Report()
    attack(report, range(4), bug, frames=500)
    assert report.violations != []


@given(st.one_of(st.binary(max_size=300), st.sampled_from(sorted(golden_frames().values()))), st.integers(0, 255))
def test_framing_knows_only_protocol_errors(data: bytes, cut: int) -> None:
    """Whatever comes, in whatever pieces."""
    feed_framing(bytes([cut]) + data)
