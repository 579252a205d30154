"""Whatever entries own whatever files: a clean-up and its undo are nothing, and what is shared goes with the last."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from motoolsd.adapters.directory import open_directory
from motoolsd.core.files import overlaps
from motoolsd.store.migration import prepare_database
from motoolsd.store.store import open_store
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import PutModel
from tests.engine.bench import Bench, new_bench
from tests.engine.cleaning import files_below, models, pin, plan, remove, sizes, undo, with_files, write
from tests.engine.conftest import running
from tests.fakes import GatedStore
from tests.samples import put_model

FILES = ["runs/a/1", "runs/a/b/2", "runs/a/b/3", "runs/c/4", "evals/m/5", "evals/6"]
PATHS = [*FILES, "runs/a", "runs/a/b", "runs/c", "evals/m"]

owned_paths = st.lists(st.lists(st.sampled_from(PATHS), max_size=3, unique=True), min_size=1, max_size=5)


@asynccontextmanager
async def filled(owned: Sequence[Sequence[str]]) -> AsyncIterator[Bench]:
    """An engine with one model for each list of paths."""
    directory = Path(tempfile.mkdtemp(prefix="cleanup-"))
    try:
        prepare_database(str(directory / "cache.db"))
        with open_directory(str(directory)) as opened:
            async with open_store(str(directory / "cache.db"), synchronous="OFF") as store:
                bench = new_bench(GatedStore.around(store), opened)
                async with running(bench):
                    await bench.engine.load_index()
                    for path in FILES:
                        write(directory, path, 100)
                    for number, paths in enumerate(owned):
                        await bench.engine.publishing.publish(model(number, paths))
                    yield bench
    finally:
        shutil.rmtree(directory)


def model(number: int, paths: Sequence[str]) -> PutModel:
    """A model that owns paths."""
    return with_files(put_model("d", b"m%d" % number, number=number), *paths)


@settings(max_examples=40, deadline=None)
@given(owned=owned_paths, chosen=st.sets(st.integers(0, 4)), pinned=st.sets(st.integers(0, 4), max_size=2))
def test_removal_and_undo_are_nothing(owned: list[list[str]], chosen: set[int], pinned: set[int]) -> None:
    """Rows and files; in between, whatever an entry that stays owns, or a part of it, is there, pinned ones are."""

    async def check() -> None:
        async with filled(owned) as bench:
            await sizes(bench, rescan=True)
            for number in pinned:
                if number < len(owned):
                    await pin(bench, f"m{number}")
            going = {number for number in chosen if number < len(owned)} - pinned
            before = files_below(bench.directory), sorted(await models(bench))
            told = await remove(bench, Kind.MODEL, model_ids=[f"m{number}" for number in sorted(chosen)])
            left = files_below(bench.directory)
            assert sorted(await models(bench)) == [f"m{n}" for n in range(len(owned)) if n not in going]
            staying = [path for number, paths in enumerate(owned) if number not in going for path in paths]
            taken = [path for number in going for path in owned[number]]
            for path in FILES:
                is_owned = any(overlaps(path.encode(), one.encode()) for one in staying)
                was_owned = any(path == one or path.startswith(f"{one}/") for one in taken)
                assert path in left if is_owned or not was_owned else True, path
            await compare_figures(bench)
            if going:
                assert told.models == len(going)
                await undo(bench)
            assert (files_below(bench.directory), sorted(await models(bench))) == before
            await compare_figures(bench)

    anyio.run(check)


@settings(max_examples=20, deadline=None)
@given(owned=owned_paths)
def test_everything_that_is_owned_goes_with_the_last_entry(owned: list[list[str]]) -> None:
    """And nothing else: what nobody owns is left, and is what a plan for orphans names."""

    async def check() -> None:
        async with filled(owned) as bench:
            await remove(bench, Kind.MODEL, to_trash=False)
            paths = [path for entry in owned for path in entry]
            expected = {path for path in FILES if not any(path == one or path.startswith(f"{one}/") for one in paths)}
            assert set(files_below(bench.directory)) == expected
            bench.clock.follow_files()
            made = await plan(bench, orphans=True, orphan_age_s=0)
            named = [path.decode() for item in made.items for path in item.paths]
            offered = {path for path in expected if any(path == one or path.startswith(f"{one}/") for one in named)}
            assert offered == expected

    anyio.run(check)


async def compare_figures(bench: Bench) -> None:
    """What is known right after a change is what a scan finds."""
    bench.engine.census._figures.duration_s = 1.0  # noqa: SLF001 - a tree that is not counted for each question
    known = (await sizes(bench)).categories
    found = (await sizes(bench, rescan=True)).categories
    for name in ("runs", "evals", "trash"):
        assert known[name].size_bytes == found[name].size_bytes, name
