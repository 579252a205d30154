"""So many lines in a second, and no more: a failing disk must not fill what is left of it with complaints.

Layer: adapters. Imports nothing of motoolsd.
Invariant: the first line of a kind always comes through, and how many were left out is said with the next line.
"""

from __future__ import annotations

import logging
from typing import Final

LINES_PER_SECOND: Final = 8
"""Of kinds that were seen before; with a new kind or two it is ten at most."""
KINDS_MAX: Final = 256
"""Kinds that are remembered: more than this program has."""


_IS_SAID: Final = "is_said"


class LineLimit(logging.Filter):
    """Lets records through, or leaves them out; one for all handlers of a process.

    A kind is a logger and the text before its arguments.
    """

    def __init__(self, lines_per_second: int = LINES_PER_SECOND) -> None:
        """Nothing was said yet."""
        super().__init__()
        self._lines_per_second = lines_per_second
        self._second = 0
        self._said = 0
        self._left_out = 0
        self._seen: set[tuple[str, str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is to be written; with what was left out before it in its text. All handlers get one answer."""
        if (is_said := getattr(record, _IS_SAID, None)) is None:
            is_said = self._decide(record)
            setattr(record, _IS_SAID, is_said)
        return bool(is_said)

    def _decide(self, record: logging.LogRecord) -> bool:
        if (second := int(record.created)) != self._second:
            self._second, self._said = second, 0
        kind = (record.name, str(record.msg)[:100])
        if self._said >= self._lines_per_second and kind in self._seen:
            self._left_out += 1
            return False
        if len(self._seen) < KINDS_MAX:
            self._seen.add(kind)
        self._said += 1
        if self._left_out:
            record.msg = f"{record.getMessage()} ({self._left_out:,} lines before this one were left out)"
            record.args = None
            self._left_out = 0
        return True
