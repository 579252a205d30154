"""Deadlines hold over a boot, and whatever somebody does to the wall clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoolsd.core.deadlines import CLOCK_JUMP_MAX_S, Moment, unpacked

NOW = Moment("boot", 1_000.0, 1_770_000_000.0)
DAY_S = 86_400.0
SECONDS = st.floats(0, 1e9)
MOMENTS = st.builds(Moment, st.sampled_from(["boot", "next boot"]), SECONDS, st.floats(0, 4e9))


def test_deadline_is_over_from_its_very_moment() -> None:
    """Not before, and for good."""
    end = NOW.after(10)
    assert not end.is_over(NOW)
    assert not end.is_over(NOW.after(9.999))
    assert end.is_over(NOW.after(10))
    assert end.is_over(NOW.after(1e9))


def test_no_time_at_all_is_over_at_once() -> None:
    """A time to live of 0."""
    assert NOW.after(0).is_over(NOW)


@pytest.mark.parametrize("moved_s", [-1e9, -DAY_S, -1, 1, DAY_S, 1e9])
def test_wall_clock_counts_nothing_within_a_boot(moved_s: float) -> None:
    """Set back or forth, by hand or by NTP: what ends in a day ends in a day."""
    end = NOW.after(DAY_S)
    early = Moment(NOW.boot_id, NOW.boottime_s + DAY_S - 1, NOW.wall_s + DAY_S - 1 + moved_s)
    late = Moment(NOW.boot_id, NOW.boottime_s + DAY_S, NOW.wall_s + DAY_S + moved_s)
    assert not end.is_over(early)
    assert end.is_over(late)


@pytest.mark.parametrize("boottime_s", [0.0, 5.0, 1e8])
def test_after_a_boot_the_wall_clock_counts(boottime_s: float) -> None:
    """The other began anew: it may be below or above what it was."""
    end = NOW.after(DAY_S)
    assert not end.is_over(Moment("next boot", boottime_s, NOW.wall_s + DAY_S - 1))
    assert end.is_over(Moment("next boot", boottime_s, NOW.wall_s + DAY_S))


def test_jump_of_the_wall_clock_is_noticed() -> None:
    """Both ways; drift, leap seconds and what NTP does slowly are no jump."""
    later = NOW.after(10 * DAY_S)
    assert not NOW.has_jumped(later)
    for moved_s in (-CLOCK_JUMP_MAX_S, CLOCK_JUMP_MAX_S):
        assert not NOW.has_jumped(Moment("boot", later.boottime_s, later.wall_s + moved_s))
        assert NOW.has_jumped(Moment("boot", later.boottime_s, later.wall_s + 1.01 * moved_s))


def test_jump_is_told_apart_from_time_that_passed() -> None:
    """A suspended machine's clocks both go on."""
    assert not NOW.has_jumped(NOW.after(365 * DAY_S))
    assert NOW.has_jumped(Moment("boot", NOW.boottime_s, NOW.wall_s + 365 * DAY_S))


def test_deadline_is_shown_as_wall_clock_time() -> None:
    """RFC 3339 UTC, to the second."""
    assert NOW.text == "2026-02-02T02:40:00Z"
    assert Moment("boot", 0.0, 0.0).text == "1970-01-01T00:00:00Z"


@given(MOMENTS)
def test_stored_deadline_is_read_as_it_was(moment: Moment) -> None:
    """As text or as the bytes that the store's connections give."""
    assert unpacked(moment.packed()) == moment
    assert unpacked(moment.packed().encode()) == moment


@given(MOMENTS, MOMENTS, SECONDS)
def test_later_deadlines_are_over_later(start: Moment, now: Moment, seconds: float) -> None:
    """What is over would be over had it ended sooner."""
    if start.after(seconds).is_over(now):
        assert start.is_over(now)


@pytest.mark.parametrize(
    "stored",
    [
        *(None, b"", "", b"tomorrow", b"2026-01-31", b"1770000000", b"null", b"{}", b"[]", b'["boot"]', b'["boot",1]'),
        *(
            b'["boot","1",2]',
            b"[1,2,3]",
            b'["boot",1,null]',
            b'["\xff",1,2]',
            b"\xff",
            b'["boot",1,2',
            b'["boot",1,NaN]',
        ),
    ],
)
def test_what_somebody_wrote_by_hand_is_no_deadline(stored: bytes | str | None) -> None:
    """It never ends, and nothing fails."""
    assert unpacked(stored) is None


@pytest.mark.parametrize("wall_s", ["1e300", "-1e300", "253402300800", "1e12", "-1"])
def test_deadline_that_no_calendar_has_is_none(wall_s: str) -> None:
    """Every deadline that is read can be shown."""
    assert unpacked(f'["boot",1,{wall_s}]') is None
