"""Clean-up: what is shown is what goes; what goes can come back; nothing is half done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from motoolsd.core.errors import EntryNotFound, PlanOutdated, RequestError
from motoolsd.core.ports import TreeError
from motoolsd.engine import cleaner, removing
from motoolsd.engine.cleaner import PAGE_SIZE_BYTES, Cleaner
from motoolsd.store.removals import BeginRemoval, SetRemovalState, State
from motoolsd.wire.cleaning import ApplyPlan, EmptyTrash, MakePlan, Undo
from motoolsd.wire.cleaning import Criteria as Wanted
from motoolsd.wire.keys import Kind
from tests.engine.bench import Bench
from tests.engine.cleaning import (
    apply,
    files_below,
    finish,
    models,
    pin,
    plan,
    publish_eval,
    publish_model,
    remove,
    sizes,
    undo,
    write,
)
from tests.engine.conftest import OpenBench
from tests.samples import clear, put_dataset, put_model


async def trash_ids(asked: Cleaner) -> list[int]:
    """What can be put back."""
    return [row.id async for page in asked.list_trash() for row in page.items]


async def test_plan_changes_nothing(bench: Bench) -> None:
    """It names what would go with its paths and sizes."""
    await publish_model(bench, "m1")
    before = files_below(bench.directory)
    made = await plan(bench, Kind.MODEL)
    assert made.names == [("model", "m1")]
    assert (made.items[0].paths, made.items[0].size_bytes) == ((b"runs/m1",), 5_000)
    assert made.freed_bytes == made.items[0].allocated_bytes > 0
    assert files_below(bench.directory) == before
    assert await models(bench) == ["m1"]


async def test_what_was_removed_comes_back(bench: Bench) -> None:
    """Rows and files, and everybody sees it at once."""
    key = await publish_model(bench, "m1")
    before = files_below(bench.directory)
    told = await remove(bench, Kind.MODEL)
    assert (told.models, told.is_complete, await bench.look_up(key, Kind.MODEL)) == (1, True, None)
    assert list(files_below(bench.directory)) == [f"trash/{told.removal_id}/0/weights"]
    assert (await undo(bench)).models == 1
    assert await bench.look_up(key, Kind.MODEL) == b"m1"
    assert files_below(bench.directory) == before
    with pytest.raises(EntryNotFound, match="nothing to undo"):
        await undo(bench)


async def test_plan_that_was_carried_out_tells_the_same_again(bench: Bench) -> None:
    """A reply may be lost, also of one whose room was freed at once."""
    for to_trash in (True, False):
        await publish_model(bench, "m1")
        made = await plan(bench, Kind.MODEL)
        first = await apply(bench, made.plan_id, to_trash=to_trash)
        assert first.models == 1
        assert (first.removal_id > 0) is to_trash
        assert await apply(bench, made.plan_id, to_trash=to_trash) == first


async def test_plan_can_be_carried_out_again_after_an_undo(bench: Bench) -> None:
    """It is as if it had not been."""
    await publish_model(bench, "m1")
    made = await plan(bench, Kind.MODEL)
    first = await apply(bench, made.plan_id)
    await undo(bench, first.removal_id)
    again = await apply(bench, made.plan_id)
    assert (again.models, again.removal_id > first.removal_id) == (1, True)


async def test_plan_that_was_overtaken_is_refused(bench: Bench) -> None:
    """By another value, other files, a pin: what changed is named, and nothing goes."""
    changes: dict[str, Callable[[], Awaitable[object]]] = {
        "stored again": lambda: bench.write(put_model("d", b"other", name="m1")),
        "files have changed": lambda: anyio.to_thread.run_sync(write, bench.directory, "runs/m1/more"),
        "pinned": lambda: pin(bench, "m1", reason="paper"),
    }
    for expected, change in changes.items():
        await bench.write(put_dataset("d"))
        await publish_model(bench, "m1")
        made = await plan(bench, Kind.MODEL)
        await change()
        before = files_below(bench.directory)
        with pytest.raises(PlanOutdated, match=expected):
            await apply(bench, made.plan_id)
        assert files_below(bench.directory) == before
    with pytest.raises(EntryNotFound, match="no plan"):
        await apply(bench, "unknown")


async def test_path_of_several_entries_goes_with_the_last(bench: Bench) -> None:
    """Until then it is kept, by name."""
    await publish_eval(bench, "t1", "evals/shared.json")
    await publish_eval(bench, "t2", "evals/shared.json")
    made = await plan(bench, Kind.EVAL, task_ids=["t1"])
    assert (made.items[0].paths, [kept.path for kept in made.kept]) == ((), [b"evals/shared.json"])
    await apply(bench, made.plan_id)
    assert "evals/shared.json" in files_below(bench.directory)
    await remove(bench, Kind.EVAL, task_ids=["t2"])
    assert "evals/shared.json" not in files_below(bench.directory)


async def test_undo_over_something_new_is_refused_whole(bench: Bench) -> None:
    """Neither a row nor a file that came since is lost."""
    await publish_model(bench, "m1")
    await publish_model(bench, "m2")
    told = await remove(bench, Kind.MODEL)
    await publish_model(bench, "m1")
    before = files_below(bench.directory)
    with pytest.raises(RequestError, match=r"stored again.*runs/m1"):
        await undo(bench, told.removal_id)
    assert files_below(bench.directory) == before
    assert await models(bench) == ["m1"]


async def test_undo_onto_a_file_or_a_key_that_came_since_is_refused_whole(bench: Bench) -> None:
    """Either is enough; once it is out of the way, everything comes back."""
    for name in ("m1", "m2"):
        await publish_model(bench, name)
    before = files_below(bench.directory)
    removal = (await remove(bench, Kind.MODEL)).removal_id
    write(bench.directory, "runs/m2/new")
    with pytest.raises(RequestError, match=r"nothing was: something lies at runs/m2\. Move that away"):
        await undo(bench, removal)
    assert (await models(bench), (bench.directory / "runs/m1").exists()) == ([], False)
    (bench.directory / "runs/m2/new").unlink()
    (bench.directory / "runs/m2").rmdir()
    await bench.write(put_model("d", b"another", name="m1"))
    with pytest.raises(RequestError, match=r"nothing was: model \S+ was stored again\. Move that away"):
        await undo(bench, removal)
    assert await models(bench) == ["another"]
    await bench.write(clear(Kind.MODEL))
    assert (await undo(bench, removal)).models == 2
    assert files_below(bench.directory) == before


async def test_undo_twice_is_one(bench: Bench) -> None:
    """By its number, too; the one before it is another's turn."""
    removals = []
    for name in ("m1", "m2"):
        await publish_model(bench, name)
        removals.append((await remove(bench, Kind.MODEL)).removal_id)
    assert (await undo(bench)).removal_id == removals[1]
    with pytest.raises(EntryNotFound, match=f"nothing with number {removals[1]}"):
        await undo(bench, removals[1])
    assert (await undo(bench)).removal_id == removals[0]
    assert sorted(await models(bench)) == ["m1", "m2"]


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clean-ups work on two items at once."""
    for module in (cleaner, removing):
        monkeypatch.setattr(module, "ITEMS_AT_ONCE", 2)


@pytest.mark.usefixtures("in_parts")
async def test_cancelled_clean_up_can_be_undone(bench: Bench) -> None:
    """After the part under way; what it did so far is told when it is asked again."""
    for name in ("m1", "m2", "m3"):
        await publish_model(bench, name)
    made = await plan(bench, Kind.MODEL)
    stream = bench.engine.cleaner.apply(ApplyPlan(plan_id=made.plan_id))
    assert (await anext(stream)).done == 2  # type: ignore[union-attr]
    await stream.aclose()
    assert len(await models(bench)) == 1
    told = await apply(bench, made.plan_id)
    assert (told.models, told.is_complete) == (2, False)
    await undo(bench, told.removal_id)
    assert len(await models(bench)) == 3


@pytest.mark.usefixtures("in_parts")
async def test_cancelled_clean_up_whose_room_is_freed_at_once_frees_what_it_took(bench: Bench) -> None:
    """It stops as well, and says how far it came."""
    for name in ("m1", "m2", "m3"):
        await publish_model(bench, name)
    made = await plan(bench, Kind.MODEL)
    stream = bench.engine.cleaner.apply(ApplyPlan(plan_id=made.plan_id, to_trash=False))
    await anext(stream)
    await stream.aclose()
    assert await trash_ids(bench.engine.cleaner) == []
    assert len(files_below(bench.directory)) == 1
    told = await apply(bench, made.plan_id, to_trash=False)
    assert (told.removal_id, told.models, told.is_complete) == (0, 2, False)


@pytest.mark.usefixtures("in_parts")
async def test_undo_that_nobody_waits_for_comes_to_its_end(bench: Bench) -> None:
    """An entry is never half there."""
    for name in ("m1", "m2", "m3"):
        await publish_model(bench, name)
    await remove(bench, Kind.MODEL)
    stream = bench.engine.cleaner.undo(Undo())
    await anext(stream)
    await stream.aclose()
    assert len(await models(bench)) == 3
    assert await trash_ids(bench.engine.cleaner) == []


async def test_file_that_cannot_go_stays_and_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no part of the removal any more: the rest can be undone."""
    await publish_model(bench, "m1")
    await publish_model(bench, "m2")
    made = await plan(bench, Kind.MODEL)
    move = bench.files.move_to_trash

    def failing(path: bytes, *rest: object) -> None:
        if path == b"runs/m1":
            raise TreeError(path, "it is a mount point")
        move(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.files, "move_to_trash", failing)
    told = await apply(bench, made.plan_id)
    assert [(kept.path, kept.why) for kept in told.left] == [(b"runs/m1", "it is a mount point")]
    assert told.models == 2
    monkeypatch.undo()
    await undo(bench, told.removal_id)
    assert sorted(await models(bench)) == ["m1", "m2"]
    assert "runs/m2/weights" in files_below(bench.directory)


