"""The budget: nothing without one; trash first, then what was not used for longest."""

from __future__ import annotations

import pytest

from motoolsd.core.errors import StorageFailed
from motoolsd.core.ports import TreeError
from motoolsd.core.settings import Settings
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import Used
from tests.engine.bench import Bench
from tests.engine.cleaning import files_below, key_of, models, pin, publish_model, remove, sizes, write

MODEL = 100_000


async def fill(bench: Bench) -> None:
    """Three models of about 100 kB; the first was used last."""
    for name in ("m1", "m2", "m3"):
        await publish_model(bench, name)
        (bench.directory / f"runs/{name}/weights").write_bytes(b"x" * MODEL)
    await sizes(bench, rescan=True)


async def budget(bench: Bench, **settings: object) -> None:
    """Look once, under a budget."""
    bench.engine.apply_settings(Settings(**settings))  # type: ignore[arg-type]
    await bench.engine.budget.enforce()


async def total(bench: Bench) -> int:
    """What everything takes."""
    return sum(size.size_bytes for size in (await sizes(bench)).categories.values())


async def test_nothing_goes_without_a_budget(bench: Bench) -> None:
    """However much there is."""
    await fill(bench)
    before = files_below(bench.directory)
    await budget(bench)
    assert files_below(bench.directory) == before


async def test_least_recently_used_goes_down_to_the_low_mark(bench: Bench) -> None:
    """For good, and no more than is needed."""
    await fill(bench)
    high = await total(bench) - 1
    await budget(bench, max_size=high, low_water=0.99)
    assert await models(bench) == ["m2", "m3"]
    assert bench.engine.budget.evicted == 1
    assert not any(path.startswith("trash/") for path in files_below(bench.directory))
    await budget(bench, max_size=high, low_water=0.99)
    assert bench.engine.budget.evicted == 1, "it is within the budget"


async def test_ballast_counts_for_no_budget(bench: Bench) -> None:
    """Removing entries makes it no smaller."""
    await fill(bench)
    high = await total(bench)
    (bench.directory / "ballast").write_bytes(b"x" * 10_000_000)
    await sizes(bench, rescan=True)
    assert await total(bench) > high
    await budget(bench, max_size=high + 1_000_000)
    assert await models(bench) == ["m1", "m2", "m3"]


async def test_use_that_is_not_written_yet_counts(bench: Bench) -> None:
    """The one that was used stays, though it was stored first."""
    await fill(bench)
    bench.told(Used(kind=Kind.MODEL, hits={await key_of(bench, "m1"): 1}))
    bench.engine.flush_usage_nowait()
    await bench.writer.wait_settled()
    await budget(bench, max_size=await total(bench) - 1, low_water=0.99)
    assert len(await models(bench)) == 2


async def test_trash_goes_before_entries(bench: Bench) -> None:
    """What somebody has removed already."""
    await fill(bench)
    await remove(bench, Kind.MODEL, model_ids=["m3"])
    await budget(bench, max_size=await total(bench) - 1, low_water=0.99)
    assert await models(bench) == ["m1", "m2"]
    assert not any(path.startswith("trash/") for path in files_below(bench.directory))


async def test_trash_has_a_share_of_the_budget(bench: Bench) -> None:
    """Above it the oldest goes, though there is room."""
    await fill(bench)
    await remove(bench, Kind.MODEL, model_ids=["m3"])
    await budget(bench, max_size=10 * MODEL, trash_share=0.05)
    assert not any(path.startswith("trash/") for path in files_below(bench.directory))
    assert await models(bench) == ["m1", "m2"]


async def test_protected_entries_stay_and_it_is_said(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is taken from anybody to keep a budget."""
    await fill(bench)
    for name in ("m1", "m2", "m3"):
        await pin(bench, name)
    await budget(bench, max_size=1_000)
    assert await models(bench) == ["m1", "m2", "m3"]
    assert "nothing can be evicted" in caplog.text


async def test_full_disk_counts_as_a_budget_exceeded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """`min_free` is what other programs need."""
    await fill(bench)
    monkeypatch.setattr(bench.files, "free_bytes", lambda: 1_000_000)
    await budget(bench, min_free=1_000_000)
    assert len(await models(bench)) == 3
    await budget(bench, min_free=1_000_000 + MODEL // 2)
    assert await models(bench) == ["m2", "m3"]


async def test_disk_that_does_not_answer_evicts_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not known is no reason; the daemon looks again."""
    await fill(bench)

    def refuse() -> int:
        raise TreeError(b".", "Input/output error")

    monkeypatch.setattr(bench.files, "free_bytes", refuse)
    with pytest.raises(StorageFailed, match="Input/output error"):
        await budget(bench, min_free=1)
    assert len(await models(bench)) == 3


async def test_what_nobody_owns_is_not_evicted(bench: Bench) -> None:
    """A budget takes entries; orphans go when somebody asks for it."""
    write(bench.directory, "runs/job/weights", MODEL)
    await fill(bench)
    await budget(bench, max_size=1_000)
    assert (await models(bench), list(files_below(bench.directory))) == ([], ["runs/job/weights"])
