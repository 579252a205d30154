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
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(
            lambda: Connection(self, dispatcher), sock=listening, **_KEEPING_THE_PATH
        )
        try:
            on_ready()
            await stop.wait()
        finally:
            server.close()
        for connection in list(self._connections):
            connection.drain()
        with anyio.move_on_after(drain_timeout_s):
            await self._all_gone.wait()
        if self._connections:
            logger.warning("%d connections were cut: their requests took too long", len(self._connections))
        for connection in list(self._connections):
            connection.abort()
