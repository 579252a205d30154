"""Which files belong to which entry: only those of an entry that says it has some, whatever else stands there."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from motoolsd.core.deadlines import Moment
from motoolsd.core.files import overlaps
from motoolsd.core.guards import Guard
from motoolsd.store.commits import commit_batch
from motoolsd.store.ownership import (
    ForgetUnowned,
    OwnedFile,
    OwnedPage,
    OwnedPath,
    Publication,
    select_owned,
    select_owners,
    select_recorded,
)
from motoolsd.store.puts import put_keys
from motoolsd.store.reads import FROM_START, Filter, select_page, select_values
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.messages import Clear, ClearAll, PutDataset, PutEvals, PutModel
from tests.samples import (
    NOW,
    applied,
    clear,
    clear_all,
    committed,
    execute,
    publication,
    put_dataset,
    put_evals,
    put_model,
    request_key,
)

END = Moment("boot", 1.0, 1_770_000_000.0)
PUTS: list[PutDataset | PutModel | PutEvals] = [put_dataset("d"), put_model("d"), put_evals({"t": b"log"})]
IDS = ["dataset", "model", "eval"]
EVAL = eval_key("m", "t", "inspect", None)


def again(put: PutDataset | PutModel | PutEvals, value: bytes | None = None) -> PutDataset | PutModel | PutEvals:
    """The same entry stored once more, with another value if one is given."""
    match put:
        case PutDataset():
            return put_dataset(put.dataset_hash, value or put.file_id)
        case PutModel():
            return put_model(put.dataset_hash, value or put.model_id)
        case PutEvals():
            return put_evals({"t": value or b"log"})


def files(raw: sqlite3.Connection, kind: Kind) -> list[tuple[bytes, ...]]:
    """The files of all entries of a kind, as they are listed."""
    page = select_page(raw, kind, Filter(), FROM_START, rows_max=100, size_bytes=10**6)
    return [row.files for row in page.rows]


def sizes(raw: sqlite3.Connection, kind: Kind) -> list[tuple[int | None, int | None]]:
    """What all entries of a kind take, as they are listed."""
    page = select_page(raw, kind, Filter(), FROM_START, rows_max=100, size_bytes=10**6)
    return [(row.size_bytes, row.allocated_bytes) for row in page.rows]


def owner_keys(raw: sqlite3.Connection, path: bytes) -> set[object]:
    """How motoolsd_files names those that own a path, or something above or below it."""
    (found,) = select_owners(raw, [path])
    return {owner.entry for owner in found}


def all_owned(raw: sqlite3.Connection, kind: Kind, limit: int) -> list[OwnedPath]:
    """All pages, one after the other."""
    page: OwnedPage = select_owned(raw, kind, None, limit)
    items = list(page.items)
    while page.next_after is not None:
        page = select_owned(raw, kind, page.next_after, limit)
        items += page.items
    return items


@pytest.mark.parametrize("put", PUTS, ids=IDS)
def test_publication_gives_an_entry_its_files(raw: sqlite3.Connection, put: PutDataset | PutModel | PutEvals) -> None:
    """With the row, in one transaction: listed, added up, and told as what the value depends on."""
    request = publication(again(put), b"runs/\xff", b"runs/a", expires=END)
    ((kind, key),) = put_keys(put)
    (outcome,) = committed(raw, request)
    guard = Guard((b"runs/\xff", b"runs/a"), END)
    assert outcome.guards == {(kind, key): guard}
    assert files(raw, kind) == [(b"runs/a", b"runs/\xff")]
    assert sizes(raw, kind) == [(20, 8192)]
    found = select_values(raw, kind, [key])
    assert found.guards == {key: Guard((b"runs/a", b"runs/\xff"), END)}
    assert [(one.key, one.path, one.size_bytes) for one in all_owned(raw, kind, 10)] == [
        (key, b"runs/a", 10),
        (key, b"runs/\xff", 10),
    ]


def test_publication_without_files_or_end_depends_on_nothing(raw: sqlite3.Connection) -> None:
    """It is a plain put."""
    (outcome,) = committed(raw, publication(put_dataset("d")))
    assert outcome.guards == {}
    assert select_values(raw, Kind.DATASET, ["d"]).guards == {}


def test_each_evaluation_has_its_own_log(raw: sqlite3.Connection) -> None:
    """Those of one request whose log lies elsewhere own nothing."""
    put = put_evals({"t": b"log", "u": b"other"})
    committed(raw, Publication(put=put, files={EVAL: (OwnedFile(b"evals/log", 7, 8),)}))
    assert files(raw, Kind.EVAL) == [(b"evals/log",), ()]


@pytest.mark.parametrize("put", PUTS, ids=IDS)
def test_same_value_stored_again_keeps_its_files(
    raw: sqlite3.Connection, put: PutDataset | PutModel | PutEvals
) -> None:
    """A job that knows nothing of files takes none away; the end of the entry goes, because it was not asked for."""
    ((kind, key),) = put_keys(put)
    committed(raw, publication(again(put), b"runs/a", expires=END))
    committed(raw, again(put))
    assert files(raw, kind) == [(b"runs/a",)]
    assert sizes(raw, kind) == [(10, 4096)]
    assert select_values(raw, kind, [key]).guards == {key: Guard((b"runs/a",))}


@pytest.mark.parametrize("put", PUTS, ids=IDS)
def test_other_value_has_none_of_the_files_before(
    raw: sqlite3.Connection, put: PutDataset | PutModel | PutEvals
) -> None:
    """They are what the older value was made of: nobody owns them now."""
    ((kind, key),) = put_keys(put)
    committed(raw, publication(again(put), b"runs/a"))
    committed(raw, again(put, b"another value"))
    assert files(raw, kind) == [()]
    assert sizes(raw, kind) == [(None, None)]
    assert select_values(raw, kind, [key]).guards == {}
    assert all_owned(raw, kind, 10) == []
    assert owner_keys(raw, b"runs/a") == set()


def test_new_files_take_the_place_of_the_old(raw: sqlite3.Connection) -> None:
    """An entry has what it was published with last."""
    committed(raw, publication(put_model("d"), b"runs/a", b"runs/b"))
    committed(raw, publication(put_model("d"), b"runs/b", b"runs/c", size_bytes=1))
    assert files(raw, Kind.MODEL) == [(b"runs/b", b"runs/c")]
    assert sizes(raw, Kind.MODEL) == [(2, 8192)]


def test_stale_lease_stores_neither_value_nor_files(raw: sqlite3.Connection) -> None:
    """A publication that came too late leaves nothing."""
    put = PutDataset(request_key=request_key(), dataset_hash="d", file_id=b"late", token=7)
    (outcome,) = commit_batch(raw, [publication(put, b"datasets/d.jsonl")], NOW, "cache.db")
    assert not hasattr(outcome, "stored")
    assert files(raw, Kind.DATASET) == []
    assert raw.execute("SELECT count(*) FROM motoolsd_files").fetchone() == (0,)


def test_retry_of_a_publication_is_applied_once(raw: sqlite3.Connection) -> None:
    """The stored reply answers; what another has stored since stays."""
    first = publication(put_dataset("d", b"1"), b"datasets/a")
    committed(raw, first)
    committed(raw, put_dataset("d", b"2"))
    key = first.put.request_key
    retried = put_dataset("d", b"1", request_key(key.number, retry=True))
    (outcome,) = commit_batch(raw, [publication(retried, b"datasets/a")], NOW, "cache.db")
    assert applied(outcome).stored == []
    assert files(raw, Kind.DATASET) == [()]


@pytest.mark.parametrize(
    ("request_", "left"),
    [
        (clear(Kind.DATASET), [(b"runs/a",)]),
        (clear(Kind.DATASET, keys=["a", "b"]), [(b"runs/a",)]),
        (clear_all(), []),
    ],
)
def test_cleared_entry_owns_nothing(
    raw: sqlite3.Connection, request_: Clear | ClearAll, left: list[tuple[bytes]]
) -> None:
    """Its rows go with it, in the same transaction; the file is an orphan from then on."""
    committed(raw, publication(put_dataset("a"), b"datasets/a"), publication(put_dataset("b"), b"datasets/b"))
    committed(raw, publication(put_model("d"), b"runs/a"))
    committed(raw, request_)
    assert raw.execute("SELECT path FROM motoolsd_files").fetchall() == left


def test_clear_by_key_disowns_that_one_alone(raw: sqlite3.Connection) -> None:
    """A NUL in its key, or a number for an evaluation, hides nothing."""
    committed(raw, publication(put_dataset("a\0b"), b"datasets/ab"), publication(put_dataset("a"), b"datasets/a"))
    committed(raw, publication(put_evals({"t": b"log"}), b"evals/t"), publication(put_evals({"u": b"log"}), b"evals/u"))
    committed(raw, clear(Kind.DATASET, keys=["a\0b"]), clear(Kind.EVAL, task_ids=["t"]))
    assert raw.execute("SELECT path FROM motoolsd_files ORDER BY path").fetchall() == [(b"datasets/a",), (b"evals/u",)]


# Edits by hand.


@pytest.mark.parametrize(
    "edit",
    [
        "DELETE FROM trained_models",
        "UPDATE trained_models SET files = 0",
        "UPDATE trained_models SET cache_key = 'another'",
        "UPDATE trained_models SET cache_key = CAST(x'ff' AS TEXT)",
        "INSERT OR REPLACE INTO trained_models (cache_key, model_id) SELECT cache_key, 'by hand' FROM trained_models",
    ],
)
def test_left_over_files_count_for_nobody(raw: sqlite3.Connection, database: str, edit: str) -> None:
    """Whatever somebody does to the row: they are no owner any more, and go with the next scan. Nothing fails."""
    committed(raw, publication(put_model("d"), b"runs/a"))
    execute(database, f"{edit};")
    assert owner_keys(raw, b"runs/a") == set()
    assert all_owned(raw, Kind.MODEL, 10) == []
    assert files(raw, Kind.MODEL) in ([], [()])
    (outcome,) = committed(raw, ForgetUnowned())
    assert outcome.number == 1
    assert raw.execute("SELECT count(*) FROM motoolsd_files").fetchone() == (0,)


def test_value_edited_by_hand_keeps_its_files(raw: sqlite3.Connection, database: str) -> None:
    """Old columns only: the entry is the same, and what belongs to it does."""
    committed(raw, publication(put_model("d"), b"runs/a"))
    execute(database, "UPDATE trained_models SET model_id = 'by hand';")
    assert files(raw, Kind.MODEL) == [(b"runs/a",)]
    assert committed(raw, ForgetUnowned())[0].number == 0


def test_vacuum_changes_no_owner(raw: sqlite3.Connection, database: str) -> None:
    """It may number rows anew; entries are named by what it leaves alone."""
    committed(raw, *[publication(put_evals({name: b"log"}), b"evals/" + name.encode()) for name in "abc"])
    committed(raw, *[publication(put_model(name), b"runs/" + name.encode()) for name in "abc"])
    execute(
        database, "DELETE FROM eval_results WHERE task_id = 'a'; DELETE FROM trained_models WHERE rowid = 1; VACUUM;"
    )
    assert files(raw, Kind.EVAL) == [(b"evals/b",), (b"evals/c",)]
    assert files(raw, Kind.MODEL) == [(b"runs/b",), (b"runs/c",)]


# Reading.


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("kind", list(Kind))
def test_pages_of_owned_paths_hold_each_once(raw: sqlite3.Connection, kind: Kind, limit: int) -> None:
    """Whatever their size, pages follow each other without gap or overlap."""
    for name in ("c", "a", "b", "\u00e9", "a\0b"):
        paths = [f"runs/{name.encode().hex()}-{number}".encode() for number in range(3)]
        put: PutDataset | PutModel | PutEvals = put_dataset(name)
        if kind is not Kind.DATASET:
            put = put_model(name) if kind is Kind.MODEL else put_evals({name: b"log"})
        committed(raw, publication(put, *paths))
    found = all_owned(raw, kind, limit)
    assert len(found) == len({one.path for one in found}) == 15
    assert all(sum(one.key == other.key for other in found) == 3 for one in found)


def test_owned_path_says_why_its_entry_misses(raw: sqlite3.Connection, database: str) -> None:
    """So that a scan that finds it again knows what to heal."""
    committed(raw, publication(put_model("d", b"model-1"), b"runs/a"))
    execute(database, "UPDATE trained_models SET void_since = 'x', void_reason = 'file gone';")
    (one,) = all_owned(raw, Kind.MODEL, 10)
    assert (one.void_reason, one.value, one.allocated_bytes) == ("file gone", b"model-1", 4096)


PATHS = (
    b"runs/a",
    b"runs/a/x",
    b"runs/a/x/y",
    b"runs/a!",
    b"runs/a0",
    b"runs/ab",
    b"runs/b",
    b"evals/a",
    b"runs/a/\xff",
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sets(st.sampled_from(PATHS), max_size=3), min_size=1, max_size=5))
def test_owners_are_all_that_own_anything_above_or_below(raw: sqlite3.Connection, owned: list[set[bytes]]) -> None:
    """Names that begin alike, or sort between a directory and what is in it, own nothing of it."""
    committed(raw, clear_all())
    committed(raw, *[publication(put_dataset(f"d{number}"), *sorted(paths)) for number, paths in enumerate(owned)])
    for path, found in zip(PATHS, select_owners(raw, PATHS), strict=True):
        expected = {
            (Kind.DATASET, f"d{number}".encode(), other)
            for number, paths in enumerate(owned)
            for other in paths
            if overlaps(path, other)
        }
        assert {tuple(owner) for owner in found} == expected
        assert len(found) == len(expected)


def test_owners_of_many_kinds_are_told_apart(raw: sqlite3.Connection) -> None:
    """By kind, and named as motoolsd_files names them."""
    committed(raw, *[publication(again(put), b"runs/a") for put in PUTS])
    (found,) = select_owners(raw, [b"runs/a"])
    assert {owner.kind for owner in found} == set(Kind)
    assert {type(owner.entry) for owner in found if owner.kind is Kind.EVAL} == {int}


def test_owner_is_found_behind_any_number_of_left_over_rows(
    raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many are looked at: those must be such as count."""
    monkeypatch.setattr("motoolsd.store.ownership.OTHERS_MAX", 2)
    committed(raw, *[publication(put_dataset(f"a{number}"), b"runs/a/%d" % number) for number in range(5)])
    committed(raw, publication(put_dataset("z"), b"runs/a/z"))
    raw.execute("DELETE FROM dataset_files WHERE dataset_hash != 'z'")
    assert owner_keys(raw, b"runs/a") == {b"z"}


def test_recorded_sizes_are_those_of_owned_paths(raw: sqlite3.Connection) -> None:
    """What nobody owns is left out; what was never measured is nothing."""
    committed(raw, publication(put_model("d"), b"runs/a", size_bytes=3))
    raw.execute("INSERT INTO motoolsd_files (kind, entry, path) VALUES ('model', 'k', CAST('runs/b' AS BLOB))")
    assert select_recorded(raw, [b"runs/a", b"runs/b", b"runs/c"]) == {
        b"runs/a": OwnedFile(b"runs/a", 3, 4096),
        b"runs/b": OwnedFile(b"runs/b", 0, 0),
    }
