"""Finding entries in parts: the same answer as in one go, whatever the order, and no more than is asked for."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import anyio
import msgspec
import pytest

from motoolsd.core.deadlines import Moment
from motoolsd.core.errors import RequestError
from motoolsd.core.where import WhereError
from motoolsd.engine import filtering
from motoolsd.engine.filtering import CANDIDATES_FOR_MAX, matching, matching_page
from motoolsd.store.filtering import Match, RowRange, Selection, merged, select_matching
from motoolsd.store.store import READERS, Store, open_store
from motoolsd.wire.filters import Filters, Order, parse_order
from motoolsd.wire.keys import Kind

NOW = Moment("boot", 1_000.0, 1_795_132_800.0)
ROWS = 300
PART_ROWS = 40
FIRST_PART_ROWS = PART_ROWS // filtering.FIRST_PARTS_ARE_SMALLER
PARTS = READERS + -(-(ROWS - READERS * FIRST_PART_ROWS) // PART_ROWS)
PART_ROWS = 40
FIRST_ROWS = PART_ROWS // filtering.FIRST_PARTS_ARE_SMALLER
PARTS = READERS + -(-(ROWS - READERS * FIRST_ROWS) // PART_ROWS)
"""Small ones first, one for each reader."""
CASES: list[tuple[Filters, Order | None]] = [
    (filters, order)
    for filters, order in itertools.product(
        [
            Filters(),
            Filters(where=["config.epochs>3"]),
            Filters(where=["config.epochs=99"]),
            Filters(where=["config.rare=7"], labels={"run": "a"}),
            Filters(labels={"run": "a"}),
            Filters(model_ids=["m1", "m2"], where=["!config.rare"]),
            Filters(larger_than_bytes=40),
        ],
        [None, parse_order("size"), parse_order("size:desc"), parse_order("key"), parse_order("version:desc")],
    )
]


@pytest.fixture
def rows(database: str) -> Iterator[sqlite3.Connection]:
    """The database, with models in it."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.executemany(
            "INSERT INTO trained_models (cache_key, model_id, config, labels, size_bytes, version)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    f"{number * 7_919 % 1_000:03}",
                    f"m{number % 9}",
                    json.dumps({"epochs": number % 8} | ({} if number % 70 else {"rare": 7})),
                    '{"run":"a"}' if number % 2 else None,
                    number * 31 % 50 if number % 5 else None,
                    str(number % 3) if number % 3 else None,
                )
                for number in range(ROWS)
            ],
        )
        connection.commit()
        yield connection


@dataclass
class Watched:
    """What goes through a store."""

    parts: list[RowRange] = field(default_factory=list)
    selections: list[Selection] = field(default_factory=list)
    under_way: int = 0
    under_way_max: int = 0

    def rows_of_parts(self) -> list[int]:
        """The row numbers of all parts."""
        return [number for part in sorted(self.parts) for number in range(part.first, part.last + 1)]


