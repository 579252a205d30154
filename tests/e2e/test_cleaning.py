"""Sizes, clean-up, trash, pins, uses and verifying, with a real daemon, on every face of the API."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from motools.cache import (
    Cache,
    CacheRequestError,
    CacheUtils,
    CleanupPlan,
    CleanupResult,
    EntryNotFound,
    InMemoryCache,
    PlanOutdated,
    Progress,
    SyncCache,
)
from tests.cache.twins import TWINS, Awaiting, run_twin
from tests.e2e.children import INTERRUPTED, USING, child
from tests.e2e.daemons import end_daemon

WAIT_S = 20.0
SIZE_BYTES = 10_000
FACES = [*TWINS, ("CacheUtils", "asyncio")]
Run = Callable[[Callable[[Any], Any]], None]


@pytest.fixture(params=FACES, ids="-".join)
def run(request: pytest.FixtureRequest, shared_dir: Path) -> Run:
    """Runs a test's body with the management of a cache that holds a dataset, a model and two evaluations."""
    name, loop = request.param

    def run_face(body: Callable[[Any], Any]) -> None:
        fill(shared_dir)
        if name != "CacheUtils":
            run_twin((name, loop), shared_dir, body)
            return

        async def whole() -> None:
            with anyio.fail_after(WAIT_S * 2), CacheUtils(shared_dir) as utils:
                await body(Awaiting(utils))  # type: ignore[arg-type]

        anyio.run(whole)

    return run_face


def fill(directory: Path) -> None:
    """A dataset, a model that was trained from it, and two evaluations, one with a log elsewhere."""
    with SyncCache(directory) as cache:
        dataset = cache.put_dataset(b"d" * SIZE_BYTES, "file")
        (directory / "runs/j/sub").mkdir(parents=True)
        (directory / "runs/j/sub/w.bin").write_bytes(b"w" * SIZE_BYTES)
        cache.set_model_id(dataset.dataset_hash, {"lr": 1}, "model", run_dir=directory / "runs/j")
        (directory / "evals/t.json").write_bytes(b"e" * SIZE_BYTES)
        cache.set_eval_log_paths("model", {"t": directory / "evals/t.json", "s": "s3://b/s.json"}, "b")