async def test_trash_is_emptied(bench: Bench) -> None:
    """By number or whole; a number that is none frees nothing."""
    for name in ("m1", "m2", "m3"):
        await publish_model(bench, name)
        await remove(bench, Kind.MODEL)
    asked = bench.engine.cleaner
    newest, middle, oldest = await trash_ids(asked)
    with pytest.raises(EntryNotFound, match="trash list"):
        await finish(asked.empty_trash(EmptyTrash(removal_ids=[middle, 99])))
    assert await trash_ids(asked) == [newest, middle, oldest]
    told = await finish(asked.empty_trash(EmptyTrash(removal_ids=[middle])))
    assert told.freed_bytes > 0
    assert await trash_ids(asked) == [newest, oldest]
    await finish(asked.empty_trash(EmptyTrash()))
    assert (await trash_ids(asked), files_below(bench.directory)) == ([], {})
    with pytest.raises(EntryNotFound):
        await undo(bench, newest)


async def test_trash_expires(bench: Bench) -> None:
    """After its time, by the clock that does not jump; a wall clock set ahead changes nothing."""
    await publish_model(bench, "m1")
    await remove(bench, Kind.MODEL)
    asked = bench.engine.cleaner
    bench.clock.wall_ahead_s = 30 * 86_400
    assert await asked.trim_trash(None) == 0
    bench.clock.wall_ahead_s = 0
    await bench.clock.advance(7 * 86_400 + 1)
    assert await asked.trim_trash(None) > 0
    assert await trash_ids(asked) == []


