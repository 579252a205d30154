"""Copies that are asked for, and those that are made by themselves."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import aclosing, closing
from pathlib import Path

import anyio
import pytest

from motoolsd.core.deadlines import Moment
from motoolsd.core.errors import RequestError, StorageFailed
from motoolsd.engine import backups as module
from motoolsd.engine.backups import LastBackup
from motoolsd.store import copying
from motoolsd.wire.backups import BackedUp, BackUp
from tests.engine.bench import Bench
from tests.engine.conftest import OpenBench
from tests.samples import put_dataset

DAY_S = 86_400.0


def datasets(path: Path) -> set[str]:
    """The datasets in a copy."""
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT dataset_hash FROM dataset_files")}


async def back_up(bench: Bench, path: Path, *, force: bool = False) -> BackedUp:
    """The end of the stream."""
    pages = [page async for page in bench.engine.backups.back_up(BackUp(path=os.fsencode(path), force=force))]
    assert isinstance(pages[-1], BackedUp)
    return pages[-1]


def automatic(bench: Bench) -> list[Path]:
    """The automatic backups, the newest first."""
    return [Path(os.fsdecode(one.path)) for one in bench.files.backups.automatic()]


async def pass_time(bench: Bench, seconds: float) -> None:
    """Let the clocks go on."""
    await bench.clock.advance(seconds)


async def test_copy_holds_what_was_acknowledged(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    """And says how much that is."""
    path = tmp_path_factory.mktemp("out") / "b.db"
    for name in "ab":
        await bench.write(put_dataset(name))
    made = await back_up(bench, path)
    assert datasets(path) == {"a", "b"}
    assert (made.path, made.datasets, made.models, made.evals) == (os.fsencode(path), 2, 0, 0)
    assert made.size_bytes == path.stat().st_size
    assert made.as_of == f"{bench.clock.utc_text().replace(' ', 'T')}Z"


async def test_copy_refuses_what_is_there(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    """With what to do."""
    path = tmp_path_factory.mktemp("out") / "b.db"
    path.write_text("precious")
    with pytest.raises(RequestError, match="--force"):
        await back_up(bench, path)
    assert path.read_text() == "precious"
    await back_up(bench, path, force=True)
    assert datasets(path) == set()


@pytest.mark.parametrize("path", [b"relative.db", b"/directory/", b"/a\0b", b"/" + b"n" * 256])
async def test_path_that_names_no_file_is_refused(bench: Bench, path: bytes) -> None:
    """The daemon's working directory is nobody's."""
    with pytest.raises(RequestError, match="absolute path"):
        async for _ in bench.engine.backups.back_up(BackUp(path=path)):
            pass


async def test_missing_directory_is_named(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Not the file, which is not there either."""
    path = tmp_path_factory.mktemp("out") / "none" / "b.db"
    with pytest.raises(RequestError, match=f"no directory {path.parent}$"):
        await back_up(bench, path)


