"""Whether an entry counts, how large it is, who protects it: changes beside its value."""

from __future__ import annotations

import sqlite3

import pytest

from motoolsd.core.deadlines import Moment
from motoolsd.core.guards import DAMAGED, EXPIRED, MISSING, Guard
from motoolsd.store import entries as entries_module
from motoolsd.store.entries import (
    Adopt,
    ClearVoid,
    EndPins,
    RecordSizes,
    SetPin,
    SetVoid,
    select_adoptable_logs,
    select_dangling_count,
    select_ended_pins,
    select_largest,
    select_named,
)
from motoolsd.store.ownership import OwnedFile
from motoolsd.store.reads import FROM_START, Filter, select_page, select_slice, select_values
from motoolsd.store.rows import TABLES
from motoolsd.wire.entries import DatasetRow, EvalRow, ModelRow
from motoolsd.wire.keys import Kind, eval_key, model_key
from motoolsd.wire.sizes import EntrySize
from tests.samples import NOW, committed, execute, publication, put_dataset, put_evals, put_model

MODEL = model_key("d", "{}", "openai")
EVAL = eval_key("m", "t", "inspect", None)
KEYS = {Kind.DATASET: "d", Kind.MODEL: MODEL, Kind.EVAL: EVAL}
ALL = tuple(KEYS.items())
END = Moment("boot", 500.0, 1_770_000_000.0)
BEFORE, AFTER = Moment("boot", 499.0, 0.0), Moment("boot", 500.0, 0.0)


@pytest.fixture
def filled(raw: sqlite3.Connection) -> sqlite3.Connection:
    """An entry of each kind, each with a file of its own."""
    committed(
        raw,
        publication(put_dataset("d", b"file-1"), b"datasets/d.jsonl"),
        publication(put_model("d", b"model-1"), b"runs/a", expires=END),
        publication(put_evals({"t": b"log"}), b"evals/t"),
    )
    return raw


def row_of(raw: sqlite3.Connection, kind: Kind) -> DatasetRow | ModelRow | EvalRow:
    """The first entry of a kind, as it is listed."""
    return select_page(raw, kind, Filter(), FROM_START, rows_max=10, size_bytes=10**6).rows[0]


def hits(raw: sqlite3.Connection) -> list[Kind]:
    """The kinds whose entry is answered, by key as by slice."""
    by_key = [kind for kind, key in ALL if select_values(raw, kind, [key]).found]
    assert by_key == [kind for kind, _ in ALL if select_slice(raw, kind, FROM_START, 10).entries]
    return by_key


# Entries that miss.


@pytest.mark.parametrize("kind", list(Kind))
def test_void_entry_misses_and_is_listed(filled: sqlite3.Connection, kind: Kind) -> None:
    """Its row stays as it is, and says since when; the others go on."""
    change = SetVoid(((kind, KEYS[kind]),), MISSING)
    assert list(change.keys) == [(kind, KEYS[kind])]
    (outcome,) = committed(filled, change)
    assert (outcome.removed, outcome.number) == ([(kind, KEYS[kind])], 1)
    assert hits(filled) == [other for other in Kind if other is not kind]
    assert row_of(filled, kind).missing_since == f"{NOW.replace(' ', 'T')}Z"
    assert len(row_of(filled, kind).files) == 1


def test_void_entry_keeps_its_first_reason(filled: sqlite3.Connection) -> None:
    """Marking it again changes nothing, and moves no slot."""
    committed(filled, SetVoid(ALL, EXPIRED))
    (outcome,) = committed(filled, SetVoid(ALL, MISSING))
    assert (outcome.removed, outcome.number) == ([], 0)
    assert filled.execute("SELECT void_reason FROM dataset_files").fetchone() == (EXPIRED.encode(),)


def test_marking_what_is_gone_is_no_error(filled: sqlite3.Connection) -> None:
    """It was cleared meanwhile."""
    (outcome,) = committed(filled, SetVoid(((Kind.DATASET, "gone"), (Kind.DATASET, "d")), MISSING))
    assert outcome.removed == [(Kind.DATASET, "d")]


@pytest.mark.parametrize("kind", list(Kind))
def test_healed_entry_counts_with_what_it_depends_on(filled: sqlite3.Connection, kind: Kind) -> None:
    """Its value and guard are told, so that memory needs not read it."""
    value = row_of(filled, kind).value
    committed(filled, SetVoid(ALL, MISSING))
    change = ClearVoid(((kind, KEYS[kind]),), MISSING)
    assert list(change.keys) == [(kind, KEYS[kind])]
    (outcome,) = committed(filled, change)
    assert outcome.stored == [(kind, KEYS[kind], value)]
    guard = outcome.guards[kind, KEYS[kind]]
    assert guard == Guard(row_of(filled, kind).files, END if kind is Kind.MODEL else None)
    assert hits(filled) == [kind]
    assert row_of(filled, kind).missing_since is None


