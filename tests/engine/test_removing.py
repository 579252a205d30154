"""Into the trash, back, and out of the world: what is half done, and what the disk refuses."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from motoolsd.core.errors import RequestError, StorageFailed
from motoolsd.core.ports import DiskFull, PathChanged, PathMissing, PathTaken, TreeError
from motoolsd.engine import cleaner
from motoolsd.store.removals import RemovedPath, SetRemovalState, State, select_paths
from motoolsd.wire.cleaning import ApplyPlan, Cleaned, EmptyTrash, Use
from motoolsd.wire.keys import Kind
from motoolsd.wire.leases import Claim
from tests.engine.bench import Bench
from tests.engine.cleaning import (
    files_below,
    finish,
    key_of,
    models,
    plan,
    publish_model,
    remove,
    sizes,
    undo,
    with_files,
    write,
)
from tests.engine.conftest import OpenBench
from tests.samples import put_model


async def fill(bench: Bench) -> dict[str, bytes]:
    """Two models with a file each; what lies there then."""
    for name in ("m1", "m2"):
        await publish_model(bench, name)
    return files_below(bench.directory)


async def in_trash(bench: Bench) -> list[tuple[int, str, int, int]]:
    """Number, state, entries and paths of each removal."""
    pages = [page async for page in bench.engine.cleaner.list_trash()]
    return [(row.id, row.state, row.entries, row.paths) for page in pages for row in page.items]


async def taken_by(bench: Bench, removal: int) -> dict[bytes, RemovedPath]:
    """The paths that a removal took."""
    return {path.path: path for path in await bench.store.read(select_paths, removal)}


def failing(path: str, error: type[TreeError], work: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but for one path, at which the tree refuses; whichever argument that is."""

    def fail(*args: object) -> object:
        if path.encode() in args:
            raise error(path.encode(), "the disk says no")
        return work(*args)

    return fail


def refusing(*_: object, **__: object) -> None:
    """What a tree does whose disk is broken."""
    raise TreeError(b"trash", "Input/output error")


