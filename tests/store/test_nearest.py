"""Signatures are those of the rows they stand in, and found in order."""

from __future__ import annotations

import sqlite3

import pytest

from motoolsd.core.inputs import Inputs
from motoolsd.core.signatures import SIGNATURE_SIZE_BYTES, signature
from motoolsd.store.commits import commit_batch
from motoolsd.store.entries import SetVoid
from motoolsd.store.nearest import (
    FROM_START,
    SIGNED_KINDS,
    NearPage,
    SetSignatures,
    SignedRow,
    UnsignedRow,
    select_inputs,
    select_near,
    select_row_numbers,
    select_signatures,
    select_unsigned,
    signed,
)
from motoolsd.store.writes import BatchItem
from motoolsd.wire.keys import Kind, eval_key, json_hash
from tests.samples import NOW, applied, put_dataset, put_evals, put_model
from tests.signing import key_of_model, model_question, prepare_signing

SIZE_MAX = 1024 * 1024
KWARGS = b'{"limit": 5}'


@pytest.fixture
def raw(database: str, raw: sqlite3.Connection) -> sqlite3.Connection:
    """A connection to a database that can hold signatures."""
    prepare_signing(database)
    return raw


def commit(raw: sqlite3.Connection, *items: BatchItem) -> list[int]:
    """Commit a batch; the numbers that came of it."""
    return [applied(outcome).number for outcome in commit_batch(raw, items, NOW, "cache.db")]


def unsigned(raw: sqlite3.Connection, kind: Kind = Kind.MODEL) -> list[UnsignedRow]:
    """All rows without a signature."""
    return select_unsigned(raw, kind, 1_000, SIZE_MAX)


def sign_all(raw: sqlite3.Connection) -> None:
    """Sign what is not signed."""
    for kind in SIGNED_KINDS:
        commit(raw, SetSignatures(kind, tuple(signed(kind, row) for row in unsigned(raw, kind))))


def signature_of(raw: sqlite3.Connection, table: str = "trained_models") -> object:
    """What stands in the only row."""
    ((found,),) = raw.execute(f"SELECT signature FROM {table}").fetchall()
    return found


def test_stored_entries_wait_for_their_signature(raw: sqlite3.Connection) -> None:
    """The latest first; a dataset has none."""
    commit(raw, put_dataset("d"), put_model(epochs=1), put_model(epochs=2), put_evals({"t": b"/log"}))
    assert [row.row_number for row in unsigned(raw)] == [2, 1]
    assert [row.row_number for row in select_unsigned(raw, Kind.MODEL, 1, SIZE_MAX)] == [2]
    assert len(unsigned(raw, Kind.EVAL)) == 1
    sign_all(raw)
    assert unsigned(raw) == unsigned(raw, Kind.EVAL) == []


def test_unsigned_rows_are_bounded_in_bytes(raw: sqlite3.Connection) -> None:
    """One that is larger than the bound comes alone."""
    commit(raw, *[put_model(text="x" * 1_000, number=number) for number in range(5)])
    assert [row.row_number for row in select_unsigned(raw, Kind.MODEL, 1_000, 1)] == [5]
    assert [row.row_number for row in select_unsigned(raw, Kind.MODEL, 1_000, 2_500)] == [5, 4, 3]


def test_signature_is_that_of_the_question(raw: sqlite3.Connection) -> None:
    """Whoever asks for what is stored is at distance 0."""
    commit(raw, put_model(epochs=1, lr=0.1), put_evals({"t": b"/log"}, kwargs=KWARGS))
    sign_all(raw)
    assert signature_of(raw) == signature(model_question({"epochs": 1, "lr": 0.1}))
    (found,) = select_inputs(raw, Kind.EVAL, [1])
    assert signature_of(raw, "eval_results") == signature(found.inputs)


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE trained_models SET config = '{}'",
        "UPDATE trained_models SET dataset_hash = 'other'",
        "UPDATE trained_models SET backend_type = NULL",
        "UPDATE trained_models SET config = CAST(config AS BLOB)",
    ],
)
def test_edited_model_is_signed_again(raw: sqlite3.Connection, edit: str) -> None:
    """Somebody changed its inputs by hand: the old signature is none of theirs."""
    commit(raw, put_model(epochs=1))
    sign_all(raw)
    raw.execute(edit)
    assert signature_of(raw) is None
    sign_all(raw)
    (found,) = select_inputs(raw, Kind.MODEL, [1])
    assert signature_of(raw) == signature(found.inputs)


@pytest.mark.parametrize(
    "edit", ["UPDATE eval_results SET task_id = 'other'", "UPDATE eval_results SET inspect_kwargs = NULL"]
)
def test_edited_evaluation_is_signed_again(raw: sqlite3.Connection, edit: str) -> None:
    """The same of its columns."""
    commit(raw, put_evals({"t": b"/log"}, kwargs=KWARGS))
    sign_all(raw)
    raw.execute(edit)
    assert signature_of(raw, "eval_results") is None


def test_other_changes_keep_the_signature(raw: sqlite3.Connection) -> None:
    """Storing the same again, another value, a use, or a mark changes no inputs."""
    commit(raw, put_model(epochs=1))
    sign_all(raw)
    before = signature_of(raw)
    commit(raw, put_model(model_id=b"another", epochs=1))
    raw.execute("UPDATE trained_models SET hits = 7, pinned = 1, void_since = '2026-01-31', config = config")
    assert signature_of(raw) == before is not None


