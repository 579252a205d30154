"""Tables for people: cells made safe to show, columns laid out."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motools.cli.tables import (
    Column,
    cell_width,
    duration_text,
    note_lines,
    pair_lines,
    plain,
    shown,
    shown_lines,
    size_text,
    table_lines,
    time_text,
    wrapped,
)

HASH = "0123456789abcdef" * 4
COLUMNS = (Column("id", plain("id")), Column("hits", plain("hits"), is_number=True))
HOSTILE = {
    "\x1b[2J\x1b]0;title\x07": r"\x1b[2J\x1b]0;title\x07",
    "two\nlines\r\t": r"two\nlines\r\t",
    "\u202egnp.exe\u2066": r"\u202egnp.exe\u2066",
    "\u200b\u2028\x85": r"\u200b\u2028\x85",
    "\udcff.eval": r"\xff.eval",
    "\ud800": r"\ud800",
    "[bold red]x[/]": "[bold red]x[/]",
}


@pytest.mark.parametrize(("stored", "cell"), HOSTILE.items())
def test_nothing_that_is_stored_is_obeyed_by_the_terminal(stored: str, cell: str) -> None:
    """Escapes, line breaks, direction marks, invisible characters and stray bytes are written out; markup is text."""
    assert shown(stored) == cell


@given(st.text(st.characters(exclude_categories=())))
def test_every_cell_is_one_printable_line(text: str) -> None:
    """Whatever a text holds, lone surrogates included, its cell can be printed and encoded."""
    cell = shown(text)
    assert cell.isprintable()
    assert len(cell.encode().splitlines()) <= 1
    assert text != cell or text.isprintable()


def test_values_that_are_no_text_are_shown_as_json() -> None:
    """Mappings, numbers and truth values appear as they would in JSON, letters of any language readable."""
    assert shown({"lr": 1e-4, "tags": ["ä", None, True]}) == '{"lr": 0.0001, "tags": ["ä", null, true]}'
    assert shown(3) == "3"
    assert shown(None) == "-"


def test_a_text_of_several_lines_keeps_its_lines_and_tabs() -> None:
    """In messages and logs, line breaks are wanted; everything else is written out as in a cell."""
    assert shown_lines("one\ttab\nred \x1b[31m\n") == "one\ttab\nred \\x1b[31m\n"


def test_numbers_stand_right_and_texts_left() -> None:
    """Digits of one column stand under each other, and no line ends in blanks."""
    items = [{"id": "a", "hits": 5}, {"id": "longer", "hits": 1234}]
    assert table_lines(COLUMNS, items, width=80) == ["id      hits", "a          5", "longer  1234"]
    assert table_lines((COLUMNS[1], COLUMNS[0]), items, width=80) == ["hits  id", "   5  a", "1234  longer"]


def test_ids_stay_whole_on_a_narrow_terminal() -> None:
    """Where a line would not fit, each item is a block of lines, so that an id can be copied."""
    items = [{"id": HASH, "hits": 5}, {"id": "b", "hits": 0}]
    assert table_lines(COLUMNS, items, width=40) == [f"id    {HASH}", "hits  5", "", "id    b", "hits  0"]


@pytest.mark.parametrize(("width", "is_table"), [(70, True), (69, False), (None, True)])
def test_a_table_may_be_as_wide_as_the_terminal_and_no_wider(width: int | None, *, is_table: bool) -> None:
    """The last column of the terminal is used; where there is no terminal, lines may be long."""
    lines = table_lines(COLUMNS, [{"id": HASH, "hits": 5}], width=width)
    assert (lines[0] == f"{'id':<64}  hits") is is_table


def test_wide_letters_do_not_shift_the_next_column() -> None:
    """East Asian letters take two places of a terminal, combining marks none."""
    items = [{"id": "模型", "hits": 1}, {"id": "e\u0301", "hits": 1}]
    assert cell_width("模型") == 4
    assert cell_width("e\u0301") == 1
    assert [cell_width(line) for line in table_lines(COLUMNS, items, width=80)] == [10, 10, 10]


@given(st.text(st.characters(categories=("L", "M", "N", "P", "S"))))
def test_a_cell_is_as_wide_as_the_standard_says(text: str) -> None:
    """Each character counts by its East Asian width, whatever way the sum is taken."""
    widths = {"W": 2, "F": 2}
    expected = sum(
        0 if unicodedata.combining(char) else widths.get(unicodedata.east_asian_width(char), 1) for char in text
    )
    assert cell_width(text) == expected


def test_a_table_without_items_is_its_heading() -> None:
    """There is always a heading to see what there would be."""
    assert table_lines(COLUMNS, [], width=80) == ["id  hits"]


def test_the_heading_stands_out_where_asked_for() -> None:
    """Bold is begun and ended on the heading's own line."""
    heading, row = table_lines(COLUMNS, [{"id": "a", "hits": 1}], width=80, is_bold=True)
    assert heading == "\x1b[1mid  hits\x1b[0m"
    assert row == "a      1"


