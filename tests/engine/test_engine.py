"""Memory is what the database is, whatever is written while it is loaded; usage, checks and figures."""

from __future__ import annotations

import logging
import random
import threading
from typing import Any
from zlib import crc32

import anyio
import msgspec
import pytest

from motoolsd.core.errors import RequestError, StorageFailed
from motoolsd.engine import engine as engine_module
from motoolsd.engine import lookups as lookups_module
from motoolsd.engine import writer as writer_module
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.messages import PutEvals, PutModel, Stored, Used
from motoolsd.wire.sizes import GetSizes, Sizes
from tests.engine.bench import Bench
from tests.engine.conftest import OpenBench
from tests.samples import clear, clear_all, execute, insert, put_dataset, put_evals, put_model, query, request_key


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
    for module in (engine_module, lookups_module, writer_module):
        monkeypatch.setattr(module, "slot_of", lambda _kind, _key: 1)
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

    for module in (engine_module, lookups_module, writer_module):
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


async def test_hits_that_a_client_has_counted_are_written_when_they_are_many(
    open_bench: OpenBench, database: str
) -> None:
    """They fill the same bounded counts as our own; entries that are gone, or keys that are none, are no error."""
    async with open_bench(usage_entries_max=3) as bench:
        await bench.write(put_evals({"t": b"1"}))
        key = eval_key("m", "t", "inspect", None)
        bench.told(Used(kind=Kind.EVAL, hits={key: 40}))
        await bench.look_up(key, Kind.EVAL)
        await bench.write(put_dataset("c"))
        assert query(database, "SELECT hits FROM eval_results") == [(0,)]
        bench.told(Used(kind=Kind.EVAL, hits={key: 1, "no key": 1, eval_key("m", "u", "i", None): 1}))
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


@pytest.mark.parametrize(("kind", "only"), [(Kind.DATASET, {"model_id": "m"}), (Kind.MODEL, {"task_id": "t"})])
async def test_filter_that_does_not_fit_the_kind_is_refused(bench: Bench, kind: Kind, only: dict[str, Any]) -> None:
    """Ignoring it would clear everything."""
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
