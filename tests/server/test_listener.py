"""Accepting connections and letting them go, over real sockets."""

from __future__ import annotations

import asyncio
import logging
import os
import socket

import anyio
import pytest

from motoolsd.adapters.socket import peer_credentials
from motoolsd.wire.messages import Found
from tests.server.conftest import Serve
from tests.server.scripted import ScriptedDispatcher, lookup, waiting


async def test_clients_are_served_and_counted(serve: Serve) -> None:
    """Each connection is one client, from its start to its end."""
    async with serve() as served:
        async with served.connect() as one, served.connect() as two:
            assert await one.ask(lookup()) == await two.ask(lookup()) == Found(values=[b"file"])
            assert served.listener.clients == 2
        await served.wait_for_clients(0)


async def test_garbage_ends_only_its_own_connection(serve: Serve) -> None:
    """What one client sends never disturbs another."""
    async with serve() as served, served.connect() as good, served.connect() as bad:
        await bad.stream.send(b"\xff" * 64)
        assert await bad.is_closed()
        assert await good.ask(lookup()) == Found(values=[b"file"])


async def test_other_user_is_refused_before_a_byte(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """The kernel says who connects; somebody else's connection is closed, unread and unanswered."""
    dispatcher = ScriptedDispatcher()
    with caplog.at_level(logging.WARNING):
        async with serve(dispatcher, peer_uid=lambda _socket: os.geteuid() + 1) as served:
            async with served.connect(greet=False) as stranger:
                assert await stranger.is_closed()
            assert served.listener.clients == 0
    assert "was refused" in caplog.text
    assert dispatcher.taken == []


async def test_client_that_is_gone_already_is_no_error(serve: Serve) -> None:
    """Asking who it was may fail; nobody is to be served then."""

    def gone(_socket: socket.socket) -> int:
        raise OSError(107, "not connected")

    async with serve(peer_uid=gone) as served, served.connect(greet=False) as ghost:
        assert await ghost.is_closed()


async def test_real_peer_is_known_through_the_event_loop(serve: Serve) -> None:
    """SO_PEERCRED can be asked for on the loop's own socket object."""
    seen: list[int] = []

    def peer_uid(connection: socket.socket) -> int:
        credentials = peer_credentials(connection)
        seen.extend((credentials.pid, credentials.uid))
        return credentials.uid

    async with serve(peer_uid=peer_uid) as served, served.connect() as guest:
        await guest.ask(lookup())
    assert seen == [os.getpid(), os.geteuid()]


async def test_connections_beyond_the_limit_are_closed(serve: Serve) -> None:
    """The limit protects the descriptors; when somebody leaves there is room again."""
    async with serve(connections_max=1) as served:
        async with served.connect() as first:
            async with served.connect(greet=False) as second:
                assert await second.is_closed()
            assert await first.ask(lookup()) == Found(values=[b"file"])
        await served.wait_for_clients(0)
        async with served.connect() as third:
            assert await third.ask(lookup()) == Found(values=[b"file"])


async def test_idleness_counts_from_the_last_connection(serve: Serve) -> None:
    """While somebody is connected the daemon is not idle; a refused connection is nobody."""
    async with serve(connections_max=1) as served:
        await served.clock.advance(10)
        assert served.listener.idle_s == 10
        async with served.connect():
            await served.clock.advance(10)
            assert served.listener.idle_s == 0
        await served.wait_for_clients(0)
        await served.clock.advance(3)
        assert served.listener.idle_s == 3


async def test_refused_connection_does_not_keep_the_daemon_awake(serve: Serve) -> None:
    """Somebody else's attempts do not count as use."""
    async with serve(peer_uid=lambda _socket: os.geteuid() + 1) as served:
        await served.clock.advance(10)
        async with served.connect(greet=False) as stranger:
            assert await stranger.is_closed()
        assert served.listener.idle_s == 10


async def test_stopping_answers_what_is_in_flight_then_closes(serve: Serve) -> None:
    """Nobody new is accepted; idle connections are closed at once, busy ones when they have their answers."""
    dispatcher = ScriptedDispatcher()
    async with serve(dispatcher) as served, served.connect() as idle, served.connect() as busy:
        number = await busy.send(waiting())
        while number not in dispatcher.open:
            await anyio.lowlevel.checkpoint()
        served.stop.set()
        assert await idle.is_closed()
        assert not served.ended.is_set()
        with pytest.raises(OSError, match=r"refused|failed"):
            await anyio.connect_unix(served.path)
        dispatcher.finish(number)
        assert (await busy.receive()).id == number
        assert await busy.is_closed()
        await served.ended.wait()


async def test_requests_that_take_too_long_are_cut(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Stopping has a deadline: what is still open after it is cut, and said."""
    with caplog.at_level(logging.WARNING):
        async with serve(drain_timeout_s=0.05) as served, served.connect() as stuck:
            await stuck.ask(lookup())
            await stuck.send(waiting())
            await anyio.wait_all_tasks_blocked()
            served.stop.set()
            await served.ended.wait()
            assert await stuck.is_closed()
    assert "1 connections were cut" in caplog.text


async def test_client_that_never_reads_does_not_hold_others_up(serve: Serve) -> None:
    """With its answers piling up, it is not read any more; everybody else is served."""
    dispatcher = ScriptedDispatcher(b"x" * 200_000)
    async with serve(dispatcher) as served, served.connect() as lazy, served.connect() as other:
        for _ in range(100):
            await lazy.send(lookup())
        for _ in range(5):
            assert isinstance(await other.ask(lookup()), Found)
        for _ in range(100):
            await lazy.receive()


async def test_defect_of_one_connection_keeps_no_reply_from_the_others(serve: Serve) -> None:
    """All replies of one step leave in one callback; each must, whatever becomes of the others."""
    flushed: list[str] = []

    class Stub:
        def __init__(self, name: str) -> None:
            self.name = name

        def flush(self) -> None:
            flushed.append(self.name)
            if self.name == "broken":
                raise RuntimeError(self.name)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: flushed.append(str(type(context["exception"]))))
    async with serve() as served:
        for name in ("first", "broken", "last"):
            served.listener.flush_soon(Stub(name))  # type: ignore[arg-type]
        while "last" not in flushed:
            await anyio.lowlevel.checkpoint()
    assert flushed == ["first", "broken", "<class 'RuntimeError'>", "last"]
