"""Every request gets exactly one reply, or one stream that ends."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable
from functools import reduce
from pathlib import Path

import anyio
import msgspec
import pytest

from motoolsd.adapters.filetree import DirectoryTree
from motoolsd.core.files import Scan
from motoolsd.core.ports import TreeError
from motoolsd.engine import cleaner
from motoolsd.engine.usage import Audience
from motoolsd.wire.cleaning import (
    ApplyPlan,
    Cleaned,
    Criteria,
    EmptyTrash,
    EndUse,
    FindingPage,
    ListTrash,
    MakePlan,
    Pin,
    Pinned,
    PlanPage,
    Progress,
    TrashPage,
    Undo,
    Use,
    Verify,
)
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.fields import Page
from motoolsd.wire.keys import Kind
from motoolsd.wire.leases import Released
from motoolsd.wire.listing import DatasetPage, EvalPage, ListEntries
from motoolsd.wire.messages import (
    OUTSTANDING_MAX,
    Cleared,
    Drain,
    Draining,
    Failure,
    Found,
    GetStatus,
    Hello,
    Lookup,
    Reply,
    Request,
    Status,
    Stored,
    Used,
)
from motoolsd.wire.sizes import GetSizes, GetStats, Sizes, Stats
from tests.samples import clear, put_dataset, put_evals, request_key
from tests.server.desk import Desk, Mailbox
from tests.server.scripted import Conversation, lookup

USE = b"u" * 16


async def test_writes_and_lookups(desk: Desk) -> None:
    """A write is answered when it is committed, a lookup at once."""
    assert await desk.ask(put_dataset("d", b"file")) == [Stored()]
    assert await desk.ask(Lookup(kind=Kind.DATASET, keys=["d", "e"])) == [Found(values=[b"file", None])]
    assert await desk.ask(clear(Kind.DATASET)) == [Cleared(datasets=1)]


async def test_lookup_that_needs_sqlite_is_answered_later(desk: Desk) -> None:
    """Memory that knows nothing is no miss."""
    await desk.ask(put_dataset("d", b"file"))
    desk.engine._index.forget()  # noqa: SLF001 - as after an outside edit
    assert desk.dispatcher.dispatch(Mailbox(), 1, Lookup(kind=Kind.DATASET, keys=["d"])) is None
    assert await desk.ask(Lookup(kind=Kind.DATASET, keys=["d"])) == [Found(values=[b"file"])]


async def test_listing_is_a_stream_that_ends(desk: Desk) -> None:
    """Pages come one after the other; the last is marked."""
    for name in "abc":
        await desk.ask(put_dataset(name))
    pages = await desk.ask(ListEntries(kind=Kind.DATASET))
    assert [page.is_last for page in pages if isinstance(page, DatasetPage)] == [False, True]


async def test_stream_to_a_client_that_left_ends(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """It is no defect, and nothing is sent any more."""
    for name in "abc":
        await desk.ask(put_dataset(name))

    class Leaving(Mailbox):
        """Reads one page."""

        def reply(self, request_id: int, body: Reply) -> None:
            super().reply(request_id, body)
            self.is_gone = True

    mailbox = Leaving()
    assert desk.dispatcher.dispatch(mailbox, 1, ListEntries(kind=Kind.DATASET)) is None
    while not mailbox.replies:
        await anyio.lowlevel.checkpoint()
    await anyio.wait_all_tasks_blocked()
    assert len(mailbox.replies) == 1
    assert not mailbox.finished.is_set()
    assert caplog.text == ""


async def test_listing_of_a_client_that_has_gone_while_it_waited_reads_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty that were asked for, and the first of them not read: the others are not begun."""
    read: list[object] = []
    real = desk.engine.listing.entries

    def entries(request: ListEntries) -> AsyncGenerator[Reply, None]:
        async def pages() -> AsyncGenerator[Reply, None]:
            read.append(request)
            async for page in real(request):
                yield page

        return pages()

    monkeypatch.setattr(desk.engine.listing, "entries", entries)
    mailbox = Mailbox()
    await mailbox.listing_turn.acquire()
    assert desk.dispatcher.dispatch(mailbox, 1, ListEntries(kind=Kind.DATASET)) is None
    await anyio.wait_all_tasks_blocked()
    mailbox.is_gone = True
    mailbox.listing_turn.release()
    await anyio.wait_all_tasks_blocked()
    assert (read, mailbox.replies) == ([], [])


