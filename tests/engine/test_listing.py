"""Listings come in pages that fit into a frame, filtered and sorted where that is asked for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from motoolsd.core.errors import RequestError
from motoolsd.wire.filters import Filters, parse_order
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import EntryPage, ListEntries
from tests.engine.bench import Bench
from tests.engine.conftest import OpenBench
from tests.samples import clear, put_dataset, put_evals, put_model


async def pages(bench: Bench, request: ListEntries) -> list[EntryPage]:
    """All pages, the last one marked."""
    found = [page async for page in bench.engine.listing.entries(request)]
    assert [page.is_last for page in found] == [False] * (len(found) - 1) + [True]
    assert all(page.next_after is None for page in found[:-1])
    return found


async def listed(bench: Bench, kind: Kind = Kind.MODEL, **options: Any) -> list[list[str]]:  # noqa: ANN401 - whatever ListEntries has
    """The values of each page."""
    found = await pages(bench, ListEntries(kind=kind, **options))
    return [[item.value.decode() for item in page.items] for page in found]


async def fill(bench: Bench, count: int) -> None:
    """Models with an epoch more each, under two labels in turn."""
    for number in range(count):
        put = put_model("d", b"m%d" % number, epochs=number)
        await bench.write(msgspec.structs.replace(put, labels={"run": "ab"[number % 2]}))


async def test_listing_comes_in_pages(open_bench: OpenBench) -> None:
    """In insertion order."""
    async with open_bench(page_rows_max=2) as bench:
        for name in "cab":
            await bench.write(put_dataset(name, name.encode()))
        assert await listed(bench, Kind.DATASET) == [["c", "a"], ["b"]]


async def test_empty_listing_is_one_empty_page(bench: Bench) -> None:
    """With and without filters."""
    for filters in (None, Filters(keys=["none"])):
        assert await listed(bench, Kind.DATASET, filters=filters) == [[]]


async def test_filtered_listing_comes_in_pages(open_bench: OpenBench) -> None:
    """In its order; exactly full pages are followed by none that is empty."""
    async with open_bench(page_rows_max=2) as bench:
        await fill(bench, 7)
        only = Filters(labels={"run": "a"})
        assert await listed(bench, filters=only) == [["m0", "m2"], ["m4", "m6"]]
        newest = parse_order("created:desc")
        assert await listed(bench, filters=Filters(where=["config.epochs>3"]), order=newest) == [["m4", "m5"], ["m6"]]
        assert await listed(bench, filters=Filters(model_ids=["m3"])) == [["m3"]]


async def test_page_ends_where_its_bytes_do(open_bench: OpenBench) -> None:
    """A row that is larger than a page comes alone; none is lost between two pages."""
    async with open_bench(page_size_bytes=4_096) as bench:
        for number in range(5):
            await bench.write(put_model("d", b"m%d" % number, text="x" * (1_500 if number != 2 else 9_000)))
            await bench.write(put_model("d", b"n%d" % number, epochs=number, text="x" * 1_500))
        whole = [value for page in await listed(bench) for value in page]
        parts = await listed(bench, filters=Filters(backends=["openai"]))
        assert len(parts) > 2
        assert [value for page in parts for value in page] == whole


async def test_limited_listing_goes_on_where_it_ended(open_bench: OpenBench) -> None:
    """The last page of each answer says where; the last answer that there is no more."""
    async with open_bench(page_rows_max=2) as bench:
        await fill(bench, 8)
        order, after, found = parse_order("key"), None, list[list[str]]()
        while True:
            request = ListEntries(kind=Kind.MODEL, order=order, limit=3, after=after)
            answer = await pages(bench, request)
            found.append([item.value.decode() for page in answer for item in page.items])
            if (after := answer[-1].next_after) is None:
                break
        assert [len(part) for part in found] == [3, 3, 2]
        assert sorted(value for part in found for value in part) == [f"m{number}" for number in range(8)]


async def test_entry_that_goes_between_two_pages_is_left_out(open_bench: OpenBench) -> None:
    """And no other; a listing without filters does the same."""
    async with open_bench(page_rows_max=2) as bench:
        await fill(bench, 6)
        for filters in (Filters(backends=["openai"]), None):
            gone = "m2" if filters is None else "m3"
            stream = bench.engine.listing.entries(ListEntries(kind=Kind.MODEL, filters=filters))
            await anext(stream)
            await bench.write(clear(Kind.MODEL, model_ids=[gone]))
            assert gone not in [item.value.decode() async for page in stream for item in page.items]
        assert await listed(bench) == [["m0", "m1"], ["m4", "m5"]]


async def test_filters_of_older_clients_go_with_the_others(bench: Bench) -> None:
    """Both hold."""
    for model_id in ("m1", "m2"):
        await bench.write(put_evals({"t": b"/t", "u": b"/u"}, model_id=model_id))
    assert await listed(bench, Kind.EVAL, model_id="m1") == [["/t", "/u"]]
    assert await listed(bench, Kind.EVAL, model_id="m1", filters=Filters(task_ids=["u"])) == [["/u"]]
    assert await listed(bench, Kind.EVAL, task_id="t", limit=1) == [["/t"]]
    assert await listed(bench, Kind.EVAL, task_id="v", filters=Filters(model_ids=["m1"])) == [[]]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ListEntries(kind=Kind.DATASET, model_id="m"), "cannot be chosen by"),
        (ListEntries(kind=Kind.MODEL, task_id="t"), "cannot be chosen by"),
        (ListEntries(kind=Kind.MODEL, task_id="t", filters=Filters(keys=["k"])), "cannot be chosen by"),
        (ListEntries(kind=Kind.MODEL, filters=Filters(task_ids=["t"])), "task"),
        (ListEntries(kind=Kind.MODEL, filters=Filters(where=["confg.x=1"])), "confg"),
        (ListEntries(kind=Kind.MODEL, order=parse_order("task_id")), "task_id"),
        (ListEntries(kind=Kind.MODEL, limit=1, after=b"x"), "another listing"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_the_first_page(
    bench: Bench, request_: ListEntries, message: str
) -> None:
    """Ignoring it would list everything."""
    with pytest.raises(RequestError, match=message):
        await anext(bench.engine.listing.entries(request_))
