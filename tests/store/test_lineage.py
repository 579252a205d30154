"""One entry by what somebody calls it, and what it was made from and for."""

from __future__ import annotations

import sqlite3

import pytest

from motoolsd.store.lineage import (
    Named,
    count_products,
    select_beginning,
    select_named,
    select_products,
    select_row,
    select_sources,
)
from motoolsd.wire.entries import DatasetRow, EvalRow, ModelRow
from motoolsd.wire.keys import Kind, eval_key, json_hash
from tests.samples import committed, publication, put_dataset, put_evals, put_model
from tests.signing import key_of_model

KWARGS = b'{"limit": 5}'
HASH = json_hash(KWARGS.decode())


def names(found: list[Named]) -> list[str]:
    """Their values."""
    return ["" if one.value is None else one.value.decode("utf-8", "backslashreplace") for one in found]


def named(raw: sqlite3.Connection, kind: Kind, name: str, limit: int = 10) -> list[str]:
    """The values of the entries that a name means."""
    return names(select_named(raw, kind, name, limit) or select_beginning(raw, kind, name, limit))


def test_dataset_is_found_by_hash_file_and_beginning(raw: sqlite3.Connection) -> None:
    """All that somebody may have at hand."""
    committed(raw, put_dataset("abc1", b"file-1"), put_dataset("abc2", b"file-2"))
    for name in ("abc1", "file-1"):
        assert named(raw, Kind.DATASET, name) == ["file-1"]
    for name in ("abc", "file-", "f", ""):
        assert named(raw, Kind.DATASET, name) == ["file-2", "file-1"]
    assert named(raw, Kind.DATASET, "", 1) == ["file-2"]
    for name in ("bc1", "FILE-1", "abc_", "abc%", "abc*", "file-11"):
        assert named(raw, Kind.DATASET, name) == []


def test_whole_name_hides_those_that_begin_with_it(raw: sqlite3.Connection) -> None:
    """One name is the beginning of another."""
    committed(raw, put_dataset("abc", b"x"), put_dataset("abcd", b"y"), put_dataset("other", b"abc"))
    assert named(raw, Kind.DATASET, "abc") == ["abc", "x"]
    assert named(raw, Kind.DATASET, "ab") == ["abc", "y", "x"]


def test_evaluation_is_found_by_key_number_log_and_its_beginning(raw: sqlite3.Connection) -> None:
    """Its number is whole; one with arguments is another than one without."""
    committed(raw, put_evals({"t": b"/logs/a", "u": b"/logs/b"}), put_evals({"t": b"/logs/c"}, kwargs=KWARGS))
    for name in ("1", "/logs/a", eval_key("m", "t", "inspect", None)):
        assert named(raw, Kind.EVAL, name) == ["/logs/a"]
    assert named(raw, Kind.EVAL, eval_key("m", "t", "inspect", HASH)) == ["/logs/c"]
    assert named(raw, Kind.EVAL, "/logs/") == ["/logs/c", "/logs/b", "/logs/a"]
    for name in ("01", "4", '["m"', eval_key("m", "v", "inspect", None)):
        assert named(raw, Kind.EVAL, name) == []
    (found,) = select_named(raw, Kind.EVAL, "3", 10)
    assert found == Named(Kind.EVAL, eval_key("m", "t", "inspect", HASH), b"/logs/c", "t")


def test_empty_hash_counts_as_none(raw: sqlite3.Connection) -> None:
    """As in every statement: rows of older programs may have it so."""
    raw.execute(
        "INSERT INTO eval_results (model_id, task_id, backend_type, log_file_path, inspect_kwargs_hash)"
        " VALUES ('m', 't', 'b', '/log', '')"
    )
    assert named(raw, Kind.EVAL, eval_key("m", "t", "b", None)) == ["/log"]


@pytest.mark.parametrize("name", ["'", "\N{SNOWMAN}", "a" * 10_000, "x; DROP TABLE dataset_files"])
@pytest.mark.parametrize("kind", list(Kind))
def test_hostile_names_mean_nothing(raw: sqlite3.Connection, kind: Kind, name: str) -> None:
    """They are looked for as they stand."""
    committed(raw, put_dataset("d"), put_model(epochs=1), put_evals({"t": b"/log"}))
    assert named(raw, kind, name) == []
    assert named(raw, Kind.DATASET, "d") == ["file"]


def test_value_that_is_no_text_is_found_by_its_key(raw: sqlite3.Connection) -> None:
    """A file name need not be UTF-8."""
    committed(raw, put_dataset("d", b"file-\xff"))
    (found,) = select_named(raw, Kind.DATASET, "d", 10)
    assert found.value == b"file-\xff"


