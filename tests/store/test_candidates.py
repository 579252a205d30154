"""What a clean-up may take: the rows that fit, the least recently used first, and why some of them stay."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from motoolsd.core.deadlines import Moment
from motoolsd.core.guards import EXPIRED, MISSING
from motoolsd.core.retention import OwnedRoom
from motoolsd.store.candidates import (
    select_candidate_rows,
    select_candidates,
    select_made_from,
    select_owner_names,
    select_pinned,
)
from motoolsd.store.commits import commit_batch
from motoolsd.store.entries import SetPin, SetVoid
from motoolsd.store.migration import prepare_database
from motoolsd.store.statistics import UseReport
from motoolsd.wire.cleaning import Criteria
from motoolsd.wire.keys import Kind, eval_key, model_key
from tests.samples import committed, execute, make_old_database, publication, put_dataset, put_evals, put_model

NOW = Moment("boot", 1_000_000.0, 1_770_000_000.0)  # 2026-02-02 02:40:00
DAY_S = 86_400.0
END = Moment("boot", 2_000_000.0, 1_771_000_000.0)
MODEL = model_key("d", "{}", "openai")
EVAL = eval_key("m", "t", "inspect", None)


def at(raw: sqlite3.Connection, when: str, *items: object) -> None:
    """Store something at a time of 2026."""
    commit_batch(raw, items, f"2026-{when}", "cache.db")  # type: ignore[arg-type]


def used(key: str, kind: Kind = Kind.DATASET) -> UseReport:
    """One use."""
    return UseReport(hour=0, hits={kind: {key: 1}})


def keys(raw: sqlite3.Connection, kind: Kind, criteria: Criteria, *, limit: int = 100, now: Moment = NOW) -> list[str]:
    """The keys of what fits, in its order."""
    numbers = [number for _, number in select_candidate_rows(raw, kind, criteria, now, limit)]
    found = select_candidates(raw, kind, numbers, now)
    return [found[number].key for number in numbers]


def datasets(**criteria: object) -> Criteria:
    """Criteria for datasets."""
    return msgspec.structs.replace(Criteria(kinds=(Kind.DATASET,)), **criteria)


def test_least_recently_used_come_first(raw: sqlite3.Connection) -> None:
    """The latest of being stored and being used counts; of those that are equal, the one stored first."""
    at(raw, "01-01 00:00:00.000", put_dataset("old"), put_dataset("used"), put_dataset("twin"))
    at(raw, "01-02 00:00:00.000", put_dataset("new"))
    at(raw, "01-03 00:00:00.000", used("used"))
    assert keys(raw, Kind.DATASET, datasets()) == ["old", "twin", "new", "used"]
    assert keys(raw, Kind.DATASET, datasets(), limit=2) == ["old", "twin"]


@pytest.mark.parametrize(("days", "found"), [(0, "ab"), (1, "ab"), (2, "a"), (2.0001, ""), (1e5, "")])
def test_age_counts_from_when_it_was_stored(raw: sqlite3.Connection, days: float, found: str) -> None:
    """To the millisecond; a use does not make it younger. Longer than time is older than everything."""
    at(raw, "01-31 02:40:00.000", put_dataset("a"))
    at(raw, "02-01 02:39:59.999", put_dataset("b"), used("a"))
    assert sorted(keys(raw, Kind.DATASET, datasets(older_than_s=days * DAY_S))) == list(found)


def test_stored_again_is_stored_anew(raw: sqlite3.Connection) -> None:
    """The same value, too: somebody has just computed it."""
    at(raw, "01-01 00:00:00.000", put_dataset("a"), put_dataset("b"))
    at(raw, "02-02 00:00:00.000", put_dataset("a"))
    assert keys(raw, Kind.DATASET, datasets(older_than_s=DAY_S)) == ["b"]


def test_use_keeps_an_entry_from_being_unused(raw: sqlite3.Connection) -> None:
    """Stored long ago, used today."""
    at(raw, "01-01 00:00:00.000", put_dataset("a"), put_dataset("b"))
    at(raw, "02-02 00:00:00.000", used("a"), put_dataset("c"))
    assert keys(raw, Kind.DATASET, datasets(unused_for_s=DAY_S)) == ["b"]
    assert keys(raw, Kind.DATASET, datasets(older_than_s=DAY_S)) == ["b", "a"]
    assert keys(raw, Kind.DATASET, datasets(older_than_s=DAY_S, unused_for_s=DAY_S)) == ["b"]


def test_rows_of_the_older_package_count_as_stored_when_they_were_migrated(tmp_path: Path) -> None:
    """They say nothing of it: an upgrade makes nothing go that was not old before."""
    database = tmp_path / "cache.db"
    make_old_database(database)
    prepare_database(str(database))
    execute(database, "UPDATE motoolsd_facts SET value = '2026-02-01 00:00:00' WHERE name = 'since';")
    with sqlite3.connect(database, isolation_level=None) as raw:
        raw.text_factory = bytes
        assert keys(raw, Kind.DATASET, datasets(older_than_s=2 * DAY_S)) == []
        assert sorted(keys(raw, Kind.DATASET, datasets(older_than_s=DAY_S))) == ["d1", "d2"]
    raw.close()


@pytest.mark.parametrize(
    ("kind", "filters", "found"),
    [
        (Kind.DATASET, {"keys": ["d", "none"]}, ["d"]),
        (Kind.DATASET, {"keys": []}, []),
        (Kind.DATASET, {"keys": ["D"]}, []),
        (Kind.DATASET, {"keys": ["%"]}, []),
        (Kind.MODEL, {"keys": [MODEL]}, [MODEL]),
        (Kind.MODEL, {"model_ids": ["m"]}, [MODEL]),
        (Kind.MODEL, {"keys": [MODEL], "model_ids": ["n"]}, []),
        (Kind.EVAL, {"model_ids": ["m"]}, [EVAL]),
        (Kind.EVAL, {"task_ids": ["t"]}, [EVAL]),
        (Kind.EVAL, {"model_ids": ["m"], "task_ids": ["u"]}, []),
        (Kind.EVAL, {"task_ids": []}, []),
    ],
)
def test_filters_narrow_as_in_a_clear(
    raw: sqlite3.Connection, kind: Kind, filters: dict[str, list[str]], found: list[str]
) -> None:
    """None matches all, an empty list nothing."""
    committed(raw, put_dataset("d"), put_dataset("e"), put_model("d", b"m"), put_model("e", b"n"))
    committed(raw, put_evals({"t": b"1"}), put_evals({"u": b"2"}, model_id="n"))
    assert keys(raw, kind, msgspec.structs.replace(Criteria(kinds=(kind,)), **filters)) == found


@pytest.mark.parametrize("wanted", [["a\0b"], ["a\0b", "c"]])
def test_key_with_a_nul_names_that_entry_alone(raw: sqlite3.Connection, wanted: list[str]) -> None:
    """SQLite's json_each cuts a text at a NUL: what follows must not be lost, or another entry would go."""
    committed(raw, *[put_dataset(name) for name in ("a", "a\0b", "a\0c", "c")])
    assert keys(raw, Kind.DATASET, datasets(keys=wanted)) == wanted