async def test_full_disk_is_given_what_is_kept_for_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trash needs room for a name: once that is there, the removal goes on."""
    await fill(bench)
    real = bench.files.move_to_trash
    monkeypatch.setattr(bench.files, "move_to_trash", failing("runs/m1", DiskFull, real))
    asked: list[int] = []

    def make_room() -> bool:
        asked.append(1)
        monkeypatch.setattr(bench.files, "move_to_trash", real)
        return True

    bench.writer.make_room = make_room
    told = await remove(bench, Kind.MODEL)
    assert (told.models, told.left, len(asked)) == (2, [], 1)


# What a kill leaves half done.


async def test_removal_that_had_moved_a_part_takes_the_rest(open_bench: OpenBench) -> None:
    """The rows were gone already, all of them."""
    async with open_bench() as bench:
        before = await fill(bench)
        told = await remove(bench, Kind.MODEL)
        path = (await taken_by(bench, told.removal_id))[b"runs/m1"]
        trash = bench.directory / f"trash/{told.removal_id}"
        (trash / str(path.number)).rename(bench.directory / "runs/m1")
        await bench.writer.change(SetRemovalState(told.removal_id, State.REMOVING))
    async with open_bench() as bench:
        await bench.engine.recover()
        assert await in_trash(bench) == [(told.removal_id, "trashed", 2, 2)]
        assert not (bench.directory / "runs/m1").exists()
        await undo(bench)
        assert (files_below(bench.directory), sorted(await models(bench))) == (before, ["m1", "m2"])


async def test_what_came_into_the_place_of_something_removed_is_left_alone(open_bench: OpenBench) -> None:
    """A job began again after the kill: neither is what it wrote taken, nor what lies in the trash forgotten."""
    async with open_bench() as bench:
        await fill(bench)
        told = await remove(bench, Kind.MODEL)
        await bench.writer.change(SetRemovalState(told.removal_id, State.REMOVING))
        write(bench.directory, "runs/m1/new")
    async with open_bench() as bench:
        await bench.engine.recover()
        assert await in_trash(bench) == [(told.removal_id, "trashed", 2, 2)]
        with pytest.raises(RequestError, match="something lies at runs/m1"):
            await undo(bench)
        assert (bench.directory / "runs/m1/new").exists()
        (bench.directory / "runs/m1").rename(bench.directory / "elsewhere")
        await undo(bench)
        assert sorted(path for path in files_below(bench.directory)) == ["runs/m1/weights", "runs/m2/weights"]


async def test_undo_that_had_put_back_a_part_puts_back_the_rest(open_bench: OpenBench) -> None:
    """Files first, then rows: some of the files were back."""
    async with open_bench() as bench:
        before = await fill(bench)
        told = await remove(bench, Kind.MODEL)
        path = (await taken_by(bench, told.removal_id))[b"runs/m1"]
        bench.files.move_back(told.removal_id, path.number, path.path)
        await bench.writer.change(SetRemovalState(told.removal_id, State.RESTORING))
    async with open_bench() as bench:
        await bench.engine.recover()
        assert (await in_trash(bench), files_below(bench.directory)) == ([], before)
        assert sorted(await models(bench)) == ["m1", "m2"]


async def test_undo_whose_place_was_taken_keeps_what_it_cannot_put_back(open_bench: OpenBench) -> None:
    """Nothing is replaced; what stays can be put back later."""
    async with open_bench() as bench:
        before = await fill(bench)
        told = await remove(bench, Kind.MODEL)
        await bench.writer.change(SetRemovalState(told.removal_id, State.RESTORING))
        write(bench.directory, "runs/m1/new")
    async with open_bench() as bench:
        await bench.engine.recover()
        assert await in_trash(bench) == [(told.removal_id, "trashed", 0, 1)]
        assert sorted(await models(bench)) == ["m1", "m2"]
        assert "runs/m2/weights" in files_below(bench.directory)
        (bench.directory / "runs/m1/new").unlink()
        (bench.directory / "runs/m1").rmdir()
        await undo(bench)
        assert (await in_trash(bench), files_below(bench.directory)) == ([], before)


async def test_purge_that_had_freed_a_part_frees_the_rest(open_bench: OpenBench) -> None:
    """It cannot be undone any more: some of it is gone."""
    async with open_bench() as bench:
        await fill(bench)
        told = await remove(bench, Kind.MODEL)
        path = (await taken_by(bench, told.removal_id))[b"runs/m1"]
        (bench.directory / f"trash/{told.removal_id}/{path.number}/weights").unlink()
        await bench.writer.change(SetRemovalState(told.removal_id, State.PURGING))
    async with open_bench() as bench:
        await bench.engine.recover()
        with pytest.raises(RequestError, match="being freed"):
            await undo(bench, told.removal_id)
        await bench.engine.cleaner.trim_trash(None)
        assert (await in_trash(bench), files_below(bench.directory), await models(bench)) == ([], {}, [])


# What the disk refuses.


@pytest.mark.parametrize("error", [DiskFull, PathChanged, TreeError])
async def test_path_that_cannot_move_stays_and_is_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: type[TreeError]
) -> None:
    """The others go, and what is put back is put back without it."""
    before = await fill(bench)
    monkeypatch.setattr(bench.files, "move_to_trash", failing("runs/m1", error, bench.files.move_to_trash))
    told = await remove(bench, Kind.MODEL)
    assert [(kept.path, kept.why) for kept in told.left] == [(b"runs/m1", "the disk says no")]
    assert await in_trash(bench) == [(told.removal_id, "trashed", 2, 1)]
    await undo(bench)
    assert files_below(bench.directory) == before


async def test_path_that_vanished_meanwhile_is_not_worth_a_word(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was to go."""
    await fill(bench)
    monkeypatch.setattr(bench.files, "move_to_trash", failing("runs/m1", PathMissing, bench.files.move_to_trash))
    told = await remove(bench, Kind.MODEL)
    assert (told.left, told.models, told.is_complete) == ([], 2, True)
    assert await in_trash(bench) == [(told.removal_id, "trashed", 2, 1)]


async def test_disk_that_does_not_take_renames_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was removed by then lies in the trash, and nothing is lost."""
    before = await fill(bench)
    with monkeypatch.context() as patch:
        patch.setattr(bench.files, "sync_trash", refusing)
        with pytest.raises(StorageFailed, match="Input/output error"):
            await remove(bench, Kind.MODEL)
    assert [(state, entries) for _, state, entries, _ in await in_trash(bench)] == [("trashed", 2)]
    await undo(bench)
    assert (files_below(bench.directory), sorted(await models(bench))) == (before, ["m1", "m2"])


async def test_undo_over_a_broken_disk_can_be_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It began: it is the latest that was not undone."""
    before = await fill(bench)
    await remove(bench, Kind.MODEL)
    with monkeypatch.context() as patch:
        patch.setattr(bench.files, "sync_trash", refusing)
        with pytest.raises(StorageFailed, match="Input/output error"):
            await undo(bench)
    assert (await undo(bench)).models == 2
    assert (files_below(bench.directory), sorted(await models(bench))) == (before, ["m1", "m2"])


@pytest.mark.parametrize("error", [DiskFull, PathTaken, TreeError])
async def test_path_that_cannot_be_put_back_stays_in_the_trash(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: type[TreeError]
) -> None:
    """It is named, and only it is left; its entry misses until the file is there."""
    before = await fill(bench)
    key = await key_of(bench, "m1")
    removal = (await remove(bench, Kind.MODEL)).removal_id
    with monkeypatch.context() as patch:
        patch.setattr(bench.files, "move_back", failing("runs/m1", error, bench.files.move_back))
        told = await undo(bench)
    assert [(kept.path, kept.why) for kept in told.left] == [(b"runs/m1", "the disk says no")]
    assert await in_trash(bench) == [(removal, "trashed", 0, 1)]
    assert await bench.look_up(key, Kind.MODEL) is None
    assert (await undo(bench)).left == []
    await bench.engine.census.rescan()
    assert (files_below(bench.directory), await bench.look_up(key, Kind.MODEL)) == (before, b"m1")


