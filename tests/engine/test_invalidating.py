"""Entries miss that stay where they are, and count again when that is taken back."""

from __future__ import annotations

from typing import Any

import pytest

from motoolsd.core.errors import RequestError
from motoolsd.core.guards import MISSING
from motoolsd.engine import invalidating as invalidating_module
from motoolsd.store.entries import SetVoid
from motoolsd.wire.explaining import Introduce
from motoolsd.wire.filters import Filters
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.listing import Invalidate, Invalidated
from motoolsd.wire.origins import Origin, origin_id
from tests.engine.bench import Bench
from tests.engine.cleaning import publish_model
from tests.engine.conftest import OpenBench
from tests.samples import put_dataset, put_evals, put_model, query
from tests.signing import key_of_model

MODELS = (Kind.MODEL,)


async def invalidate(bench: Bench, *kinds: Kind, **options: Any) -> Invalidated:  # noqa: ANN401 - whatever Invalidate has
    """Let entries miss, or count again."""
    return await bench.engine.invalidating.invalidate(Invalidate(kinds=kinds or MODELS, **options))


async def family(bench: Bench) -> None:
    """Two datasets, a model of each, and an evaluation of each of those."""
    for number in (1, 2):
        await bench.write(put_dataset(f"d{number}"))
        await bench.write(put_model(f"d{number}", b"m%d" % number, epochs=1))
        await bench.write(put_evals({"t": b"/log%d" % number}, model_id=f"m{number}"))


async def hits(bench: Bench) -> set[str]:
    """Which of the family hit."""
    keys = {
        **{f"d{number}": (Kind.DATASET, f"d{number}") for number in (1, 2)},
        **{f"m{number}": (Kind.MODEL, key_of_model({"epochs": 1}, f"d{number}")) for number in (1, 2)},
        **{f"e{number}": (Kind.EVAL, eval_key(f"m{number}", "t", "inspect", None)) for number in (1, 2)},
    }
    return {name for name, (kind, key) in keys.items() if await bench.look_up(key, kind) is not None}


ALL = {"d1", "d2", "m1", "m2", "e1", "e2"}


async def test_invalidated_entries_miss_until_they_are_restored(bench: Bench) -> None:
    """Those that pass the filters, of the kinds that are named; their rows stay."""
    await family(bench)
    only = Filters(datasets=["d1"])
    assert await invalidate(bench, filters=only) == Invalidated(models=1)
    assert await hits(bench) == ALL - {"m1"}
    assert (await bench.engine.stats()).num_models == 2, "they are entries still, as listings show them"
    assert await invalidate(bench, filters=only, restore=True) == Invalidated(models=1)
    assert await hits(bench) == ALL


async def test_all_kinds_are_marked_in_one_go(bench: Bench) -> None:
    """No filter is every entry of the kinds; a kind named twice counts once."""
    await family(bench)
    assert await invalidate(bench, Kind.DATASET, Kind.EVAL, Kind.EVAL) == Invalidated(datasets=2, evals=2)
    assert await hits(bench) == {"m1", "m2"}


async def test_it_is_harmless_when_repeated(bench: Bench) -> None:
    """The first reason and time stand; nothing is counted twice."""
    await family(bench)
    for reason, count in (("first", 2), ("second", 0)):
        assert await invalidate(bench, reason=reason) == Invalidated(models=count)
    assert query(bench.directory / "cache.db", "SELECT DISTINCT void_detail FROM trained_models") == [("first",)]
    for count in (2, 0):
        assert await invalidate(bench, restore=True) == Invalidated(models=count)


async def test_dry_run_only_counts(bench: Bench) -> None:
    """Both ways."""
    await family(bench)
    assert await invalidate(bench, dry_run=True, downstream=True) == Invalidated(models=2, evals=2)
    assert await hits(bench) == ALL
    await invalidate(bench)
    assert await invalidate(bench, dry_run=True, restore=True) == Invalidated(models=2)
    assert await hits(bench) == ALL - {"m1", "m2"}


