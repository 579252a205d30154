"""Sizes and durations as people write them: `50GB`, `1.5 GiB`, `30d`, `1d12h`.

Layer: wire. Imports nothing.
Invariant: what cannot be read is refused with an example, never guessed. (Looked at first: humanfriendly, pytimeparse,
which read more than is unambiguous, such as `5m` for five months or minutes, and cost an import at every start.)
"""

from __future__ import annotations

import re
from typing import Final

_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.IGNORECASE)
_DECIMAL: Final = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_BINARY: Final = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
_SECONDS: Final = {"s": 1, "min": 60, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
SIZE_MAX_BYTES: Final = 2**62
DURATION_MAX_S: Final = 1e9
"""Thirty years."""


def parse_size(text: str | float) -> int:
    """Bytes: a number, or a text with a unit: B, kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (of 1024).

    Raises:
        ValueError: it is neither, or out of bounds; the text says what is expected.
    """
    size: float | None = None
    if isinstance(text, str):
        if (found := _SIZE.fullmatch(text)) is not None:
            number, unit = float(found[1]), found[2].lower()
            size = None if (factor := _size_factor(unit)) is None else number * factor
    elif not isinstance(text, bool):
        size = text
    if size is None or not 0 <= size <= SIZE_MAX_BYTES:
        raise ValueError(f"{text!r} is no size: write a number of bytes, or one with a unit, as in 50GB or 1.5GiB")
    return int(size)


def _size_factor(unit: str) -> int | None:
    if unit in ("", "b"):
        return 1
    if unit.endswith("ib"):
        return _BINARY.get(unit.removesuffix("ib"))
    return _DECIMAL.get(unit.removesuffix("b"))


def parse_duration(text: str | float) -> float:
    """Seconds: a number, or a text of parts with units: s, m or min, h, d, w, as in `90s`, `24h`, `1d12h`.

    A text that is a number is no duration, but for 0: somebody who writes 30 means days as often as seconds.

    Raises:
        ValueError: it is neither, or out of bounds; the text says what is expected.
    """
    seconds: float | None = None
    if isinstance(text, str):
        seconds = _summed(text.strip())
    elif not isinstance(text, bool):
        seconds = text  # an int may be too large for a float
    if seconds is None or not 0 <= seconds <= DURATION_MAX_S:
        raise ValueError(f"{text!r} is no duration: write it with units, as in 90s, 24h, 30d, 2w or 1d12h")
    return float(seconds)


def _summed(text: str) -> float | None:
    if re.fullmatch(r"0+(?:\.0+)?", text):
        return 0.0
    total = 0.0
    position = 0
    while position < len(text):
        found = _PART.match(text, position)
        if found is None or (factor := _SECONDS.get(found[2].lower())) is None:
            return None
        total += float(found[1]) * factor
        position = found.end()
    return total if text else None
