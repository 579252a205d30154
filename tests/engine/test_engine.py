"""Lookups from memory, SQLite where memory cannot know, and no answer that others could contradict."""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
from contextlib import closing
from zlib import crc32

import anyio
import msgspec
import pytest

from motoolsd.core.errors import RequestError, StorageFailed
from motoolsd.engine import engine as engine_module
from motoolsd.engine import writer as writer_module
from motoolsd.store.reads import Values
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.messages import ListEntries, Lookup, PutEvals, PutModel, Stored, Used
from motoolsd.wire.sizes import GetSizes, Sizes
from tests.engine.bench import Bench
from tests.engine.conftest import OpenBench
from tests.samples import clear, clear_all, execute, put_dataset, put_evals, put_model, query, request_key


def insert(database: str, key: str, value: str) -> None:
    """What another program does to cache.db."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("INSERT OR REPLACE INTO dataset_files (dataset_hash, file_id) VALUES (?, ?)", (key, value))


async def test_hits_and_misses_are_answered_from_memory(bench: Bench) -> None:
    """With everything loaded, neither waits for SQLite."""
    await bench.write(put_dataset("d", b"file"))
    found = bench.engine.lookup_nowait(Lookup(kind=Kind.DATASET, keys=["d", "e"]))
    assert found is not None
    assert found.values == [b"file", None]
    assert bench.engine.entries == 1


async def test_absence_is_no_miss_before_everything_is_loaded(open_bench: OpenBench, database: str) -> None:
    """Until then SQLite is asked, and what it says is remembered."""
    insert(database, "d", "file")
    async with open_bench(loaded=False) as bench:
        assert bench.engine.lookup_nowait(Lookup(kind=Kind.DATASET, keys=["d"])) is None
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
            for _ in range(4 * engine_module.READ_ATTEMPTS):  # as long as the lookup could take, and longer
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
        first, second = (await bench.engine.lookup(Lookup(kind=Kind.EVAL, keys=keys))).values
        assert first == second


async def test_key_of_an_evaluation_that_nobody_makes_is_refused(open_bench: OpenBench) -> None:
    """The same columns in another spelling would never be told of a change."""
    async with open_bench(loaded=False) as bench:
        with pytest.raises(RequestError, match="not the key"):
            await bench.engine.lookup(Lookup(kind=Kind.EVAL, keys=['["m", "t", "b", null]']))


async def test_load_does_not_resurrect_what_was_written_meanwhile(open_bench: OpenBench, database: str) -> None:
    """A slice that was read before a put, a clear of one key and a clear of a kind arrives after them."""
    for name in ("put", "cleared", "kept"):
        insert(database, name, "old")
    async with open_bench(loaded=False) as bench, anyio.create_task_group() as group:
        bench.store.slice_gate = anyio.Event()
        group.start_soon(bench.engine.load_index)
        await bench.store.sliced.wait()
        await bench.write(put_dataset("put", b"new"))
        await bench.write(clear(Kind.DATASET, keys=["cleared"]))
        bench.open_gates()
        while not bench.index.is_complete:
            await anyio.lowlevel.checkpoint()
        assert [bench.peek(name) for name in ("put", "cleared", "kept")] == [b"new", None, b"old"]


async def test_entry_that_shares_a_slot_with_a_write_is_still_loaded(
    open_bench: OpenBench, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot that moved while a slice was read says nothing of the other keys in it: none becomes a false miss."""
    monkeypatch.setattr(engine_module, "slot_of", lambda _kind, _key: 1)
    monkeypatch.setattr(writer_module, "slot_of", lambda _kind, _key: 1)
    insert(database, "neighbour", "old")
    async with open_bench(loaded=False) as bench, anyio.create_task_group() as group:
        bench.store.slice_gate = anyio.Event()
        group.start_soon(bench.engine.load_index)
        await bench.store.sliced.wait()
        await bench.write(put_dataset("other"))
        bench.open_gates()
        while not bench.index.is_complete:
            await anyio.lowlevel.checkpoint()
        assert bench.peek("neighbour") == b"old"


async def test_loaded_row_whose_commit_is_not_visible_yet_is_held(open_bench: OpenBench) -> None:
    """What a load reads of a commit under way enters memory when everybody may see it, not before."""
    async with open_bench(loaded=False) as bench, anyio.create_task_group() as group:
        bench.store.shown_gate = threading.Event()
        bench.writer.submit_nowait(put_dataset("d", b"new"), lambda _: None)
        await bench.store.committed.wait()
        group.start_soon(bench.engine.load_index)
        await bench.store.sliced.wait()
        await anyio.wait_all_tasks_blocked()
        assert bench.index.find(Kind.DATASET, ["d"]) == [None]
        bench.open_gates()
        while not bench.index.is_complete:
            await anyio.lowlevel.checkpoint()
        assert bench.peek("d") == b"new"


NAMES = [f"d{number}" for number in range(12)]