async def test_status_stats_and_sizes(desk: Desk) -> None:
    """What the daemon says of itself and of its files."""
    await desk.clock.advance(5)
    (status,) = await desk.ask(GetStatus())
    assert isinstance(status, Status)
    assert (status.uptime_s, status.clients, status.started_by) == (5.0, 3, "client")
    (stats,) = await desk.ask(GetStats())
    assert isinstance(stats, Stats)
    (sizes,) = await desk.ask(GetSizes())
    assert isinstance(sizes, Sizes)


async def test_drain_is_acknowledged_and_begun(desk: Desk) -> None:
    """The client hears of it, the daemon stops with its reason."""
    assert await desk.ask(Drain(reason="upgrade")) == [Draining()]
    assert desk.whole.reasons == ["upgrade"]


async def test_refusals_are_failures_with_their_code(desk: Desk) -> None:
    """Whether refused at once, in the writer, or while a stream runs."""
    requests: list[Request] = [
        clear(Kind.DATASET, task_ids=["t"]),
        ListEntries(kind=Kind.DATASET, task_id="t"),
        Hello(protocol=1, version="0"),
        put_dataset("d", key=request_key(5, lowest_open=6)),
    ]
    for request in requests:
        (failure,) = await desk.ask(request)
        assert isinstance(failure, Failure)
        assert failure.code == ErrorCode.INVALID_REQUEST


async def test_full_writer_is_the_callers_wait(desk: Desk) -> None:
    """WouldBlock goes up to the connection, which asks to be called."""
    room = anyio.Event()
    for name in "ab":
        desk.dispatcher.dispatch(Mailbox(), 1, put_dataset(name))
    with pytest.raises(anyio.WouldBlock):
        desk.dispatcher.dispatch(Mailbox(), 3, put_dataset("c"))
    desk.dispatcher.when_space(room.set)
    await room.wait()
    assert await desk.ask(put_dataset("c")) == [Stored()]


@pytest.mark.parametrize(
    ("method", "request_body"),
    [
        ("lookups.nowait", Lookup(kind=Kind.DATASET, keys=["d"])),
        ("stats", GetStats()),
        ("listing.entries", ListEntries(kind=Kind.DATASET)),
    ],
)
async def test_defect_fails_one_request_and_is_logged_with_its_number(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str, request_body: Request
) -> None:
    """A bug of ours ends neither the daemon nor the connection; the log has the traceback."""

    def fail(*_args: object) -> None:
        raise ZeroDivisionError("planted")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        *parts, name = method.split(".")
        patch.setattr(reduce(getattr, parts, desk.engine), name, fail)
        (failure,) = await desk.ask(request_body)
    assert isinstance(failure, Failure)
    assert failure.code == ErrorCode.PROTOCOL_ERROR
    assert "request 7 failed by a defect" in caplog.text
    assert "planted" in caplog.text
    assert await desk.ask(put_dataset("d")) == [Stored()]


# Notices.


def conversation_with(desk: Desk) -> Conversation:
    """A client's connection to the real dispatcher."""
    talk = Conversation()
    talk.connection._dispatcher = desk.dispatcher  # noqa: SLF001 - both ends of the counting are under test
    talk.connection.tally = desk.engine.usage.tally(Audience())
    return talk


def notice(talk: Conversation, hits: int = 1) -> bytes:
    """The frame of a notice."""
    return bytes(talk.session.notice(Used(kind=Kind.DATASET, hits={"d": hits})))


async def hits_of(desk: Desk) -> int:
    """What stands in the row of "d", once what was counted is written."""
    await desk.engine.reporting.flush()
    pages = await desk.ask(ListEntries(kind=Kind.DATASET))
    rows = [item for page in pages if isinstance(page, DatasetPage) for item in page.items]
    return {row.dataset_hash: row.hits for row in rows}["d"]


async def test_notice_gets_no_reply(desk: Desk) -> None:
    """Its client does not wait, and would take an answer for somebody else's."""
    mailbox = Mailbox()
    assert desk.dispatcher.dispatch(mailbox, 7, Used(kind=Kind.DATASET, hits={"d": 1})) is None
    await anyio.wait_all_tasks_blocked()
    assert mailbox.replies == []
    assert not mailbox.finished.is_set()


async def test_notice_counts_its_hits_beside_those_of_lookups(desk: Desk) -> None:
    """What a client's own memory has answered is use, too."""
    talk = conversation_with(desk)
    await desk.ask(put_dataset("d", b"file"))
    await desk.ask(lookup())
    talk.connection.data_received(notice(talk, 41))
    assert await hits_of(desk) == 42