def tree(directory: Path) -> set[str]:
    """The files of entries."""
    places = [directory / name for name in ("datasets", "runs", "evals")]
    return {str(path.relative_to(directory)) for place in places for path in place.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_sizes_are_those_of_the_files(run: Run, shared_dir: Path) -> None:
    """By category and by entry, and the same after a rescan."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any face
        steps: list[Progress] = []
        (shared_dir / "runs/stray").write_bytes(b"s" * SIZE_BYTES)
        for report in (await cache.get_size_report(rescan=True, top=2, on_progress=steps.append),):
            sizes = {name: size.size_bytes for name, size in report.categories.items()}
            assert (sizes["datasets"], sizes["runs"], sizes["evals"]) == (SIZE_BYTES, 2 * SIZE_BYTES, SIZE_BYTES)
            assert (sizes["trash"], sizes["staging"]) == (0, 0)
            assert report.total_size_bytes == sum(sizes.values())
            assert report.total_allocated_bytes >= 4 * SIZE_BYTES
            assert (report.num_orphans, report.orphans.size_bytes, report.num_dangling) == (1, SIZE_BYTES, 0)
            assert len(report.top) == 2
        stats = await cache.get_stats()
        assert stats.scanned_at is not None
        assert (stats.num_datasets, stats.num_models, stats.num_evals) == (1, 1, 2)
        assert set(await cache.get_size_breakdown()) == set(await cache.get_sizes()) == set(report.categories)
        assert (await cache.get_size_report()).scanned_at is not None

    run(body)


@pytest.mark.slow
def test_plan_is_shown_applied_and_undone(run: Run, shared_dir: Path) -> None:
    """A dry run changes nothing; then exactly that plan goes, and comes back."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any face
        before = tree(shared_dir)
        entries = await cache.list_datasets(), await cache.list_models(), await cache.list_evals()
        plan = await cache.clear_all(delete_files=True, dry_run=True)
        assert isinstance(plan, CleanupPlan)
        assert sorted(item.kind for item in plan.items) == ["dataset", "eval", "eval", "model"]
        assert plan.size_bytes == 3 * SIZE_BYTES
        assert tree(shared_dir) == before
        steps: list[Progress] = []
        done = await cache.apply_plan(plan.plan_id, on_progress=steps.append)
        assert (done.datasets, done.models, done.evals, done.orphans) == (1, 1, 2, 0)
        assert (done.is_complete, done.left, done.freed_bytes) == (True, [], plan.freed_bytes)
        assert steps[-1].done == steps[-1].total
        assert tree(shared_dir) == set()
        again = await cache.apply_plan(plan.plan_id)
        assert (again.removal_id, again.models) == (done.removal_id, 1)
        (item,) = await cache.list_trash()
        assert (item.id, item.entries, item.size_bytes) == (done.removal_id, 4, 3 * SIZE_BYTES)
        back = await cache.undo(done.removal_id, on_progress=steps.append)
        assert (back.datasets, back.models, back.evals) == (1, 1, 2)
        assert tree(shared_dir) == before
        assert (await cache.list_datasets(), await cache.list_models(), await cache.list_evals()) == entries
        assert await cache.list_trash() == []
        with pytest.raises(EntryNotFound, match="nothing to undo"):
            await cache.undo()
        with pytest.raises(EntryNotFound):
            await cache.undo(done.removal_id)

    run(body)


@pytest.mark.slow
def test_each_kind_is_cleared_with_its_files(run: Run, shared_dir: Path) -> None:
    """And only what was named; without `delete_files` the files stay, as they always did."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any face
        nothing = await cache.clear_evals(["other"], ["t"], delete_files=True)
        assert (nothing.evals, nothing.removal_id) == (0, None)
        evals = await cache.clear_evals(["model"], ["t"], delete_files=True)
        assert (evals.evals, evals.freed_bytes > 0) == (1, True)
        models = await cache.clear_models(["model"], delete_files=True, to_trash=False)
        assert (models.models, models.removal_id) == (1, None)
        assert [item.id for item in await cache.list_trash()] == [evals.removal_id]
        assert len(tree(shared_dir)) == 1
        (dataset,) = await cache.list_datasets()
        assert await cache.clear_datasets([dataset.dataset_hash]) == 1
        assert len(tree(shared_dir)) == 1
        assert await cache.clear_all() == {"datasets": 0, "models": 0, "evals": 1}
        freed = await cache.empty_trash([evals.removal_id])
        assert freed.freed_bytes == evals.freed_bytes
        with pytest.raises(EntryNotFound):
            await cache.empty_trash([evals.removal_id])
        assert (await cache.empty_trash()).freed_bytes == 0
        with pytest.raises(CacheRequestError, match="add delete_files=True"):
            await cache.clear_all(dry_run=True)

    run(body)


@pytest.mark.slow
def test_prune_takes_what_is_old_large_dangling_or_nobodys(run: Run, shared_dir: Path) -> None:
    """Each as it was asked for."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any face
        for kept in ({"older_than": "30d"}, {"unused_for": timedelta(days=1)}, {"to": "50GB"}, {"dangling": True}):
            assert (await cache.prune(**kept, dry_run=True)).items == [], kept
        assert (await cache.prune(orphans=True, dry_run=True)).items == []
        (shared_dir / "runs/stray").write_bytes(b"s" * SIZE_BYTES)
        assert (await cache.prune(orphans=True, dry_run=True)).items == []
        (stray,) = (await cache.prune(orphans=True, orphan_age=0, dry_run=True)).items
        assert (stray.kind, stray.key, stray.paths) == ("orphan", "runs/stray", ["runs/stray"])
        gone = await cache.prune(orphans=True, orphan_age=0)
        assert (gone.orphans, gone.datasets, gone.models, gone.evals) == (1, 0, 0, 0)
        assert (await cache.undo()).orphans == 1
        (shared_dir / "evals/t.json").unlink()
        assert (await cache.get_size_report(rescan=True)).num_dangling == 1
        assert (await cache.prune(dangling=True)).evals == 1
        assert (await cache.prune(older_than=0, kinds=["eval"])).evals == 1
        assert (await cache.prune(to=0, to_trash=False)).removal_id is None
        assert tree(shared_dir) == {"runs/stray"}

    run(body)


@pytest.mark.slow
def test_plan_that_was_overtaken_is_refused_by_name(run: Run, shared_dir: Path) -> None:
    """And nothing of it goes."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any face
        plan = await cache.clear_all(delete_files=True, dry_run=True)
        with SyncCache(shared_dir) as other:
            other.set_model_id(plan_dataset(plan), {"lr": 1}, "better")
        before = tree(shared_dir)
        with pytest.raises(PlanOutdated, match=r"model .* stored again"):
            await cache.apply_plan(plan.plan_id)
        assert tree(shared_dir) == before
        with pytest.raises(EntryNotFound):
            await cache.apply_plan("none")
        # What asks for criteria, and for no plan, takes things as they are.
        assert (await cache.clear_all(delete_files=True)).models == 1

    run(body)


def plan_dataset(plan: CleanupPlan) -> str:
    """The hash of the dataset that a plan takes."""
    (key,) = [item.key for item in plan.items if item.kind == "dataset"]
    return key


@pytest.mark.slow
def test_undo_over_something_new_is_refused_and_loses_nothing(run: Run, shared_dir: Path) -> None:
    """Neither what is there nor what lies in the trash."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any face
        await cache.clear_evals(delete_files=True)
        (shared_dir / "evals/t.json").write_text("new")
        with pytest.raises(CacheRequestError, match=r"evals/t\.json"):
            await cache.undo()
        assert (shared_dir / "evals/t.json").read_text() == "new"
        assert len(await cache.list_trash()) == 1
        (shared_dir / "evals/t.json").unlink()
        assert (await cache.undo()).evals == 2
        assert (shared_dir / "evals/t.json").read_bytes() == b"e" * SIZE_BYTES

    run(body)


@pytest.mark.slow
def test_pins_spare_entries_and_what_they_were_made_from(run: Run, shared_dir: Path) -> None:
    """Until they are taken away, end, or are overridden."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any face
        assert await cache.pin("model", kind="model", reason="for the paper", until="30d") == 1
        (model,) = await cache.list_models()
        assert (model.pinned, model.pin_reason) == (True, "for the paper")
        assert model.pinned_until is not None
        result = await cache.clear_all(delete_files=True)
        assert (result.datasets, result.models, result.evals) == (0, 0, 2)
        assert {one.kind: "for the paper" in one.why for one in result.protected} == {"model": True, "dataset": True}
        assert await cache.clear_models() == 0
        assert await cache.unpin("model") == 1
        assert await cache.pin(model.cache_key, until=datetime.now(UTC) + timedelta(hours=1)) == 1
        forced = await cache.clear_all(delete_files=True, force=True)
        assert (forced.datasets, forced.models) == (1, 1)
        for missing in (cache.pin, cache.unpin):
            with pytest.raises(EntryNotFound, match="none"):
                await missing("none")
        with pytest.raises(CacheRequestError, match="lies in the past"):
            await cache.pin("model", until=datetime(2001, 1, 1, tzinfo=UTC))

    run(body)


@pytest.mark.slow
def test_use_protects_until_the_block_ends(run: Run, shared_dir: Path) -> None:
    """From clean-ups of every client; and what is gone cannot be used."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any face
        models, evals = await cache.list_models(), await cache.list_evals()
        with SyncCache(shared_dir) as other:
            async with cache.using(*models, *evals):
                for force in (False, True):
                    plan = other.clear_all(delete_files=True, dry_run=True, force=force)
                    assert plan.items == []
                    assert {one.kind for one in plan.protected} == {"dataset", "model", "eval"}
                    assert f"in use by pid {os.getpid()}" in plan.protected[0].why
            assert other.clear_all(delete_files=True).models == 1
            with pytest.raises(EntryNotFound, match=r"model .* is gone"):
                async with cache.using(*models):
                    pytest.fail("the block is not entered")
            assert other.undo().models == 1
            async with cache.using(*models):
                pass

    run(body)


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [0, 1])
def test_use_ends_with_its_process(shared_dir: Path, restarts: int) -> None:
    """Killed, without a word; also where the daemon has been started anew meanwhile."""
    fill(shared_dir)
    with child(USING, shared_dir) as user, SyncCache(shared_dir) as cache:
        assert user.hear() == "using"
        for _ in range(restarts):
            end_daemon(shared_dir, signal.SIGKILL)
        (spared,) = cache.clear_models(delete_files=True).protected
        assert f"in use by pid {user.pid}" in spared.why
        os.kill(user.pid, signal.SIGKILL)
        user.process.wait(WAIT_S)
        deadline_s = time.monotonic() + WAIT_S
        while not cache.clear_models(delete_files=True).models:
            assert time.monotonic() < deadline_s, "the use outlives its process"
            time.sleep(0.02)


