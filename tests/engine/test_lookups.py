"""Lookups from memory, SQLite where memory cannot know, and no answer that others could contradict."""

from __future__ import annotations

import threading

import anyio
import msgspec
import pytest

from motoolsd.core.errors import RequestError, StorageFailed
from motoolsd.engine import lookups as lookups_module
from motoolsd.engine.lookups import READ_ATTEMPTS
from motoolsd.engine.usage import Audience
from motoolsd.store.reads import Values
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.messages import Found, Lookup, PutDataset
from tests.engine.bench import Bench
from tests.engine.cleaning import publish_model
from tests.engine.conftest import OpenBench
from tests.samples import insert, put_dataset, put_evals


def versioned(dataset_hash: str, version: str, file_id: bytes = b"file") -> PutDataset:
    """A dataset that was made under a version."""
    return msgspec.structs.replace(put_dataset(dataset_hash, file_id), version=version)


def asked(*keys: str, version: str | None = None, is_strict: bool = False) -> Lookup:
    """A lookup of datasets."""
    return Lookup(kind=Kind.DATASET, keys=list(keys), version=version, is_strict=is_strict)


async def test_hits_and_misses_are_answered_from_memory(bench: Bench) -> None:
    """With everything loaded, neither waits for SQLite."""
    await bench.write(put_dataset("d", b"file"))
    found = bench.engine.lookups.nowait(Lookup(kind=Kind.DATASET, keys=["d", "e"]), bench.tally)
    assert found is not None
    assert found.values == [b"file", None]
    assert bench.engine.entries == 1


async def test_absence_is_no_miss_before_everything_is_loaded(open_bench: OpenBench, database: str) -> None:
    """Until then SQLite is asked, and what it says is remembered."""
    insert(database, "d", "file")
    async with open_bench(loaded=False) as bench:
        assert bench.engine.lookups.nowait(Lookup(kind=Kind.DATASET, keys=["d"]), bench.tally) is None
        assert [await bench.look_up(key) for key in ("d", "e")] == [b"file", None]
        assert bench.peek("d") == b"file"


async def test_lookups_go_to_sqlite_when_memory_is_too_small(open_bench: OpenBench, database: str) -> None:
    """With more data than room, every entry is still found, and never more are held than allowed."""
    for number in range(10):
        insert(database, f"d{number}", f"file-{number}")
    async with open_bench(index_entries_max=3, load_rows=2) as bench:
        for number in (*range(10), *range(10)):
            assert await bench.look_up(f"d{number}") == b"file-%d" % number
            assert bench.engine.entries <= 3
        assert await bench.look_up("missing") is None
        assert (await bench.engine.stats()).num_datasets == 10


async def test_answer_from_sqlite_is_held_until_the_commit_is_visible(open_bench: OpenBench) -> None:
    """Else one client could see the new value, and another, later, the old one from memory."""
    async with open_bench(loaded=False) as bench:
        bench.store.shown_gate = threading.Event()
        bench.writer.submit_nowait(put_dataset("d", b"new"), lambda _: None)
        await bench.store.committed.wait()
        answers: list[bytes | None] = []

        async def look_up() -> None:
            answers.append(await bench.look_up("d"))

        async with anyio.create_task_group() as group:
            group.start_soon(look_up)
            for _ in range(4 * lookups_module.READ_ATTEMPTS):  # as long as the lookup could take, and longer
                assert await bench.store.values(Kind.DATASET, ["d"]) == Values({"d": b"new"}, {})
                await anyio.wait_all_tasks_blocked()
            assert answers == []
            bench.open_gates()
        assert answers == [b"new"]


