"""A running listener, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
from anyio.abc import SocketStream

from motoolsd.server.listener import Listener
from motoolsd.wire.envelopes import ReplyEnvelope
from motoolsd.wire.messages import PROTOCOL, Hello, Reply, Request
from motoolsd.wire.session import ClientSession
from tests.fakes import FakeClock


class Guest:
    """A client over a real socket."""

    def __init__(self, stream: SocketStream) -> None:
        """Talk over a connected stream."""
        self.stream = stream
        self.session = ClientSession()

    async def greet(self) -> None:
        """Say hello, and wait for the welcome."""
        await self.stream.send(bytes(self.session.hello(Hello(protocol=PROTOCOL, version="0.1.0"))))
        await self.receive()

    async def send(self, body: Request) -> int:
        """Send a request; returns its number."""
        number, frame = self.session.request(body)
        await self.stream.send(bytes(frame))
        return number

    async def receive(self) -> ReplyEnvelope:
        """The next reply; raises anyio.EndOfStream at the end."""
        while (reply := self.session.next_event()) is None:
            self.session.receive_data(await self.stream.receive())
        return reply

    async def ask(self, body: Request) -> Reply:
        """Send a request and wait for its reply."""
        await self.send(body)
        return (await self.receive()).body

    async def is_closed(self) -> bool:
        """Whether the daemon has closed: waits for the end of the stream."""
        try:
            await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return True
        return False


class Served(NamedTuple):
    """A running listener and what it is made of."""

    path: str
    listener: Listener
    clock: FakeClock
    stop: anyio.Event
    ended: anyio.Event

    @asynccontextmanager
    async def connect(self, *, greet: bool = True) -> AsyncIterator[Guest]:
        """A client; closed when the block is left."""
        async with await anyio.connect_unix(self.path) as stream:
            guest = Guest(stream)
            if greet:
                await guest.greet()
            yield guest

    async def wait_for_clients(self, count: int) -> None:
        """Wait until so many connections are open."""
        while self.listener.clients != count:
            await anyio.lowlevel.checkpoint()