@pytest.mark.parametrize("reason", [EXPIRED, DAMAGED])
def test_entry_is_healed_of_its_own_reason_only(filled: sqlite3.Connection, reason: str) -> None:
    """A file that came back does not bring back what expired."""
    committed(filled, SetVoid(ALL, reason))
    (outcome,) = committed(filled, ClearVoid(ALL, MISSING))
    assert outcome.stored == []
    assert hits(filled) == []


@pytest.mark.parametrize("value", [b"file-1", b"file-2"])
def test_void_entry_that_is_stored_again_counts(raw: sqlite3.Connection, value: bytes) -> None:
    """Whether it is the same value or not; its lost files are not its own any more."""
    committed(
        raw, publication(put_dataset("d", b"file-1"), b"datasets/d.jsonl"), SetVoid(((Kind.DATASET, "d"),), MISSING)
    )
    committed(raw, put_dataset("d", value))
    found = select_values(raw, Kind.DATASET, ["d"])
    assert (found.found, found.guards) == ({"d": value}, {})
    row = row_of(raw, Kind.DATASET)
    assert (row.missing_since, row.files, row.size_bytes) == (None, (), None)


def test_change_sees_what_stands_before_it_in_its_batch(raw: sqlite3.Connection) -> None:
    """And what comes after it is stored on top."""
    committed(raw, put_dataset("d", b"1"), SetVoid(((Kind.DATASET, "d"),), MISSING), put_dataset("e", b"2"))
    assert select_values(raw, Kind.DATASET, ["d", "e"]).found == {"e": b"2"}


def test_dangling_entries_are_those_whose_file_is_gone(filled: sqlite3.Connection) -> None:
    """Of all kinds; those that expired are none."""
    assert select_dangling_count(filled) == 0
    committed(filled, SetVoid(ALL[:2], MISSING), SetVoid(ALL[2:], EXPIRED))
    assert select_dangling_count(filled) == 2


# Sizes.


def test_scan_corrects_the_sizes_of_paths_and_entries(raw: sqlite3.Connection) -> None:
    """An entry takes what its paths take together."""
    committed(raw, publication(put_model("d"), b"runs/a", b"runs/b"), publication(put_evals({"t": b"l"}), b"evals/t"))
    measured = (
        (Kind.MODEL, MODEL, OwnedFile(b"runs/a", 100, 200)),
        (Kind.EVAL, EVAL, OwnedFile(b"evals/t", 5, 6)),
        (Kind.MODEL, "gone", OwnedFile(b"runs/c", 1, 1)),
        (Kind.EVAL, eval_key("no", "such", "row", None), OwnedFile(b"evals/c", 1, 1)),
    )
    committed(raw, RecordSizes(measured))
    model, evaluation = row_of(raw, Kind.MODEL), row_of(raw, Kind.EVAL)
    assert (model.size_bytes, model.allocated_bytes) == (110, 4296)
    assert (evaluation.size_bytes, evaluation.allocated_bytes) == (5, 6)
    assert raw.execute("SELECT count(*) FROM motoolsd_files").fetchone() == (3,)


def test_sizes_of_a_path_that_is_not_owned_change_nothing(raw: sqlite3.Connection) -> None:
    """The entry was published anew while the scan ran."""
    committed(raw, publication(put_model("d"), b"runs/a"))
    committed(raw, RecordSizes(((Kind.MODEL, MODEL, OwnedFile(b"runs/old", 100, 200)),)))
    assert row_of(raw, Kind.MODEL).size_bytes == 10


def test_largest_entries_come_first_whatever_their_kind(raw: sqlite3.Connection) -> None:
    """Those without files are not among them."""
    committed(
        raw,
        publication(put_dataset("small"), b"datasets/a", size_bytes=1),
        publication(put_model("d", b"model-\xff"), b"runs/a", size_bytes=30),
        publication(put_evals({"t": b"l"}), b"evals/t", size_bytes=20),
        put_dataset("none"),
    )
    found = select_largest(raw, 10)
    assert [(one.kind, one.size_bytes) for one in found] == [("model", 30), ("eval", 20), ("dataset", 1)]
    assert found[0] == EntrySize(kind="model", key=MODEL, value=b"model-\xff", size_bytes=30, allocated_bytes=4096)
    assert select_largest(raw, 2) == found[:2]
    assert select_largest(raw, 0) == []