@pytest.mark.slow
def test_verify_names_what_is_wrong_and_repairs_it(run: Run, shared_dir: Path) -> None:
    """Missing, damaged and ownerless files; what is repaired misses, and is made anew."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any face
        report = await cache.verify(deep=True)
        assert (report.findings, report.entries, report.files) == ([], 4, 3)
        (dataset,) = await cache.list_datasets()
        (shared_dir / dataset.files[0]).write_bytes(b"D" * SIZE_BYTES)
        (shared_dir / "evals/t.json").unlink()
        (shared_dir / "runs/stray").write_text("stray")
        steps: list[Progress] = []
        found = (await cache.verify(deep=True, on_progress=steps.append)).findings
        assert {(one.problem, one.kind) for one in found} == {
            ("corrupt", "dataset"),
            ("missing", "eval"),
            ("orphan", "orphan"),
        }
        assert not any(one.repaired for one in found)
        repaired = (await cache.verify(deep=True, repair=True)).findings
        assert {one.problem for one in repaired if one.repaired} == {"corrupt", "missing"}
        with SyncCache(shared_dir) as other:
            assert other.get_file_id(dataset.dataset_hash) is None
            other.put_dataset(b"d" * SIZE_BYTES, "file")
            assert other.get_file_id(dataset.dataset_hash) == "file"
        assert "corrupt" not in {one.problem for one in (await cache.verify(deep=True)).findings}

    run(body)


def fill_many(directory: Path, count: int) -> None:
    """Many datasets with content."""
    with SyncCache(directory) as cache:
        for number in range(count):
            cache.put_dataset(b"%d" % number)


def check_whole(directory: Path, count: int, result_of_undo: Callable[[SyncCache], CleanupResult]) -> None:
    """Each entry has its file, and with what lies in the trash all of them are there."""
    with SyncCache(directory) as cache:
        entries = cache.list_datasets()
        assert {entry.files[0] for entry in entries} == tree(directory)
        trashed = sum(item.entries for item in cache.list_trash())
        assert len(entries) + trashed == count
        assert 0 < trashed < count
        assert result_of_undo(cache).datasets == trashed
        assert len(tree(directory)) == len(cache.list_datasets()) == count
        assert cache.verify(deep=True).findings == []


@pytest.mark.slow
def test_keyboard_interrupt_in_a_clean_up_leaves_each_entry_whole(shared_dir: Path) -> None:
    """Here, or in the trash; and what was removed so far can be undone."""
    fill_many(shared_dir, 450)
    with child(INTERRUPTED, shared_dir) as one:
        said = [one.hear() for _ in range(2)]
        assert said[-1] == "interrupted"
        one.process.wait(WAIT_S)
    with SyncCache(shared_dir) as cache:
        _wait_for_removal(cache)
    check_whole(shared_dir, 450, lambda cache: cache.undo())


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_cancelled_clean_up_leaves_each_entry_whole(shared_dir: Path, loop: str) -> None:
    """As above, and the client goes on."""
    fill_many(shared_dir, 450)

    async def whole() -> None:
        async with Cache(shared_dir) as cache:
            with anyio.fail_after(WAIT_S), anyio.CancelScope() as scope:
                await cache.clear_datasets(delete_files=True, on_progress=lambda _: scope.cancel())
            assert scope.cancelled_caught
            await cache.get_stats()

    anyio.run(whole, backend=loop)
    with SyncCache(shared_dir) as cache:
        _wait_for_removal(cache)
    check_whole(shared_dir, 450, lambda cache: cache.undo())


def _wait_for_removal(cache: SyncCache) -> None:
    """The daemon ends an interrupted clean-up a moment after it has noticed."""
    deadline_s = time.monotonic() + WAIT_S
    while [item.state for item in cache.list_trash()] != ["trashed"]:
        assert time.monotonic() < deadline_s, cache.list_trash()
        time.sleep(0.02)


@pytest.mark.slow
def test_daemon_killed_in_a_clean_up_is_asked_again(shared_dir: Path) -> None:
    """The answer is what came of the plan in the end: all of it, or a part that can be undone."""
    fill_many(shared_dir, 450)
    with SyncCache(shared_dir) as cache:
        plan = cache.clear_datasets(delete_files=True, dry_run=True)
        steps: list[Progress] = []

        def kill(progress: Progress) -> None:
            if not steps:
                end_daemon(shared_dir, signal.SIGKILL)
            steps.append(progress)

        result = cache.apply_plan(plan.plan_id, on_progress=kill)
        assert result.removal_id is not None
        assert 0 < result.datasets <= 450
        assert result.is_complete is (result.datasets == 450)
        assert cache.undo(result.removal_id).datasets == result.datasets
        assert len(tree(shared_dir)) == len(cache.list_datasets()) == 450


@pytest.mark.slow
def test_lookups_go_on_while_one_thread_cleans_up(shared_dir: Path) -> None:
    """Of the same client."""
    fill_many(shared_dir, 250)
    with SyncCache(shared_dir) as cache:
        cache.set_file_id("k", "v")
        answers: list[str | None] = []

        def ask(_progress: Progress) -> None:
            thread = threading.Thread(target=lambda: answers.append(cache.get_file_id("k")))
            thread.start()
            thread.join(WAIT_S)

        cache.pin("k")
        cache.clear_datasets(delete_files=True, on_progress=ask)
        assert set(answers) == {"v"}


def test_backend_without_a_daemon_has_nothing_to_clean_up() -> None:
    """And says so; clearing entries and storing work as they did."""
    utils = CacheUtils(InMemoryCache())
    entry = utils.put_dataset(b"content")
    assert utils.clear_datasets([entry.dataset_hash]) == 1
    calls: list[Callable[[], object]] = [
        utils.get_size_report,
        lambda: utils.clear_all(delete_files=True),
        lambda: utils.prune(orphans=True),
        lambda: utils.apply_plan("plan"),
        utils.undo,
        utils.list_trash,
        utils.empty_trash,
        lambda: utils.pin("k"),
        lambda: utils.unpin("k"),
        utils.verify,
        lambda: utils.using(entry).__enter__(),
    ]
    for call in calls:
        with pytest.raises(CacheRequestError, match="InMemoryCache has no daemon to ask"):
            call()
