"""A blocking connection: two system calls a round trip.

Layer: motools.cache. Imports endpoint, errors, recovery and motoolsd.wire.
Invariant: used by one thread at a time. Whatever interrupts an exchange closes it: the next reply on it would be the
interrupted one's.
"""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Iterator

from motools.cache.clock import monotonic_s
from motools.cache.endpoint import set_timeout
from motools.cache.errors import CacheProtocolError, CacheUnavailable, ConnectionLost, error_from
from motools.cache.recovery import no_answer
from motoolsd.wire.errors import LocalProtocolError, RemoteProtocolError
from motoolsd.wire.messages import FEATURES, PROTOCOL, Drain, Failure, Hello, Page, Reply, Request, Welcome
from motoolsd.wire.session import ClientSession, ReplyEnvelope
from motoolsd.wire.version import __version__

RECEIVE_SIZE_BYTES = 262_144
CLIENT_NAME = "motools.cache"


def greeting() -> Hello:
    """What every client says first."""
    return Hello(protocol=PROTOCOL, version=__version__, client=CLIENT_NAME, pid=os.getpid(), features=FEATURES)


def welcomed(reply: object) -> Welcome:
    """The daemon's answer to a greeting.

    Raises:
        CacheError: it refuses.
    """
    if isinstance(reply, Failure):
        raise error_from(reply)
    if not isinstance(reply, Welcome):
        raise CacheProtocolError(f"the daemon answered a greeting with {type(reply).__name__}")
    return reply


def checked(reply: Reply) -> Reply:
    """A reply that is no failure.

    Raises:
        CacheError: it is one.
    """
    if type(reply) is Failure:
        raise error_from(reply)
    return reply


class BlockingConnection:
    """One connection to a daemon that has said welcome."""

    def __init__(self, connected: socket.socket, timeout_s: float) -> None:
        """Greet.

        Args:
            connected: a blocking socket; owned from now on.
            timeout_s: for the greeting, and what the socket's own timeout is set to already.

        Raises:
            CacheError: the daemon refuses, or does not answer in time.
        """
        self._socket = connected
        self._timeout_s = timeout_s
        self._session = ClientSession()
        # Also runs when nobody closed it: a client that is forgotten gives no warning.
        self._finalizer = weakref.finalize(self, connected.close)
        try:
            self._send(self._session.hello(greeting()))
            self.peer = welcomed(self._receive(0, monotonic_s() + timeout_s))
        except BaseException:
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        """Whether it may be used again."""
        return self._finalizer.alive

    def close(self) -> None:
        """Close this process's end; never shut the connection down, a forked parent may still use it."""
        self._finalizer()

    def exchange(self, request: Request, timeout_s: float) -> Reply:
        """Send one request and wait for its reply.

        Raises:
            CacheUnavailable: the connection was lost or the time is over; the connection is closed then.
        """
        try:
            request_id = self._begin(request, timeout_s)
            return self._receive(request_id, None)
        except LocalProtocolError as error:
            raise CacheProtocolError(str(error)) from error
        except BaseException:
            self.close()
            raise

    def stream(self, request: Request, timeout_s: float) -> Iterator[Reply]:
        """Send one request and give its replies one by one; the time is for each of them.

        A caller that stops early closes the connection.
        """
        is_whole = False
        try:
            request_id = self._begin(request, timeout_s)
            while not is_whole:
                reply = self._receive(request_id, None)
                is_whole = not isinstance(reply, Page) or reply.is_last
                yield reply
        finally:
            if not is_whole:
                self.close()

    def drain(self, reason: str, timeout_s: float) -> None:
        """Ask the daemon to end."""
        try:
            self.exchange(Drain(reason=reason), timeout_s)
        except CacheUnavailable:
            # It ended before it answered.
            pass
        self.close()

    def _begin(self, request: Request, timeout_s: float) -> int:
        if timeout_s != self._timeout_s:
            set_timeout(self._socket, timeout_s)
            self._timeout_s = timeout_s
        request_id, frame = self._session.request(request)
        self._send(frame)
        return request_id

    def _send(self, frame: bytearray) -> None:
        try:
            self._socket.sendall(frame)
        except BlockingIOError as error:
            raise no_answer(self._timeout_s, outcome_known=False) from error
        except OSError as error:
            raise lost(error) from error

    def _receive(self, request_id: int, deadline_s: float | None) -> Reply:
        session = self._session
        while True:
            while (envelope := next_event(session)) is not None:
                if envelope.id == request_id:
                    return envelope.body
            # The socket's own timeout bounds each read; the deadline, all of them, should they come in drops.
            if deadline_s is None:
                deadline_s = monotonic_s() + self._timeout_s
            elif monotonic_s() > deadline_s:
                raise no_answer(self._timeout_s, outcome_known=False)
            try:
                data = self._socket.recv(RECEIVE_SIZE_BYTES)
            except BlockingIOError as error:
                raise no_answer(self._timeout_s, outcome_known=False) from error
            except OSError as error:
                raise lost(error) from error
            feed(session, data)


def lost(error: Exception | None) -> ConnectionLost:
    """The error for a connection that ended."""
    reason = "the daemon closed the connection" if error is None else f"the connection to the daemon was lost ({error})"
    return ConnectionLost(reason, False)  # noqa: FBT003 - pickled by position


def feed(session: ClientSession, data: bytes) -> None:
    """Give received bytes to a session.

    Raises:
        ConnectionLost: there were none: the daemon closed.
    """
    try:
        session.receive_data(data)
    except RemoteProtocolError as error:
        raise lost(error) from error
    if not data:
        raise lost(None)


def next_event(session: ClientSession) -> ReplyEnvelope | None:
    """A session's next reply, or None until more bytes come.

    Raises:
        CacheProtocolError: the other side is no daemon of ours.
    """
    try:
        return session.next_event()
    except RemoteProtocolError as error:
        raise CacheProtocolError(f"what listens at the cache's socket is no motoolsd: {error}") from error
