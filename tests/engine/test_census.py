"""Sizes: always an answer, from the last scan and what changed since; scans that disturb nobody and end nothing."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from motoolsd.core.errors import StorageFailed
from motoolsd.core.files import Scan
from motoolsd.core.ports import TreeError
from motoolsd.engine import census
from motoolsd.store.facts import LAST_SCAN, SetFact
from motoolsd.wire.cleaning import Progress
from motoolsd.wire.keys import Kind
from motoolsd.wire.sizes import GetSizes, Size, Sizes
from tests.engine.bench import Bench
from tests.engine.cleaning import publish_model, remove, sizes, with_files, write
from tests.engine.conftest import OpenBench
from tests.samples import execute, put_model

INTERVAL_S = 3_600.0
PATIENT_S = 60.0


class Scans:
    """The tree's scan, counted; it can be held in the middle, and made to fail."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand in for the tree's."""
        self.count = 0
        self.is_failing = False
        self.gate: Event | None = None
        """While set, a scan that has counted everything waits for it."""
        self.was_stopped = False
        self._scan = bench.files.scan
        monkeypatch.setattr(bench.files, "scan", self.scan)

    def scan(self, owned: list[bytes], *, is_stopped: Callable[[], bool], **rest: Any) -> Scan:  # noqa: ANN401
        """Count, hold or fail."""
        self.count += 1
        if self.is_failing:
            raise TreeError(b".", "Too many open files")
        found = self._scan(owned, is_stopped=is_stopped, **rest)
        while self.gate is not None and not self.gate.wait(0.01):
            if is_stopped():
                self.was_stopped = True
                break
        return found


@pytest.fixture
def scans(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Scans:
    """Those of the engine under test."""
    return Scans(bench, monkeypatch)


def slow(bench: Bench) -> None:
    """From now on the tree is too large to be counted for each question."""
    bench.engine.census._figures.duration_s = 1.0  # noqa: SLF001 - a real tree of that size takes too long to make


@asynccontextmanager
async def scanning(bench: Bench, interval_s: float = INTERVAL_S) -> AsyncIterator[None]:
    """Scan now and then, as in the daemon."""
    async with anyio.create_task_group() as group:
        group.start_soon(bench.engine.census.run_scans, interval_s)
        yield
        group.cancel_scope.cancel()


async def wait_until(condition: Callable[[], bool]) -> None:
    """Until threads have come so far."""
    with anyio.fail_after(5):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def rest(bench: Bench) -> None:
    """Until the scans pause: a scan in a thread looks like a pause to the event loop."""
    await wait_until(lambda: bool(bench.clock._sleepers))  # noqa: SLF001 - nobody else sleeps here


def walked(directory: Path) -> dict[str, Size]:
    """What du would say of the categories of files."""
    found = {}
    for name in ("datasets", "runs", "evals", "trash"):
        stats = [path.lstat() for path in (directory / name).rglob("*") if path.is_file() and not path.is_symlink()]
        unique = {stat.st_ino: stat for stat in stats}.values()
        found[name] = Size(sum(stat.st_size for stat in unique), sum(stat.st_blocks for stat in unique) * 512)
    return found


async def test_figures_are_those_of_the_disk(bench: Bench) -> None:
    """Each inode once; links count nothing; the total is the sum of all."""
    await publish_model(bench, "m1")
    write(bench.directory, "runs/job/weights", 9_000)
    os.link(bench.directory / "runs/job/weights", bench.directory / "runs/job/again")
    (bench.directory / "runs/job/link").symlink_to("/etc/passwd")
    write(bench.directory, "datasets/x.jsonl", 1)
    found = await sizes(bench, rescan=True)
    expected = walked(bench.directory)
    assert {name: found.categories[name] for name in expected} == expected
    database = sum(path.stat().st_size for path in bench.directory.glob("cache.db*"))
    assert found.categories["database"].size_bytes == database
    figures = await bench.engine.census.current()
    assert figures.total_size_bytes == sum(size.size_bytes for size in figures.categories.values())


async def test_small_tree_is_counted_for_each_question(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to ask for a rescan of what takes a moment."""
    monkeypatch.setattr(census, "QUICK_SCAN_S", PATIENT_S)  # a moment is longer where the suite has both processors
    monkeypatch.setattr(census, "QUICK_WAIT_S", PATIENT_S)
    assert (await sizes(bench)).categories["runs"].size_bytes == 0
    write(bench.directory, "runs/job/weights")
    assert (await sizes(bench)).categories["runs"].size_bytes == 5_000


async def test_large_tree_is_told_as_of_the_last_scan(bench: Bench, scans: Scans) -> None:
    """In no time, with the time of that scan."""
    found = await sizes(bench, rescan=True)
    write(bench.directory, "runs/job/weights")
    slow(bench)
    before = scans.count
    assert await sizes(bench) == found
    assert (scans.count, found.as_of) == (before, "2026-01-31T23:59:59.123Z")


