"""Plans, the trash and other long answers over both clients: what is asked again, what is not, and when it ends."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from motools.cache import (
    Cache,
    CleanupPlan,
    CleanupResult,
    ConnectionLost,
    DaemonBusy,
    EntryNotFound,
    PlanOutdated,
    Progress,
    SyncCache,
)
from motoolsd.wire import cleaning as wire
from motoolsd.wire.envelopes import RequestEnvelope
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.messages import Cleared, Failure, GetStatus
from motoolsd.wire.sizes import GetSizes, Size, Sizes
from tests.cache.scripted import Script, Talk, answer_to, scripted_daemon, silent
from tests.cache.twins import TWINS, run_twin

ITEM = wire.PlanItem(kind="model", key="k", value=b"m", paths=(b"runs/j",), size_bytes=1, allocated_bytes=2)
STAYS = wire.Protected(kind="model", key="p", why="pinned")


@pytest.fixture(params=TWINS, ids="-".join)
def twin(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A client and its event loop."""
    found: tuple[str, str] = request.param
    return found


def plan_pages(talk: Talk, request: RequestEnvelope, *, items: int = 1) -> None:
    """A plan in three pages."""
    talk.reply(request, wire.PlanPage(items=[ITEM] * items))
    talk.reply(request, wire.PlanPage(protected=[STAYS], kept=[wire.Kept(path=b"runs/x", why="owned")]))
    talk.reply(request, wire.PlanPage(plan_id="plan", freed_bytes=2, size_bytes=1, is_last=True))


def answer_cleaning(talk: Talk, request: RequestEnvelope) -> None:
    """What a daemon with one entry to remove would say."""
    match request.body:
        case wire.MakePlan():
            plan_pages(talk, request)
        case wire.ApplyPlan() | wire.Undo() | wire.EmptyTrash():
            for done in (1, 2):
                talk.reply(request, wire.Progress(done=done, total=2, freed_bytes=done))
            talk.reply(request, wire.Cleaned(removal_id=7, models=1, freed_bytes=2))
        case wire.ListTrash():
            talk.reply(request, wire.TrashPage(items=[wire.TrashRow(id=7, removed_at="then")], is_last=True))
        case wire.Verify():
            talk.reply(request, wire.Progress(done=1, unit="entries"))
            talk.reply(request, wire.FindingPage(items=[wire.Finding(problem="missing", kind="model", key="k")]))
            talk.reply(request, wire.FindingPage(entries=3, files=4, is_last=True))
        case GetSizes():
            if request.body.rescan:
                talk.reply(request, wire.Progress(done=5, unit="files"))
            talk.reply(request, Sizes(categories={"runs": Size(3, 4), "evals": Size(10, 20)}, as_of="then"))
        case wire.Pin():
            talk.reply(request, wire.Pinned(count=2))
        case _:
            talk.reply(request, answer_to(request.body))


def cleaning(talk: Talk) -> None:
    """A daemon that cleans up."""
    talk.greet()
    while (request := talk.next()) is not None:
        answer_cleaning(talk, request)


def losing(kind: type[object], after: int = 0) -> Script:
    """A daemon that dies in the middle of an answer to one kind of request, after some progress."""

    def script(talk: Talk) -> None:
        talk.greet()
        while (request := talk.next()) is not None:
            if isinstance(request.body, kind):
                for done in range(after):
                    talk.reply(request, wire.Progress(done=done))
                return
            answer_cleaning(talk, request)

    return script


