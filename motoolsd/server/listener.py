"""Accepting connections, and letting them go.

Layer: server. Imports connection, dispatch, adapters' peer check through a port, and wire.
Invariant: a connection of another user is closed before a byte is sent or read.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import anyio

from motoolsd.server.connection import Connection
from motoolsd.server.dispatch import Dispatcher
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.messages import Failure

logger = logging.getLogger(__name__)


# Whoever made the socket removes it; before 3.13 nobody else would have.
_KEEPING_THE_PATH: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


SPARE_DESCRIPTORS = 8
"""With fewer free ones nobody is accepted: the event loop would try again at once, for ever."""
DESCRIPTORS_LOOK_S = 1.0


class Peer(Protocol):
    """The process at the other end, as the kernel saw it connect."""

    @property
    def pid(self) -> int:
        """0: it cannot be seen from here."""
        ...

    @property
    def uid(self) -> int:
        """Its user."""
        ...


class Listener:
    """The open connections. Fulfils the registry of `Connection`."""

    def __init__(
        self,
        *,
        peer_of: Callable[[socket.socket], Peer],
        connections_max: int,
        started_by: str,
        monotonic_s: Callable[[], float],
        stamps: tuple[int, int] | None = None,
    ) -> None:
        """Wire up.

        Args:
            peer_of: who is at the other end of a socket.
            connections_max: connections beyond it are closed at once; their clients try again.
            started_by: what clients are told.
            monotonic_s: the clock for idleness.
            stamps: device and inode of the file of stamps, for clients; None if there is none.
        """
        self._peer_of = peer_of
        self._connections_max = connections_max
        self._monotonic_s = monotonic_s
        self._connections: set[Connection] = set()
        self._unflushed: list[Connection] = []
        self._all_gone = anyio.Event()
        self._all_gone.set()
        self._idle_since_s = monotonic_s()
        self.started_by = started_by
        self.stamps = stamps

    @property
    def clients(self) -> int:
        """Open connections."""
        return len(self._connections)

    @property
    def idle_s(self) -> float:
        """Seconds since the last connection ended; 0 while there is one."""
        return 0.0 if self._connections else self._monotonic_s() - self._idle_since_s

    def admit(self, connection: Connection, transport: asyncio.Transport) -> Failure | None:
        """Count a new connection in, or say why it is to be closed."""
        try:
            peer = self._peer_of(transport.get_extra_info("socket"))
        except OSError:
            return Failure(code=ErrorCode.PEER_REFUSED, message="the client is gone")
        if peer.uid != os.geteuid():
            logger.warning("a connection of uid %d was refused: this cache belongs to uid %d", peer.uid, os.geteuid())
            return Failure(code=ErrorCode.PEER_REFUSED, message="another user")
        if len(self._connections) >= self._connections_max:
            logger.warning("more than %d connections: one was closed", self._connections_max)
            return Failure(code=ErrorCode.BUSY, message="too many connections")
        connection.peer_pid = peer.pid
        self._connections.add(connection)
        if self._all_gone.is_set():
            self._all_gone = anyio.Event()
        return None

    def leave(self, connection: Connection) -> None:
        """Count a connection out, if it was in."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        if not self._connections:
            self._idle_since_s = self._monotonic_s()
            self._all_gone.set()

    def flush_soon(self, connection: Connection) -> None:
        """Flush a connection when this step of the loop is over; all of them in one callback."""
        if not self._unflushed:
            asyncio.get_running_loop().call_soon(self._flush_all)
        self._unflushed.append(connection)

    def _flush_all(self) -> None:
        unflushed, self._unflushed = deque(self._unflushed), []
        try:
            while unflushed:
                unflushed.popleft().flush()
        finally:
            # A defect of one connection is not the others' end.
            for connection in unflushed:
                self.flush_soon(connection)

    async def _open(self, listening: socket.socket, dispatcher: Dispatcher) -> asyncio.AbstractServer:
        """Accept, until the server is closed; then what listens goes on, and keeps who waits to be accepted."""
        loop = asyncio.get_running_loop()
        again = listening.dup()
        return await loop.create_unix_server(lambda: Connection(self, dispatcher), sock=again, **_KEEPING_THE_PATH)

    async def serve(
        self,
        listening: socket.socket,
        dispatcher: Dispatcher,
        *,
        stop: anyio.Event,
        drain_timeout_s: float,
        on_ready: Callable[[], None],
    ) -> None:
        """Accept until `stop`, then let requests in flight finish.

        Args:
            listening: the bound socket.
            dispatcher: where requests go.
            stop: set by whoever wants the daemon to end.
            drain_timeout_s: connections that still have requests open after it are cut.
            on_ready: called once, when connections are accepted.
        """
        server: asyncio.AbstractServer | None = None
        try:
            while not stop.is_set():
                if (has_room := _has_spare_descriptors(listening)) and server is None:
                    server = await self._open(listening, dispatcher)
                    on_ready()
                    on_ready = _do_nothing
                elif not has_room and server is not None:
                    logger.warning("no file descriptors are left: nobody new is accepted until some are free")
                    server.close()
                    server = None
                # At full seconds, as all that looks around regularly.
                with anyio.move_on_after(DESCRIPTORS_LOOK_S - self._monotonic_s() % DESCRIPTORS_LOOK_S):
                    await stop.wait()
        finally:
            if server is not None:
                server.close()
            listening.close()
        for connection in list(self._connections):
            connection.drain()
        with anyio.move_on_after(drain_timeout_s):
            await self._all_gone.wait()
        if self._connections:
            logger.warning("%d connections were cut: their requests took too long", len(self._connections))
        for connection in list(self._connections):
            connection.abort()


def _do_nothing() -> None:
    """What was to be done once was done."""


def _has_spare_descriptors(descriptor: socket.socket) -> bool:
    """Whether a few more files could be opened."""
    opened: list[int] = []
    try:
        opened.extend(os.dup(descriptor.fileno()) for _ in range(SPARE_DESCRIPTORS))
    except OSError:
        return False
    finally:
        for number in opened:
            os.close(number)
    return True
