"""A transport without a socket, a dispatcher without an engine, and a client without a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio

from motoolsd.engine.usage import Audience, Tally, UsageCounts
from motoolsd.server.connection import Connection
from motoolsd.server.dispatch import Dispatcher, Replier
from motoolsd.wire.envelopes import ReplyEnvelope, RequestEnvelope
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import PROTOCOL, Failure, Found, GetStatus, Hello, Lookup, Reply, Request
from motoolsd.wire.session import ClientSession, encode_frame
from tests.fakes import FakeClock


class ScriptedTransport(asyncio.Transport):
    """Keeps what is written; says that the other side does not read once too much is unread."""

    def __init__(self, high_water: int = 64 * 1024) -> None:
        """Nothing written yet."""
        super().__init__()
        self.writes: list[bytes] = []
        self._is_reading = True
        self.closed = self.aborted = False
        self.unread = 0
        self.unread_max = 0
        self.protocol: Connection | None = None
        self._high_water = high_water

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep data, and pause the protocol as asyncio's transports do."""
        self.writes.append(bytes(data))
        self.unread += len(data)
        self.unread_max = max(self.unread, self.unread_max)
        if self.unread > self._high_water and self.protocol is not None:
            self.protocol.pause_writing()

    def read_all(self) -> bytes:
        """What the other side reads now."""
        data = b"".join(self.writes)
        self.writes.clear()
        was_full, self.unread = self.unread > self._high_water, 0
        if was_full and self.protocol is not None:
            self.protocol.resume_writing()
        return data

    def pause_reading(self) -> None:
        """Take nothing more."""
        assert self._is_reading, "paused twice"
        self._is_reading = False

    def resume_reading(self) -> None:
        """Go on."""
        assert not self._is_reading, "resumed twice"
        self._is_reading = True

    def is_reading(self) -> bool:
        """Whether bytes are taken from the other side."""
        return self._is_reading

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return self.closed

    def close(self) -> None:
        """Close; what was written is still delivered."""
        self.closed = True

    def abort(self) -> None:
        """Close at once."""
        self.closed = self.aborted = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - asyncio's signature
        """There is no socket."""
        return default


class Guests:
    """A registry that admits everybody, or nobody. Fulfils connection.Registry."""

    def __init__(self, refusal: Failure | None = None) -> None:
        """Say who is refused."""
        self.started_by = "command"
        self.stamps: tuple[int, int] | None = None
        self.refusal = refusal
        self.left = 0

    def admit(self, connection: Connection, transport: asyncio.Transport) -> Failure | None:
        """Admit or refuse."""
        return self.refusal

    def leave(self, connection: Connection) -> None:
        """Count."""
        self.left += 1

    def flush_soon(self, connection: Connection) -> None:
        """Call back when this step of the loop is over."""
        asyncio.get_running_loop().call_soon(connection.flush)


class ScriptedDispatcher(Dispatcher):
    """Answers lookups at once, keeps other requests open, and is full when told so."""

    def __init__(self, value: bytes = b"file") -> None:
        """Answer lookups with `value`."""
        self.value = value
        self.is_full = False
        self.taken: list[int] = []
        self.open: dict[int, Replier] = {}
        self.callbacks: list[Callable[[], None]] = []
        self.attempts = 0

    def dispatch(self, replier: Replier, request_id: int, body: Request) -> Reply | None:
        """Answer, keep, or raise WouldBlock."""
        self.attempts += 1
        if isinstance(body, Lookup):
            self.taken.append(request_id)
            return Found(values=[self.value])
        if self.is_full:
            raise anyio.WouldBlock
        self.taken.append(request_id)
        self.open[request_id] = replier
        return None

    def tally(self, hello: Hello) -> Tally:
        """Nobody reads what is counted."""
        return UsageCounts(10, FakeClock()).tally(Audience(hello.job))

    def connection_lost(self, replier: Replier) -> None:
        """Nobody waits here for anybody else."""

    def when_space(self, callback: Callable[[], None]) -> None:
        """Keep the callback."""
        self.callbacks.append(callback)

    def announce_space(self) -> None:
        """Call everybody back who waits."""
        self.is_full = False
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()

    def finish(self, request_id: int) -> None:
        """Answer an open request."""
        self.open.pop(request_id).finish(request_id, Found(values=[]))


class Conversation:
    """A connection under test with a client that is a session only."""

    def __init__(self, *, value: bytes = b"file", greet: bool = True, refusal: Failure | None = None) -> None:
        """Connect, and say hello."""
        self.dispatcher = ScriptedDispatcher(value)
        self.guests = Guests(refusal)
        self.transport = ScriptedTransport()
        self.connection = Connection(self.guests, self.dispatcher)
        self.transport.protocol = self.connection
        self.session = ClientSession()
        self.connection.connection_made(self.transport)
        if greet:
            self.connection.data_received(self.hello())
            self.read()

    def hello(self, protocol: int = PROTOCOL) -> bytes:
        """The frame that opens the conversation."""
        return bytes(self.session.hello(Hello(protocol=protocol, version="0.1.0")))

    def send(self, *bodies: Request) -> list[int]:
        """Send requests in one piece; returns their numbers."""
        sent = [self.session.request(body) for body in bodies]
        self.connection.data_received(b"".join(frame for _, frame in sent))
        return [number for number, _ in sent]

    def flood(self, *bodies: Request) -> list[int]:
        """Send more requests in one piece than a well-behaved client has open; returns their numbers."""
        numbers = list(range(1000, 1000 + len(bodies)))
        self.session._open.update(numbers)  # noqa: SLF001 - else it would take the answers for strangers
        self.connection.data_received(frames(*bodies))
        return numbers

    def read(self) -> list[ReplyEnvelope]:
        """The replies that have come."""
        data = self.transport.read_all()
        if data:
            self.session.receive_data(data)
        replies = []
        while (reply := self.session.next_event()) is not None:
            replies.append(reply)
        return replies


def lookup() -> Lookup:
    """A request that is answered at once."""
    return Lookup(kind=Kind.DATASET, keys=["d"])


def waiting() -> GetStatus:
    """A request that stays open until it is finished."""
    return GetStatus()


def frames(*bodies: Request) -> bytes:
    """Requests without a session that counts them."""
    return b"".join(encode_frame(RequestEnvelope(number, body)) for number, body in enumerate(bodies, 1000))