def test_every_answer_is_put_together(twin: tuple[str, str], cache_dir: Path) -> None:
    """Pages, progress and sums, in the words of the API."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        steps: list[Progress] = []
        plan = await cache.clear_models(["m"], delete_files=True, dry_run=True)
        assert isinstance(plan, CleanupPlan)
        assert (plan.plan_id, plan.freed_bytes, plan.size_bytes) == ("plan", 2, 1)
        assert [(item.value, item.paths) for item in plan.items] == [("m", ["runs/j"])]
        assert [one.why for one in plan.protected] == ["pinned"]
        assert [one.path for one in plan.kept] == ["runs/x"]
        done = await cache.apply_plan("plan", on_progress=steps.append)
        assert done == CleanupResult(removal_id=7, models=1, freed_bytes=2)
        assert [(step.done, step.total, step.freed_bytes) for step in steps] == [(1, 2, 1), (2, 2, 2)]
        whole = await cache.prune(older_than="1d", on_progress=steps.append)
        assert whole.protected == plan.protected
        assert (await cache.undo()).removal_id == 7
        assert (await cache.undo(7, on_progress=steps.append)).models == 1
        assert [one.id for one in await cache.list_trash()] == [7]
        assert (await cache.empty_trash([7], on_progress=steps.append)).freed_bytes == 2
        report = await cache.verify(deep=True, repair=True, on_progress=steps.append)
        assert (report.entries, report.files, report.findings[0].problem) == (3, 4, "missing")
        for sizes in (
            await cache.get_size_report(),
            await cache.get_size_report(rescan=True, on_progress=steps.append),
        ):
            assert (sizes.total_size_bytes, sizes.total_allocated_bytes, sizes.scanned_at) == (13, 24, "then")
        assert [step.unit for step in steps[-2:]] == ["entries", "files"]
        assert await cache.pin("m") == await cache.unpin("m") == 2

    with scripted_daemon(cache_dir, cleaning):
        run_twin(twin, cache_dir, body)


def test_empty_plan_is_not_applied(twin: tuple[str, str], cache_dir: Path) -> None:
    """There is nothing to undo then; what was spared is told all the same."""

    def script(talk: Talk) -> None:
        talk.greet()
        while (request := talk.next()) is not None:
            plan_pages(talk, request, items=0)

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        result = await cache.clear_all(delete_files=True)
        assert (result.removal_id, result.models, result.is_complete) == (None, 0, True)
        assert [one.key for one in result.protected] == ["p"]

    with scripted_daemon(cache_dir, script) as daemon:
        run_twin(twin, cache_dir, body)
    assert daemon.kinds() == ["MakePlan"]


@pytest.mark.parametrize("refusals", [2, 3])
def test_plan_that_was_overtaken_is_made_anew_a_few_times(
    twin: tuple[str, str], cache_dir: Path, refusals: int
) -> None:
    """Who asked for an age did not ask for one plan; but a plan of one's own is applied or refused."""
    refused = 0

    def script(talk: Talk) -> None:
        nonlocal refused
        talk.greet()
        while (request := talk.next()) is not None:
            if isinstance(request.body, wire.ApplyPlan) and refused < refusals:
                refused += 1
                talk.reply(request, Failure(code=ErrorCode.PLAN_OUTDATED, message="model k: it was stored again"))
            else:
                answer_cleaning(talk, request)

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        if refusals == 3:
            with pytest.raises(PlanOutdated, match="model k: it was stored again"):
                await cache.prune(older_than=0)
        else:
            assert (await cache.prune(older_than=0)).models == 1

    with scripted_daemon(cache_dir, script) as daemon:
        run_twin(twin, cache_dir, body)
    assert daemon.kinds() == ["MakePlan", "ApplyPlan"] * 3


def test_errors_of_the_daemon_have_classes_of_their_own(twin: tuple[str, str], cache_dir: Path) -> None:
    """And are not asked again."""

    def script(talk: Talk) -> None:
        talk.greet()
        while (request := talk.next()) is not None:
            code = ErrorCode.NOT_FOUND if isinstance(request.body, wire.Undo) else ErrorCode.PLAN_OUTDATED
            talk.reply(request, Failure(code=code, message="as it is"))

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        with pytest.raises(EntryNotFound, match="as it is") as caught:
            await cache.undo()
        assert isinstance(caught.value, LookupError)
        with pytest.raises(PlanOutdated, match="as it is"):
            await cache.apply_plan("plan")

    with scripted_daemon(cache_dir, script) as daemon:
        run_twin(twin, cache_dir, body)
    assert daemon.kinds() == ["Undo", "ApplyPlan"]