async def test_answer_that_was_overtaken_does_not_enter_memory(
    open_bench: OpenBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that was read before a commit and arrives after it is read again."""
    async with open_bench(loaded=False) as bench:
        await bench.write(put_dataset("d", b"old"))
        bench.index.forget()
        real_values, overtaken = bench.store.values, False

        async def slow_values(kind: Kind, keys: list[str]) -> Values:
            nonlocal overtaken
            read = await real_values(kind, keys)
            if not overtaken:
                overtaken = True
                await bench.write(put_dataset("d", b"new"))
                bench.index.remove(Kind.DATASET, "d")  # as if it had been dropped for want of room
            return read

        monkeypatch.setattr(bench.store, "values", slow_values)
        assert await bench.look_up("d") == b"new"
        assert bench.peek("d") == b"new"


async def test_several_keys_are_seen_as_one_write_left_them(
    open_bench: OpenBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory and SQLite are never mixed in one answer: a write of several keys is seen whole or not at all."""
    async with open_bench(loaded=False) as bench:
        keys = [eval_key("m", task, "inspect", None) for task in ("t1", "t2")]
        await bench.write(put_evals({"t1": b"old1", "t2": b"old2"}))
        bench.index.remove(Kind.EVAL, keys[1])
        real_values, round_number = bench.store.values, 0

        async def overtaken_values(kind: Kind, wanted: list[str]) -> Values:
            nonlocal round_number
            round_number += 1
            await bench.write(put_evals({"t1": b"%d" % round_number, "t2": b"%d" % round_number}))
            bench.index.remove(Kind.EVAL, keys[1])
            return await real_values(kind, wanted)

        monkeypatch.setattr(bench.store, "values", overtaken_values)
        first, second = (await bench.answer(Lookup(kind=Kind.EVAL, keys=keys))).values
        assert first == second


async def test_key_of_an_evaluation_that_nobody_makes_is_refused(open_bench: OpenBench) -> None:
    """The same columns in another spelling would never be told of a change."""
    async with open_bench(loaded=False) as bench:
        with pytest.raises(RequestError, match="not the key"):
            await bench.answer(Lookup(kind=Kind.EVAL, keys=['["m", "t", "b", null]']))


async def test_value_of_another_version_is_named_or_misses(bench: Bench) -> None:
    """As who asks wants it: it is there in any case."""
    await bench.write(versioned("old", "1.0"))
    await bench.write(versioned("new", "2.0"))
    keys = ("old", "new", "none")
    assert await bench.answer(asked(*keys, version="2.0")) == Found(
        values=[b"file", b"file", None], versions={0: "1.0"}
    )
    strict = await bench.answer(asked(*keys, version="2.0", is_strict=True))
    assert strict == Found(values=[None, b"file", None], versions={0: "1.0"})
    assert await bench.answer(asked(*keys)) == Found(values=[b"file", b"file", None])


@pytest.mark.parametrize(("stored", "version"), [("1.0", "1.1.dev3"), ("dev", "1.0"), (None, "1.0"), ("1.0", "1.0")])
async def test_compatible_versions_are_not_told_apart(bench: Bench, stored: str | None, version: str) -> None:
    """A development version goes with every other, and so does one that nobody named."""
    await bench.write(msgspec.structs.replace(put_dataset("d"), version=stored))
    assert await bench.answer(asked("d", version=version, is_strict=True)) == Found(values=[b"file"])


async def test_version_is_known_after_a_restart(open_bench: OpenBench) -> None:
    """Whether it comes from a load or with a lookup."""
    async with open_bench() as bench:
        await bench.write(versioned("d", "1.0"))
    for loaded in (True, False):
        async with open_bench(loaded=loaded) as bench:
            found = await bench.answer(asked("d", version="2.0"))
            assert found == Found(values=[b"file"], versions={0: "1.0"})


@pytest.mark.parametrize("is_strict", [True, False])
async def test_each_key_is_counted_once_whatever_its_version(bench: Bench, is_strict: bool) -> None:  # noqa: FBT001
    """A value that is refused for its version is a miss of its own kind."""
    await bench.write(versioned("old", "1.0"))
    await bench.write(versioned("new", "2.0"))
    tally = bench.engine.usage.tally(Audience())
    request = asked("old", "new", "none", version="2.0", is_strict=is_strict)
    assert bench.engine.lookups.nowait(request, tally) is None, "its version must be looked at"
    await bench.engine.lookups.find(request, tally)
    report = bench.engine.usage.take()
    assert report is not None
    assert set(report.hits[Kind.DATASET].items()) == ({("new", 1)} if is_strict else {("new", 1), ("old", 1)})
    missed = {(miss.key, miss.is_mismatch, miss.times) for miss in report.misses}
    assert missed == {("none", False, 1)} | ({("old", True, 1)} if is_strict else set())


async def test_every_lookup_counts_as_served(bench: Bench) -> None:
    """Whoever works in the background sees by it how busy we are."""
    await bench.look_up("d")
    bench.peek("d")
    assert bench.engine.lookups.served == 2


async def test_value_whose_file_went_misses(bench: Bench) -> None:
    """Memory alone does not answer: its files are looked at each time."""
    key = await publish_model(bench, "m1")
    request = Lookup(kind=Kind.MODEL, keys=[key])
    assert bench.engine.lookups.nowait(request, bench.tally) is None
    assert await bench.look_up(key, Kind.MODEL) == b"m1"
    (bench.directory / "runs/m1/weights").unlink()
    (bench.directory / "runs/m1").rmdir()
    assert await bench.look_up(key, Kind.MODEL) is None
    assert bench.peek(key, Kind.MODEL) is None, "from now on it is known"


async def test_answer_that_ends_by_itself_is_not_to_be_remembered(bench: Bench) -> None:
    """A client's own memory does not know when its time is over."""
    lasting, ending = await publish_model(bench, "m1"), await publish_model(bench, "m2", ttl_s=60)
    for key, lasts in ((lasting, True), (ending, False)):
        assert (await bench.answer(Lookup(kind=Kind.MODEL, keys=[key]))).lasts == lasts
    await bench.clock.advance(61)
    assert await bench.answer(Lookup(kind=Kind.MODEL, keys=[ending])) == Found(values=[None])


async def test_value_that_is_lost_each_time_is_a_miss(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored and lost again while we look: the lookup ends, and what has no files is answered all the same."""
    key = await publish_model(bench, "m1")
    await bench.write(put_dataset("d"))
    looks = 0

    async def is_never_settled(*_args: object) -> bool:
        nonlocal looks
        looks += 1
        return False

    monkeypatch.setattr(bench.engine.lookups._presence, "is_settled", is_never_settled)  # noqa: SLF001
    assert await bench.answer(Lookup(kind=Kind.MODEL, keys=[key, "other"])) == Found(values=[None, None])
    assert looks == READ_ATTEMPTS
    assert await bench.look_up("d") == b"file"


async def test_standing_values_wait_for_what_is_under_way(bench: Bench) -> None:
    """A claim never computes what a commit is about to show."""
    bench.store.shown_gate = threading.Event()
    bench.writer.submit_nowait(put_dataset("d", b"new"), lambda _: None)
    await bench.store.committed.wait()
    answers: list[Found] = []

    async def look() -> None:
        answers.append(await bench.engine.lookups.standing(asked("d"), bench.tally))

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        await anyio.wait_all_tasks_blocked()
        assert answers == []
        bench.open_gates()
    assert answers == [Found(values=[b"new"])]


async def test_standing_values_are_read_again_when_a_write_overtakes_them(
    open_bench: OpenBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What SQLite said before the write does not stand any more."""
    async with open_bench(loaded=False) as bench:
        real_values, reads = bench.store.values, 0

        async def overtaken_values(kind: Kind, keys: list[str]) -> Values:
            nonlocal reads
            reads += 1
            read = await real_values(kind, keys)
            if reads == 1:
                await bench.write(put_dataset("d", b"new"))
                bench.index.remove(Kind.DATASET, "d")
            return read

        monkeypatch.setattr(bench.store, "values", overtaken_values)
        assert await bench.engine.lookups.standing(asked("d"), bench.tally) == Found(values=[b"new"])
        assert reads == 2


async def test_standing_values_end_where_keys_are_written_all_the_time(
    open_bench: OpenBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is bounded, and said."""
    monkeypatch.setattr(lookups_module, "SETTLE_ATTEMPTS", 3)
    async with open_bench(loaded=False) as bench:
        real_values = bench.store.values

        async def overtaken_values(kind: Kind, keys: list[str]) -> Values:
            read = await real_values(kind, keys)
            await bench.write(put_dataset("d"))
            bench.index.remove(Kind.DATASET, "d")
            return read

        monkeypatch.setattr(bench.store, "values", overtaken_values)
        with pytest.raises(StorageFailed, match="written all the time"):
            await bench.engine.lookups.standing(asked("d"), bench.tally)


async def test_standing_values_keep_to_their_version(bench: Bench) -> None:
    """A strict claim computes anew what another version made; any other takes it."""
    await bench.write(versioned("d", "1.0"))
    for is_strict, value in ((True, None), (False, b"file")):
        request = asked("d", version="2.0", is_strict=is_strict)
        assert await bench.engine.lookups.standing(request, bench.tally) == Found(values=[value], versions={0: "1.0"})


async def test_standing_values_have_their_files(bench: Bench) -> None:
    """A claim of what has lost its file gets the lease, not the value."""
    key = await publish_model(bench, "m1")
    request = Lookup(kind=Kind.MODEL, keys=[key])
    assert await bench.engine.lookups.standing(request, bench.tally) == Found(values=[b"m1"])
    (bench.directory / "runs/m1/weights").unlink()
    (bench.directory / "runs/m1").rmdir()
    assert await bench.engine.lookups.standing(request, bench.tally) == Found(values=[None])
