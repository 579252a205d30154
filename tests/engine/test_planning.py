"""Drawing plans: who is asked for what, in which order, and what is never asked for."""

from __future__ import annotations

from typing import Any

import pytest

from motoolsd.core.errors import RequestError, StorageFailed
from motoolsd.core.ports import TreeError
from motoolsd.engine import planning
from motoolsd.engine.planning import described
from motoolsd.wire.cleaning import Criteria
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import Used
from motoolsd.wire.sizes import Size
from tests.engine.bench import Bench
from tests.engine.cleaning import key_of, plan, publish_eval, publish_model, sizes, with_files, write
from tests.samples import execute, put_dataset, put_model

DAY_S = 86_400.0
ALL = tuple(Kind)


async def aged(bench: Bench, *names: str) -> None:
    """Models of 5,000 bytes each; the first is the oldest, the last was stored a day ago."""
    for number, name in enumerate(names):
        await publish_model(bench, name)
        execute(
            bench.directory / "cache.db",
            f"UPDATE trained_models SET created_at = datetime({bench.clock.moment().wall_s}, 'unixepoch',"
            f" '-{len(names) - number} days'), last_used_at = NULL WHERE model_id = '{name}'",
        )


@pytest.mark.parametrize(
    ("criteria", "named"),
    [
        ({}, "nothing is asked for"),
        ({"older_than_s": 60}, "nothing is asked for"),
        ({"force": True, "to_bytes": 0}, "nothing is asked for"),
        ({"kinds": ALL, "keys": ["k"]}, "evals cannot be chosen by keys"),
        ({"kinds": (Kind.DATASET,), "model_ids": []}, "datasets cannot be chosen by model_ids"),
        ({"kinds": (Kind.DATASET, Kind.MODEL), "task_ids": ["t"]}, "datasets, models cannot be chosen by task_ids"),
        ({"orphans": True, "model_ids": ["m"]}, "nothing cannot be chosen by model_ids"),
    ],
)
async def test_criteria_that_make_no_sense_are_refused(bench: Bench, criteria: dict[str, Any], named: str) -> None:
    """Above all those that would take everything because they say nothing."""
    with pytest.raises(RequestError, match=named):
        await plan(bench, *criteria.pop("kinds", ()), **criteria)


async def test_ages_choose(bench: Bench) -> None:
    """Entries must match every age that is given, and the reason names it."""
    await aged(bench, "m3", "m2", "m1")
    made = await plan(bench, Kind.MODEL, older_than_s=1.5 * DAY_S)
    assert sorted(made.names) == [("model", "m2"), ("model", "m3")]
    assert made.items[0].reason == "stored more than 1.5 d ago"
    bench.told(Used(kind=Kind.MODEL, hits={await key_of(bench, "m3"): 1}))
    bench.engine.flush_usage_nowait()
    made = await plan(bench, Kind.MODEL, older_than_s=1.5 * DAY_S, unused_for_s=3_600)
    assert made.names == [("model", "m2")]
    assert made.items[0].reason == "stored more than 1.5 d ago, not used for 1 h"


async def test_down_to_a_size_takes_the_least_recently_used(bench: Bench) -> None:
    """Whatever their kind; rows without files free nothing, and stay."""
    await aged(bench, "m3", "m2", "m1")
    await bench.write(put_dataset("d"))
    await publish_eval(bench, "t", "evals/t.json")
    for name in ("m1", "m2", "m3"):
        # More than the database grows meanwhile.
        write(bench.directory, f"runs/{name}/weights", 1_000_000)
    await sizes(bench, rescan=True)
    live_bytes = (await bench.engine.census.current()).live_size_bytes
    made = await plan(bench, *ALL, to_bytes=live_bytes - 1_500_000)
    assert made.names == [("model", "m3"), ("model", "m2")]
    assert made.items[0].reason.startswith("least recently used (2026-01-")
    assert (await plan(bench, *ALL, to_bytes=live_bytes + 500_000)).items == []
    assert len((await plan(bench, *ALL, to_bytes=0)).items) == 4