@pytest.mark.parametrize("after", [0, 3])
def test_plan_is_applied_again_after_a_lost_connection(twin: tuple[str, str], cache_dir: Path, after: int) -> None:
    """The daemon tells what came of the first time."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        steps: list[Progress] = []
        assert (await cache.apply_plan("plan", on_progress=steps.append)).removal_id == 7
        assert len(steps) == after + 2

    with scripted_daemon(cache_dir, losing(wire.ApplyPlan, after), cleaning) as daemon:
        run_twin(twin, cache_dir, body)
    assert daemon.kinds() == ["ApplyPlan", "ApplyPlan"]


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("method", ["undo", "empty_trash"])
def test_undo_is_never_asked_twice(twin: tuple[str, str], cache_dir: Path, method: str, after: int) -> None:
    """The second one would put back one removal more."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        with pytest.raises(ConnectionLost, match=r"may have been done: see list_trash\(\)") as caught:
            await getattr(cache, method)()
        assert not caught.value.outcome_known

    kind = wire.Undo if method == "undo" else wire.EmptyTrash
    with scripted_daemon(cache_dir, losing(kind, after), cleaning) as daemon:
        run_twin(twin, cache_dir, body)
    assert daemon.kinds() == [kind.__name__]


def test_long_work_is_waited_for_while_the_daemon_answers_others(twin: tuple[str, str], cache_dir: Path) -> None:
    """Hashing a file of a terabyte says nothing for an hour; that is no reason to give up."""
    asked = threading.Event()

    def working(talk: Talk) -> None:
        talk.greet()
        while (request := talk.next()) is not None:
            if isinstance(request.body, wire.Verify):
                assert asked.wait(10)
            elif isinstance(request.body, GetStatus):
                asked.set()
            answer_cleaning(talk, request)

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        assert (await cache.verify()).entries == 3

    with scripted_daemon(cache_dir, working) as daemon:
        run_twin(twin, cache_dir, body, timeout_s=0.3)
    assert set(daemon.kinds()) == {"Verify", "GetStatus"}


@pytest.mark.parametrize("after", [0, 2])
def test_daemon_that_says_nothing_at_all_is_given_up(twin: tuple[str, str], cache_dir: Path, after: int) -> None:
    """Neither in the long answer, nor to a question in between."""

    def falling_silent(talk: Talk) -> None:
        talk.greet()
        request = talk.next()
        assert request is not None
        for done in range(after):
            talk.reply(request, wire.Progress(done=done))
        talk.wait_until_gone()

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        with pytest.raises(DaemonBusy, match="did not answer within"):
            await cache.apply_plan("plan")

    with scripted_daemon(cache_dir, falling_silent, silent):
        run_twin(twin, cache_dir, body, timeout_s=0.2)


def test_what_on_progress_raises_ends_the_call_and_the_connection(twin: tuple[str, str], cache_dir: Path) -> None:
    """As it is, also where it is an OSError: the terminal that a bar is drawn on may be gone."""
    gone = threading.Event()

    def script(talk: Talk) -> None:
        talk.greet()
        request = talk.next()
        assert request is not None
        talk.reply(request, wire.Progress(done=1))
        talk.wait_until_gone()
        gone.set()

    def fail(_progress: Progress) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        with pytest.raises(BrokenPipeError):
            await cache.apply_plan("plan", on_progress=fail)
        assert await anyio.to_thread.run_sync(gone.wait, 10)

    with scripted_daemon(cache_dir, script) as daemon:
        run_twin(twin, cache_dir, body)
    assert daemon.kinds() == ["ApplyPlan"]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_cancellation_closes_the_long_calls_connection_and_no_other(cache_dir: Path, loop: str) -> None:
    """That is how the daemon learns of it."""
    gone = threading.Event()

    def script(talk: Talk) -> None:
        talk.greet()
        while (request := talk.next()) is not None:
            if isinstance(request.body, wire.Verify):
                talk.reply(request, wire.Progress(done=1))
                talk.wait_until_gone()
                gone.set()
                return
            answer_cleaning(talk, request)

    async def whole() -> None:
        async with Cache(cache_dir) as cache:
            await cache.get_status()
            with anyio.fail_after(20), anyio.CancelScope() as scope:
                await cache.verify(on_progress=lambda _: scope.cancel())
            assert await anyio.to_thread.run_sync(gone.wait, 10)
            await cache.get_status()

    with scripted_daemon(cache_dir, script) as daemon:
        anyio.run(whole, backend=loop)
    assert daemon.accepted == 2


