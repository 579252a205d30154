"""Reading: values by key, slices for the index, pages for listings."""

from __future__ import annotations

import logging
import sqlite3

import pytest

from motoolsd.core.deadlines import Moment
from motoolsd.core.guards import DAMAGED, EXPIRED, MISSING, Guard
from motoolsd.store.commits import commit_batch
from motoolsd.store.entries import SetPin, SetVoid
from motoolsd.store.ownership import key_cells
from motoolsd.store.reads import (
    FROM_START,
    Filter,
    select_counts,
    select_damaged,
    select_integrity,
    select_page,
    select_slice,
    select_value,
    select_values,
)
from motoolsd.store.rows import TABLES
from motoolsd.store.writes import BatchItem
from motoolsd.wire.frames import FRAME_SIZE_MAX
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.listing import DatasetPage
from motoolsd.wire.messages import WriteRequest
from motoolsd.wire.session import encode_reply
from tests.samples import NOW, committed, execute, publication, put_dataset, put_evals, put_model

EVERYTHING = Filter()
END = Moment("boot", 1.0, 1_770_000_000.0)


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
    assert select_values(raw, Kind.DATASET, ["d"]).found == {"d": b"/caf\xe9/\xff"}
    key = eval_key("m", "t", "inspect", None)
    assert select_values(raw, Kind.EVAL, [key]).found == {key: b"/log\xfe"}
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
        assert select_values(raw, Kind.DATASET, ["good", "bad"]).found == {"good": b"value"}
        assert select_slice(raw, Kind.DATASET, FROM_START, 10).entries == [("good", b"value")]
    assert caplog.text.count("damaged row: dataset 'bad'") == 2


def test_row_edited_by_hand_is_answered(raw: sqlite3.Connection, database: str) -> None:
    """An edit is no damage: the trigger has forgotten the checksum."""
    store(raw, put_dataset("d", b"value"))
    execute(database, "UPDATE dataset_files SET file_id = 'by hand';")
    assert select_values(raw, Kind.DATASET, ["d"]).found == {"d": b"by hand"}


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


def test_values_and_slices_tell_what_they_depend_on(raw: sqlite3.Connection) -> None:
    """Files, an end, or both; most depend on nothing, and are not among the guards."""
    committed(
        raw,
        put_dataset("plain"),
        publication(put_dataset("files"), b"datasets/\xff", b"datasets/a"),
        publication(put_dataset("ends"), expires=END),
        publication(put_dataset("both"), b"datasets/b", expires=END),
    )
    guards = {
        "files": Guard((b"datasets/a", b"datasets/\xff")),
        "ends": Guard((), END),
        "both": Guard((b"datasets/b",), END),
    }
    assert select_values(raw, Kind.DATASET, ["plain", "files", "ends", "both", "none"]).guards == guards
    found = select_slice(raw, Kind.DATASET, FROM_START, 10)
    assert dict(found.guards) == guards
    assert [key for key, _ in found.entries] == ["plain", "files", "ends", "both"]


@pytest.mark.parametrize("expires", ["'tomorrow'", "7", "x'c1'", "'[\"boot\",1,1e300]'"])
def test_end_written_by_hand_that_cannot_be_read_is_none(raw: sqlite3.Connection, database: str, expires: str) -> None:
    """The entry counts, and is listed."""
    committed(raw, put_dataset("d"))
    execute(database, f"UPDATE dataset_files SET expires_at = {expires};")
    assert select_values(raw, Kind.DATASET, ["d"]) == ({"d": b"file"}, {})
    assert dict(select_slice(raw, Kind.DATASET, FROM_START, 10).guards) == {}
    page = select_page(raw, Kind.DATASET, EVERYTHING, FROM_START, rows_max=10, size_bytes=1000)
    assert page.rows[0].expires_at is None


@pytest.mark.parametrize("count", [-1, 1, 10**6])
def test_count_of_files_written_by_hand_invents_none(raw: sqlite3.Connection, database: str, count: int) -> None:
    """What it depends on is what stands in motoolsd_files."""
    committed(raw, put_dataset("d"))
    execute(database, f"UPDATE dataset_files SET files = {count};")
    assert select_values(raw, Kind.DATASET, ["d"]) == ({"d": b"file"}, {})
    page = select_page(raw, Kind.DATASET, EVERYTHING, FROM_START, rows_max=10, size_bytes=1000)
    assert page.rows[0].files == ()