def test_kind_that_is_not_asked_for_gives_nothing(raw: sqlite3.Connection) -> None:
    """Whatever else fits."""
    committed(raw, put_dataset("d"))
    assert keys(raw, Kind.DATASET, Criteria(kinds=(Kind.MODEL,), older_than_s=0)) == []
    assert keys(raw, Kind.DATASET, Criteria(orphans=True)) == []


def test_only_entries_with_files_go_for_room(raw: sqlite3.Connection) -> None:
    """The others would free nothing."""
    committed(raw, publication(put_dataset("d"), b"datasets/d"), put_dataset("e"))
    assert keys(raw, Kind.DATASET, datasets(to_bytes=0)) == ["d"]


def test_dangling_entries_fit_whatever_their_kind_and_age(raw: sqlite3.Connection) -> None:
    """An entry that expired is not dangling."""
    at(raw, "02-02 00:00:00.000", put_dataset("gone"), put_dataset("expired"), put_dataset("whole"))
    committed(raw, SetVoid(((Kind.DATASET, "gone"),), MISSING), SetVoid(((Kind.DATASET, "expired"),), EXPIRED))
    assert keys(raw, Kind.DATASET, Criteria(dangling=True)) == ["gone"]
    assert keys(raw, Kind.DATASET, datasets(dangling=True, older_than_s=9 * DAY_S, keys=[])) == ["gone"]
    assert sorted(keys(raw, Kind.DATASET, datasets(dangling=True))) == ["expired", "gone", "whole"]


