"""Requests about clean-up: each gets its stream or its reply, and what cannot be is refused by a code."""

from __future__ import annotations

import os

import anyio
import pytest

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
from motoolsd.wire.messages import Failure, Request
from motoolsd.wire.sizes import GetSizes, Sizes
from tests.samples import put_dataset
from tests.server.desk import Desk, Mailbox

USE = b"u" * 16


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