async def test_filters_choose(bench: Bench) -> None:
    """By keys, values and tasks, as a plain clear takes them."""
    for name in ("m1", "m2"):
        await publish_model(bench, name)
    for task in ("t1", "t2"):
        await publish_eval(bench, task, f"evals/{task}.json")
    assert (await plan(bench, Kind.MODEL, keys=[await key_of(bench, "m2")])).names == [("model", "m2")]
    made = await plan(bench, Kind.MODEL, Kind.EVAL, model_ids=["m1", "m"])
    assert sorted(item.kind for item in made.items) == ["eval", "eval", "model"]
    (item,) = (await plan(bench, Kind.EVAL, task_ids=["t2"])).items
    assert item.paths == (b"evals/t2.json",)
    assert (await plan(bench, Kind.EVAL, task_ids=[])).items == []


async def test_plan_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used of all kinds go first; the rest is left for the next."""
    monkeypatch.setattr(planning, "PLAN_ITEMS_MAX", 2)
    await bench.write(put_dataset("d"))
    await aged(bench, "m3", "m2", "m1")
    made = await plan(bench, *ALL)
    assert made.names == [("model", "m3"), ("model", "m2")]


async def test_plan_says_what_the_disk_gets_back(bench: Bench) -> None:
    """A path of two entries counts once, below an owned one too; what is kept counts nothing."""
    write(bench.directory, "runs/shared/a", 4_096)
    write(bench.directory, "runs/shared/b", 4_096)
    for name, path in (("m1", "runs/shared"), ("m2", "runs/shared"), ("m3", "runs/shared/a")):
        await bench.engine.publishing.publish(with_files(put_model("d", name.encode(), name=name), path))
    # A file below two owned paths counts for the inner one, once a scan has seen both.
    await sizes(bench, rescan=True)
    made = await plan(bench, Kind.MODEL)
    assert [path for item in made.items for path in item.paths] == [b"runs/shared"]
    assert made.freed_bytes == sum(item.size_bytes for item in made.items) == 8_192
    made = await plan(bench, Kind.MODEL, model_ids=["m1", "m2"])
    assert (made.freed_bytes, [kept.path for kept in made.kept]) == (0, [b"runs/shared"])
    assert "owns it, or part of it, too" in made.kept[0].why


async def test_file_that_is_gone_is_no_part_of_a_plan(bench: Bench) -> None:
    """The row goes all the same."""
    await publish_model(bench, "m1")
    (bench.directory / "runs/m1/weights").unlink()
    (bench.directory / "runs/m1").rmdir()
    made = await plan(bench, Kind.MODEL)
    assert (made.names, made.items[0].paths, made.freed_bytes) == ([("model", "m1")], (), 0)


async def test_plan_over_a_tree_that_cannot_be_read_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be seen might be anything."""
    await publish_model(bench, "m1")

    def refuse(path: bytes) -> None:
        raise TreeError(path, "Input/output error")

    monkeypatch.setattr(bench.files, "see", refuse)
    with pytest.raises(StorageFailed, match="runs/m1: Input/output error"):
        await plan(bench, Kind.MODEL)


async def test_live_bytes_are_all_but_the_trash(bench: Bench) -> None:
    """What is removed already need not be removed again."""
    figures = await bench.engine.census.current()
    figures.categories = {"runs": Size(10, 10), "trash": Size(5, 5), "database": Size(1, 1)}
    assert (figures.total_size_bytes, figures.live_size_bytes) == (16, 11)


@pytest.mark.parametrize(
    ("criteria", "text"),
    [
        (Criteria(kinds=(Kind.MODEL,)), "models"),
        (Criteria(kinds=ALL, older_than_s=90), "all entries, older than 90 s"),
        (Criteria(kinds=(Kind.EVAL, Kind.DATASET), unused_for_s=1.5), "evals, datasets, unused for 1.5 s"),
        (Criteria(kinds=ALL, to_bytes=10, orphans=True), "all entries, down to 10 bytes, orphans"),
        (Criteria(dangling=True), "dangling entries"),
    ],
)
def test_criteria_in_words(criteria: Criteria, text: str) -> None:
    """As the list of the trash has them."""
    assert described(criteria) == text