def test_candidate_says_all_that_a_plan_needs(raw: sqlite3.Connection) -> None:
    """Its value as bytes, its times as the row has them, its files with their sizes, its name among owners."""
    at(raw, "01-01 00:00:00.000", publication(put_model("d", b"model-\xff"), b"runs/b", b"runs/\xff", size_bytes=3))
    at(raw, "01-02 00:00:00.000", used(MODEL, Kind.MODEL))
    ((used_at, number),) = select_candidate_rows(raw, Kind.MODEL, Criteria(kinds=(Kind.MODEL,)), NOW, 10)
    found = select_candidates(raw, Kind.MODEL, [number, 99], NOW)[number]
    assert (found.kind, found.key, found.name) == (Kind.MODEL, MODEL, (Kind.MODEL, MODEL.encode()))
    assert (found.value, found.created_at) == (b"model-\xff", "2026-01-01 00:00:00.000")
    assert used_at == found.used_at == "2026-01-02 00:00:00.000"
    assert found.files == (OwnedRoom(b"runs/b", 3, 4096), OwnedRoom(b"runs/\xff", 3, 4096))
    assert (found.pinned, found.void_reason) == (None, None)


def test_candidate_and_owner_have_the_same_name(raw: sqlite3.Connection) -> None:
    """Else an entry would keep its own files."""
    committed(raw, publication(put_dataset("d"), b"runs/a"), publication(put_model("d"), b"runs/a/b"))
    committed(raw, publication(put_evals({"t": b"log"}), b"runs/a/b"))
    names = set()
    for kind in Kind:
        numbers = [number for _, number in select_candidate_rows(raw, kind, Criteria(kinds=(kind,)), NOW, 10)]
        names |= {found.name for found in select_candidates(raw, kind, numbers, NOW).values()}
    owners = select_owner_names(raw, [b"runs/a", b"runs/a/b", b"runs/c"])
    assert {path: set(found) for path, found in owners.items()} == {
        b"runs/a": names,
        b"runs/a/b": names,
        b"runs/c": set(),
    }


@pytest.mark.parametrize(
    ("reason", "until", "why"),
    [
        (None, None, "pinned"),
        ("", None, "pinned"),
        ("of the paper", None, "pinned: of the paper"),
        ("of the paper", END, "pinned until 2026-02-13T16:26:40Z: of the paper"),
    ],
)
def test_pinned_entry_says_why_and_until_when(
    raw: sqlite3.Connection, reason: str | None, until: Moment | None, why: str
) -> None:
    """Both for a plan that would take it, and for what it was made from."""
    committed(raw, put_dataset("d"), put_dataset("e"))
    committed(raw, SetPin(kinds=(Kind.DATASET,), name="d", is_pinned=True, reason=reason, until=until))
    found = select_candidates(raw, Kind.DATASET, [1, 2], NOW)
    assert [found[number].pinned for number in (1, 2)] == [why, None]
    assert select_pinned(raw, NOW) == {(Kind.DATASET, "d"): why}


def test_pin_that_is_over_protects_nothing(raw: sqlite3.Connection) -> None:
    """From its very moment, though its row still says so; after a boot the wall clock tells."""
    committed(raw, put_dataset("d"))
    committed(raw, SetPin(kinds=(Kind.DATASET,), name="d", is_pinned=True, until=END))
    for now, is_over in (
        (NOW, False),
        (END, True),
        (Moment("next", 0.0, END.wall_s - 1), False),
        (Moment("next", 0.0, END.wall_s), True),
    ):
        assert (select_pinned(raw, now) == {}) is is_over
        assert (select_candidates(raw, Kind.DATASET, [1], now)[1].pinned is None) is is_over


