"""Cache under asyncio, uvloop and trio, against a daemon that misbehaves as told."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import anyio
import pytest

from motools.cache import Cache, SQLiteCache
from motools.cache.errors import (
    CacheProtocolError,
    CacheRequestError,
    ConnectionLost,
    CorruptDatabase,
    DaemonBusy,
    DaemonNotRunning,
    StorageFailed,
)
from motools.cache.launch import Launch
from motools.cache.remembered import ANSWERS_MAX
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.messages import Failure, Hello, Lookup
from tests.cache.scripted import Script, Talk, answer_to, scripted_daemon, serve, silent
from tests.cache.stamped import StampsFile, hits_told_at_last, next_question

TIMEOUT_S = 0.3
SLACK_S = 0.1
TALK_TIMEOUT_S = 10.0


class Options(TypedDict, total=False):
    """The other options of a client."""

    on_unavailable: Literal["raise", "miss"]
    memory_entries: int


def client(
    directory: Path, *, timeout_s: float = TALK_TIMEOUT_S, autostart: bool = False, **options: Unpack[Options]
) -> Cache:
    """A client of a scripted daemon."""
    return Cache(directory, autostart=autostart, timeout_s=timeout_s, **options)


async def took(function: Callable[[], Awaitable[object]], error: type[Exception]) -> float:
    """Seconds until the error comes."""
    begun_s = time.monotonic()
    with pytest.raises(error):
        await function()
    return time.monotonic() - begun_s


def cut_off(talk: Talk) -> None:
    """Take a request and die in the middle of the reply."""
    talk.greet()
    talk.next()
    talk.send(b"\0\0\0\x20part")


async def test_calls_over_one_connection(cache_dir: Path) -> None:
    """Each method asks once and gives what the daemon said."""
    with scripted_daemon(cache_dir) as daemon:
        async with client(cache_dir) as cache:
            assert await cache.get_file_id("d") == "value of d"
            await cache.set_file_id("d", "file")
            await cache.set_model_id("d", {"lr": 0.1}, "model")
            await cache.set_eval_log_paths("m", {"t": "/log"}, "inspect")
            assert (await cache.get_model_id("d", {"lr": 0.1}) or "").startswith("value of ")
            assert list(await cache.get_eval_log_paths("m", ["t"], "inspect") or {}) == ["t"]
            assert (await cache.get_evals("m", ["t"], "inspect")).missing == []
            assert await cache.clear_datasets(["d"]) == 1
            assert await cache.clear_models() == 2
            assert await cache.clear_evals(task_ids=["t"]) == 3
            assert await cache.clear_all() == {"datasets": 1, "models": 2, "evals": 3}
        assert daemon.accepted == 1


async def test_64_tasks_connect_once(cache_dir: Path) -> None:
    """However many tasks make the first call at the same moment."""
    with scripted_daemon(cache_dir) as daemon:
        async with client(cache_dir) as cache, anyio.create_task_group() as group:

            async def work(worker: int) -> None:
                assert await cache.get_file_id(str(worker)) == f"value of {worker}"

            for worker in range(64):
                group.start_soon(work, worker)
        assert daemon.accepted == 1


async def test_lost_connection_repeats_the_write_under_its_key(cache_dir: Path) -> None:
    """The same request key again, marked as a retry; the caller sees nothing of it."""
    with scripted_daemon(cache_dir, cut_off, serve) as daemon:
        async with client(cache_dir) as cache:
            await cache.set_file_id("d", "file")
        puts: list[Any] = [request for request in daemon.requests if not isinstance(request, Hello)]
    one, two = (put.request_key for put in puts)
    assert (one.client, one.number, one.is_retry) == (two.client, two.number, False)
    assert two.is_retry


async def test_garbage_is_a_protocol_error_and_the_next_call_connects_anew(cache_dir: Path) -> None:
    """What listens is no motoolsd: said at once."""

    def babble(talk: Talk) -> None:
        talk.greet()
        talk.next()
        talk.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        talk.wait_until_gone()

    with scripted_daemon(cache_dir, babble, serve):
        async with client(cache_dir) as cache:
            with pytest.raises(CacheProtocolError, match="no motoolsd"):
                await cache.get_file_id("d")
            assert await cache.get_file_id("d") == "value of d"


async def test_failure_in_a_stream_is_raised_and_leaves_no_warning(cache_dir: Path) -> None:
    """No generator is left half-way: under trio that would warn."""

    def refuse(talk: Talk) -> None:
        talk.greet()
        while (request := talk.next()) is not None:
            talk.reply(request, Failure(code=ErrorCode.STORAGE_FAILED, message="I/O error"))

    with scripted_daemon(cache_dir, refuse):
        async with client(cache_dir) as cache:
            for _ in range(2):
                with pytest.raises(StorageFailed, match="I/O error"):
                    await cache.list_datasets()
            gc.collect()


@pytest.mark.parametrize("script", [silent, Talk.wait_until_gone], ids=["after the welcome", "before it"])
async def test_silent_daemon_is_busy_within_the_timeout(script: Script, cache_dir: Path) -> None:
    """A call never takes longer than `timeout_s`."""
    with scripted_daemon(cache_dir, script):
        async with client(cache_dir, timeout_s=TIMEOUT_S) as cache:
            lasted = await took(lambda: cache.get_file_id("d"), DaemonBusy)
            assert TIMEOUT_S - SLACK_S < lasted < TIMEOUT_S + SLACK_S


async def test_silence_is_a_miss_where_misses_were_asked_for(cache_dir: Path) -> None:
    """The cache never fails a job, and never holds it longer than it said."""
    with scripted_daemon(cache_dir, silent):
        async with client(cache_dir, timeout_s=TIMEOUT_S, on_unavailable="miss") as cache:
            with anyio.fail_after(TIMEOUT_S + SLACK_S):
                assert await cache.get_file_id("d") is None


async def test_late_reply_to_a_call_that_gave_up_is_not_the_next_ones(cache_dir: Path) -> None:
    """Numbers tell them apart, on the same connection."""
    late = threading.Event()

    def hold_first(talk: Talk) -> None:
        talk.greet()
        late.wait(TALK_TIMEOUT_S)
        talk.serve()

    with scripted_daemon(cache_dir, hold_first) as daemon:
        async with client(cache_dir, timeout_s=TIMEOUT_S) as cache:
            with pytest.raises(DaemonBusy):
                await cache.get_file_id("first")
            late.set()
            assert await cache.get_file_id("second") == "value of second"
        assert daemon.accepted <= 2


async def test_older_daemon_of_a_client_is_asked_to_drain_once(cache_dir: Path) -> None:
    """As SyncCache: once, and then it has to do."""

    def old(talk: Talk) -> None:
        talk.greet(version="0.0.1", started_by="client")
        talk.serve()

    with scripted_daemon(cache_dir, old) as daemon:
        async with client(cache_dir, autostart=True) as cache:
            assert await cache.get_file_id("d") == "value of d"
        assert daemon.kinds() == ["Drain", "Lookup"]


async def test_tasks_that_wait_for_a_failing_start_fail_with_it(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One attempt for all who wait, and an error for each: 64 tasks do not start 64 daemons one after the other."""
    attempts = 0

    def run(self: object) -> None:
        nonlocal attempts
        attempts += 1
        time.sleep(0.05)
        message = "restore a backup"
        raise CorruptDatabase(message)

    monkeypatch.setattr(Launch, "run", run)
    errors: list[CorruptDatabase] = []
    async with client(cache_dir) as cache, anyio.create_task_group() as group:

        async def work() -> None:
            with pytest.raises(CorruptDatabase, match="restore a backup") as caught:
                await cache.get_file_id("d")
            errors.append(caught.value)

        for _ in range(64):
            group.start_soon(work)
    assert attempts == 1
    assert len({id(error) for error in errors}) == 64


