"""What a scan means for rows: sizes, files that belong to an entry without saying so, what lay there before."""

from __future__ import annotations

from pathlib import Path

import pytest

from motoolsd.core.files import Measured
from motoolsd.core.ports import TreeError
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import ListEntries
from tests.engine.bench import Bench
from tests.engine.cleaning import plan, publish_model, remove, sizes, write
from tests.engine.conftest import OpenBench
from tests.samples import execute, put_dataset, put_evals, put_model


async def rows(bench: Bench, kind: Kind) -> dict[str, tuple[int | None, tuple[bytes, ...]]]:
    """Size and files of each entry, by its value."""
    pages = [page async for page in bench.engine.listing.entries(ListEntries(kind=kind))]
    return {row.value.decode(): (row.size_bytes, row.files) for page in pages for row in page.items}


async def test_run_that_grew_is_measured_anew(bench: Bench) -> None:
    """A job may write on after it has told of its model."""
    await publish_model(bench, "m1")
    write(bench.directory, "runs/m1/more", 2_000)
    await sizes(bench, rescan=True)
    assert await rows(bench, Kind.MODEL) == {"m1": (7_000, (b"runs/m1",))}


async def test_older_layout_is_recognised(bench: Bench) -> None:
    """Content under its hash, a run under its model's id, a log whose row names its path."""
    await bench.write(put_dataset("h", b"file"))
    await bench.write(put_model("h", b"ft-1", lr=1))
    await bench.write(put_evals({"t": b".motools/evals/m/t.json", "s": b"s3://bucket/s.json"}))
    directory = bench.directory
    write(directory, "datasets/h.jsonl", 100)
    write(directory, "runs/ft-1/weights", 200)
    write(directory, "evals/m/t.json", 300)
    absolute = put_evals({"u": bytes(directory / "evals/m/u.json")})
    write(directory, "evals/m/u.json", 400)
    await bench.write(absolute)
    found = await sizes(bench, rescan=True)
    assert await rows(bench, Kind.DATASET) == {"file": (100, (b"datasets/h.jsonl",))}
    assert await rows(bench, Kind.MODEL) == {"ft-1": (200, (b"runs/ft-1",))}
    owned = await rows(bench, Kind.EVAL)
    assert owned[str(directory / "evals/m/u.json")] == (400, (b"evals/m/u.json",))
    assert owned["s3://bucket/s.json"] == (None, ())
    # The directory of this test is not called .motools: the relative spelling names another one.
    assert (found.num_orphans, owned[".motools/evals/m/t.json"]) == (1, (None, ()))


async def test_log_that_cannot_be_looked_at_ends_no_scan(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row may name anything; the others are adopted."""
    measure = bench.files.measure

    def refuse(path: bytes) -> Measured | None:
        if path == b"evals/m/secret.json":
            raise TreeError(path, "Permission denied")
        return measure(path)

    monkeypatch.setattr(bench.files, "measure", refuse)
    for task in ("secret", "t"):
        write(bench.directory, f"evals/m/{task}.json", 300)
        await bench.write(put_evals({task: bytes(bench.directory / f"evals/m/{task}.json")}))
    await sizes(bench, rescan=True)
    owned = {files for _, files in (await rows(bench, Kind.EVAL)).values()}
    assert owned == {(), (b"evals/m/t.json",)}


async def test_what_is_adopted_goes_with_its_entry(bench: Bench) -> None:
    """As if it had been published."""
    await bench.write(put_dataset("h", b"file"))
    write(bench.directory, "datasets/h.jsonl")
    await sizes(bench, rescan=True)
    assert (await remove(bench, Kind.DATASET)).datasets == 1
    assert not (bench.directory / "datasets/h.jsonl").exists()


async def test_unowned_runs_are_never_orphans(open_bench: OpenBench, tmp_path: Path) -> None:
    """What lay there before there was ownership is counted, and never offered."""
    execute(tmp_path / "cache.db", "INSERT INTO motoolsd_unowned (path) VALUES (CAST('runs/old' AS BLOB))")
    async with open_bench() as bench:
        write(bench.directory, "runs/old/weights")
        write(bench.directory, "runs/new/weights")
        bench.clock.follow_files()
        found = await sizes(bench, rescan=True)
        assert (found.num_orphans, found.categories["runs"].size_bytes) == (1, 10_000)
        made = await plan(bench, orphans=True, orphan_age_s=0)
        assert made.names == [("orphan", "runs/new")]


async def test_orphans_are_old_enough(bench: Bench) -> None:
    """A job may be about to tell of what it has written."""
    write(bench.directory, "runs/job/weights")
    bench.clock.follow_files()
    assert (await plan(bench, orphans=True)).names == []
    bench.clock.wall_ahead_s += 86_400
    assert (await plan(bench, orphans=True)).names == [("orphan", "runs/job")]


async def test_dangling_entries_go_when_asked_for(bench: Bench) -> None:
    """Others of the same kind do not."""
    for name in ("m1", "m2"):
        await publish_model(bench, name)
    (bench.directory / "runs/m1/weights").unlink()
    (bench.directory / "runs/m1").rmdir()
    await sizes(bench, rescan=True)
    made = await plan(bench, dangling=True)
    assert made.names == [("model", "m1")]
    assert made.items[0].reason == "its file is gone"