@pytest.mark.parametrize("until", ["'tomorrow'", "7", "x'c1'", "'[\"boot\",1,1e300]'"])
def test_pin_whose_end_cannot_be_read_protects(raw: sqlite3.Connection, database: str, until: str) -> None:
    """Somebody wrote it by hand, and meant it."""
    committed(raw, put_dataset("d"))
    execute(database, f"UPDATE dataset_files SET pinned = 1, pin_reason = CAST(x'ff' AS TEXT), pinned_until = {until};")
    assert select_pinned(raw, NOW) == {(Kind.DATASET, "d"): "pinned: \ufffd"}


def test_entries_are_made_from_what_they_name(raw: sqlite3.Connection) -> None:
    """A model from its dataset; an evaluation from the models of its id, and theirs."""
    committed(raw, put_dataset("d"), put_model("d", b"m"), put_model("e", b"m"), put_model("f", b"other"))
    committed(raw, put_evals({"t": b"log"}))
    second = model_key("e", "{}", "openai")
    assert select_made_from(raw, Kind.DATASET, "d") == []
    assert select_made_from(raw, Kind.MODEL, MODEL) == [(Kind.DATASET, "d")]
    assert set(select_made_from(raw, Kind.EVAL, EVAL)) == {
        (Kind.MODEL, MODEL),
        (Kind.MODEL, second),
        (Kind.DATASET, "d"),
        (Kind.DATASET, "e"),
    }
    assert select_made_from(raw, Kind.MODEL, "gone") == []


def test_model_of_the_older_package_is_made_from_nobody_knows_what(tmp_path: Path) -> None:
    """Only its key was kept."""
    database = tmp_path / "cache.db"
    make_old_database(database)
    prepare_database(str(database))
    with sqlite3.connect(database) as raw:
        raw.text_factory = bytes
        assert select_made_from(raw, Kind.MODEL, "k1") == []
    raw.close()


ROWS = st.lists(st.tuples(st.integers(1, 28), st.none() | st.integers(1, 28), st.booleans()), min_size=1, max_size=6)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, st.none() | st.integers(0, 40), st.none() | st.integers(0, 40), st.booleans(), st.integers(1, 7))
def test_rows_that_fit_are_those_that_fit_one_by_one(
    raw: sqlite3.Connection,
    rows: list[tuple[int, int | None, bool]],
    older_than: int | None,
    unused_for: int | None,
    dangling: bool,  # noqa: FBT001 - hypothesis gives positional arguments
    limit: int,
) -> None:
    """Looked at the long way: days of January, asked on the 2nd of February."""
    raw.execute("DELETE FROM dataset_files")
    for number, (stored, last_used, is_void) in enumerate(rows):
        at(raw, f"01-{stored:02} 00:00:00.000", put_dataset(f"k{number}"))
        if last_used is not None:
            at(raw, f"01-{last_used:02} 00:00:00.000", used(f"k{number}"))
        if is_void:
            committed(raw, SetVoid(((Kind.DATASET, f"k{number}"),), MISSING))
    criteria = datasets(
        older_than_s=None if older_than is None else older_than * DAY_S,
        unused_for_s=None if unused_for is None else unused_for * DAY_S,
        dangling=dangling,
    )
    today = 33  # January has 31 days
    expected = [
        (max(stored, last_used or 0), number)
        for number, (stored, last_used, is_void) in enumerate(rows)
        if (dangling and is_void)
        or (
            (older_than is None or today - stored >= older_than)
            and (unused_for is None or today - max(stored, last_used or 0) >= unused_for)
        )
    ]
    assert keys(raw, Kind.DATASET, criteria, limit=limit) == [f"k{number}" for _, number in sorted(expected)][:limit]
