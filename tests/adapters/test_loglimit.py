"""A log that is not flooded."""

from __future__ import annotations

import logging

from motoolsd.adapters.loglimit import LineLimit


def record(created_s: float, text: str = "commit of %d writes failed", *args: object) -> logging.LogRecord:
    """As a logger makes it."""
    made = logging.LogRecord("motoolsd.engine.writer", logging.ERROR, "writer.py", 1, text, args or (1,), None)
    made.created = created_s
    return made


def test_flood_of_one_kind_is_cut_and_counted() -> None:
    """So many in a second; the next second begins by saying how many were left out."""
    limit = LineLimit(lines_per_second=3)
    assert [limit.filter(record(100.0 + number / 100)) for number in range(10)] == [True] * 3 + [False] * 7
    later = record(101.5)
    assert limit.filter(later)
    assert later.getMessage() == "commit of 1 writes failed (7 lines before this one were left out)"
    again = record(101.6)
    assert limit.filter(again)
    assert again.getMessage() == "commit of 1 writes failed"


def test_first_line_of_a_kind_comes_through_a_flood() -> None:
    """What is new is never left out."""
    limit = LineLimit(lines_per_second=1)
    assert [limit.filter(record(100.0)) for _ in range(3)] == [True, False, False]
    new = record(100.1, "stopping: %s", "SIGTERM")
    assert limit.filter(new)
    assert new.getMessage() == "stopping: SIGTERM (2 lines before this one were left out)"


def test_clock_that_goes_back_silences_nobody() -> None:
    """Another second is another second."""
    limit = LineLimit(lines_per_second=1)
    assert limit.filter(record(100.0))
    assert limit.filter(record(99.0))


def test_handlers_write_the_same() -> None:
    """A log file and a terminal: each line once in both, or in none."""
    limit = LineLimit(lines_per_second=1)
    first, second, third = record(100.0), record(100.1), record(101.0)
    assert [limit.filter(one) for one in (first, first, second, second, third, third)] == [
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    assert third.getMessage().count("left out") == 1