def test_row_that_changed_meanwhile_is_not_signed(raw: sqlite3.Connection) -> None:
    """The signature was made of what stood there before; and one that is signed already stays as it is."""
    commit(raw, put_model(epochs=1), put_model(epochs=2), put_model(epochs=3))
    change = SetSignatures(Kind.MODEL, tuple(signed(Kind.MODEL, row) for row in unsigned(raw)))
    raw.execute("UPDATE trained_models SET config = '{}' WHERE rowid = 1")
    raw.execute("DELETE FROM trained_models WHERE rowid = 3")
    assert commit(raw, change) == [1]
    assert commit(raw, change) == [0]
    assert [row.row_number for row in unsigned(raw)] == [1]


@pytest.mark.parametrize("cell", ["x'ff'", "'{'", "'[1]'", "5", "1.5", "''"])
def test_any_cell_can_be_signed(raw: sqlite3.Connection, cell: str) -> None:
    """Whatever somebody wrote there, the row does not wait for ever."""
    raw.execute(f"INSERT INTO trained_models (cache_key, model_id, config, backend_type) VALUES ('k', 'm', {cell}, 5)")
    sign_all(raw)
    assert unsigned(raw) == []
    assert signature_of(raw) == signature(Inputs(Kind.MODEL, {"backend_type": "5"}))


def test_row_of_the_older_package_is_looked_at_once(raw: sqlite3.Connection) -> None:
    """Nothing is known of its inputs: it is near to nothing. When it is stored again, they are known."""
    key = key_of_model({"epochs": 1})
    raw.execute("INSERT INTO trained_models (cache_key, model_id) VALUES (?, 'm')", (key,))
    sign_all(raw)
    assert signature_of(raw) == b""
    assert select_signatures(raw, Kind.MODEL, FROM_START, 10) == []
    commit(raw, put_model(epochs=1))
    sign_all(raw)
    assert len(select_signatures(raw, Kind.MODEL, FROM_START, 10)) == 1


def test_pages_of_signatures_join(raw: sqlite3.Connection) -> None:
    """Sorted, with no row left out; what is no signature is passed over."""
    commit(raw, *[put_model(number=number) for number in range(10)])
    sign_all(raw)
    for cell in ("x'ff'", "'text'", "5", "zeroblob(33)", "NULL"):
        raw.execute(f"INSERT INTO trained_models (cache_key, model_id, signature) VALUES ({cell} || 'k', 'm', {cell})")
    found: list[bytes] = []
    while page := select_signatures(raw, Kind.MODEL, found[-1] if found else FROM_START, 3):
        found += page
    assert found == sorted(found)
    rows = select_row_numbers(raw, Kind.MODEL, found)
    assert sorted(row_number for row_number, _ in rows) == list(range(1, 11))


def test_nearest_is_found_over_pages(raw: sqlite3.Connection) -> None:
    """However many there are to a page, and also where several rows have one signature."""
    commit(raw, *[put_model(number=number, text="x") for number in range(50)])
    sign_all(raw)
    wanted = signature(model_question({"number": 17, "text": "x"}))
    twin = ("twin", "m", wanted)
    raw.execute("INSERT INTO trained_models (cache_key, model_id, signature) VALUES (?, ?, ?)", twin)
    for rows_max in (1, 7, 51, 1_000):
        page, pages = NearPage([], FROM_START), 0
        while page.next_after is not None:
            page = select_near(raw, Kind.MODEL, wanted, page, rows_max=rows_max, near_max=2)
            pages += 1
        assert page.near[0] == wanted
        assert pages >= 50 / rows_max
        assert select_row_numbers(raw, Kind.MODEL, page.near[:1]) == [(51, wanted), (18, wanted)]


def test_no_question_reads_the_table(raw: sqlite3.Connection) -> None:
    """The index alone is read: it is a twentieth of it."""
    texts: list[str] = []
    raw.set_trace_callback(texts.append)
    select_signatures(raw, Kind.MODEL, FROM_START, 10)
    select_row_numbers(raw, Kind.MODEL, [bytes(SIGNATURE_SIZE_BYTES)])
    raw.set_trace_callback(None)
    plans = [raw.execute(f"EXPLAIN QUERY PLAN {text}").fetchall() for text in texts]
    assert len(plans) == 2
    assert all(b"USING COVERING INDEX" in plan[-1] and b"TEMP B-TREE" not in plan[-1] for (plan,) in plans)


def test_candidates_come_with_what_is_told_of_them(raw: sqlite3.Connection) -> None:
    """Key, value, time, why it misses; and their inputs."""
    commit(raw, put_model(model_id=b"\xff", epochs=1), put_evals({"t": b"/log"}, kwargs=KWARGS))
    key = eval_key("m", "t", "inspect", json_hash(KWARGS.decode()))
    commit(raw, SetVoid(((Kind.EVAL, key),), "file gone"))
    (model,) = select_inputs(raw, Kind.MODEL, [1, 99])
    assert (model.row_number, model.key, model.value) == (1, key_of_model({"epochs": 1}), b"\xff")
    assert (model.created_at, model.void_reason) == ("2026-01-31T23:59:59.123Z", None)
    assert model.inputs == model_question({"epochs": 1})
    (found,) = select_inputs(raw, Kind.EVAL, [1])
    assert (found.key, found.value, found.void_reason) == (key, b"/log", "file gone")
    assert found.inputs.fields["kwargs"] == {"limit": 5}


def test_signed_row_of_another_kind_is_untouched(raw: sqlite3.Connection) -> None:
    """Row numbers are those of one table."""
    commit(raw, put_model(epochs=1), put_evals({"t": b"/log"}))
    (row,) = unsigned(raw)
    commit(raw, SetSignatures(Kind.EVAL, (SignedRow(row.row_number, (*row.cells, None, None), bytes(32)),)))
    assert signature_of(raw, "eval_results") is None