# Adoption.


def test_found_file_becomes_its_entry_s(raw: sqlite3.Connection) -> None:
    """Rows of the older package get the files that lie where theirs would be, and depend on them."""
    committed(raw, put_dataset("d", b"file-1"))
    change = Adopt(((Kind.DATASET, "d", OwnedFile(b"datasets/d.jsonl", 7, 8)),))
    assert list(change.keys) == [(Kind.DATASET, "d")]
    (outcome,) = committed(raw, change)
    assert outcome.stored == [(Kind.DATASET, "d", b"file-1")]
    assert outcome.guards == {(Kind.DATASET, "d"): Guard((b"datasets/d.jsonl",))}
    row = row_of(raw, Kind.DATASET)
    assert (row.files, row.size_bytes, row.allocated_bytes) == ((b"datasets/d.jsonl",), 7, 8)


def test_entry_with_files_adopts_none(raw: sqlite3.Connection) -> None:
    """It was published with what belongs to it; nor does one that is gone."""
    committed(raw, publication(put_dataset("d"), b"datasets/other"))
    files = (
        (Kind.DATASET, "d", OwnedFile(b"datasets/d.jsonl", 7, 8)),
        (Kind.DATASET, "gone", OwnedFile(b"datasets/g", 1, 1)),
    )
    (outcome,) = committed(raw, Adopt(files))
    assert (outcome.stored, outcome.number) == ([], 0)
    assert row_of(raw, Kind.DATASET).files == (b"datasets/other",)


def test_expiring_entry_keeps_its_end_when_it_adopts(raw: sqlite3.Connection) -> None:
    """Its guard names both."""
    committed(raw, publication(put_dataset("d"), expires=END))
    (outcome,) = committed(raw, Adopt(((Kind.DATASET, "d", OwnedFile(b"datasets/d.jsonl", 7, 8)),)))
    assert outcome.guards == {(Kind.DATASET, "d"): Guard((b"datasets/d.jsonl",), END)}


def test_void_entry_adopts_without_counting(raw: sqlite3.Connection) -> None:
    """What misses for another reason goes on missing."""
    committed(raw, put_dataset("d"), SetVoid(((Kind.DATASET, "d"),), EXPIRED))
    (outcome,) = committed(raw, Adopt(((Kind.DATASET, "d", OwnedFile(b"datasets/d.jsonl", 7, 8)),)))
    assert outcome.stored == []
    assert select_values(raw, Kind.DATASET, ["d"]).found == {}
    assert row_of(raw, Kind.DATASET).files == (b"datasets/d.jsonl",)


def test_adoptable_logs_are_those_below_the_directory(raw: sqlite3.Connection) -> None:
    """Absolute or relative as jobs had them, page by page; with files or void they are left out."""
    logs = {
        "abs": b"/c/.motools/evals/\xff",
        "rel": b".motools/evals/r",
        "far": b"/c/.motools2/evals/x",
        "s3": b"s3://b/x",
    }
    committed(raw, put_evals(logs), publication(put_evals({"own": b"/c/.motools/evals/o"}), b"evals/o"))
    committed(raw, put_evals({"void": b"/c/.motools/evals/v"}))
    committed(raw, SetVoid(((Kind.EVAL, eval_key("m", "void", "inspect", None)),), EXPIRED))
    prefixes = [b"/c/.motools/", b".motools/"]
    found: list[tuple[str, bytes]] = []
    after: int | None = 0
    while after is not None:
        page, after = select_adoptable_logs(raw, prefixes, after, 1)
        found += page
    assert found == [
        (eval_key("m", "abs", "inspect", None), b"/c/.motools/evals/\xff"),
        (eval_key("m", "rel", "inspect", None), b".motools/evals/r"),
    ]
    assert select_adoptable_logs(raw, prefixes, 0) == (found, None)
    assert entries_module.ADOPTABLE_MAX > 1


def test_names_of_files_are_looked_up_among_entries_without_files(raw: sqlite3.Connection) -> None:
    """Datasets by their hash, models by their id; names that are none are left out."""
    committed(raw, put_dataset("d"), publication(put_dataset("e"), b"datasets/e"), put_model("d", b"model-1"))
    assert select_named(raw, Kind.DATASET, ["d", "e", "f"]) == {"d": "d"}
    assert select_named(raw, Kind.MODEL, ["model-1", "d"]) == {"model-1": MODEL}
    assert select_named(raw, Kind.MODEL, []) == {}


# Pins.


