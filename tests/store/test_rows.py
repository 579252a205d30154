"""Whatever somebody wrote into a row by hand, reading it gives a row or a miss, never an error."""

from __future__ import annotations

import pytest

from motoolsd.core.checksums import row_checksum
from motoolsd.store.rows import (
    Cell,
    bytes_of,
    entry_cell,
    has_files,
    is_damaged,
    key_of,
    listed_row,
    optional_text,
    text_of,
    timestamp,
)
from motoolsd.wire.entries import DatasetRow, EvalRow, ModelRow
from motoolsd.wire.keys import Kind, eval_key


@pytest.mark.parametrize(
    ("cell", "text"), [(b"caf\xc3\xa9", "café"), (b"\xff", "\ufffd"), (7, "7"), (1.5, "1.5"), (None, "")]
)
def test_any_cell_is_text(cell: Cell, text: str) -> None:
    """Columns take any type in SQLite; as text they can always be encoded again."""
    assert text_of(cell) == text
    text_of(cell).encode()


def test_null_and_empty_are_told_apart_where_it_matters() -> None:
    """NULL means unknown, an empty text is a text."""
    assert optional_text(None) is None
    assert optional_text(b"") == ""


def test_value_keeps_its_bytes() -> None:
    """A path that is no UTF-8 comes out as it was; a number as its digits."""
    assert bytes_of(b"/logs/\xff") == b"/logs/\xff"
    assert bytes_of(12) == b"12"


def test_key_of_an_evaluation_takes_an_empty_hash_for_null() -> None:
    """As the unique index does."""
    expected = eval_key("m", "t", "b", None)
    assert key_of(Kind.EVAL, (b"m", b"t", b"b", b"")) == key_of(Kind.EVAL, (b"m", b"t", b"b", None)) == expected


def test_checksum_contradicts_only_where_there_is_one() -> None:
    """NULL vouches for nothing; a wrong number, or a text somebody put there, is damage."""
    good = row_checksum("k", b"value")
    assert not is_damaged("k", b"value", good)
    assert not is_damaged("k", b"value", None)
    assert is_damaged("k", b"valuf", good)
    assert is_damaged("other", b"value", good)
    assert is_damaged("k", b"value", b"no number")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (b"2026-01-31 23:59:59", "2026-01-31T23:59:59Z"),
        (b"2026-01-31 23:59:59.123", "2026-01-31T23:59:59.123Z"),
        (b"yesterday", "yesterday"),
        (1700000000, "1700000000"),
        (None, None),
    ],
)
def test_timestamps_are_rfc_3339(cell: Cell, text: str | None) -> None:
    """SQLite's time stamps are UTC and are written so; what is none is handed on."""
    assert timestamp(cell) == text


UNTIL = b'["boot",7.5,1770000000.0]'
COMMON: tuple[Cell, ...] = (
    *(b"2026-01-31 23:59:59", None, 3, None, b"v1", b'{"a":"b"}', 1),
    *(4096, b"2026-02-01 00:00:00", b"file gone", b"of the paper", UNTIL, UNTIL),
    *(b"wrong prompt", 7.5, b'{"cost":1}', b"origin-of-ours..", 2),
)
SPOILT: tuple[Cell, ...] = (
    *(None, b"x", b"many", b"big", None, b"[not labels", b""),
    *(b"room", 7, 8, 9, b"tomorrow", b'["boot",0,1e300]'),
    *(7, b"long", 9, 5, b"some"),
)
UNVOID: tuple[Cell, ...] = (*COMMON[:9], b"expired", *COMMON[10:])


def test_rows_of_every_kind() -> None:
    """Each kind is listed with its own fields and those of all."""
    dataset = listed_row(Kind.DATASET, (1, b"file", *COMMON, b"d"))
    assert isinstance(dataset, DatasetRow)
    assert (dataset.value, dataset.dataset_hash, dataset.hits, dataset.labels) == (b"file", "d", 3, {"a": "b"})
    model = listed_row(Kind.MODEL, (1, b"model", *COMMON, b"k", None, b"{}", b"openai"))
    assert isinstance(model, ModelRow)
    assert (model.dataset_hash, model.config, model.pinned) == (None, b"{}", True)
    evaluation = listed_row(Kind.EVAL, (9, b"log", *COMMON, b"m", b"t", b"b", None, None))
    assert isinstance(evaluation, EvalRow)
    assert (evaluation.id, evaluation.kwargs_hash, evaluation.kwargs) == (9, None, None)


def test_spoilt_row_is_listed() -> None:
    """Texts where numbers belong, and labels that are no JSON, become defaults."""
    row = listed_row(Kind.DATASET, (1, 5, *SPOILT, None))
    assert (row.value, row.hits, row.size_bytes, row.labels, row.pinned) == (b"5", 0, None, {}, False)
    assert (row.allocated_bytes, row.missing_since, row.pin_reason) == (None, None, "9")
    assert (row.pinned_until, row.expires_at) == (None, None)


def test_what_protects_and_what_ends_is_listed() -> None:
    """Pins with their reason and end, the end of the entry, and since when its file is gone: all as RFC 3339."""
    row = listed_row(Kind.DATASET, (1, b"file", *COMMON, b"d"))
    assert (row.allocated_bytes, row.missing_since, row.pin_reason) == (4096, "2026-02-01T00:00:00Z", "of the paper")
    assert row.pinned_until == row.expires_at == "2026-02-02T02:40:00Z"


def test_only_a_file_that_is_gone_is_told_as_missing() -> None:
    """An entry that expired, or is damaged, misses too, but nothing of it is gone."""
    assert listed_row(Kind.DATASET, (1, b"file", *UNVOID, b"d")).missing_since is None


@pytest.mark.parametrize(("files", "has"), [(0, False), (None, False), (1, True), (7, True)])
def test_rows_with_files_are_known_by_their_count(files: Cell, *, has: bool) -> None:
    """Rows without are not asked for them."""
    cells = (5, b"file", *COMMON[:-1], files, b"d")
    assert has_files(cells) is has


def test_entry_is_named_as_files_name_it() -> None:
    """By hash or key, an evaluation by its number."""
    assert entry_cell(Kind.DATASET, (5, b"file", *COMMON, b"d")) == b"d"
    assert entry_cell(Kind.EVAL, (5, b"log", *COMMON, b"m", b"t", b"b", None, None)) == 5
