"""An acknowledged write is committed, indexed and bumped, in that order; a batch gathers while one commits."""

from __future__ import annotations

import logging
import sqlite3
import threading

import anyio
import pytest

from motoolsd.core.errors import NoRoom, RequestError, StorageFailed
from motoolsd.core.slots import ALL
from motoolsd.engine import writer as writer_module
from motoolsd.engine.writer import RequestOrder, touched_slots
from motoolsd.store import clearing as clearing_module
from motoolsd.store import store as store_module
from motoolsd.store.statistics import UseReport
from motoolsd.wire.keys import Kind, eval_key, slot_of
from motoolsd.wire.messages import Lookup, Stored, WriteReply
from tests.engine.bench import Bench
from tests.engine.conftest import OpenBench
from tests.samples import as_retry, clear, clear_all, put_dataset, put_evals, query, request_key

Outcomes = list[WriteReply | RequestError]


async def test_acknowledged_means_committed_indexed_and_bumped(bench: Bench, database: str) -> None:
    """At the moment of the answer the row is on disk, memory has it, and the slot has a new number."""
    slot = slot_of(Kind.DATASET, "d")
    before = bench.slots.number(slot)
    seen: list[object] = []
    done = anyio.Event()

    def answer(outcome: WriteReply | RequestError) -> None:
        row = query(database, "SELECT file_id FROM dataset_files")
        seen.extend((outcome, row, bench.peek("d"), bench.slots.number(slot) != before, bench.slots.is_moving(slot)))
        done.set()

    bench.writer.submit_nowait(put_dataset("d", b"file"), answer)
    await done.wait()
    assert seen == [Stored(), [("file",)], b"file", True, False]


async def test_nothing_shows_before_the_commit_is_known(bench: Bench) -> None:
    """While a batch is on its way its slots move, and memory still answers the old value."""
    await bench.write(put_dataset("d", b"old"))
    bench.store.shown_gate, bench.store.committed = threading.Event(), anyio.Event()
    outcomes: Outcomes = []
    bench.writer.submit_nowait(put_dataset("d", b"new"), outcomes.append)
    await bench.store.committed.wait()
    assert bench.peek("d") == b"old"
    assert bench.slots.is_moving(slot_of(Kind.DATASET, "d"))
    assert outcomes == []
    bench.open_gates()
    await bench.writer.wait_settled()
    assert bench.peek("d") == b"new"


async def test_batch_gathers_while_one_commits(bench: Bench) -> None:
    """All that came meanwhile is one transaction."""
    bench.store.commit_gate = threading.Event()
    outcomes: Outcomes = []
    bench.writer.submit_nowait(put_dataset("first"), outcomes.append)
    await bench.store.begun.wait()
    for number in range(50):
        bench.writer.submit_nowait(put_dataset(f"d{number}"), outcomes.append)
    bench.open_gates()
    await bench.write(put_dataset("last"))
    assert bench.store.batches == [1, 51]
    assert outcomes == [Stored()] * 51


async def test_batch_is_bounded(open_bench: OpenBench) -> None:
    """A long queue is committed in several transactions, in its order."""
    async with open_bench(batch_max=3) as bench:
        order: list[int] = []
        for number in range(8):
            bench.writer.submit_nowait(put_dataset("same", b"%d" % number), lambda _, n=number: order.append(n))  # type: ignore[misc]
        await bench.write(put_dataset("last"))
        assert bench.store.batches == [3, 3, 3]
        assert order == list(range(8))
        assert bench.peek("same") == b"7"


async def test_full_queue_makes_callers_wait_and_calls_back(open_bench: OpenBench) -> None:
    """Nothing is refused: WouldBlock says to wait, and whoever asked is called once when there is room."""
    async with open_bench(writer_queue_max=2) as bench:
        bench.store.commit_gate = threading.Event()
        bench.writer.submit_nowait(put_dataset("taken"), lambda _: None)
        await bench.store.begun.wait()
        for name in ("a", "b"):
            bench.writer.submit_nowait(put_dataset(name), lambda _: None)
        assert (bench.writer.is_full, bench.writer.queue_depth) == (True, 2)
        with pytest.raises(anyio.WouldBlock):
            bench.writer.submit_nowait(put_dataset("c"), lambda _: None)
        called = 0
        room = anyio.Event()

        def on_space() -> None:
            nonlocal called
            called += 1
            assert not bench.writer.is_full
            room.set()

        bench.writer.when_space(on_space)
        await anyio.wait_all_tasks_blocked()
        assert called == 0
        bench.open_gates()
        await room.wait()
        await bench.write(put_dataset("d"))
        assert called == 1