async def test_cancelled_call_leaves_at_once_also_while_connecting(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker thread that is starting a daemon is not waited for."""
    blocked = threading.Event()

    def run(self: object) -> None:
        blocked.wait(TALK_TIMEOUT_S)
        message = "too late"
        raise DaemonNotRunning(message)

    monkeypatch.setattr(Launch, "run", run)
    async with client(cache_dir) as cache:
        begun_s = time.monotonic()
        with anyio.move_on_after(0.05):
            await cache.get_file_id("d")
        assert time.monotonic() - begun_s < 1.0
    blocked.set()


async def test_closed_cache_refuses_calls_and_wakes_those_that_wait(cache_dir: Path) -> None:
    """Closing twice does nothing."""
    taken = threading.Event()

    def take(talk: Talk) -> None:
        talk.greet()
        talk.next()
        taken.set()
        talk.wait_until_gone()

    async def asked() -> None:
        assert await anyio.to_thread.run_sync(taken.wait, TALK_TIMEOUT_S)

    with scripted_daemon(cache_dir, take):
        cache = client(cache_dir)
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                with pytest.raises((CacheRequestError, ConnectionLost)):
                    await cache.get_file_id("d")

            group.start_soon(wait)
            await asked()
            await cache.aclose()
            await cache.aclose()
        with pytest.raises(CacheRequestError, match="closed"):
            await cache.get_file_id("d")


async def test_second_thread_is_refused(cache_dir: Path) -> None:
    """Sockets and events of one loop are never used from another thread."""
    with scripted_daemon(cache_dir):
        async with client(cache_dir) as cache:
            await cache.get_file_id("d")

            def elsewhere() -> None:
                with pytest.raises(RuntimeError, match="another thread"):
                    asyncio.run(cache.get_file_id("d"))

            await anyio.to_thread.run_sync(elsewhere)
            assert await cache.get_file_id("e") == "value of e"


def test_new_event_loop_connects_anew(cache_dir: Path) -> None:
    """Older code shares one cache over several `asyncio.run`."""
    with scripted_daemon(cache_dir) as daemon:
        cache = client(cache_dir)
        for key in "abc":
            assert asyncio.run(cache.get_file_id(key)) == f"value of {key}"
        assert anyio.run(cache.get_file_id, "d", backend="trio") == "value of d"
        asyncio.run(cache.aclose())
        assert daemon.accepted == 4


def test_loop_that_ended_in_the_middle_of_a_call_does_no_harm(cache_dir: Path) -> None:
    """The next loop has a connection of its own."""
    with scripted_daemon(cache_dir, silent, serve):
        cache = client(cache_dir)
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(cache.get_file_id("a"), 0.1))
        assert asyncio.run(cache.get_file_id("b")) == "value of b"


def test_forgotten_cache_gives_no_warning(cache_dir: Path) -> None:
    """Not closing it is allowed: no ResourceWarning, no descriptor left."""
    with scripted_daemon(cache_dir):
        cache = client(cache_dir)
        asyncio.run(cache.get_file_id("d"))
        held = cache._connection  # noqa: SLF001 - what becomes of it is the promise
        assert held is not None
        descriptor = held._socket.fileno()  # noqa: SLF001 - as above
        del cache, held
        gc.collect()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_forked_child_is_another_client_with_a_connection_of_its_own(cache_dir: Path) -> None:
    """The child gets a new client id; the parent's connection stays as it was."""
    with scripted_daemon(cache_dir) as daemon:
        cache = client(cache_dir)

        async def parent() -> None:
            await cache.set_file_id("d", "file")
            pid = os.fork()
            if pid == 0:
                # Also from a thread of another number: what the parent's thread was is forgotten.
                child = threading.Thread(target=lambda: asyncio.run(cache.set_file_id("e", "file")))
                child.start()
                child.join(TALK_TIMEOUT_S)
                os._exit(child.is_alive())
            assert os.waitpid(pid, 0)[1] == 0  # noqa: ASYNC222 - the loop has nothing else to do
            await cache.set_file_id("f", "file")

        asyncio.run(parent())
        puts: list[Any] = [request for request in daemon.requests if not isinstance(request, Hello)]
        assert daemon.accepted == 2
    first, child, again = (put.request_key for put in puts)
    assert child.client != first.client
    assert (again.client, again.number) == (first.client, 2)


def test_older_name_is_the_same_class() -> None:
    """`SQLiteCache` is `Cache`."""
    assert SQLiteCache is Cache


# What is remembered.


async def test_second_lookup_is_not_asked_until_its_number_changes(cache_dir: Path) -> None:
    """One question for any number of lookups; a change of the key, and of it alone, is one question more."""
    stamps = StampsFile(cache_dir)
    with scripted_daemon(cache_dir, stamps.serve) as daemon:
        async with client(cache_dir) as cache:
            for _ in range(2):
                assert [await cache.get_file_id("d") for _ in range(5)] == ["value of d"] * 5
                assert (await cache.get_evals("m", ["t"], "inspect")).missing == []
                assert await cache.get_many("dataset", ["d", "d"]) == ["value of d"] * 2
                stamps.change("another")
            assert daemon.kinds().count("Lookup") == 2
            stamps.change("d")
            assert [await cache.get_file_id("d") for _ in range(5)] == ["value of d"] * 5
        assert daemon.kinds().count("Lookup") == 3


async def test_answer_that_a_change_overtook_is_given_and_not_remembered(cache_dir: Path) -> None:
    """It was true when it was asked for; the next lookup asks again."""
    stamps = StampsFile(cache_dir)

    def change_then_answer(talk: Talk) -> None:
        stamps.greet(talk)
        while (request := next_question(talk)) is not None:
            stamps.change("d")
            talk.reply(request, answer_to(request.body))

    with scripted_daemon(cache_dir, change_then_answer) as daemon:
        async with client(cache_dir) as cache:
            assert [await cache.get_file_id("d") for _ in range(3)] == ["value of d"] * 3
        assert daemon.kinds() == ["Lookup"] * 3


@pytest.mark.parametrize("obstacle", ["no file", "another file", "no room"])
async def test_where_nothing_can_be_compared_every_lookup_asks(obstacle: str, cache_dir: Path) -> None:
    """A daemon without stamps, a path that leads to another file than the daemon's, and memory_entries=0."""
    stamps = StampsFile(cache_dir)
    if obstacle == "another file":
        StampsFile(cache_dir)
    script = serve if obstacle == "no file" else stamps.serve
    entries = 0 if obstacle == "no room" else 10
    with scripted_daemon(cache_dir, script) as daemon:
        async with client(cache_dir, memory_entries=entries) as cache:
            assert [await cache.get_file_id("d") for _ in range(3)] == ["value of d"] * 3
        assert daemon.kinds() == ["Lookup"] * 3


async def test_answer_that_comes_after_everything_was_forgotten_is_not_remembered(cache_dir: Path) -> None:
    """Another task noticed that the directory was replaced: what was asked before is of the old one."""
    stamps, asked, answers = StampsFile(cache_dir), threading.Event(), threading.Event()

    def hold(talk: Talk) -> None:
        stamps.greet(talk)
        while (request := next_question(talk)) is not None:
            asked.set()
            assert answers.wait(TALK_TIMEOUT_S)
            talk.reply(request, answer_to(request.body))

    with scripted_daemon(cache_dir, hold) as daemon:
        async with client(cache_dir) as cache, anyio.create_task_group() as group:
            answered = anyio.Event()

            async def ask() -> None:
                assert await cache.get_file_id("d") == "value of d"
                answered.set()

            group.start_soon(ask)
            assert await anyio.to_thread.run_sync(asked.wait, TALK_TIMEOUT_S)
            memory = cache._memory  # noqa: SLF001 - what another task does with it
            memory.detach()
            assert memory.attach(stamps.identity)
            answers.set()
            await answered.wait()
            assert await cache.get_file_id("d") == "value of d"
        assert daemon.kinds() == ["Lookup"] * 2


async def test_every_hit_is_told_once(cache_dir: Path) -> None:
    """With questions, in between and at close; also the hit at which it is time to tell."""
    stamps, count = StampsFile(cache_dir), 3 * ANSWERS_MAX + 5
    with scripted_daemon(cache_dir, stamps.serve) as daemon:
        async with client(cache_dir) as cache:
            for _ in range(count):
                await cache.get_file_id("d")
                await cache.get_many("dataset", ["e"])
            for _ in range(2):
                await cache.get_file_id("last")
        told = hits_told_at_last(daemon, 2 * count - 1)
    assert told == {"d": count - 1, "e": count - 1, "last": 1}


async def test_second_thread_is_refused_even_what_is_remembered(cache_dir: Path) -> None:
    """The rule does not depend on what was asked before."""
    stamps = StampsFile(cache_dir)
    with scripted_daemon(cache_dir, stamps.serve):
        async with client(cache_dir) as cache:
            questions: list[Callable[[], Coroutine[Any, Any, object]]] = [
                lambda: cache.get_file_id("d"),
                lambda: cache.get_many("dataset", ["d"]),
                lambda: cache.get_evals("m", ["t"], "inspect"),
                lambda: cache.get_evals("m", [], "inspect"),
            ]
            for question in [*questions, *questions]:
                await question()

            def elsewhere() -> None:
                for question in questions:
                    with pytest.raises(RuntimeError, match="another thread"):
                        asyncio.run(question())

            await anyio.to_thread.run_sync(elsewhere)
            assert await cache.get_file_id("d") == "value of d"


def test_new_event_loop_keeps_what_is_remembered(cache_dir: Path) -> None:
    """The numbers are those of the file, whichever loop looks."""
    stamps = StampsFile(cache_dir)
    with scripted_daemon(cache_dir, stamps.serve) as daemon:
        cache = client(cache_dir)
        for _ in range(3):
            assert asyncio.run(cache.get_file_id("d")) == "value of d"
        assert anyio.run(cache.get_file_id, "d", backend="trio") == "value of d"
        asyncio.run(cache.aclose())
        assert daemon.kinds() == ["Lookup"]


@pytest.mark.parametrize("wrong", [["d"], {"d": 1}, {"d"}, 7, None, b"d", "", ()], ids=repr)
async def test_dataset_hash_that_is_none_is_the_callers_mistake(wrong: Any, cache_dir: Path) -> None:  # noqa: ANN401
    """Also where answers are remembered, and where it cannot be looked for among them."""
    stamps = StampsFile(cache_dir)
    with scripted_daemon(cache_dir, stamps.serve) as daemon:
        async with client(cache_dir) as cache:
            await cache.get_file_id("d")
            with pytest.raises(CacheRequestError, match="dataset_hash"):
                await cache.get_file_id(wrong)
        assert daemon.kinds() == ["Lookup"]


# Many at once.


async def test_many_questions_are_one_request(cache_dir: Path) -> None:
    """As they were asked, also where some of them are remembered."""
    stamps = StampsFile(cache_dir)
    keys = [str(number) for number in range(10_000)]
    with scripted_daemon(cache_dir, stamps.serve) as daemon:
        async with client(cache_dir) as cache:
            await cache.get_file_id("7")
            assert await cache.get_many("dataset", keys) == [f"value of {key}" for key in keys]
            with pytest.raises(CacheRequestError, match="in parts"):
                await cache.get_many("dataset", [*keys, "one more"])
        lookups = [request for request in daemon.requests if isinstance(request, Lookup)]
    assert [len(lookup.keys) for lookup in lookups] == [1, 10_000]


async def test_many_questions_miss_where_misses_were_asked_for(cache_dir: Path) -> None:
    """A None for each."""
    async with client(cache_dir, on_unavailable="miss", timeout_s=TIMEOUT_S) as cache:
        assert await cache.get_many("dataset", ["d", "e", "d"]) == [None] * 3


EVERY_LOOKUP: list[Callable[[Cache], Awaitable[object]]] = [
    lambda cache: cache.get_file_id("d"),
    lambda cache: cache.get_model_id("d", {}),
    lambda cache: cache.get_evals("m", ["t"], "inspect"),
    lambda cache: cache.get_evals("m", [], "inspect"),
    lambda cache: cache.get_eval_log_paths("m", ["t"], "inspect"),
    lambda cache: cache.get_many("dataset", ["d"]),
    lambda cache: cache.get_many("dataset", []),
]


@pytest.mark.parametrize("ask", EVERY_LOOKUP)
async def test_closed_cache_gives_nothing_from_memory(
    ask: Callable[[Cache], Awaitable[object]], cache_dir: Path
) -> None:
    """What was remembered, and what has no keys to ask for, is refused as all else is."""
    stamps = StampsFile(cache_dir)
    with scripted_daemon(cache_dir, stamps.serve):
        async with client(cache_dir) as cache:
            for _ in range(2):
                await ask(cache)
        with pytest.raises(CacheRequestError, match="closed"):
            await ask(cache)
