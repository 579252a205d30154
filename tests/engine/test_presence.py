"""A value whose file is gone, or whose time is over, is a miss that heals."""

from __future__ import annotations

import shutil

from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import Lookup
from tests.engine.bench import Bench
from tests.engine.cleaning import models, publish_model, sizes, write


async def test_vanished_file_is_a_miss_until_it_is_back(bench: Bench) -> None:
    """The row stays, and is listed with the time at which the file was missed."""
    key = await publish_model(bench, "m1")
    shutil.move(bench.directory / "runs/m1", bench.directory / "elsewhere")
    assert await bench.look_up(key, Kind.MODEL) is None
    assert bench.peek(key, Kind.MODEL) is None, "nobody has to look again"
    assert await models(bench) == ["m1"]
    assert (await sizes(bench, rescan=True)).num_dangling == 1
    shutil.move(bench.directory / "elsewhere", bench.directory / "runs/m1")
    found = await sizes(bench, rescan=True)
    assert (found.num_dangling, await bench.look_up(key, Kind.MODEL)) == (0, b"m1")


async def test_vanished_file_heals_when_it_is_stored_again(bench: Bench) -> None:
    """With the new file."""
    key = await publish_model(bench, "m1")
    shutil.rmtree(bench.directory / "runs/m1")
    assert await bench.look_up(key, Kind.MODEL) is None
    write(bench.directory, "runs/m1/weights")
    await publish_model(bench, "m1")
    assert await bench.look_up(key, Kind.MODEL) == b"m1"


async def test_scan_finds_what_nobody_has_looked_up(bench: Bench) -> None:
    """And moves the slot, so that those who remember it ask again."""
    key = await publish_model(bench, "m1")
    before = bench.slots.snapshot()
    shutil.rmtree(bench.directory / "runs/m1")
    assert (await sizes(bench, rescan=True)).num_dangling == 1
    assert bench.slots.snapshot() != before
    assert bench.peek(key, Kind.MODEL) is None


async def test_entry_with_an_end_misses_after_it(bench: Bench) -> None:
    """By the clock that never jumps; and its answers are not to be remembered."""
    key = await publish_model(bench, "m1", ttl_s=60)
    found = await bench.answer(Lookup(kind=Kind.MODEL, keys=[key]))
    assert (found.values, found.lasts) == ([b"m1"], False)
    bench.clock.wall_ahead_s = 3_600
    assert await bench.look_up(key, Kind.MODEL) == b"m1", "somebody has set the wall clock"
    await bench.clock.advance(61)
    bench.clock.wall_ahead_s = -3_600
    assert await bench.look_up(key, Kind.MODEL) is None


async def test_end_outlives_a_boot(bench: Bench) -> None:
    """After another boot the wall clock is all there is."""
    key = await publish_model(bench, "m1", ttl_s=3_600)
    bench.clock.boot_id = "another"
    assert await bench.look_up(key, Kind.MODEL) == b"m1"
    bench.clock.wall_ahead_s = 3_700
    assert await bench.look_up(key, Kind.MODEL) is None
