"""One connection, many tasks: who reads, who is handed what, and what happens when one of them leaves."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from motools.cache.endpoint import open_socket
from motools.cache.errors import CacheProtocolError, CacheRequestError, ConnectionLost
from motools.cache.multiplex import MultiplexedConnection
from motoolsd.wire.envelopes import RequestEnvelope
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import DatasetPage, ListEntries
from motoolsd.wire.messages import OUTSTANDING_MAX, Found, Lookup, PutEvals, Reply, RequestKey, Stored, Used
from tests.cache.scripted import ScriptedDaemon, Talk, scripted_daemon, serve
from tests.cache.stamped import hits_told, next_question

TIMEOUT_S = 10.0
USED = Used(kind=Kind.DATASET, hits={"d": 1})
LARGE = Used(kind=Kind.DATASET, hits={f"{number:01000}": 1 for number in range(1000)})
"""About as large as notices become, and more than a socket takes at once."""


@asynccontextmanager
async def connection_to(daemon: ScriptedDaemon) -> AsyncIterator[MultiplexedConnection]:
    """A connection that was greeted; what hangs on it fails."""
    connection = MultiplexedConnection(open_socket(str(daemon.directory), timeout_s=TIMEOUT_S))
    with anyio.fail_after(TIMEOUT_S):
        await connection.greet()
        try:
            yield connection
        finally:
            connection.close()


async def ask(connection: MultiplexedConnection, key: str) -> str | None:
    """The value of a key."""
    reply = await connection.exchange(Lookup(kind=Kind.DATASET, keys=[key]))
    assert isinstance(reply, Found)
    value = reply.values[0]
    return None if value is None else value.decode()


class Gate:
    """A daemon that takes requests and answers them when the test says so."""

    def __init__(self) -> None:
        self.taken = threading.Semaphore(0)
        self.open = threading.Event()

    def script(self, talk: Talk) -> None:
        """Take one request, hold it until the gate opens, answer it; and so on."""
        talk.greet()
        while (request := talk.next()) is not None:
            self.taken.release()
            self.open.wait(TIMEOUT_S)
            talk.reply(request, found(request))

    async def wait_taken(self) -> None:
        """Wait until the daemon has one request more."""
        assert await anyio.to_thread.run_sync(self.taken.acquire, True, TIMEOUT_S)


def found(request: RequestEnvelope) -> Reply:
    """The value of key k is k itself."""
    assert isinstance(request.body, Lookup)
    return Found(values=[key.encode() for key in request.body.keys])


@contextmanager
def gated(directory: Path) -> Iterator[tuple[ScriptedDaemon, Gate]]:
    """A daemon behind a gate, which is opened at the end."""
    gate = Gate()
    with scripted_daemon(directory, gate.script) as daemon:
        try:
            yield daemon, gate
        finally:
            gate.open.set()


async def test_many_tasks_share_one_connection(cache_dir: Path) -> None:
    """Each of 64 tasks gets the replies to its own questions."""
    with scripted_daemon(cache_dir) as daemon:
        async with connection_to(daemon) as connection, anyio.create_task_group() as group:

            async def work(worker: int) -> None:
                for number in range(10):
                    assert await ask(connection, f"{worker}-{number}") == f"value of {worker}-{number}"

            for worker in range(64):
                group.start_soon(work, worker)
        assert daemon.accepted == 1


async def test_replies_in_another_order_reach_their_tasks(cache_dir: Path) -> None:
    """The daemon may answer as it likes."""

    def backwards(talk: Talk) -> None:
        talk.greet()
        requests = [talk.next() for _ in range(8)]
        for request in reversed(requests):
            assert request is not None
            talk.reply(request, found(request))
        talk.wait_until_gone()

    with scripted_daemon(cache_dir, backwards) as daemon:
        async with connection_to(daemon) as connection, anyio.create_task_group() as group:

            async def work(key: str) -> None:
                assert await ask(connection, key) == key

            for number in range(8):
                group.start_soon(work, str(number))


async def test_more_tasks_than_may_be_outstanding_wait_their_turn(cache_dir: Path) -> None:
    """Nobody is refused, and no more than the limit is ever open."""
    batches = 3

    def in_batches(talk: Talk) -> None:
        talk.greet()
        for _ in range(batches):
            requests = [talk.next() for _ in range(OUTSTANDING_MAX)]
            talk.connection.settimeout(0.05)
            with pytest.raises(TimeoutError):
                talk.connection.recv(1, socket.MSG_PEEK)
            talk.connection.settimeout(None)
            for request in requests:
                assert request is not None
                talk.reply(request, found(request))
        talk.wait_until_gone()

    with scripted_daemon(cache_dir, in_batches) as daemon:
        async with connection_to(daemon) as connection, anyio.create_task_group() as group:

            async def work(key: str) -> None:
                assert await ask(connection, key) == key

            for number in range(batches * OUTSTANDING_MAX):
                group.start_soon(work, str(number))


async def test_cancelling_the_reading_task_hands_reading_over(cache_dir: Path) -> None:
    """Of the tasks that wait one reads; when it goes, another one does."""
    with gated(cache_dir) as (daemon, gate):
        async with connection_to(daemon) as connection, anyio.create_task_group() as group:
            reading = anyio.CancelScope()
            answers: list[str | None] = []

            async def read() -> None:
                with reading:
                    await ask(connection, "first")

            async def follow() -> None:
                answers.append(await ask(connection, "second"))

            group.start_soon(read)
            await gate.wait_taken()
            group.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            reading.cancel()
            await anyio.wait_all_tasks_blocked()
            gate.open.set()
        assert answers == ["second"]


async def test_reply_to_a_cancelled_call_is_dropped(cache_dir: Path) -> None:
    """The next call on the same connection gets its own answer."""
    with gated(cache_dir) as (daemon, gate):
        async with connection_to(daemon) as connection:
            with anyio.move_on_after(0.05) as scope:
                await ask(connection, "cancelled")
            assert scope.cancelled_caught
            gate.open.set()
            assert await ask(connection, "next") == "next"
        assert daemon.accepted == 1


async def test_cancelled_call_that_waits_for_a_place_leaves_no_trace(cache_dir: Path) -> None:
    """It was never sent, and the places are all there afterwards."""
    with gated(cache_dir) as (daemon, gate):
        async with connection_to(daemon) as connection:
            limit = connection.peer.outstanding_max
            async with anyio.create_task_group() as group:
                for number in range(limit):
                    group.start_soon(ask, connection, str(number))
                await anyio.wait_all_tasks_blocked()
                with anyio.move_on_after(0.05):
                    await ask(connection, "one too many")
                gate.open.set()
            assert await ask(connection, "after") == "after"
        assert "one too many" not in [key for body in daemon.requests if isinstance(body, Lookup) for key in body.keys]


async def test_every_waiting_task_learns_that_the_connection_is_lost(cache_dir: Path) -> None:
    """Each gets an error of its own, and none waits for ever."""

    def hang_up(talk: Talk) -> None:
        talk.greet()
        for _ in range(8):
            talk.next()

    with scripted_daemon(cache_dir, hang_up) as daemon:
        async with connection_to(daemon) as connection:
            errors: list[ConnectionLost] = []

            async def work(key: str) -> None:
                with pytest.raises(ConnectionLost) as caught:
                    await ask(connection, key)
                errors.append(caught.value)

            async with anyio.create_task_group() as group:
                for number in range(8):
                    group.start_soon(work, str(number))
            assert not connection.is_open
    assert len({id(error) for error in errors}) == 8
    assert not any(error.outcome_known for error in errors)


async def test_answer_that_came_before_the_end_is_given(cache_dir: Path) -> None:
    """A reply and the end of the connection in one read: the call has its answer."""

    def answer_and_babble(talk: Talk) -> None:
        talk.greet()
        request = talk.next()
        assert request is not None
        from motoolsd.wire.envelopes import ReplyEnvelope
        from motoolsd.wire.session import encode_frame

        talk.send(encode_frame(ReplyEnvelope(request.id, found(request))) + b"\0\0\0\0")
        talk.wait_until_gone()

    with scripted_daemon(cache_dir, answer_and_babble) as daemon:
        async with connection_to(daemon) as connection:
            assert await ask(connection, "key") == "key"
            with pytest.raises(CacheProtocolError):
                await ask(connection, "next")


async def test_closing_wakes_whoever_waits(cache_dir: Path) -> None:
    """A closed connection answers nobody, and keeps nobody."""
    with gated(cache_dir) as (daemon, _gate):
        async with connection_to(daemon) as connection, anyio.create_task_group() as group:

            async def work() -> None:
                with pytest.raises(ConnectionLost):
                    await ask(connection, "key")

            for _ in range(3):
                group.start_soon(work)
            await anyio.wait_all_tasks_blocked()
            connection.close()


async def test_sending_goes_on_reading(cache_dir: Path) -> None:
    """A daemon that waits for us to read takes nothing from us: a blocked sender reads meanwhile."""
    page = DatasetPage(items=[], is_last=False)

    def flood_then_take(talk: Talk) -> None:
        talk.greet()
        listing = talk.next()
        assert listing is not None
        for _ in range(50_000):
            talk.reply(listing, page)
        write = talk.next()
        assert write is not None
        talk.reply(write, Stored())
        talk.wait_until_gone()

    logs = {str(number): b"x" * 1_000_000 for number in range(8)}
    write = PutEvals(request_key=RequestKey(b"client-of-tests.", 1, 1), model_id="m", backend_type="i", logs=logs)
    with scripted_daemon(cache_dir, flood_then_take) as daemon:
        async with connection_to(daemon) as connection:
            with anyio.move_on_after(0.1):
                await connection.collect(ListEntries(kind=Kind.DATASET))
            assert isinstance(await connection.exchange(write), Stored)


async def test_cancelled_sender_leaves_whole_frames(cache_dir: Path) -> None:
    """Half a request on the wire is finished by whoever sends next."""
    started = threading.Event()

    def slow_to_read(talk: Talk) -> None:
        talk.greet()
        started.wait(TIMEOUT_S)
        talk.next()
        second = talk.next()
        assert second is not None
        talk.reply(second, found(second))
        talk.wait_until_gone()

    logs = {str(number): b"x" * 1_000_000 for number in range(8)}
    write = PutEvals(request_key=RequestKey(b"client-of-tests.", 1, 1), model_id="m", backend_type="i", logs=logs)
    with scripted_daemon(cache_dir, slow_to_read) as daemon:
        async with connection_to(daemon) as connection:
            with anyio.move_on_after(0.05) as scope:
                await connection.exchange(write)
            assert scope.cancelled_caught
            started.set()
            assert await ask(connection, "key") == "key"


async def test_request_larger_than_a_frame_is_refused_alone(cache_dir: Path) -> None:
    """Nothing is sent, and the connection goes on."""
    logs = {str(number): b"x" * 4_000_000 for number in range(5)}
    write = PutEvals(request_key=RequestKey(b"client-of-tests.", 1, 1), model_id="m", backend_type="i", logs=logs)
    with scripted_daemon(cache_dir) as daemon:
        async with connection_to(daemon) as connection:
            with pytest.raises(CacheRequestError, match="does not fit"):
                await connection.exchange(write)
            assert await ask(connection, "key") == "value of key"


async def test_forgotten_connection_is_closed_without_a_warning(cache_dir: Path) -> None:
    """Nobody has to close it."""
    with scripted_daemon(cache_dir, serve) as daemon:
        connected = open_socket(str(daemon.directory), timeout_s=TIMEOUT_S)
        connection = MultiplexedConnection(connected)
        await connection.greet()
        del connection
        await anyio.lowlevel.checkpoint()
        assert connected.fileno() == -1
        assert isinstance(connected, socket.socket)


def answer_questions(talk: Talk) -> None:
    """Welcome, and answer everything but notices."""
    talk.greet()
    while (request := next_question(talk)) is not None:
        talk.reply(request, found(request))


async def test_notices_and_requests_of_many_tasks_do_not_mix(cache_dir: Path) -> None:
    """Held or told at once: each answer is its own task's, and every count arrives."""
    with scripted_daemon(cache_dir, answer_questions) as daemon:
        async with connection_to(daemon) as connection:

            async def work(key: str) -> None:
                connection.hold([USED])
                assert await ask(connection, key) == key
                connection.tell([USED])

            async with anyio.create_task_group() as group:
                for number in range(20):
                    group.start_soon(work, str(number))
            assert await ask(connection, "last") == "last"
        assert hits_told(daemon) == {"d": 40}