async def test_abandoned_copy_goes(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked has left: the thread ends at its next step, and leaves nothing; the next copy is made."""
    path = tmp_path_factory.mktemp("out") / "b.db"
    for name in range(20):
        await bench.write(put_dataset(f"{name}", b"f" * 4_000))
    monkeypatch.setattr(copying, "STEP_PAGES", 1)
    with anyio.fail_after(5):
        async with aclosing(bench.engine.backups.back_up(BackUp(path=os.fsencode(path)))) as pages:
            await anext(pages)
        while list(path.parent.iterdir()):  # noqa: ASYNC110 - a thread of another's ends, and tells nobody
            await anyio.sleep(0.001)
    await back_up(bench, path)
    assert len(datasets(path)) == 20


async def test_backup_is_made_once_a_day_if_something_changed(bench: Bench) -> None:
    """Not of nothing, not twice of the same, not before the time."""
    keep_up = bench.engine.backups.keep_up
    assert not await keep_up()
    await bench.write(put_dataset("a"))
    assert await keep_up()
    await bench.write(put_dataset("b"))
    assert not await keep_up()
    await pass_time(bench, DAY_S)
    assert await keep_up()
    await pass_time(bench, DAY_S)
    assert not await keep_up()
    assert [datasets(path) for path in automatic(bench)] == [{"a", "b"}, {"a"}]


async def test_unchanged_database_is_not_read_again_and_again(bench: Bench) -> None:
    """A look reads every row: what changes after one is backed up an hour later."""
    await bench.write(put_dataset("a"))
    assert await bench.engine.backups.keep_up()
    await pass_time(bench, DAY_S)
    assert not await bench.engine.backups.keep_up()
    await bench.write(put_dataset("b"))
    await pass_time(bench, 3_599.0)
    assert not await bench.engine.backups.keep_up()
    await pass_time(bench, 1.0)
    assert await bench.engine.backups.keep_up()


async def test_restart_makes_no_backup_before_its_time(open_bench: OpenBench) -> None:
    """When the last one was made, and of what, stands in the database."""
    async with open_bench() as first:
        await first.write(put_dataset("a"))
        assert await first.engine.backups.keep_up()
        await first.write(put_dataset("b"))
    async with open_bench() as second:
        assert not await second.engine.backups.keep_up()
        await pass_time(second, DAY_S)
        assert await second.engine.backups.keep_up()


async def test_so_many_backups_stay(open_bench: OpenBench) -> None:
    """The oldest goes after the new one is there."""
    async with open_bench(backups_keep=2) as bench:
        for name in "abcd":
            await bench.write(put_dataset(name))
            assert await bench.engine.backups.keep_up()
            await pass_time(bench, DAY_S)
        assert [len(datasets(path)) for path in automatic(bench)] == [4, 3]


async def test_backup_that_was_just_made_stays_after_the_clock_was_set_back(
    open_bench: OpenBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is that of an older one then."""
    async with open_bench(backups_keep=1) as bench:
        for day, name in enumerate("dcba", 1):
            monkeypatch.setattr(bench.clock, "utc_text", lambda day=day: f"2026-01-{31 - day} 00:00:00.000")
            await bench.write(put_dataset(name))
            assert await bench.engine.backups.keep_up()
            assert [len(datasets(path)) for path in automatic(bench)] == [day]
            await pass_time(bench, DAY_S)


async def test_no_backup_is_made_where_that_is_turned_off(open_bench: OpenBench) -> None:
    """An interval of 0."""
    async with open_bench(backup_interval=0) as bench:
        await bench.write(put_dataset("a"))
        assert not await bench.engine.backups.keep_up()


async def test_failure_is_said_once_and_changes_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there stays; when it goes well again, a later failure is said again."""
    await bench.write(put_dataset("a"))
    assert await bench.engine.backups.keep_up()
    (kept,) = automatic(bench)
    for name in "bc":
        await bench.write(put_dataset(name))
        await pass_time(bench, DAY_S)
        caplog.clear()
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
            patch.setattr(module, "copy_database", _refuse)
            assert not await bench.engine.backups.keep_up()
            assert not await bench.engine.backups.keep_up()
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert kept in automatic(bench)
        assert await bench.engine.backups.keep_up()


def _refuse(*_: object, **__: object) -> None:
    raise StorageFailed("the disk is full")


async def test_backup_does_not_take_the_last_room(open_bench: OpenBench, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody has asked for it."""
    async with open_bench(min_free=2**60) as bench:
        await bench.write(put_dataset("a"))
        with caplog.at_level(logging.ERROR):
            assert not await bench.engine.backups.keep_up()
    assert "no room" in caplog.text
    assert automatic(bench) == []


async def test_backups_are_counted_and_are_no_orphans(bench: Bench) -> None:
    """They take room of the database's kind; no scan offers them, nor what a restore has set aside."""
    await bench.write(put_dataset("a"))
    before = bench.files.database_size().size_bytes
    assert await bench.engine.backups.keep_up()
    (bench.directory / "cache.db.replaced-20260131T235959Z").write_bytes(b"x" * 100)
    (made,) = automatic(bench)
    await bench.engine.census.rescan()
    assert bench.engine.census.orphans == []
    grown = bench.files.database_size().size_bytes - before
    assert grown >= made.stat().st_size + 100
    figures = await bench.engine.census.current()
    assert figures.categories["database"].size_bytes >= grown


@pytest.mark.parametrize(
    ("now", "is_due"),
    [
        (Moment("b", 1_099.0, 9_999.0), False),
        (Moment("b", 1_100.0, 0.0), True),
        (Moment("other", 0.0, 5_099.0), False),
        (Moment("other", 0.0, 5_100.0), True),
        (Moment("other", 0.0, 4_999.0), True),
    ],
)
def test_backup_is_due_by_the_clock_that_counts(now: Moment, is_due: bool) -> None:  # noqa: FBT001 - a parameter
    """Within a boot nobody's setting of the clock matters; after one that set the clock back, it is not waited for."""
    assert LastBackup(Moment("b", 1_000.0, 5_000.0), "").is_due(now, 100.0) is is_due