async def test_figures_outlive_the_daemon(open_bench: OpenBench) -> None:
    """The next one has an answer before its first scan."""
    async with open_bench() as bench:
        await publish_model(bench, "m1")
        await sizes(bench, rescan=True)
        slow(bench)
        await bench.engine.census._reconcile(Scan())  # noqa: SLF001 - stores what is known
    async with open_bench() as bench:
        await bench.engine.census.start()
        told = await sizes(bench)
        assert (told.categories["runs"].size_bytes, told.as_of is None) == (5_000, False)


@pytest.mark.parametrize("stored", [b"", b"\xc1", b"\x01"])
async def test_figures_that_cannot_be_read_are_counted_anew(
    bench: Bench, caplog: pytest.LogCaptureFixture, stored: bytes
) -> None:
    """Somebody edited the database; the daemon starts all the same."""
    await bench.writer.change(SetFact(LAST_SCAN, stored))
    await bench.engine.census.start()
    assert "counted anew" in caplog.text
    assert (await sizes(bench)).as_of is not None


async def test_scan_follows_scan(bench: Bench, scans: Scans) -> None:
    """The first at once."""
    async with scanning(bench):
        for expected in (1, 2, 3):
            await rest(bench)
            assert scans.count == expected
            await bench.clock.advance(INTERVAL_S)


