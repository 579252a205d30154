"""A full disk, one without inodes, a read-only one: the short form, and a daemon that it must find guilty."""

from __future__ import annotations

import pytest

from tests.faults.attack import Report
from tests.faults.disk import unavailable
from tests.faults.full_disk import PLACES, attack

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("place", PLACES)
def test_what_is_stored_can_be_read_and_the_rest_is_refused_in_words(place: str) -> None:
    """Clean-ups work there, a daemon starts there, and writes work again when there is room."""
    kinds = () if place in ("tmpfs", "inodes") else (place,) if place in ("ext4", "xfs") else ("ext4",)
    if (reason := unavailable(*kinds)()) is not None:
        pytest.skip(reason)
    report = Report()
    number = PLACES.index(place)
    attack(report, range(number, number + 1))
    assert report.violations == []
    assert report.counts[place] == 1
    assert report.counts["acknowledged"] >= 5
    assert report.counts["refused"] >= 5
    if place != "read-only":
        assert report.counts["starts on a full disk"] == 1
        assert report.counts["clean-ups on a full disk"] == 3


@pytest.mark.parametrize("place", ["tmpfs", "read-only"])
def test_planted_bug_is_caught(place: str) -> None:
    """A daemon that answers refused writes as stored."""
    if (reason := unavailable(*(() if place == "tmpfs" else ("ext4",)))()) is not None:
        pytest.skip(reason)
    report = Report()
    number = PLACES.index(place)
    attack(report, range(number, number + 1), "swallow failures")
    assert report.violations, report