async def test_telling_never_waits_and_what_was_begun_stays_whole(cache_dir: Path) -> None:
    """A daemon that does not read: what its socket takes is sent, nothing is gathered, the rest goes with a request."""
    reads = threading.Event()

    def sleep_then_answer(talk: Talk) -> None:
        talk.greet()
        reads.wait(TIMEOUT_S)
        while (request := next_question(talk)) is not None:
            talk.reply(request, found(request))

    with scripted_daemon(cache_dir, sleep_then_answer) as daemon:
        async with connection_to(daemon) as connection:
            for _ in range(50):
                connection.tell([LARGE])
            assert 0 < len(connection._unsent) < 2 * 1_010_000  # noqa: SLF001 - what is gathered is bounded
            reads.set()
            assert await ask(connection, "key") == "key"
        assert 0 < hits_told(daemon)[f"{0:01000}"] < 50


async def test_telling_a_daemon_that_is_gone_says_nothing(cache_dir: Path) -> None:
    """The next request will; nor is anything said to a connection that was closed here."""
    with scripted_daemon(cache_dir, Talk.greet) as daemon:
        async with connection_to(daemon) as connection:
            for _ in range(3):
                connection.tell([USED])
            with pytest.raises(ConnectionLost):
                await ask(connection, "key")
            connection.tell([USED])
            assert not connection.is_open