def test_keyboard_interrupt_closes_the_long_calls_connection(cache_dir: Path) -> None:
    """And leaves the client usable."""
    gone = threading.Event()

    def script(talk: Talk) -> None:
        talk.greet()
        request = talk.next()
        assert request is not None
        talk.reply(request, wire.Progress(done=1))
        os.kill(os.getpid(), signal.SIGINT)
        try:
            talk.wait_until_gone()
        finally:
            gone.set()

    with scripted_daemon(cache_dir, script, cleaning), SyncCache(cache_dir) as cache:
        with pytest.raises(KeyboardInterrupt):
            cache.apply_plan("plan")
        assert gone.wait(10)
        assert cache.list_trash()[0].id == 7


def test_other_threads_go_on_while_one_cleans_up(cache_dir: Path) -> None:
    """A clean-up has a connection of its own."""
    with scripted_daemon(cache_dir, cleaning), SyncCache(cache_dir) as cache:

        def ask(_progress: Progress) -> None:
            thread = threading.Thread(target=lambda: answers.append(cache.get_file_id("k")))
            thread.start()
            thread.join(10)

        answers: list[str | None] = []
        cache.apply_plan("plan", on_progress=ask)
        assert answers == ["value of k"] * 2


def test_request_that_fits_into_no_frame_is_the_callers_mistake(twin: tuple[str, str], cache_dir: Path) -> None:
    """And not a lost connection that is tried again and again."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        with pytest.raises(Exception, match="does not fit into a frame") as caught:
            await cache.clear_datasets(["x" * 1_000_000 for _ in range(40)], delete_files=True)
        assert type(caught.value).__name__ == "CacheRequestError"

    with scripted_daemon(cache_dir, cleaning) as daemon:
        run_twin(twin, cache_dir, body)
    assert daemon.kinds() == []


def test_clear_that_spared_something_says_so(
    twin: tuple[str, str], cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The count is all that it returns."""

    def script(talk: Talk) -> None:
        talk.greet()
        while (request := talk.next()) is not None:
            talk.reply(request, Cleared(models=1, num_protected=1, protected=[STAYS]))

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        assert await cache.clear_models() == 1
        assert await cache.clear_models(force=True) == 1
        assert (await cache.clear_all())["models"] == 1

    with scripted_daemon(cache_dir, script) as daemon, caplog.at_level(logging.WARNING):
        run_twin(twin, cache_dir, body)
    assert "1 protected, and not removed: model p (pinned)" in caplog.text
    assert [getattr(request, "force", None) for request in daemon.requests[-3:]] == [False, True, False]


def test_closed_client_cleans_nothing(cache_dir: Path) -> None:
    """As every call."""
    with scripted_daemon(cache_dir, cleaning) as daemon:
        cache = SyncCache(cache_dir)
        cache.close()
        with pytest.raises(Exception, match="is closed"):
            cache.verify()
        other = Cache(cache_dir)

        async def ask() -> None:
            await other.aclose()
            with contextlib.suppress(AssertionError), pytest.raises(Exception, match="is closed"):
                await other.verify()

        anyio.run(ask)
    assert daemon.kinds() == []