async def test_trash_outlives_a_boot(bench: Bench) -> None:
    """After another boot the wall clock counts, unless it was set since the daemon began."""
    await publish_model(bench, "m1")
    removal = (await remove(bench, Kind.MODEL)).removal_id
    asked = bench.engine.cleaner
    bench.clock.boot_id = "another"
    assert await asked.trim_trash(None) == 0
    bench.clock.wall_ahead_s = 8 * 86_400
    assert (await asked.trim_trash(None), await trash_ids(asked)) == (0, [removal])
    bench.clock.wall_ahead_s = 0
    await bench.clock.advance(8 * 86_400)
    assert await asked.trim_trash(None) > 0
    assert await trash_ids(asked) == []


async def test_trash_keeps_within_its_room(bench: Bench) -> None:
    """The oldest goes first."""
    for name in ("m1", "m2", "m3"):
        await publish_model(bench, name)
        await remove(bench, Kind.MODEL)
    newest, middle, _ = await trash_ids(bench.engine.cleaner)
    await bench.engine.cleaner.trim_trash(2 * 8_192)
    assert await trash_ids(bench.engine.cleaner) == [newest, middle]


@pytest.mark.parametrize("state", [State.REMOVING, State.RESTORING, State.PURGING])
async def test_what_was_half_done_is_brought_to_its_end(open_bench: OpenBench, state: State) -> None:
    """By the next daemon, the way in which it was going."""
    async with open_bench() as bench:
        await publish_model(bench, "m1")
        told = await remove(bench, Kind.MODEL)
        await bench.writer.change(SetRemovalState(told.removal_id, state))
    async with open_bench() as bench:
        await bench.engine.recover()
        await bench.engine.cleaner.trim_trash(None)
        left = await trash_ids(bench.engine.cleaner)
        found = sorted(files_below(bench.directory))
        expected = {
            State.REMOVING: ([told.removal_id], [], [f"trash/{told.removal_id}/0/weights"]),
            State.RESTORING: ([], ["m1"], ["runs/m1/weights"]),
            State.PURGING: ([], [], []),
        }[state]
        assert (left, await models(bench), found) == expected