@pytest.mark.parametrize(
    ("kind", "filters", "counts", "missing"),
    [
        (Kind.DATASET, Filters(datasets=["d1"]), (1, 1, 1), {"d1", "m1", "e1"}),
        (Kind.MODEL, Filters(model_ids=["m2"]), (0, 1, 1), {"m2", "e2"}),
        (Kind.EVAL, Filters(model_ids=["m2"]), (0, 0, 1), {"e2"}),
        (Kind.DATASET, Filters(keys=["none"]), (0, 0, 0), set()),
    ],
)
async def test_what_was_made_from_them_goes_with_them(
    bench: Bench, kind: Kind, filters: Filters, counts: tuple[int, int, int], missing: set[str]
) -> None:
    """Directly or not, and nothing beside; restored alike."""
    await family(bench)
    datasets, models, evals = counts
    expected = Invalidated(datasets=datasets, models=models, evals=evals)
    assert await invalidate(bench, kind, filters=filters, downstream=True) == expected
    assert await hits(bench) == ALL - missing
    assert await invalidate(bench, kind, filters=filters, downstream=True, restore=True) == expected
    assert await hits(bench) == ALL


async def test_what_misses_for_another_reason_keeps_it(bench: Bench) -> None:
    """Restoring does not make up for a file that is gone."""
    await family(bench)
    key = key_of_model({"epochs": 1}, "d1")
    await bench.writer.change(SetVoid(((Kind.MODEL, key),), MISSING, "runs/m1"))
    assert await invalidate(bench, reason="oops") == Invalidated(models=1)
    assert await invalidate(bench, restore=True) == Invalidated(models=1)
    assert await hits(bench) == ALL - {"m1"}
    rows = query(bench.directory / "cache.db", "SELECT void_reason, void_detail FROM trained_models")
    assert rows == [(MISSING, "runs/m1"), (None, None)]


async def test_restored_entry_still_depends_on_its_files(bench: Bench) -> None:
    """What memory learns again is what the row says."""
    key = await publish_model(bench, "m1")
    await invalidate(bench)
    await invalidate(bench, restore=True)
    assert await bench.look_up(key, Kind.MODEL) == b"m1"
    (bench.directory / "runs/m1/weights").unlink()
    (bench.directory / "runs/m1").rmdir()
    assert await bench.look_up(key, Kind.MODEL) is None


async def test_invalidated_entry_misses_after_a_restart(open_bench: OpenBench) -> None:
    """It stands in its row; a new value ends it."""
    async with open_bench() as bench:
        await family(bench)
        await invalidate(bench)
    async with open_bench() as bench:
        assert await hits(bench) == ALL - {"m1", "m2"}
        await bench.write(put_model("d1", b"m1", epochs=1))
        assert await hits(bench) == ALL - {"m2"}


async def test_many_are_marked_in_several_writes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are written in between; all are counted, what was made from them too."""
    monkeypatch.setattr(invalidating_module, "ROWS_AT_ONCE", 3)
    for number in range(8):
        await bench.write(put_model("d", b"m%d" % number, number=number))
        await bench.write(put_evals({"t": b"/log"}, model_id=f"m{number}"))
    bench.store.batches.clear()
    assert await invalidate(bench, downstream=True) == Invalidated(models=8, evals=8)
    assert len(bench.store.batches) == 6
    assert await invalidate(bench, downstream=True, restore=True) == Invalidated(models=8, evals=8)


@pytest.mark.parametrize(
    ("reason", "is_known", "detail"),
    [
        ("oops", True, "oops, by ann@here (pid 42: python)"),
        (None, True, "by ann@here (pid 42: python)"),
        ("oops", False, "oops"),
        (None, False, ""),
    ],
)
async def test_reason_and_who_gave_it_are_kept(
    bench: Bench,
    reason: str | None,
    is_known: bool,  # noqa: FBT001
    detail: str,
) -> None:
    """As far as somebody is known by the origin that is named."""
    await family(bench)
    ann = Origin(user="ann", host="here", pid=42, command=("python",))
    if is_known:
        bench.engine.notice(Introduce(origin=ann), bench.tally)
    await invalidate(bench, reason=reason, origin=origin_id(ann))
    rows = query(bench.directory / "cache.db", "SELECT DISTINCT void_detail FROM trained_models")
    assert rows == [(detail,)]


@pytest.mark.parametrize(
    "filters", [Filters(task_ids=["t"]), Filters(where=["confg.x=1"]), Filters(created_after_s=5, created_before_s=5)]
)
async def test_what_makes_no_sense_marks_nothing(bench: Bench, filters: Filters) -> None:
    """For one of the kinds is enough: the others are not marked either."""
    await family(bench)
    with pytest.raises(RequestError):
        await invalidate(bench, Kind.EVAL, Kind.MODEL, filters=filters)
    assert await hits(bench) == ALL