async def test_room_that_cannot_be_freed_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on its way out stays on its way out, and is not told as freed."""
    await fill(bench)
    removal = (await remove(bench, Kind.MODEL)).removal_id
    with monkeypatch.context() as patch:
        patch.setattr(bench.files, "purge", refusing)
        told = await finish(bench.engine.cleaner.empty_trash(EmptyTrash()))
    assert told.freed_bytes == 0
    assert await in_trash(bench) == [(removal, "purging", 2, 2)]
    assert await bench.engine.cleaner.trim_trash(None) > 0
    assert (await in_trash(bench), files_below(bench.directory)) == ([], {})


async def test_strangers_in_the_trash_survive_an_undo_and_go_when_it_is_emptied(bench: Bench) -> None:
    """A file that somebody put there; a directory whose row went with a database."""
    await fill(bench)
    told = await remove(bench, Kind.MODEL)
    write(bench.directory, f"trash/{told.removal_id}/stranger")
    write(bench.directory, "trash/4711/0/weights")
    await undo(bench)
    assert f"trash/{told.removal_id}/stranger" in files_below(bench.directory)
    await finish(bench.engine.cleaner.empty_trash(EmptyTrash()))
    assert sorted(files_below(bench.directory)) == ["runs/m1/weights", "runs/m2/weights"]


# What changes while a clean-up runs.


async def begin(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Any, None]:
    """A clean-up of all models, item by item, that has taken the first of three."""
    monkeypatch.setattr(cleaner, "ITEMS_AT_ONCE", 1)
    for name in ("m1", "m2", "m3"):
        await publish_model(bench, name)
    made = await plan(bench, Kind.MODEL)
    assert made.names == [("model", "m1"), ("model", "m2"), ("model", "m3")]
    stream = bench.engine.cleaner.apply(ApplyPlan(plan_id=made.plan_id))
    await anext(stream)
    return stream


async def end(stream: AsyncGenerator[Any, None]) -> Cleaned:
    """What it did in the end."""
    return await finish(stream)


async def test_what_is_used_from_now_on_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry in use, a directory that somebody works in."""
    stream = await begin(bench, monkeypatch)
    use = Use(use_id=b"u" * 16, kind=Kind.MODEL, keys=[await key_of(bench, "m2")])
    await bench.engine.protection.use(use, 42)
    claim = Claim(claim_id=b"c" * 16, context=b"t", kind=Kind.MODEL, keys=["new"], work_dir=b"runs/m3/more")
    await bench.engine.claims.claim(claim, 43, object(), bench.tally, lambda _: None)
    told = await end(stream)
    assert sorted((kept.path, kept.why) for kept in told.left) == [
        (b"runs/m2", "in use by pid 42"),
        (b"runs/m3", "pid 43 works in it"),
    ]
    assert (told.models, await models(bench)) == (1, ["m2", "m3"])


async def test_entry_that_was_stored_again_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is another one by now."""
    stream = await begin(bench, monkeypatch)
    await bench.write(put_model("d", b"other", name="m2"))
    told = await end(stream)
    assert (told.models, await models(bench)) == (2, ["other"])


async def test_path_that_another_entry_owns_by_now_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes with the last of its owners."""
    stream = await begin(bench, monkeypatch)
    await bench.engine.publishing.publish(with_files(put_model("d", b"m4", name="m4"), "runs/m2"))
    told = await end(stream)
    assert (told.models, await models(bench)) == (3, ["m4"])
    assert "runs/m2/weights" in files_below(bench.directory)
    assert await bench.look_up(await key_of(bench, "m4"), Kind.MODEL) == b"m4"


async def test_figures_after_a_failed_undo_equal_those_of_a_scan(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was put back is not freed a second time."""
    await fill(bench)
    await remove(bench, Kind.MODEL)
    await sizes(bench, rescan=True)
    with monkeypatch.context() as patch:
        patch.setattr(bench.files, "move_back", failing("runs/m1", TreeError, bench.files.move_back))
        await undo(bench)
    bench.engine.census._figures.duration_s = 1.0  # noqa: SLF001 - a tree that is not counted for each question
    told = await finish(bench.engine.cleaner.empty_trash(EmptyTrash()))
    known = (await sizes(bench)).categories
    found = (await sizes(bench, rescan=True)).categories
    assert {name: known[name] for name in ("runs", "trash")} == {name: found[name] for name in ("runs", "trash")}
    assert told.freed_bytes == found["runs"].allocated_bytes, "one of two alike"