@pytest.mark.parametrize("reason", [MISSING, EXPIRED, DAMAGED])
def test_void_row_misses_and_is_listed(raw: sqlite3.Connection, reason: str) -> None:
    """Whatever it holds; a void row does not end a slice, or shift the next."""
    committed(raw, *[put_dataset(f"d{number}") for number in range(4)])
    committed(raw, SetVoid(((Kind.DATASET, "d1"), (Kind.DATASET, "d2")), reason))
    assert select_value(raw, Kind.DATASET, "d1") is None
    assert set(select_values(raw, Kind.DATASET, ["d0", "d1", "d2", "d3"]).found) == {"d0", "d3"}
    part = select_slice(raw, Kind.DATASET, FROM_START, 3)
    assert [key for key, _ in part.entries] == ["d0"]
    assert part.next_after is not None
    assert [key for key, _ in select_slice(raw, Kind.DATASET, part.next_after, 3).entries] == ["d3"]
    assert len(pages(raw, Kind.DATASET, rows_max=10, size_bytes=1000)[0]) == 4


def test_listing_has_files_pins_and_ends(raw: sqlite3.Connection) -> None:
    """Of each entry its own, whatever stands beside it."""
    committed(raw, put_evals({"a": b"1"}), publication(put_evals({"b": b"2"}), b"evals/b", expires=END))
    committed(raw, SetPin(kinds=(Kind.EVAL,), name="2", is_pinned=True, reason="r", until=END))
    first, second = select_page(raw, Kind.EVAL, EVERYTHING, FROM_START, rows_max=10, size_bytes=1000).rows
    assert (first.files, first.pinned, first.expires_at) == ((), False, None)
    assert (second.files, second.allocated_bytes) == ((b"evals/b",), 4096)
    assert (second.pinned, second.pin_reason, second.pinned_until, second.expires_at) == (True, "r", END.text, END.text)


@pytest.mark.parametrize("limit", [1, 2, 10])
@pytest.mark.parametrize("kind", list(Kind))
def test_damaged_rows_are_found_page_by_page(raw: sqlite3.Connection, database: str, kind: Kind, limit: int) -> None:
    """All of them, once each; rows that were edited by hand, or miss for their damage already, are left out."""
    puts: dict[Kind, list[BatchItem]] = {
        Kind.DATASET: [put_dataset(name) for name in "abcd"],
        Kind.MODEL: [put_model(name) for name in "abcd"],
        Kind.EVAL: [put_evals({name: b"log"}) for name in "abcd"],
    }
    keys = [outcome.stored[0][1] for outcome in committed(raw, *puts[kind])]
    execute(
        database,
        f"UPDATE {TABLES[kind]} SET checksum = checksum + 1 WHERE rowid IN (2, 3);"
        f"UPDATE {TABLES[kind]} SET checksum = NULL WHERE rowid = 4;",
    )
    committed(raw, SetVoid(((kind, keys[2]),), DAMAGED))
    found: list[str] = []
    looked_at = 0
    after: int | None = FROM_START
    while after is not None:
        part = select_damaged(raw, kind, after, limit)
        found += part.keys
        looked_at += part.rows
        after = part.next_after
    assert (found, looked_at) == ([keys[1]], 4)


def test_whole_database_has_nothing_wrong(raw: sqlite3.Connection) -> None:
    """SQLite says `ok`, which is no finding."""
    committed(raw, put_dataset("d"))
    assert select_integrity(raw) == []


def test_index_that_lost_an_entry_is_a_finding(raw: sqlite3.Connection, database: str) -> None:
    """What SQLite finds is told in its words."""
    committed(raw, publication(put_dataset("d"), b"datasets/d"))
    execute(
        database,
        "PRAGMA writable_schema = ON;"
        "UPDATE sqlite_master SET sql = 'CREATE INDEX motoolsd_files_by_path ON motoolsd_files (size_bytes)'"
        " WHERE name = 'motoolsd_files_by_path';",
    )
    raw.execute("PRAGMA writable_schema = RESET")
    assert any("motoolsd_files_by_path" in finding for finding in select_integrity(raw))