async def test_counts_are_written_when_many_entries_were_used(desk: Desk) -> None:
    """They are bounded: the lookup that finds them full has them written."""
    await desk.ask(put_dataset("d", b"file"))
    await desk.ask(lookup())
    desk.engine.usage.is_full = True
    await desk.ask(Lookup(kind=Kind.DATASET, keys=["other"]))
    await desk.engine.writer.wait_settled()
    pages = await desk.ask(ListEntries(kind=Kind.DATASET))
    assert [item.hits for page in pages if isinstance(page, DatasetPage) for item in page.items] == [1]


async def test_notice_and_lookup_in_one_write_give_one_reply(desk: Desk) -> None:
    """A client sends them together: it costs no system call of its own, on either side."""
    talk = conversation_with(desk)
    await desk.ask(put_dataset("d", b"file"))
    frame = notice(talk)
    number, asked = talk.session.request(lookup())
    talk.connection.data_received(frame + bytes(asked))
    assert len(talk.transport.writes) == 1
    (reply,) = talk.read()
    assert (reply.id, reply.body) == (number, Found(values=[b"file"]))


async def test_notices_are_not_outstanding(desk: Desk) -> None:
    """However many come, alone or at once, they take nobody's place, and none holds the end of the connection up."""
    talk = conversation_with(desk)
    for _ in range(OUTSTANDING_MAX):
        talk.connection.data_received(notice(talk))
    talk.connection.data_received(b"".join(notice(talk) for _ in range(OUTSTANDING_MAX)))
    assert talk.transport.is_reading()
    await desk.ask(put_dataset("d", b"file"))
    talk.send(lookup())
    assert len(talk.read()) == 1
    talk.connection.drain()
    assert talk.transport.closed


async def test_notices_make_no_room_for_requests(desk: Desk) -> None:
    """Counted in and out: beside them no more may be outstanding than without them."""
    talk = conversation_with(desk)
    talk.connection.data_received(b"".join(notice(talk) for _ in range(OUTSTANDING_MAX)))
    talk.flood(*[GetStats() for _ in range(OUTSTANDING_MAX + 5)])
    assert not talk.transport.is_reading()


async def test_defect_in_counting_is_logged_and_the_client_hears_nothing_of_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer to a notice would be an answer to nothing, and end its client's connection."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("planted")

    talk = conversation_with(desk)
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(desk.engine, "notice", fail)
        talk.connection.data_received(notice(talk))
    assert "planted" in caplog.text
    assert talk.read() == []


# Clean-up.


async def plan_id(desk: Desk, *kinds: Kind) -> str:
    """Of a plan that takes all of some kinds."""
    *_, last = await desk.ask(MakePlan(criteria=Criteria(kinds=kinds)))
    assert isinstance(last, PlanPage)
    return last.plan_id


async def test_the_whole_way(desk: Desk) -> None:
    """Plan, apply, list, undo, empty: every stream has an end, and only the end is last."""
    await desk.ask(put_dataset("d"))
    pages = await desk.ask(MakePlan(criteria=Criteria(kinds=(Kind.DATASET,))))
    assert [page.is_last for page in pages if isinstance(page, Page)] == [False] * (len(pages) - 1) + [True]
    progress, done = await desk.ask(ApplyPlan(plan_id=await plan_id(desk, Kind.DATASET)))
    assert progress == Progress(done=1, total=1)
    assert isinstance(done, Cleaned)
    (trash,) = await desk.ask(ListTrash())
    assert isinstance(trash, TrashPage)
    assert [row.id for row in trash.items] == [done.removal_id]
    *_, back = await desk.ask(Undo())
    assert isinstance(back, Cleaned)
    assert back.datasets == 1
    *_, emptied = await desk.ask(EmptyTrash())
    assert emptied == Cleaned()


async def test_sizes_are_told_after_progress(desk: Desk) -> None:
    """Without a rescan at once."""
    (told,) = await desk.ask(GetSizes())
    assert isinstance(told, Sizes)
    *progress, told = await desk.ask(GetSizes(rescan=True, top=3))
    assert all(isinstance(part, Progress) and not part.is_last for part in progress)
    assert isinstance(told, Sizes)


async def test_findings_end_with_what_was_looked_at(desk: Desk) -> None:
    """However little that is."""
    await desk.ask(put_dataset("d"))
    *_, last = await desk.ask(Verify(deep=True))
    assert last == FindingPage(entries=1, files=0, is_last=True)


