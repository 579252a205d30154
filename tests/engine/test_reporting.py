"""Sums of what lookups came to: by kind, job and label, of some time or all, over restarts."""

from __future__ import annotations

from datetime import datetime

import msgspec
import pytest

from motoolsd.engine.usage import MISSES_KEPT, Audience
from motoolsd.store.statistics import DAYS_KEPT, HOUR_S, HOURS_KEPT
from motoolsd.wire.explaining import GetUsage, UsageRow, UsageTable
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import Lookup
from tests.engine.bench import Bench
from tests.engine.conftest import OpenBench
from tests.samples import clear, put_dataset, put_model, query
from tests.signing import key_of_model

ANN = Audience("slurm:1", '{"experiment":"e1","owner":"ann"}')
BOB = Audience("slurm:2", '{"experiment":"e1","owner":"bob"}')
EVE = Audience("slurm:2", '{"owner":"eve"}')


def look_up(bench: Bench, audience: Audience, *keys: str, kind: Kind = Kind.DATASET) -> None:
    """Look keys up for somebody."""
    assert bench.engine.lookups.nowait(Lookup(kind=kind, keys=list(keys)), bench.engine.usage.tally(audience))


async def table(bench: Bench, request: GetUsage | None = None) -> list[UsageRow]:
    """What is told."""
    return (await bench.engine.reporting.table(request or GetUsage())).items


async def figures(bench: Bench, request: GetUsage) -> dict[str, tuple[int, int]]:
    """Hits and misses of datasets by group."""
    rows = await table(bench, request)
    assert {row.kind for row in rows} <= {Kind.DATASET}
    assert len({row.group for row in rows}) == len(rows)
    return {row.group: (row.hits, row.misses) for row in rows}


async def three_looked_up(bench: Bench) -> None:
    """Ann hits twice and misses once, Bob hits once, Eve misses once."""
    await bench.write(put_dataset("d"))
    look_up(bench, ANN, "d", "none")
    look_up(bench, ANN, "d")
    look_up(bench, BOB, "d")
    look_up(bench, EVE, "none")


async def test_nothing_counted_is_an_empty_table(bench: Bench) -> None:
    """No row of zeros."""
    assert await bench.engine.reporting.table(GetUsage()) == UsageTable(items=[])


async def test_counts_are_told_by_kind_at_once(bench: Bench) -> None:
    """What is in memory only is part of the answer, and is counted once."""
    await bench.write(put_dataset("d"))
    await bench.write(put_model(epochs=3))
    for _ in range(2):
        look_up(bench, ANN, "d", "none")
    look_up(bench, ANN, key_of_model({"epochs": 3}), kind=Kind.MODEL)
    expected = [
        UsageRow(kind=Kind.DATASET, hits=2, misses=2, reasons={"never_computed": 2}),
        UsageRow(kind=Kind.MODEL, hits=1),
    ]
    assert await table(bench) == expected
    assert await table(bench) == expected


async def test_misses_are_told_by_reason(bench: Bench) -> None:
    """As it was at their time."""
    for key, version in (("cleared", None), ("old", "1.0")):
        await bench.write(msgspec.structs.replace(put_dataset(key), version=version))
    await bench.write(clear(Kind.DATASET, keys=["cleared"]))
    look_up(bench, ANN, "cleared", "never", "other")
    request = Lookup(kind=Kind.DATASET, keys=["old"], version="2.0", is_strict=True)
    await bench.engine.lookups.find(request, bench.tally)
    await bench.engine.reporting.flush()
    await bench.write(put_dataset("cleared"))
    (row,) = await table(bench)
    assert (row.hits, row.misses) == (0, 4)
    assert row.reasons == {"cleared": 1, "never_computed": 2, "other_version": 1}


async def test_misses_of_a_flood_are_counted_without_reason(bench: Bench) -> None:
    """All of them count; the first have one."""
    look_up(bench, ANN, *(f"d{number}" for number in range(MISSES_KEPT + 5)))
    (row,) = await table(bench)
    assert (row.misses, row.reasons) == (MISSES_KEPT + 5, {"never_computed": MISSES_KEPT})


