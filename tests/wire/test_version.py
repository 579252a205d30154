"""Versions compare by their release numbers."""

from __future__ import annotations

import pytest

from motoolsd.wire.version import __version__, release


@pytest.mark.parametrize(
    ("text", "numbers"), [("1.10.0", (1, 10, 0)), ("0.2.0rc1", (0, 2, 0)), ("1.0.dev3", (1, 0)), ("", ()), ("x", ())]
)
def test_release_is_the_leading_numbers(text: str, numbers: tuple[int, ...]) -> None:
    """Suffixes are left out; nothing is no release."""
    assert release(text) == numbers


def test_version_of_nobody_is_no_error() -> None:
    """The text comes from the other side: thousands of digits are not a number."""
    assert release("1." + "9" * 5000) == (1,)


def test_our_own_version_has_a_release() -> None:
    """Else no upgrade would ever be asked for."""
    assert len(release(__version__)) == 3