async def test_scan_that_the_disk_refuses_ends_nothing(
    bench: Bench, scans: Scans, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a descriptor left there is no scan, but there is a daemon; the next scan has its turn."""
    scans.is_failing = True
    async with scanning(bench):
        await rest(bench)
        assert "the size scan was given up" in caplog.text
        assert "Too many open files" in caplog.text
        with pytest.raises(StorageFailed, match="Too many open files"):
            await sizes(bench, rescan=True)
        assert (await sizes(bench)).as_of is None, "nothing is known"
        scans.is_failing = False
        await bench.clock.advance(INTERVAL_S)
        await rest(bench)
    slow(bench)
    assert (await sizes(bench)).as_of is not None


async def test_scan_in_whose_middle_figures_changed_is_followed_soon(bench: Bench, scans: Scans) -> None:
    """What changed may be counted or not: the next scan has it right."""
    await publish_model(bench, "m1")
    scans.gate = Event()
    async with scanning(bench):
        await wait_until(lambda: scans.count == 1)
        bench.engine.census.trashed(b"runs/m1", 1, 1)
        scans.gate.set()
        await rest(bench)
        await bench.clock.advance(61)
        await rest(bench)
        assert scans.count == 2
        await bench.clock.advance(61)
        await rest(bench)
        assert scans.count == 2, "nothing changed during that one"


async def test_all_who_ask_share_a_scan_that_began_after_they_asked(bench: Bench, scans: Scans) -> None:
    """One that runs already may have passed by what they changed."""
    scans.gate = Event()
    async with anyio.create_task_group() as group:
        group.start_soon(bench.engine.census.rescan)
        await wait_until(lambda: scans.count == 1)
        write(bench.directory, "runs/job/weights")
        for _ in range(5):
            group.start_soon(bench.engine.census.rescan)
        await anyio.wait_all_tasks_blocked()
        scans.gate.set()
    assert scans.count == 2
    slow(bench)
    assert (await sizes(bench)).categories["runs"].size_bytes == 5_000


async def test_scan_that_is_left_stops_and_others_begin_it_again(bench: Bench, scans: Scans) -> None:
    """Its thread goes no further for nobody."""
    scans.gate = Event()
    async with anyio.create_task_group() as group:
        group.start_soon(bench.engine.census.rescan)
        await wait_until(lambda: scans.count == 1)
        group.cancel_scope.cancel()
    await wait_until(lambda: scans.was_stopped)
    scans.gate = None
    await bench.engine.census.rescan()
    assert scans.count == 2


async def test_progress_is_told_while_a_scan_runs(bench: Bench, scans: Scans) -> None:
    """Files so far, and those of the scan before; without a scan there is none."""
    for number in range(3):
        write(bench.directory, f"runs/job/{number}")
    await sizes(bench, rescan=True)
    scans.gate = Event()
    stream = bench.engine.census.sizes(GetSizes(rescan=True))
    first = await anext(stream)
    assert isinstance(first, Progress)
    assert (first.total, first.unit) == (3, "files")
    scans.gate.set()
    *_, last = [part async for part in stream]
    assert isinstance(last, Sizes)
    slow(bench)
    assert len([part async for part in bench.engine.census.sizes(GetSizes())]) == 1


async def test_who_leaves_in_the_middle_of_a_rescan_leaves_nothing_behind(bench: Bench, scans: Scans) -> None:
    """The task that watched it ends with it, and disturbs nobody else's."""
    scans.gate = Event()
    stream = bench.engine.census.sizes(GetSizes(rescan=True))
    await anext(stream)
    await wait_until(lambda: scans.count == 1)
    await stream.aclose()
    await wait_until(lambda: scans.was_stopped)
    scans.gate = None
    assert isinstance(await sizes(bench, rescan=True), Sizes)


async def test_largest_are_entries_and_orphans_alike(bench: Bench) -> None:
    """The largest first, so many as were asked for."""
    await publish_model(bench, "small")
    write(bench.directory, "runs/large/weights", 50_000)
    await bench.engine.publishing.publish(with_files(put_model("d", b"large", name="l"), "runs/large"))
    write(bench.directory, "runs/orphan/weights", 20_000)
    await sizes(bench, rescan=True)
    *_, told = [part async for part in bench.engine.census.sizes(GetSizes(top=2))]
    assert isinstance(told, Sizes)
    assert [(entry.kind, entry.size_bytes) for entry in told.top] == [("model", 50_000), ("orphan", 20_000)]
    assert told.top[1].key == "runs/orphan"


async def test_busy_daemon_makes_a_scan_pause(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lookups come first; without them it goes on at once."""
    paused: list[float | None] = []

    class PausingEvent(Event):
        def wait(self, timeout: float | None = None) -> bool:
            paused.append(timeout)
            return False

    monkeypatch.setattr(census, "threading", SimpleNamespace(Event=PausingEvent))

    def scan(_owned: list[bytes], *, step: Callable[[int], None], **_rest: object) -> Scan:
        step(100)
        assert paused == []
        bench.engine.lookups.served += 1_000
        step(200)
        assert len(paused) == 1
        step(300)
        assert len(paused) == 1
        return Scan()

    monkeypatch.setattr(bench.files, "scan", scan)
    await bench.engine.census.rescan()
    assert len(paused) == 1


async def test_what_lay_there_before_ownership_counts_once_when_it_is_owned(
    open_bench: OpenBench, tmp_path: Path
) -> None:
    """A migrated run, or a part of one, that somebody stores again: its room was counted already."""
    execute(
        tmp_path / "cache.db",
        "INSERT INTO motoolsd_unowned (path) VALUES (CAST('runs/old' AS BLOB)), (CAST('runs/whole' AS BLOB))",
    )
    async with open_bench() as bench:
        for path in ("runs/old/m1/weights", "runs/old/rest", "runs/whole/weights"):
            write(bench.directory, path)
        bench.clock.follow_files()
        found = await sizes(bench, rescan=True)
        assert (found.num_orphans, found.categories["runs"].size_bytes) == (0, 15_000)
        slow(bench)
        for path in ("runs/old/m1", "runs/whole", "runs/whole"):
            await bench.engine.publishing.publish(with_files(put_model("d", b"m", name=path), path))
        known = await sizes(bench)
        assert (known.num_orphans, known.categories["runs"].size_bytes) == (0, 15_000)
        found = await sizes(bench, rescan=True)
        assert (found.num_orphans, found.categories["runs"]) == (0, known.categories["runs"])


async def test_orphan_that_goes_is_one_no_more(bench: Bench) -> None:
    """At once, not with the next scan."""
    write(bench.directory, "runs/a/weights")
    write(bench.directory, "runs/b/weights")
    bench.clock.follow_files()
    assert (await sizes(bench, rescan=True)).num_orphans == 2
    told = await remove(bench, orphans=True, orphan_age_s=0)
    slow(bench)
    known = await sizes(bench)
    assert (told.orphans, known.num_orphans, known.orphans) == (2, 0, Size())
    assert (known.categories["runs"].size_bytes, known.categories["trash"].size_bytes) == (0, 10_000)
    found = await sizes(bench, rescan=True)
    assert {name: found.categories[name] for name in ("runs", "trash")} == walked_only(bench, "runs", "trash")


def walked_only(bench: Bench, *names: str) -> dict[str, Size]:
    """Some of what du would say."""
    found = walked(bench.directory)
    return {name: found[name] for name in names}


async def test_figures_never_fall_below_nothing(bench: Bench) -> None:
    """Whatever others did to the tree between two scans."""
    await sizes(bench, rescan=True)
    slow(bench)
    bench.engine.census.purged(10**6, 10**6)
    assert (await sizes(bench)).categories["trash"] == Size()


async def test_dangling_entries_are_counted(bench: Bench) -> None:
    """By the scan that finds them."""
    await publish_model(bench, "m1")
    (bench.directory / "runs/m1/weights").rename(bench.directory / "gone")
    (bench.directory / "runs/m1").rmdir()
    assert (await sizes(bench, rescan=True)).num_dangling == 1
    await remove(bench, dangling=True)
    assert (await sizes(bench, rescan=True)).num_dangling == 0
    assert (await bench.engine.stats()).num_models == 0
    assert await bench.look_up("any", Kind.DATASET) is None


async def test_scan_that_was_left_is_not_under_way(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the end of what nobody does; while it is done, it is said."""
    census = bench.engine.census
    monkeypatch.setattr(census, "_scan", lambda _owned: anyio.sleep_forever())
    async with anyio.create_task_group() as group:
        group.start_soon(census.rescan)
        await anyio.wait_all_tasks_blocked()
        assert (await sizes(bench)).is_scanning
        group.cancel_scope.cancel()
    monkeypatch.undo()
    assert not (await sizes(bench)).is_scanning