async def disturb(bench: Bench, database: str, randomness: random.Random) -> None:
    """Everything that may race with a load, in an order that the seed decides."""
    for _ in range(15):
        name, value = randomness.choice(NAMES), str(randomness.random())
        match randomness.randrange(10):
            case 0:
                await bench.write(clear(Kind.DATASET, keys=[name]))
            case 1:
                await bench.write(clear_all())
            case 2:
                insert(database, name, value)
                await bench.engine.notice_outside_edit()
            case 3 | 4 | 5:
                await bench.look_up(name)
            case _:
                await bench.write(put_dataset(name, value.encode()))


@pytest.mark.parametrize("seed", range(25))
async def test_memory_equals_the_database_whatever_interleaves_with_a_load(
    open_bench: OpenBench, database: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Puts, clears, outside edits and lookups race with loads, in three slots: at rest, memory is the database."""

    def few_slots(_kind: Kind, key: str) -> int:
        return crc32(key.encode()) % 3

    for module in (engine_module, writer_module):
        monkeypatch.setattr(module, "slot_of", few_slots)
    randomness = random.Random(seed)
    for name in NAMES[:8]:
        insert(database, name, "first")
    entries_max = randomness.choice([4, 100])

    async with open_bench(loaded=False, load_rows=2, index_entries_max=entries_max) as bench:
        async with anyio.create_task_group() as loading:
            loading.start_soon(bench.engine.run_loader)
            async with anyio.create_task_group() as disturbing:
                disturbing.start_soon(disturb, bench, database, randomness)
                disturbing.start_soon(disturb, bench, database, randomness)
            while not (bench.index.is_complete or bench.index.has_dropped):
                await anyio.lowlevel.checkpoint()
            loading.cancel_scope.cancel()
        rows = dict(query(database, "SELECT dataset_hash, CAST(file_id AS BLOB) FROM dataset_files"))
        for name in NAMES:
            held = bench.index.find(Kind.DATASET, [name])[0]
            assert held is None or held == rows.get(name), (seed, name)
            assert await bench.look_up(name) == rows.get(name), (seed, name)


async def test_outside_edit_is_noticed_and_answered(bench: Bench, database: str) -> None:
    """After another program changed, added or removed rows, no lookup answers from what memory knew before."""
    for name in ("changed", "removed"):
        await bench.write(put_dataset(name, b"old"))
    assert not await bench.engine.notice_outside_edit()
    insert(database, "changed", "by hand")
    insert(database, "added", "by hand")
    execute(database, "DELETE FROM dataset_files WHERE dataset_hash = 'removed';")
    number = bench.slots.number(0)
    assert await bench.engine.notice_outside_edit()
    assert bench.slots.number(0) != number
    answers = [await bench.look_up(name) for name in ("changed", "added", "removed")]
    assert answers == [b"by hand", b"by hand", None]


async def test_loader_loads_again_after_an_outside_edit(open_bench: OpenBench, database: str) -> None:
    """What was forgotten comes back by itself."""
    async with open_bench(loaded=False) as bench, anyio.create_task_group() as group:
        group.start_soon(bench.engine.run_loader)
        for value in ("one", "two"):
            insert(database, "d", value)
            await bench.engine.notice_outside_edit()
            while not bench.index.is_complete:
                await anyio.lowlevel.checkpoint()
            assert bench.peek("d") == value.encode()
        group.cancel_scope.cancel()


async def test_index_that_cannot_be_loaded_costs_no_answer(
    open_bench: OpenBench, database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and SQLite is asked."""
    insert(database, "d", "file")

    async def fail(*_args: object) -> None:
        raise StorageFailed("the disk reported an error")

    async with open_bench(loaded=False) as bench, anyio.create_task_group() as group:
        monkeypatch.setattr(bench.store, "slice", fail)
        with caplog.at_level(logging.ERROR):
            group.start_soon(bench.engine.run_loader)
            await anyio.wait_all_tasks_blocked()
        assert "cannot be loaded" in caplog.text
        assert await bench.look_up("d") == b"file"
        group.cancel_scope.cancel()


async def test_usage_is_written_when_it_is_flushed(bench: Bench, database: str) -> None:
    """Hits are counted in memory, and stand in the rows after a flush."""
    await bench.write(put_dataset("d"))
    for _ in range(3):
        bench.peek("d")
    hits = "SELECT hits, last_used_at IS NULL FROM dataset_files"
    assert query(database, hits) == [(0, 1)]
    bench.engine.flush_usage_nowait()
    await bench.write(put_dataset("other"))
    assert query(database, hits)[0] == (3, 0)


async def test_usage_is_flushed_when_many_entries_were_used(open_bench: OpenBench, database: str) -> None:
    """The counts are bounded: the entry that fills them has them written."""
    async with open_bench(usage_entries_max=2) as bench:
        for name in ("a", "b"):
            await bench.write(put_dataset(name))
            bench.peek(name)
        await bench.write(put_dataset("c"))
        assert query(database, "SELECT sum(hits) FROM dataset_files") == [(2,)]


async def test_hits_that_a_client_has_counted_are_written_when_they_are_many(
    open_bench: OpenBench, database: str
) -> None:
    """They fill the same bounded counts as our own; entries that are gone, or keys that are none, are no error."""
    async with open_bench(usage_entries_max=3) as bench:
        await bench.write(put_evals({"t": b"1"}))
        key = eval_key("m", "t", "inspect", None)
        bench.engine.count_used(Used(kind=Kind.EVAL, hits={key: 40}))
        await bench.look_up(key, Kind.EVAL)
        await bench.write(put_dataset("c"))
        assert query(database, "SELECT hits FROM eval_results") == [(0,)]
        bench.engine.count_used(Used(kind=Kind.EVAL, hits={key: 1, "no key": 1, eval_key("m", "u", "i", None): 1}))
        await bench.write(put_dataset("d"))
        assert query(database, "SELECT hits FROM eval_results") == [(42,)]


async def test_usage_waits_while_the_queue_is_full(open_bench: OpenBench, database: str) -> None:
    """Counts never fail a lookup nor push a write out: with room for one kind only, the others stay counted."""
    async with open_bench(writer_queue_max=2) as bench:
        await bench.write(put_dataset("d"))
        await bench.write(put_model(lr=1))
        key = str(query(database, "SELECT cache_key FROM trained_models")[0][0])
        bench.peek("d")
        bench.peek(key, Kind.MODEL)
        bench.store.commit_gate, bench.store.begun = threading.Event(), anyio.Event()
        bench.writer.submit_nowait(put_dataset("taken"), lambda _: None)
        await bench.store.begun.wait()
        bench.writer.submit_nowait(put_dataset("waits"), lambda _: None)
        bench.engine.flush_usage_nowait()
        bench.engine.flush_usage_nowait()
        bench.open_gates()
        await bench.writer.wait_settled()
        bench.engine.flush_usage_nowait()
        await bench.write(put_dataset("last"))
        assert query(database, "SELECT hits FROM dataset_files WHERE dataset_hash = 'd'") == [(1,)]
        assert query(database, "SELECT hits FROM trained_models") == [(1,)]


async def test_usage_after_the_end_is_dropped(bench: Bench) -> None:
    """A closed writer takes no counts, and that is no error."""
    await bench.write(put_dataset("d"))
    bench.peek("d")
    bench.writer.close()
    bench.engine.flush_usage_nowait()


async def test_listing_comes_in_pages(open_bench: OpenBench) -> None:
    """In insertion order, the last page marked."""
    async with open_bench(page_rows_max=2) as bench:
        for name in "cab":
            await bench.write(put_dataset(name))
        pages = [page async for page in bench.engine.list_entries(ListEntries(kind=Kind.DATASET))]
        assert [[item.dataset_hash for item in page.items] for page in pages] == [["c", "a"], ["b"]]  # type: ignore[union-attr]
        assert [page.is_last for page in pages] == [False, True]


@pytest.mark.parametrize(("kind", "only"), [(Kind.DATASET, {"model_id": "m"}), (Kind.MODEL, {"task_id": "t"})])
async def test_filter_that_does_not_fit_the_kind_is_refused(bench: Bench, kind: Kind, only: dict[str, str]) -> None:
    """Ignoring it would list, or clear, everything."""
    with pytest.raises(RequestError, match="cannot be chosen by"):
        await anext(bench.engine.list_entries(ListEntries(kind=kind, **only)))
    with pytest.raises(RequestError, match="cannot be chosen by"):
        await bench.write(msgspec.structs.replace(clear(kind), **{f"{name}s": [value] for name, value in only.items()}))


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[" * 100_000, b"{} {}"])
async def test_text_that_is_no_json_is_refused(bench: Bench, text: bytes) -> None:
    """Neither a config nor kwargs that nobody can read again is stored."""
    model = PutModel(request_key=request_key(), dataset_hash="d", config=text, backend_type="b", model_id=b"m")
    evals = PutEvals(request_key=request_key(), model_id="m", backend_type="b", kwargs=text, logs={"t": b"l"})
    for request in (model, evals):
        with pytest.raises(RequestError, match="no JSON"):
            await bench.write(request)


async def test_lowest_open_number_above_the_request_is_refused(bench: Bench) -> None:
    """Its own reply would be dropped with it, and a retry applied twice."""
    with pytest.raises(RequestError, match="lowest_open"):
        await bench.write(put_dataset("d", key=request_key(5, lowest_open=6)))


async def test_stats_and_sizes(bench: Bench) -> None:
    """Counts come from memory or from SQLite alike, sizes from the directory."""
    await bench.write(put_dataset("d"))
    (bench.directory / "runs" / "seven").write_bytes(b"7" * 7)
    stats = await bench.engine.stats()
    assert (stats.num_datasets, stats.num_models, stats.num_evals) == (1, 0, 0)
    bench.index.forget()
    assert (await bench.engine.stats()).num_datasets == 1
    (sizes,) = [part async for part in bench.engine.census.sizes(GetSizes())]
    assert isinstance(sizes, Sizes)
    assert sizes.categories["runs"].size_bytes == 7
    assert stats.total_size_bytes > 7
    assert await bench.write(put_dataset("e")) == Stored()
