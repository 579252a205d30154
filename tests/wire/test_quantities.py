"""Sizes and durations are read as people write them, or refused with an example."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoolsd.wire.quantities import DURATION_MAX_S, SIZE_MAX_BYTES, parse_duration, parse_size

UNITS = dict.fromkeys(["", "B"], 1) | {
    f"{prefix}{unit}": factor**power
    for power, prefix in enumerate("kMGTP", 1)
    for unit, factor in (("", 1000), ("B", 1000), ("iB", 1024))
}
SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("123", 123),
        ("50GB", 50 * 10**9),
        ("50 gb", 50 * 10**9),
        ("  1.5 GiB ", 3 * 2**29),
        ("1.5GB", 1_500_000_000),
        ("10k", 10_000),
        ("0.1B", 0),
        (0, 0),
        (7, 7),
        (7.9, 7),
        (SIZE_MAX_BYTES, SIZE_MAX_BYTES),
        (str(SIZE_MAX_BYTES), SIZE_MAX_BYTES),
    ],
)
def test_sizes_are_read(text: str | float, size_bytes: int) -> None:
    """Units of 1000 and of 1024 are told apart, case and blanks count nothing, parts of a byte go."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "GB", "-1", "-1GB", "+5GB", "1,5GB", "1.GB", ".5GB", "5 G B", "5GBs", "5XB", "5iB", "1e3", "0x10"),
        *("ten", "5GB 3MB", "1_000", "5bB", "5kk", "inf", "nan", "\0", "5GB\0", "9" * 400, "5000PiB", "4.7e18"),
        *(-1, -0.5, SIZE_MAX_BYTES + 1, 10**400, math.inf, -math.inf, math.nan, True, False),
    ],
)
def test_what_is_no_size_is_refused_with_an_example(text: str | float) -> None:
    """Nothing is guessed: what would be removed depends on it."""
    with pytest.raises(ValueError, match="is no size: write a number of bytes, or one with a unit, as in 50GB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("24h", 86_400),
        ("30d", 2_592_000),
        ("2w", 1_209_600),
        ("1d12h", 129_600),
        ("1d 12h 30min", 131_400),
        (" 5 m ", 300),
        ("1.5H", 5_400),
        ("0", 0),
        ("0.0", 0),
        ("0s", 0),
        (0, 0),
        (1.25, 1.25),
        (DURATION_MAX_S, DURATION_MAX_S),
    ],
)
def test_durations_are_read(text: str | float, seconds: float) -> None:
    """A number, not a text, is seconds; parts with units add up."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "d",
            "-1d",
            "+1d",
            "1d12",
            "12 1d",
            "30",
            "0.5",
            "1y",
            "1mo",
            "1d,12h",
            "d1",
            "1dd",
            "1.d",
            ".5d",
            "1e3s",
            "1:30",
        ),
        *("tomorrow", "nan", "inf", "1_0s", "9" * 400, "9" * 400 + "s", "100000w", "1d\0", "\0", "P1D"),
        *(-1, -0.1, DURATION_MAX_S * 1.01, math.inf, math.nan, True, False),
    ],
)
def test_what_is_no_duration_is_refused_with_an_example(text: str | float) -> None:
    """What is older than that would be removed: nothing is guessed."""
    with pytest.raises(ValueError, match="is no duration: write it with units, as in 90s, 24h, 30d"):
        parse_duration(text)


def test_duration_beyond_every_float_is_refused() -> None:
    """TOML and Python have integers of any length."""
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(10**400)


@given(
    st.integers(0, 10**6),
    st.sampled_from(sorted(UNITS)),
    st.sampled_from(["", " "]),
    st.sampled_from([str.lower, str.upper]),
)
def test_number_times_unit(number: int, unit: str, blank: str, spell: Callable[[str], str]) -> None:
    """Whatever the number, unit and case."""
    text = f"{number}{blank}{spell(unit)}"
    if number * UNITS[unit] <= SIZE_MAX_BYTES:
        assert parse_size(text) == number * UNITS[unit]


@given(st.lists(st.tuples(st.integers(0, 1_000), st.sampled_from(sorted(SECONDS))), min_size=1, max_size=5))
def test_parts_add_up(parts: list[tuple[int, str]]) -> None:
    """In any order and number."""
    text = "".join(f"{number}{unit}" for number, unit in parts)
    total = sum(number * SECONDS[unit] for number, unit in parts)
    if total <= DURATION_MAX_S:
        assert parse_duration(text) == total


@given(st.text(max_size=12) | st.floats() | st.integers() | st.text("0123456789.kmgtpibshdw -", max_size=8))
def test_anything_is_a_quantity_in_bounds_or_refused(text: str | float) -> None:
    """No other error, nothing out of bounds, whatever is given."""
    for parse, maximum in ((parse_size, SIZE_MAX_BYTES), (parse_duration, DURATION_MAX_S)):
        with contextlib.suppress(ValueError):
            assert 0 <= parse(text) <= maximum