async def test_unknown_outcome_is_forgotten_told_and_safe_to_retry(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The writer is reopened, memory forgets, all slots move, the batch fails as unknown; a retry is applied once."""
    await bench.write(put_dataset("other", b"kept"))
    numbers = bench.slots.snapshot()
    bench.store.failing_statement = "COMMIT"
    request = put_dataset("d", b"new")
    with caplog.at_level(logging.ERROR):
        outcome = await bench.write(request)
    assert isinstance(outcome, StorageFailed)
    assert not outcome.outcome_known
    assert "outcome unknown" in caplog.text
    assert bench.store.reopened == 1
    assert not bench.index.is_complete
    assert not any(bench.slots.is_current(slot, numbers[slot]) for slot in range(len(numbers)))
    assert [await bench.look_up(key) for key in ("d", "other")] == [b"new", b"kept"]  # as it stands on disk
    await bench.write(put_dataset("d", b"newer"))
    assert await bench.write(as_retry(request)) == Stored()
    assert await bench.look_up("d") == b"newer"


async def test_refused_transaction_changes_nothing(bench: Bench) -> None:
    """A transaction that could not begin fails its batch with an outcome that is known; the writer goes on."""
    await bench.write(put_dataset("d", b"old"))
    bench.store.failing_statement = "BEGIN IMMEDIATE"
    outcome = await bench.write(put_dataset("d", b"new"))
    assert isinstance(outcome, StorageFailed)
    assert outcome.outcome_known
    assert (bench.peek("d"), bench.store.reopened) == (b"old", 0)
    assert await bench.write(put_dataset("d", b"newer")) == Stored()


async def test_refusals_for_one_reason_are_logged_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk refuses every write of a job that does not stop; until something is stored again."""
    await bench.store._write(_let_no_page_be_added)  # noqa: SLF001
    for number in range(3):
        assert isinstance(await bench.write(put_dataset(f"large {number}", b"x" * 100_000)), NoRoom)
    assert caplog.text.count("a write was refused") == 1
    await bench.write(put_dataset("small"))
    assert isinstance(await bench.write(put_dataset("large", b"x" * 100_000)), NoRoom)
    assert caplog.text.count("a write was refused") == 2


def _let_no_page_be_added(connection: sqlite3.Connection) -> None:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")


async def test_connection_that_cannot_be_opened_again_refuses_what_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a commit of unknown outcome, until the disk is back: nobody hangs, nothing is tried for ever."""

    def refuse(*_args: object, **_options: object) -> None:
        raise StorageFailed("no such luck")

    with monkeypatch.context() as broken:
        broken.setattr(store_module, "open_connection", refuse)
        bench.store.failing_statement = "COMMIT"
        unknown = await bench.write(put_dataset("d"))
        refused = await bench.write(put_dataset("d", b"new"))
    assert isinstance(unknown, StorageFailed)
    assert isinstance(refused, StorageFailed)
    assert (unknown.outcome_known, refused.outcome_known) == (False, True)
    assert await bench.write(put_dataset("d", b"newer")) == Stored()
    assert not bench.slots.is_moving(slot_of(Kind.DATASET, "d"))


async def test_cancelled_writer_still_answers_the_batch_it_has_begun(open_bench: OpenBench) -> None:
    """Cancelled does not mean not written: what is on its way is committed, indexed and answered."""
    outcomes: Outcomes = []
    async with open_bench() as bench:
        second = writer_module.Writer(bench.store, bench.index, bench.slots, bench.clock, queue_max=9, batch_max=9)
        bench.store.commit_gate = threading.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(second.run)
            second.submit_nowait(put_dataset("begun"), outcomes.append)
            await bench.store.begun.wait()
            second.submit_nowait(put_dataset("waiting"), outcomes.append)
            group.cancel_scope.cancel()
            bench.open_gates()
        assert outcomes[:1] == [Stored()]
        assert bench.peek("begun") == b"file"


async def test_closed_writer_drains_its_queue(bench: Bench) -> None:
    """What was accepted is committed; what comes later is told that the daemon stops."""
    outcomes: Outcomes = []
    for number in range(5):
        bench.writer.submit_nowait(put_dataset(f"d{number}"), outcomes.append)
    bench.writer.close()
    with pytest.raises(StorageFailed, match="stopping"):
        bench.writer.submit_nowait(put_dataset("late"), outcomes.append)
    await anyio.wait_all_tasks_blocked()
    while len(outcomes) < 5:
        await anyio.lowlevel.checkpoint()
    assert outcomes == [Stored()] * 5


async def test_clears_show_in_memory(bench: Bench) -> None:
    """What was removed by key, by kind or altogether is a miss at the moment of the answer."""
    for name in ("a", "b", "c"):
        await bench.write(put_dataset(name))
    await bench.write(clear(Kind.DATASET, keys=["a"]))
    assert [bench.peek(name) for name in "abc"] == [None, b"file", b"file"]
    await bench.write(clear(Kind.DATASET))
    assert bench.peek("b") is None
    await bench.write(put_dataset("d"))
    await bench.write(clear_all())
    assert bench.peek("d") is None


async def test_large_clear_shows_before_memory_is_loaded_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in memory is forgotten in the step that shows the clear: SQLite answers until it is read anew."""
    monkeypatch.setattr(clearing_module, "REMOVED_MAX", 0)
    for name in ("a", "b"):
        await bench.write(put_dataset(name))
    await bench.write(clear(Kind.DATASET, keys=["a"]))
    assert not bench.index.is_complete
    found = await bench.answer(Lookup(kind=Kind.DATASET, keys=["a", "b"]))
    assert found.values == [None, b"file"]


async def test_request_that_its_client_gave_up_is_not_carried_out_late(bench: Bench) -> None:
    """Out of a connection that was left, an old write would undo what followed its retry."""
    late = put_dataset("d", b"old", key=request_key(1_000_001))
    assert await bench.write(as_retry(late)) == Stored()
    key = request_key(1_000_002, lowest_open=1_000_002)
    assert await bench.write(put_dataset("d", b"new", key=key)) == Stored()
    with pytest.raises(RequestError, match="too late"):
        await bench.write(late)
    assert bench.peek("d") == b"new"


def test_order_of_clients_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more clients than the limit, those that wrote last are remembered."""
    monkeypatch.setattr(writer_module, "CLIENTS_MAX", 2)
    order = RequestOrder()
    clients = [bytes([number]) * 16 for number in range(3)]
    for client in (clients[0], clients[1], clients[0], clients[2]):
        order.check(request_key(9, client=client, lowest_open=9))
    with pytest.raises(RequestError):
        order.check(request_key(8, client=clients[0], lowest_open=8))
    order.check(request_key(8, client=clients[1], lowest_open=8))


def test_touched_slots_are_those_of_the_keys() -> None:
    """Known keys move their own slots; a clear whose keys are known only later moves all; usage none."""
    assert touched_slots(put_dataset("d")) == {slot_of(Kind.DATASET, "d")}
    assert touched_slots(put_evals({"t": b"1"})) == {slot_of(Kind.EVAL, eval_key("m", "t", "inspect", None))}
    assert len(touched_slots(put_evals({"t": b"1", "u": b"2"}, kwargs=b"{}"))) == 2
    assert touched_slots(clear(Kind.MODEL)) is ALL
    assert touched_slots(clear(Kind.MODEL, model_ids=["m"])) is ALL
    assert touched_slots(clear(Kind.DATASET, keys=["d", "e"])) == {slot_of(Kind.DATASET, key) for key in "de"}
    assert touched_slots(UseReport(hour=0, hits={Kind.DATASET: {"d": 1}})) == set()
