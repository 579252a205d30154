"""What nobody may take: pins, leases, uses, and what those were made from."""

from __future__ import annotations

import pytest

from motoolsd.core.errors import EntryNotFound, RequestError
from motoolsd.wire.cleaning import EndUse, Pin, Use
from motoolsd.wire.keys import Kind
from motoolsd.wire.leases import Claim
from tests.engine.bench import Bench
from tests.engine.cleaning import apply, key_of, models, pin, plan, publish_eval, publish_model, remove, write
from tests.engine.conftest import OpenBench
from tests.samples import clear, put_dataset

ALL = (Kind.DATASET, Kind.MODEL, Kind.EVAL)
USE = b"u" * 16


async def fill(bench: Bench) -> str:
    """A dataset, a model made from it, and an evaluation of that; the model's key."""
    await bench.write(put_dataset("d"))
    key = await publish_model(bench, "m")
    await publish_eval(bench, "t", "evals/t.json")
    return key


async def why(bench: Bench, **criteria: object) -> dict[str, str]:
    """What stays, by kind, and why."""
    return {one.kind: one.why for one in (await plan(bench, *ALL, **criteria)).protected}


async def test_pinned_entry_stays_with_what_it_was_made_from(bench: Bench) -> None:
    """Force overrides pins."""
    await fill(bench)
    await pin(bench, "m", reason="paper")
    protected = await why(bench)
    assert protected["model"] == "pinned: paper"
    assert "was made from it (pinned: paper)" in protected["dataset"]
    assert "eval" not in protected
    assert await why(bench, force=True) == {}


async def test_pin_ends_by_itself(bench: Bench) -> None:
    """And is taken away from the row, so that a plain clear takes the entry too."""
    await fill(bench)
    await bench.engine.protection.pin(Pin(key="m", until_s=60))
    assert "model" in await why(bench)
    await bench.clock.advance(61)
    assert "model" not in await why(bench)
    await bench.engine.protection.end_pins()
    assert (await bench.write(clear(Kind.MODEL))).models == 1  # type: ignore[union-attr]


async def test_pin_of_nothing_is_not_found(bench: Bench) -> None:
    """Rather than remembered for what may come."""
    with pytest.raises(EntryNotFound, match="no entry has"):
        await bench.engine.protection.pin(Pin(key="unknown"))


async def test_clear_spares_pins_and_names_them(bench: Bench) -> None:
    """Unless it is forced."""
    await fill(bench)
    await pin(bench, "m", reason="paper")
    cleared = await bench.write(clear(Kind.MODEL))
    assert (cleared.models, cleared.num_protected, cleared.protected[0].why) == (0, 1, "pinned: paper")  # type: ignore[union-attr]
    assert (await bench.write(clear(Kind.MODEL, force=True))).models == 1  # type: ignore[union-attr]


async def test_use_protects_until_its_end(bench: Bench) -> None:
    """Also from force."""
    key = await fill(bench)
    await bench.engine.protection.use(Use(use_id=USE, kind=Kind.MODEL, keys=[key]), 42)
    protected = await why(bench, force=True)
    assert protected["model"] == "in use by pid 42"
    assert "in use by pid 42" in protected["dataset"]
    await bench.engine.protection.end_use(EndUse(use_id=USE))
    assert await why(bench, force=True) == {}
    assert (await bench.engine.protection.end_use(EndUse(use_id=USE))).count == 0


async def test_use_ends_with_its_process(bench: Bench) -> None:
    """Nobody has to say so."""
    key = await fill(bench)
    await bench.engine.protection.use(Use(use_id=USE, kind=Kind.MODEL, keys=[key]), 42)
    bench.users.end(42)
    assert await why(bench) == {}


async def test_use_outlives_the_daemon(open_bench: OpenBench) -> None:
    """As its process does."""
    async with open_bench() as bench:
        key = await fill(bench)
        await bench.engine.protection.use(Use(use_id=USE, kind=Kind.MODEL, keys=[key]), 42)
    async with open_bench() as bench:
        await bench.engine.recover()
        assert bench.engine.is_needed
        assert "model" in await why(bench)
        bench.users.end(42)
        assert await why(bench) == {}


async def test_process_that_cannot_be_seen_cannot_use(bench: Bench) -> None:
    """Nothing would tell when it ends."""
    with pytest.raises(RequestError, match="pin them instead"):
        await bench.engine.protection.use(Use(use_id=USE, kind=Kind.MODEL, keys=["k"]), 0)


async def test_what_is_computed_is_spared_with_its_dataset_and_directory(bench: Bench) -> None:
    """From the claim on."""
    await fill(bench)
    write(bench.directory, "runs/new/partial")
    bench.clock.follow_files()
    request = Claim(
        claim_id=b"c" * 16,
        context=b"t",
        kind=Kind.MODEL,
        keys=["new"],
        work_dir=b"runs/new",
        dataset_hash="d",
    )
    await bench.engine.claims.claim(request, 42, object(), bench.tally, lambda _: None)
    made = await plan(bench, *ALL, orphans=True, orphan_age_s=0)
    stay = {(one.kind, one.key): one.why for one in made.protected}
    assert stay["dataset", "d"] == "pid 42 computes a model from it"
    assert stay["orphan", "runs/new"] == "pid 42 works in it"
    bench.processes.end(42)
    made = await plan(bench, *ALL, orphans=True, orphan_age_s=0)
    assert ("orphan", "runs/new") in made.names


async def test_use_that_begins_after_the_plan_is_respected(bench: Bench) -> None:
    """The plan is out of date: nothing is taken from under anybody."""
    key = await fill(bench)
    made = await plan(bench, Kind.MODEL)
    await bench.engine.protection.use(Use(use_id=USE, kind=Kind.MODEL, keys=[key]), 42)
    with pytest.raises(RequestError, match="in use by pid 42"):
        await apply(bench, made.plan_id)
    assert await models(bench) == ["m"]
    assert await key_of(bench, "m") == key
    bench.users.end(42)
    assert (await remove(bench, Kind.MODEL)).models == 1