async def test_removal_that_had_not_begun_to_move_is_empty(open_bench: OpenBench) -> None:
    """A kill right after its first row leaves every entry where it was."""
    async with open_bench() as bench:
        await publish_model(bench, "m1")
        await bench.writer.change(BeginRemoval("plan", "models", None))
    async with open_bench() as bench:
        await bench.engine.recover()
        assert await models(bench) == ["m1"]
        assert list(files_below(bench.directory)) == ["runs/m1/weights"]
        assert await trash_ids(bench.engine.cleaner) == []
        with pytest.raises(EntryNotFound, match="nothing to undo"):
            await undo(bench)


async def test_figures_follow_at_once(bench: Bench) -> None:
    """What a clean-up moves, puts back and frees shows before the next scan; that finds the same."""
    await publish_model(bench, "m1")
    await publish_model(bench, "m2")
    await sizes(bench, rescan=True)
    bench.engine.census._figures.duration_s = 1.0  # noqa: SLF001 - a tree that is not counted for each question

    async def compare() -> None:
        known = (await sizes(bench)).categories
        bench.engine.census._figures.duration_s = 1.0  # noqa: SLF001 - as above
        found = (await sizes(bench, rescan=True)).categories
        bench.engine.census._figures.duration_s = 1.0  # noqa: SLF001 - as above
        assert {name: known[name] for name in ("runs", "trash")} == {name: found[name] for name in ("runs", "trash")}

    told = await remove(bench, Kind.MODEL, model_ids=["m1"])
    await compare()
    await undo(bench, told.removal_id)
    await compare()
    await remove(bench, Kind.MODEL, model_ids=["m1"])
    await finish(bench.engine.cleaner.empty_trash(EmptyTrash()))
    await compare()
    await remove(bench, Kind.MODEL, model_ids=["m2"], to_trash=False)
    await compare()


async def test_large_plans_come_in_pages_that_fit(bench: Bench) -> None:
    """By bytes, too: an entry may have a thousand paths, and a key may be long."""
    for number in range(6):
        await bench.write(put_dataset(f"{number}" * (PAGE_SIZE_BYTES // 3)))
    request = MakePlan(criteria=Wanted(kinds=(Kind.DATASET,)))
    pages = [page async for page in bench.engine.cleaner.plan(request)]
    assert sum(len(page.items) for page in pages) == 6
    assert max(len(page.items) for page in pages) == 2
    assert [page.is_last for page in pages] == [False] * (len(pages) - 1) + [True]


async def test_empty_trash_is_a_page(bench: Bench) -> None:
    """A stream has an end, also of nothing."""
    (page,) = [page async for page in bench.engine.cleaner.list_trash()]
    assert (page.items, page.is_last) == ([], True)