async def test_uses_and_pins_are_answered(desk: Desk) -> None:
    """The process is the socket's, not one that a message names."""
    await desk.ask(put_dataset("d"))
    assert await desk.ask(Use(use_id=USE, kind=Kind.DATASET, keys=["d"])) == [Released(count=1)]
    pages = await desk.ask(MakePlan(criteria=Criteria(kinds=(Kind.DATASET,))))
    (stays,) = [one for page in pages if isinstance(page, PlanPage) for one in page.protected]
    assert stays.why == f"in use by pid {os.getpid()}"
    assert await desk.ask(EndUse(use_id=USE)) == [Released(count=1)]
    assert await desk.ask(Pin(key="d")) == [Pinned(count=1)]
    assert await desk.ask(Pin(key="d", is_pinned=False)) == [Pinned(count=1)]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (ApplyPlan(plan_id="unknown"), ErrorCode.NOT_FOUND),
        (Undo(), ErrorCode.NOT_FOUND),
        (Undo(removal_id=5), ErrorCode.NOT_FOUND),
        (EmptyTrash(removal_ids=[5]), ErrorCode.NOT_FOUND),
        (Pin(key="unknown"), ErrorCode.NOT_FOUND),
        (MakePlan(criteria=Criteria()), ErrorCode.INVALID_REQUEST),
        (MakePlan(criteria=Criteria(kinds=(Kind.DATASET,), task_ids=["t"])), ErrorCode.INVALID_REQUEST),
    ],
)
async def test_what_cannot_be_is_refused_by_its_code(desk: Desk, request_: Request, code: ErrorCode) -> None:
    """With what to do next."""
    (failure,) = await desk.ask(request_)
    assert isinstance(failure, Failure)
    assert failure.code == code
    assert failure.message


async def test_plan_that_was_overtaken_has_a_code_of_its_own(desk: Desk) -> None:
    """A program makes a new one."""
    await desk.ask(put_dataset("d"))
    made = await plan_id(desk, Kind.DATASET)
    await desk.ask(put_dataset("d", b"other"))
    (failure,) = await desk.ask(ApplyPlan(plan_id=made))
    assert isinstance(failure, Failure)
    assert failure.code == ErrorCode.PLAN_OUTDATED


async def test_client_that_left_stops_a_clean_up_between_two_parts(desk: Desk) -> None:
    """What was removed by then lies in the trash, and the next clean-up has its turn."""
    for number in range(250):
        await desk.ask(put_dataset(f"d{number}"))
    made = await plan_id(desk, Kind.DATASET)
    gone = Mailbox()
    gone.is_gone = True
    assert desk.dispatcher.dispatch(gone, 7, ApplyPlan(plan_id=made)) is None
    with anyio.fail_after(10):
        *_, trash = await desk.ask(ListTrash())
        while not (isinstance(trash, TrashPage) and trash.items and trash.items[0].state == "trashed"):
            *_, trash = await desk.ask(ListTrash())
    assert 0 < trash.items[0].entries < 250
    *_, told = await desk.ask(ApplyPlan(plan_id=made))
    assert isinstance(told, Cleaned)
    assert (told.datasets, told.is_complete) == (trash.items[0].entries, False)


async def count(desk: Desk) -> int:
    """Datasets."""
    pages = await desk.ask(ListEntries(kind=Kind.DATASET))
    return sum(len(page.items) for page in pages if isinstance(page, DatasetPage))


async def leave(desk: Desk, request: Request) -> None:
    """Ask, and be gone by the first part of the answer."""
    gone = Mailbox()
    gone.is_gone = True
    assert desk.dispatcher.dispatch(gone, 7, request) is None
    with anyio.fail_after(10):
        while not gone.replies:
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
    assert (len(gone.replies), gone.finished.is_set()) == (1, False)


async def test_client_that_left_does_not_stop_an_undo(desk: Desk) -> None:
    """All of it, or nothing."""
    for number in range(250):
        await desk.ask(put_dataset(f"d{number}"))
    await desk.ask(ApplyPlan(plan_id=await plan_id(desk, Kind.DATASET)))
    await leave(desk, Undo())
    # Clean-ups take turns: what comes next finds everything back.
    (failure,) = await desk.ask(Undo())
    assert isinstance(failure, Failure)
    assert failure.code == ErrorCode.NOT_FOUND
    assert await count(desk) == 250


