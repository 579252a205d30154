"""The version of the distribution, where both sides can read it without importlib.metadata.

Layer: wire. Imports nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"

DIGITS_MAX = 18
"""In one number of a version. The text comes from the other side, and int() raises on thousands of digits."""


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, comparable: `release("1.10.0rc1") == (1, 10, 0)`.

    Pre-release suffixes compare equal to their release: an upgrade is asked for between releases only.
    """
    numbers: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not 0 < len(digits) <= DIGITS_MAX:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)