def pins(raw: sqlite3.Connection) -> dict[Kind, tuple[bool, str | None, str | None]]:
    """What is listed of the pins."""
    rows = {kind: row_of(raw, kind) for kind in Kind}
    return {kind: (row.pinned, row.pin_reason, row.pinned_until) for kind, row in rows.items()}


FREE = (False, None, None)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("d", Kind.DATASET),
        ("file-1", Kind.DATASET),
        (MODEL, Kind.MODEL),
        ("model-1", Kind.MODEL),
        (EVAL, Kind.EVAL),
        ("log", Kind.EVAL),
        ("1", Kind.EVAL),
    ],
)
def test_entry_is_pinned_by_any_of_its_names(filled: sqlite3.Connection, name: str, kind: Kind) -> None:
    """Its key or its value, an evaluation's number; the others are not."""
    pin = SetPin(kinds=tuple(Kind), name=name, is_pinned=True, reason="of the paper", until=END)
    assert committed(filled, pin)[0].number == 1
    pinned = (True, "of the paper", "2026-02-02T02:40:00Z")
    assert pins(filled) == {other: pinned if other is kind else FREE for other in Kind}
    committed(filled, SetPin(kinds=tuple(Kind), name=name, is_pinned=False))
    assert pins(filled) == dict.fromkeys(Kind, FREE)


def test_name_of_several_kinds_pins_those_that_were_named(raw: sqlite3.Connection) -> None:
    """All that have the name, or those of one kind."""
    committed(raw, put_dataset("x"), put_model("d", b"x"), put_evals({"t": b"x"}))
    assert committed(raw, SetPin(kinds=(Kind.MODEL,), name="x", is_pinned=True))[0].number == 1
    assert [kind for kind, pin in pins(raw).items() if pin != FREE] == [Kind.MODEL]
    assert committed(raw, SetPin(kinds=tuple(Kind), name="x", is_pinned=True))[0].number == 3


@pytest.mark.parametrize(
    "name", ["nothing", "%", "", "1.0", "01", " 1", "-1", "' OR 1 --", '["m"]', '["m","t","inspect","x"]']
)
def test_name_of_nothing_pins_nothing(filled: sqlite3.Connection, name: str) -> None:
    """Names are compared, not understood."""
    assert committed(filled, SetPin(kinds=tuple(Kind), name=name, is_pinned=True))[0].number == 0
    assert pins(filled) == dict.fromkeys(Kind, FREE)


def test_pin_survives_a_new_value(filled: sqlite3.Connection) -> None:
    """It is the entry that is pinned, until somebody unpins it."""
    committed(filled, SetPin(kinds=(Kind.DATASET,), name="d", is_pinned=True, reason="r"))
    committed(filled, put_dataset("d", b"another"))
    assert pins(filled)[Kind.DATASET] == (True, "r", None)


def test_pins_end_with_their_time(filled: sqlite3.Connection) -> None:
    """Those that have one; the others last."""
    committed(filled, SetPin(kinds=(Kind.DATASET,), name="d", is_pinned=True, reason="r", until=END))
    committed(filled, SetPin(kinds=(Kind.MODEL,), name=MODEL, is_pinned=True))
    assert committed(filled, EndPins(BEFORE))[0].number == 0
    assert select_ended_pins(filled, Kind.DATASET, BEFORE) == []
    assert len(select_ended_pins(filled, Kind.DATASET, AFTER)) == 1
    assert committed(filled, EndPins(AFTER))[0].number == 1
    assert pins(filled) == {**dict.fromkeys(Kind, FREE), Kind.MODEL: (True, None, None)}


@pytest.mark.parametrize("until", ["'tomorrow'", "x'ff'", "7", "'[\"boot\",1,1e300]'"])
def test_end_that_cannot_be_read_never_comes(filled: sqlite3.Connection, database: str, until: str) -> None:
    """Written by hand: the pin protects, and nothing fails."""
    execute(database, f"UPDATE dataset_files SET pinned = 1, pinned_until = {until};")
    assert committed(filled, EndPins(AFTER))[0].number == 0
    assert pins(filled)[Kind.DATASET] == (True, None, None)


def test_pinning_leaves_values_and_checksums_alone(filled: sqlite3.Connection) -> None:
    """It is no edit."""
    before = [filled.execute(f"SELECT checksum FROM {table}").fetchall() for table in TABLES.values()]
    committed(
        filled, SetPin(kinds=tuple(Kind), name="d", is_pinned=True), SetVoid(ALL, MISSING), ClearVoid(ALL, MISSING)
    )
    assert [filled.execute(f"SELECT checksum FROM {table}").fetchall() for table in TABLES.values()] == before
    assert hits(filled) == list(Kind)