def test_row_has_all_that_a_listing_has(raw: sqlite3.Connection) -> None:
    """And the files, of those that have some."""
    model = put_model("d", b"ft-1", epochs=1)
    committed(raw, put_dataset("d"), publication(model, b"runs/a", b"runs/b"), put_evals({"t": b"/log"}, kwargs=KWARGS))
    dataset = select_row(raw, Kind.DATASET, "d")
    assert isinstance(dataset, DatasetRow)
    assert (dataset.value, dataset.files) == (b"file", ())
    row = select_row(raw, Kind.MODEL, key_of_model({"epochs": 1}))
    assert isinstance(row, ModelRow)
    assert (row.value, row.files, row.size_bytes, row.config) == (b"ft-1", (b"runs/a", b"runs/b"), 20, b'{"epochs": 1}')
    evaluation = select_row(raw, Kind.EVAL, eval_key("m", "t", "inspect", HASH))
    assert isinstance(evaluation, EvalRow)
    assert (evaluation.value, evaluation.kwargs) == (b"/log", KWARGS)
    for kind, key in ((Kind.DATASET, "e"), (Kind.MODEL, "d"), (Kind.EVAL, eval_key("m", "t", "inspect", None))):
        assert select_row(raw, kind, key) is None


def test_sources_are_those_that_the_row_names(raw: sqlite3.Connection) -> None:
    """Entries, or only known by their name; a dataset has none."""
    committed(raw, put_dataset("d", b"file"), put_model("d", b"ft-1", epochs=1), put_model("gone", b"ft-1", epochs=1))
    committed(raw, put_evals({"t": b"/log"}, model_id="ft-1"), put_evals({"t": b"/other"}, model_id="other"))
    first, second = key_of_model({"epochs": 1}), key_of_model({"epochs": 1}, "gone")
    assert select_sources(raw, Kind.DATASET, "d") == []
    assert select_sources(raw, Kind.MODEL, first) == [Named(Kind.DATASET, "d", b"file")]
    assert select_sources(raw, Kind.MODEL, second) == [Named(Kind.DATASET, "gone", None)]
    assert select_sources(raw, Kind.MODEL, "none") == []
    evaluation = eval_key("ft-1", "t", "inspect", None)
    assert [one.key for one in select_sources(raw, Kind.EVAL, evaluation)] == [first, second]
    assert select_sources(raw, Kind.EVAL, eval_key("other", "t", "inspect", None)) == []


def test_products_are_those_that_name_the_entry(raw: sqlite3.Connection) -> None:
    """In the order in which they were stored, so many, and counted all."""
    committed(raw, put_dataset("d"), *[put_model("d", b"ft-%d" % number, epochs=number) for number in range(4)])
    committed(raw, put_model("other", b"ft-9", epochs=9), put_evals({"t": b"/t", "u": b"/u"}, model_id="ft-1"))
    model = key_of_model({"epochs": 1})
    assert names(select_products(raw, Kind.DATASET, "d", 10)) == ["ft-0", "ft-1", "ft-2", "ft-3"]
    assert names(select_products(raw, Kind.DATASET, "d", 2)) == ["ft-0", "ft-1"]
    assert [(one.key, one.detail) for one in select_products(raw, Kind.MODEL, model, 10)] == [
        (eval_key("ft-1", task, "inspect", None), task) for task in ("t", "u")
    ]
    assert select_products(raw, Kind.EVAL, eval_key("ft-1", "t", "inspect", None), 10) == []
    for kind, key in ((Kind.DATASET, "none"), (Kind.MODEL, "none"), (Kind.MODEL, key_of_model({"epochs": 0}))):
        assert select_products(raw, kind, key, 10) == []
        assert count_products(raw, kind, key) == 0
    assert (count_products(raw, Kind.DATASET, "d"), count_products(raw, Kind.MODEL, model)) == (4, 2)
    assert count_products(raw, Kind.EVAL, eval_key("ft-1", "t", "inspect", None)) == 0


def test_no_step_of_a_lineage_reads_a_whole_table(raw: sqlite3.Connection) -> None:
    """Each is a search by an index, however many entries there are."""
    committed(raw, put_dataset("d"), put_model("d", b"ft-1", epochs=1), put_evals({"t": b"/log"}, model_id="ft-1"))
    keys = {
        Kind.DATASET: "d",
        Kind.MODEL: key_of_model({"epochs": 1}),
        Kind.EVAL: eval_key("ft-1", "t", "inspect", None),
    }
    statements: list[str] = []
    raw.set_trace_callback(statements.append)
    for kind, key in keys.items():
        select_sources(raw, kind, key)
        select_products(raw, kind, key, 10)
        count_products(raw, kind, key)
    raw.set_trace_callback(None)
    assert len(statements) >= len(keys)
    for statement in statements:
        plan = [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}")]
        assert any(step.startswith(b"SEARCH") for step in plan), (statement, plan)
        assert not any(step.startswith(b"SCAN") for step in plan), (statement, plan)
