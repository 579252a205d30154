"""Reading: values by key, slices for the index, pages for listings."""

from __future__ import annotations

import logging
import sqlite3

import pytest

from motoolsd.store.commits import commit_batch
from motoolsd.store.reads import FROM_START, Filter, key_cells, select_counts, select_page, select_slice, select_values
from motoolsd.wire.frames import FRAME_SIZE_MAX
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.messages import DatasetPage, WriteRequest
from motoolsd.wire.session import encode_reply
from tests.samples import NOW, execute, put_dataset, put_evals, put_model

EVERYTHING = Filter()


def store(raw: sqlite3.Connection, *requests: WriteRequest) -> None:
    """Write as the daemon does."""
    commit_batch(raw, requests, NOW, "cache.db")


def pages(
    raw: sqlite3.Connection, kind: Kind, only: Filter = EVERYTHING, *, rows_max: int, size_bytes: int
) -> list[list[bytes]]:
    """The values of every page of a listing."""
    found: list[list[bytes]] = []
    after: int | None = FROM_START
    while after is not None:
        page = select_page(raw, kind, only, after, rows_max=rows_max, size_bytes=size_bytes)
        found.append([row.value for row in page.rows])
        after = page.next_after
    return found


def test_values_that_are_no_utf8_round_trip_as_text(raw: sqlite3.Connection) -> None:
    """A file name is bytes; its column holds TEXT all the same, so that people can query it."""
    store(raw, put_dataset("d", b"/caf\xe9/\xff"), put_evals({"t": b"/log\xfe"}))
    assert select_values(raw, Kind.DATASET, ["d"]) == {"d": b"/caf\xe9/\xff"}
    key = eval_key("m", "t", "inspect", None)
    assert select_values(raw, Kind.EVAL, [key]) == {key: b"/log\xfe"}
    assert raw.execute("SELECT typeof(file_id) FROM dataset_files").fetchone() == (b"text",)


def test_damaged_row_is_a_miss_and_logged(
    raw: sqlite3.Connection, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that does not fit its checksum is never answered; the row is left for somebody to look at."""
    store(raw, put_dataset("good", b"value"), put_dataset("bad", b"value"))
    execute(
        database,
        "DROP TRIGGER dataset_files_forget_checksum;"
        "UPDATE dataset_files SET file_id = 'valuf' WHERE dataset_hash = 'bad';",
    )
    with caplog.at_level(logging.ERROR):
        assert select_values(raw, Kind.DATASET, ["good", "bad"]) == {"good": b"value"}
        assert select_slice(raw, Kind.DATASET, FROM_START, 10).entries == [("good", b"value")]
    assert caplog.text.count("damaged row: dataset 'bad'") == 2


def test_row_edited_by_hand_is_answered(raw: sqlite3.Connection, database: str) -> None:
    """An edit is no damage: the trigger has forgotten the checksum."""
    store(raw, put_dataset("d", b"value"))
    execute(database, "UPDATE dataset_files SET file_id = 'by hand';")
    assert select_values(raw, Kind.DATASET, ["d"]) == {"d": b"by hand"}


def test_key_of_an_evaluation_has_one_spelling() -> None:
    """The same columns spelled otherwise would live in another slot, and could be answered stale."""
    assert key_cells(Kind.EVAL, eval_key("m", "t", "b", None)) == ("m", "t", "b", None)
    for key in ('["m", "t", "b", null]', '["m","t","b"]', '["m","t","b",""]x', "k", '{"m":1}'):
        with pytest.raises(ValueError, match="not the key of an evaluation"):
            key_cells(Kind.EVAL, key)


def test_failed_read_leaves_no_transaction_open(raw: sqlite3.Connection) -> None:
    """A key that is none of ours does not block the next read."""
    with pytest.raises(ValueError, match="not the key"):
        select_values(raw, Kind.EVAL, ["nonsense"])
    assert not raw.in_transaction


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_slices_hold_every_row_once(raw: sqlite3.Connection, limit: int) -> None:
    """Whatever their size, slices follow each other without gap or overlap, negative row numbers included."""
    store(raw, *[put_dataset(f"d{i}") for i in range(6)])
    raw.execute("UPDATE dataset_files SET rowid = -5 WHERE dataset_hash = 'd3'")
    keys: list[str] = []
    after: int | None = FROM_START
    while after is not None:
        part = select_slice(raw, Kind.DATASET, after, limit)
        keys += [key for key, _ in part.entries]
        after = part.next_after
    assert keys == ["d3", "d0", "d1", "d2", "d4", "d5"]


def test_pages_follow_insertion_order(raw: sqlite3.Connection) -> None:
    """A listing has the order in which entries were first stored; replacing a value moves nothing."""
    store(raw, *[put_dataset(f"d{i}", b"%d" % i) for i in (3, 1, 2)])
    store(raw, put_dataset("d1", b"new"))
    assert pages(raw, Kind.DATASET, rows_max=2, size_bytes=10**6) == [[b"3", b"new"], [b"2"]]


def test_page_ends_before_the_row_that_would_be_too_much(raw: sqlite3.Connection) -> None:
    """Pages are cut by bytes; a row that is larger than a page stands alone."""
    store(raw, *[put_dataset(f"d{i}", b"x" * size) for i, size in enumerate((100, 100, 5000, 100))])
    lengths = [[len(value) for value in page] for page in pages(raw, Kind.DATASET, rows_max=100, size_bytes=1000)]
    assert lengths == [[100, 100], [5000], [100]]


def test_largest_rows_fit_into_a_frame(raw: sqlite3.Connection) -> None:
    """A page of the largest values that can be stored is never too large to be sent."""
    size = FRAME_SIZE_MAX // 4
    store(raw, *[put_dataset(f"d{i}", b"x" * size) for i in range(3)])
    page = select_page(raw, Kind.DATASET, EVERYTHING, FROM_START, rows_max=1000, size_bytes=262_144)
    assert len(page.rows) == 1
    assert len(encode_reply(1, DatasetPage(items=list(page.rows)))) > size  # type: ignore[arg-type]


def test_listing_of_an_empty_table_is_one_empty_page(raw: sqlite3.Connection) -> None:
    """There is always a last page."""
    assert pages(raw, Kind.MODEL, rows_max=10, size_bytes=10) == [[]]


def test_listings_are_narrowed(raw: sqlite3.Connection) -> None:
    """By model id, where that is the value of a model and part of an evaluation's key, and by task id."""
    store(raw, put_model("d1", b"m1"), put_model("d2", b"m2"))
    store(raw, put_evals({"t1": b"a", "t2": b"b"}, model_id="m1"), put_evals({"t1": b"c"}, model_id="m2"))
    assert pages(raw, Kind.MODEL, Filter(model_id="m2"), rows_max=10, size_bytes=1000) == [[b"m2"]]
    assert pages(raw, Kind.EVAL, Filter(model_id="m1"), rows_max=10, size_bytes=1000) == [[b"a", b"b"]]
    assert pages(raw, Kind.EVAL, Filter(task_id="t1"), rows_max=10, size_bytes=1000) == [[b"a", b"c"]]
    assert pages(raw, Kind.EVAL, Filter("m1", "t1"), rows_max=10, size_bytes=1000) == [[b"a"]]


def test_counts(raw: sqlite3.Connection) -> None:
    """Rows of each kind."""
    store(raw, put_dataset("d"), put_evals({"t1": b"a", "t2": b"b"}))
    assert select_counts(raw) == {Kind.DATASET: 1, Kind.MODEL: 0, Kind.EVAL: 2}