def test_a_huge_value_does_not_make_every_line_huge() -> None:
    """One value of a megabyte in ten thousand items is shortened, and leaves the others' lines as they are."""
    items = [{"id": "x" * 1_000_000, "hits": 0}, *({"id": "b", "hits": 0} for _ in range(9_999))]
    lines = table_lines(COLUMNS, items, width=None)
    assert sum(map(len, lines)) < 4_000_000
    assert lines[1] == f"{'x' * 2_000}... (1,000,000 characters)     0"


def test_pairs_are_aligned() -> None:
    """Values of a short table stand under each other."""
    assert pair_lines([("datasets", "5"), ("total size", "1.2 MiB")]) == ["datasets    5", "total size  1.2 MiB"]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1024**3, "1.0 GiB"),
        (3 * 1024**4, "3.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_sizes_read_well(size_bytes: int, text: str) -> None:
    """Bytes in the largest unit that leaves a number from 1 to 1023."""
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.9, "0 s"),
        (45, "45 s"),
        (192.7, "3 min 12 s"),
        (900, "15 min"),
        (3600, "1 h"),
        (18_120, "5 h 2 min"),
        (86_400 * 3 + 3600 * 4 + 59, "3 d 4 h"),
        (86_400 + 30, "1 d"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    """A duration in its two largest units, without those that are zero."""
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("stamp", "text"),
    [
        ("2026-01-31T23:59:59.123Z", "2026-01-31 23:59:59"),
        ("2026-01-31T23:59:59Z", "2026-01-31 23:59:59"),
        (None, "-"),
        ("\x1b[31mby hand", r"\x1b[31mby hand"),
    ],
)
def test_times_read_well(stamp: str | None, text: str) -> None:
    """Times to the second, in UTC; what somebody wrote there by hand is no danger."""
    assert time_text(stamp) == text


def test_messages_break_between_words_and_never_inside_a_command() -> None:
    """What is to be typed stays on one line, however long; line breaks that were there stay."""
    text = "no cache here: make one with `motools daemon start --cache-dir /a/b`.\nMore"
    assert wrapped(text, 30) == "no cache here: make one with\n`motools daemon start --cache-dir /a/b`.\nMore"
    assert wrapped(text, 200) == text


def test_notes_are_broken_between_words_and_never_inside_a_command() -> None:
    """Columns stand under each other; without a width, every note is one line."""
    rows = [
        (("ok", "lock"), "held by pid 7"),
        (("problem", "socket"), "it is stale"),
        ((), "next: `rm the socket` now"),
    ]
    assert note_lines(rows, width=None) == [
        "ok       lock    held by pid 7",
        "problem  socket  it is stale",
        "                 next: `rm the socket` now",
    ]
    assert note_lines(rows, width=28) == [
        "ok       lock    held by pid",
        "                 7",
        "problem  socket  it is stale",
        "                 next:",
        "                 `rm the socket`",
        "                 now",
    ]
    assert note_lines([], width=80) == []