async def test_hits_save_what_their_entry_took(bench: Bench) -> None:
    """Seconds and costs, for each hit again."""
    put = msgspec.structs.replace(put_dataset("d"), seconds=2.5, metadata=b'{"cost": 0.25, "loss": 1}')
    await bench.write(put)
    await bench.write(put_dataset("free"))
    for _ in range(3):
        look_up(bench, ANN, "d", "free")
    (row,) = await table(bench)
    assert (row.hits, row.seconds_saved, row.cost_saved) == (6, 7.5, 0.75)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (GetUsage(), {"": (3, 2)}),
        (GetUsage(by_job=True), {"slurm:1": (2, 1), "slurm:2": (1, 1)}),
        (GetUsage(by_label="experiment"), {"e1": (3, 1), "": (0, 1)}),
        (GetUsage(by_label="owner"), {"ann": (2, 1), "bob": (1, 0), "eve": (0, 1)}),
        (GetUsage(by_label="none"), {"": (3, 2)}),
        (GetUsage(job="slurm:2"), {"": (1, 1)}),
        (GetUsage(job="slurm:2", by_label="owner"), {"bob": (1, 0), "eve": (0, 1)}),
        (GetUsage(job="slurm:3"), {}),
        (GetUsage(job=""), {}),
        (GetUsage(labels={"experiment": "e1"}), {"": (3, 1)}),
        (GetUsage(labels={"experiment": "e1", "owner": "bob"}), {"": (1, 0)}),
        (GetUsage(labels={"experiment": "e2"}), {}),
        (GetUsage(labels={"experiment": "e1"}, by_job=True), {"slurm:1": (2, 1), "slurm:2": (1, 0)}),
    ],
)
async def test_counts_are_chosen_and_grouped(
    bench: Bench, request_: GetUsage, expected: dict[str, tuple[int, int]]
) -> None:
    """By the job or a label's value; whoever has no such label is in the group without a name."""
    await three_looked_up(bench)
    assert await figures(bench, request_) == expected


async def test_counts_outlive_the_daemon(open_bench: OpenBench) -> None:
    """What is counted after a restart is added, audience by audience."""
    async with open_bench() as bench:
        await three_looked_up(bench)
        await bench.engine.reporting.flush()
    async with open_bench() as bench:
        look_up(bench, BOB, "d")
        assert await figures(bench, GetUsage(by_label="owner")) == {"ann": (2, 1), "bob": (2, 0), "eve": (0, 1)}


async def test_only_the_last_hours_are_told(bench: Bench) -> None:
    """By whole hours; the answer says since when."""
    await bench.write(put_dataset("d"))
    for _ in range(3):
        look_up(bench, ANN, "d")
        await bench.engine.reporting.flush()
        bench.clock.wall_ahead_s += HOUR_S
    for hours, hits in ((0, None), (1, 1), (2, 2), (3, 3), (100, 3)):
        told = await bench.engine.reporting.table(GetUsage(since_s=hours * HOUR_S))
        assert [row.hits for row in told.items] == ([] if hits is None else [hits])
        assert told.since is not None
        age_s = bench.clock.moment().wall_s - datetime.fromisoformat(told.since).timestamp()
        assert hours * HOUR_S <= age_s < (hours + 1) * HOUR_S
    assert (await bench.engine.reporting.table(GetUsage())).since is None


async def test_old_counts_are_kept_by_day_without_the_job(bench: Bench, database: str) -> None:
    """The sums stay, with their labels, in fewer rows; folded again nothing changes."""
    await bench.write(put_dataset("d"))
    bench.clock.wall_ahead_s -= bench.clock.moment().wall_s % (24 * HOUR_S)  # a day begins
    for _ in range(24):
        look_up(bench, ANN, "d")
        look_up(bench, BOB, "d")
        await bench.engine.reporting.flush()
        bench.clock.wall_ahead_s += HOUR_S
    bench.clock.wall_ahead_s += HOURS_KEPT * HOUR_S
    look_up(bench, ANN, "d")
    before = await figures(bench, GetUsage(by_label="owner"))
    rows = "SELECT count(*) FROM motoolsd_counts WHERE name = 'hits'"
    assert query(database, rows) == [(49,)]
    for _ in range(2):
        await bench.engine.reporting.fold()
        assert query(database, rows) == [(3,)]
        assert await figures(bench, GetUsage(by_label="owner")) == before == {"ann": (25, 0), "bob": (24, 0)}
        assert await figures(bench, GetUsage(by_job=True)) == {"": (48, 0), "slurm:1": (1, 0)}


async def test_counts_go_after_their_time(bench: Bench, database: str) -> None:
    """With the audiences that nothing names any more."""
    await bench.write(put_dataset("d"))
    look_up(bench, BOB, "d")
    await bench.engine.reporting.flush()
    bench.clock.wall_ahead_s += (DAYS_KEPT + 1) * 24 * HOUR_S
    look_up(bench, ANN, "d")
    await bench.engine.reporting.flush()
    await bench.engine.reporting.fold()
    assert await figures(bench, GetUsage(by_label="owner")) == {"ann": (1, 0)}
    assert query(database, "SELECT job FROM motoolsd_audiences") == [("slurm:1",)]