async def test_client_that_left_stops_a_plan_and_a_verification(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """They change nothing; the next one is not held up."""
    monkeypatch.setattr(cleaner, "PAGE_ITEMS", 1)
    for name in "abc":
        await desk.ask(put_dataset(name))
    await leave(desk, MakePlan(criteria=Criteria(kinds=(Kind.DATASET,))))
    await leave(desk, Verify())
    *_, done = await desk.ask(ApplyPlan(plan_id=await plan_id(desk, Kind.DATASET)))
    assert isinstance(done, Cleaned)
    assert done.datasets == 3


async def test_client_that_left_stops_the_scan_it_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And nobody else's request: it is no defect."""
    stopped = threading.Event()

    def scan(_tree: DirectoryTree, _owned: object, *, is_stopped: Callable[[], bool], **_: object) -> Scan:
        while not is_stopped():
            time.sleep(0.001)
        stopped.set()
        return Scan()

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryTree, "scan", scan)
        await leave(desk, GetSizes(rescan=True))
        assert await anyio.to_thread.run_sync(stopped.wait, 10)
    assert isinstance((await desk.ask(GetSizes(rescan=True)))[-1], Sizes)
    assert caplog.text == ""


@pytest.mark.parametrize("request_", [GetSizes(rescan=True), Verify(), MakePlan(criteria=Criteria(orphans=True))])
async def test_disk_that_refuses_is_told_by_its_code(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, request_: Request
) -> None:
    """It is no defect of ours."""

    def refuse(*_: object, **__: object) -> None:
        raise TreeError(b".", "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryTree, "scan", refuse)
        *_, failure = await desk.ask(request_)
    assert isinstance(failure, Failure)
    assert (failure.code, "Too many open files" in failure.message) == (ErrorCode.STORAGE_FAILED, True)


async def test_trash_is_handled_by_numbers(desk: Desk) -> None:
    """Each clean-up is one; what stands in the way of an undo is an invalid request."""
    numbers = []
    for name in "ab":
        await desk.ask(put_dataset(name))
        *_, done = await desk.ask(ApplyPlan(plan_id=await plan_id(desk, Kind.DATASET)))
        assert isinstance(done, Cleaned)
        numbers.append(done.removal_id)
    *_, emptied = await desk.ask(EmptyTrash(removal_ids=numbers[1:]))
    assert emptied == Cleaned()
    await desk.ask(put_dataset("a"))
    (failure,) = await desk.ask(Undo(removal_id=numbers[0]))
    assert isinstance(failure, Failure)
    assert (failure.code, "was stored again" in failure.message) == (ErrorCode.INVALID_REQUEST, True)
    await desk.ask(clear(Kind.DATASET))
    *_, back = await desk.ask(Undo(removal_id=numbers[0]))
    assert isinstance(back, Cleaned)
    assert (back.removal_id, back.datasets) == (numbers[0], 1)


async def test_repair_is_told_and_can_be_undone(desk: Desk, tmp_path: Path) -> None:
    """A row whose file is gone goes to the trash."""
    log = tmp_path / "evals/t.json"
    log.parent.mkdir(exist_ok=True)
    log.write_bytes(b"log")
    put = put_evals({"t": bytes(log)})
    put = msgspec.structs.replace(put, files={"t": b"evals/t.json"})
    assert await desk.ask(put) == [Stored()]
    log.unlink()
    found = [part for part in await desk.ask(Verify(repair=True)) if isinstance(part, FindingPage)]
    assert [(one.problem, one.repaired) for page in found for one in page.items] == [("missing", True)]
    *_, back = await desk.ask(Undo())
    assert isinstance(back, Cleaned)
    assert back.evals == 1


async def test_files_that_no_entry_may_own_are_refused(desk: Desk) -> None:
    """As an invalid request, and nothing is stored."""
    for path in (b"cache.db", b"evals/../cache.db", b"evals/missing.json"):
        put = msgspec.structs.replace(put_evals({"t": b"l"}), request_key=request_key(), files={"t": path})
        (failure,) = await desk.ask(put)
        assert isinstance(failure, Failure)
        assert failure.code == ErrorCode.INVALID_REQUEST
    assert await desk.ask(ListEntries(kind=Kind.EVAL)) == [EvalPage(items=[], is_last=True)]


async def test_process_that_cannot_be_seen_cannot_use(desk: Desk) -> None:
    """Its end could not be told."""
    mailbox = Mailbox()
    mailbox.peer_pid = 0
    assert desk.dispatcher.dispatch(mailbox, 7, Use(use_id=USE, kind=Kind.DATASET, keys=["d"])) is None
    await mailbox.finished.wait()
    (failure,) = mailbox.replies
    assert isinstance(failure, Failure)
    assert (failure.code, "pin them instead" in failure.message) == (ErrorCode.INVALID_REQUEST, True)