@pytest.fixture
async def store(rows: sqlite3.Connection, database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """The open store; the table is searched in small parts."""
    monkeypatch.setattr(filtering, "PART_ROWS", PART_ROWS)
    async with open_store(database, synchronous="NORMAL") as opened:
        yield opened


@pytest.fixture
def watched(store: Store, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Counts the parts that the store is asked for."""
    seen, read = Watched(), store.read

    async def watch(function: Any, *args: Any) -> Any:  # noqa: ANN401 - hands on whatever comes
        seen.parts += [arg for arg in args if isinstance(arg, RowRange)]
        seen.selections += [arg for arg in args if isinstance(arg, Selection)]
        seen.under_way += 1
        seen.under_way_max = max(seen.under_way_max, seen.under_way)
        try:
            return await read(function, *args)
        finally:
            seen.under_way -= 1

    monkeypatch.setattr(store, "read", watch)
    return seen


@pytest.mark.parametrize(("filters", "order"), CASES)
@pytest.mark.parametrize("limit", [1, 7, 1_000])
async def test_parts_give_what_the_whole_gives(store: Store, filters: Filters, order: Order | None, limit: int) -> None:
    """The first ones in their order, whether few or many fit."""
    with anyio.fail_after(10):
        selection = filtering.select(Kind.MODEL, filters, order, limit, NOW)
        whole = await store.read(select_matching, selection)
        assert await matching(store, Kind.MODEL, filters, order, limit, NOW) == [one.row_number for one in whole]


@pytest.mark.parametrize(("filters", "order"), CASES)
async def test_pages_follow_each_other(store: Store, filters: Filters, order: Order | None) -> None:
    """All entries once; the last page says that it is the last."""
    with anyio.fail_after(10):
        whole = await matching(store, Kind.MODEL, filters, order, ROWS, NOW)
        found: list[int] = []
        after: bytes | None = None
        pages = 0
        while not pages or after is not None:
            pages += 1
            page = await matching_page(store, Kind.MODEL, filters, order, 25, NOW, after)
            found += page.row_numbers
            after = page.next_after
        assert found == whole
        assert pages == max(1, -(-len(whole) // 25))


async def test_page_goes_on_though_its_last_entry_is_gone(store: Store, rows: sqlite3.Connection) -> None:
    """The cursor says where it stood."""
    with anyio.fail_after(10):
        order = parse_order("size:desc")
        whole = await matching(store, Kind.MODEL, Filters(), order, ROWS, NOW)
        page = await matching_page(store, Kind.MODEL, Filters(), order, 10, NOW)
        rows.execute("DELETE FROM trained_models WHERE rowid = ?", (page.row_numbers[-1],))
        rows.commit()
        following = await matching_page(store, Kind.MODEL, Filters(), order, 10, NOW, page.next_after)
        assert following.row_numbers == whole[10:20]


async def test_first_page_reads_no_more_than_it_needs(store: Store, watched: Watched) -> None:
    """Unsorted, where many fit: the parts that come later are not searched."""
    with anyio.fail_after(10):
        # While the last part that is needed is under way, each of the other readers is at one more.
        for limit, parts in ((FIRST_ROWS, READERS), (READERS * FIRST_ROWS + 1, 2 * READERS)):
            watched.parts.clear()
            assert await matching(store, Kind.MODEL, Filters(), None, limit, NOW) == list(range(1, limit + 1))
            assert len(watched.parts) <= parts
        watched.parts.clear()
        await matching(store, Kind.MODEL, Filters(), parse_order("size"), 20, NOW)
        assert len(watched.parts) == PARTS


async def test_no_more_parts_are_under_way_than_there_are_readers(store: Store, watched: Watched) -> None:
    """Whoever else reads comes between two parts."""
    with anyio.fail_after(10):
        await matching(store, Kind.MODEL, Filters(where=["config.epochs=99"]), parse_order("size"), 20, NOW)
    assert watched.under_way_max == READERS


async def test_few_matches_end_the_guessing(store: Store, watched: Watched) -> None:
    """A part whose candidates do not do is read again, whole; the others are read once."""
    with anyio.fail_after(10):
        await matching(store, Kind.MODEL, Filters(where=["config.epochs>6"]), parse_order("key"), 1, NOW)
    assert PARTS < len(watched.parts) <= PARTS + READERS


@pytest.mark.parametrize("text", ["size", "size:desc", "key", "version:desc"])
async def test_parts_that_follow_tell_only_what_comes_first(
    store: Store, watched: Watched, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """As many as are wanted were found: what comes behind them is not looked at, and not handed on."""
    monkeypatch.setattr(filtering, "READERS", 1)
    with anyio.fail_after(10):
        found = await matching(store, Kind.MODEL, Filters(), parse_order(text), 5, NOW)
        assert len(found) == 5
    wanted: list[Match] = []
    searched = list(zip(watched.selections, watched.parts, strict=True))
    assert searched[-1][0].before is not None
    for selection, part in searched:
        assert selection.before == (wanted[-1] if len(wanted) == 5 else None)
        wanted = merged([wanted, await store.read(select_matching, selection, part)], selection.order, 5)
    assert [match.row_number for match in wanted] == found


async def test_unordered_and_long_listings_are_not_narrowed(store: Store, watched: Watched) -> None:
    """The ones come in the order of the parts, of the others most are wanted."""
    with anyio.fail_after(10):
        await matching(store, Kind.MODEL, Filters(), None, 5, NOW)
        await matching(store, Kind.MODEL, Filters(), parse_order("size"), CANDIDATES_FOR_MAX + 1, NOW)
    assert {selection.before for selection in watched.selections} == {None}


async def test_rows_written_by_hand_match_nothing(store: Store, rows: sqlite3.Connection) -> None:
    """What is no JSON stops nobody."""
    rows.execute("UPDATE trained_models SET config = '{' WHERE rowid % 3 = 0")
    rows.commit()
    with anyio.fail_after(10):
        for order in (None, parse_order("size")):
            found = await matching(store, Kind.MODEL, Filters(where=["config.epochs=1"]), order, ROWS, NOW)
            assert sorted(found) == [number for number in range(2, ROWS + 1, 8) if number % 3]


async def test_empty_table_and_huge_row_numbers(store: Store, rows: sqlite3.Connection) -> None:
    """Somebody may have written any row number by hand: the parts grow, and stay few."""
    with anyio.fail_after(10):
        assert await matching(store, Kind.EVAL, Filters(), None, 5, NOW) == []
        for number in (-(2**63), 2**63 - 1):
            rows.execute(
                "INSERT INTO dataset_files (rowid, dataset_hash, file_id) VALUES (?, ?, 'f')", (number, number)
            )
        rows.commit()
        found = await matching(store, Kind.DATASET, Filters(key_prefix="9"), parse_order("key"), 5, NOW)
        assert found == [2**63 - 1]


@pytest.mark.parametrize(
    ("filters", "order"),
    [
        (Filters(task_ids=["t"]), None),
        (Filters(created_after_s=5, created_before_s=5), None),
        (Filters(), Order(field="task_id")),
        (Filters(), Order(field="1; DROP TABLE x")),
    ],
)
async def test_what_makes_no_sense_is_refused(store: Store, filters: Filters, order: Order | None) -> None:
    """Before anything is read."""
    with pytest.raises(RequestError):
        await matching(store, Kind.MODEL, filters, order, 5, NOW)


async def test_unreadable_conditions_are_told(store: Store) -> None:
    """With the place and the nearest field."""
    with pytest.raises(WhereError) as caught:
        await matching(store, Kind.MODEL, Filters(where=["hits>0", "confg.x=1"]), None, 5, NOW)
    assert caught.value.nearest == "config"


async def test_cursor_of_another_listing_is_refused(store: Store) -> None:
    """Another kind or order, or bytes of somebody else's making."""
    with anyio.fail_after(10):
        order = parse_order("size")
        page = await matching_page(store, Kind.MODEL, Filters(), order, 5, NOW)
        for kind, other, after in (
            (Kind.MODEL, None, page.next_after),
            (Kind.MODEL, parse_order("size:desc"), page.next_after),
            (Kind.DATASET, order, page.next_after),
            (Kind.MODEL, order, b"\xff"),
            (Kind.MODEL, order, b""),
            (Kind.MODEL, order, msgspec.msgpack.encode(("model", order, 1, ()))),
            (Kind.MODEL, order, msgspec.msgpack.encode(("model", order, 1, (1, 2)))),
            (Kind.MODEL, order, msgspec.msgpack.encode(("model", order, 1, (2**63,)))),
            (Kind.MODEL, order, msgspec.msgpack.encode(("model", order, 2**63, (1,)))),
        ):
            with pytest.raises(RequestError, match="another listing"):
                await matching_page(store, kind, Filters(), other, 5, NOW, after)
