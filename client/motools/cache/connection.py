"""A blocking connection: two system calls a round trip.

Layer: motools.cache. Imports endpoint, errors, recovery and motoolsd.wire.
Invariant: used by one thread at a time. Whatever interrupts an exchange closes it: the next reply on it would be the
interrupted one's.
"""

from __future__ import annotations

import os
import select
import socket
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from motools.cache.clock import monotonic_s
from motools.cache.endpoint import set_timeout
from motools.cache.errors import (
    CacheError,
    CacheProtocolError,
    CacheRequestError,
    CacheUnavailable,
    ConnectionLost,
    error_from,
)
from motools.cache.recovery import no_answer
from motoolsd.wire.envelopes import ReplyEnvelope
from motoolsd.wire.errors import LocalProtocolError, RemoteProtocolError
from motoolsd.wire.fields import Page
from motoolsd.wire.messages import FEATURES, PROTOCOL, Drain, Failure, Hello, Notice, Reply, Request, Welcome, Write
from motoolsd.wire.session import ClientSession
from motoolsd.wire.version import __version__

RECEIVE_SIZE_BYTES = 65_536
"""Below what malloc takes from mmap: a larger buffer cost three more system calls at every reply."""
UNBLOCKED_SIZE_BYTES = 65_536
"""What a socket's buffer takes at once, nothing else being under way: sending it costs no time."""
TIMEOUT_SLACK_S = 0.01
"""What a wait may be too long, before a system call is spent on it."""
CLIENT_NAME = "motools.cache"


def greeting(job: str = "", labels: Mapping[str, str] | None = None) -> Hello:
    """What every client says first."""
    return Hello(
        protocol=PROTOCOL,
        version=__version__,
        client=CLIENT_NAME,
        pid=os.getpid(),
        features=FEATURES,
        job=job,
        labels=dict(labels or {}),
    )


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


def is_final(reply: Reply) -> bool:
    """Whether no page follows."""
    return not isinstance(reply, Page) or reply.is_last


class BlockingConnection:
    """One connection to a daemon that has said welcome."""

    introduced_until_s = 0.0
    """Until when the daemon surely knows who writes."""

    def __init__(self, connected: socket.socket, timeout_s: float, hello: Hello | None = None) -> None:
        """Greet.

        Args:
            connected: a blocking socket; owned from now on.
            timeout_s: for the greeting, and what the socket's own timeout is set to already.
            hello: what to say; None: no more than who asks.

        Raises:
            CacheError: the daemon refuses, or does not answer in time.
        """
        self._socket = connected
        self._timeout_s = timeout_s
        self._session = ClientSession()
        self._unsent = bytearray()
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)
        # Also runs when nobody closed it: a client that is forgotten gives no warning.
        self._finalizer = weakref.finalize(self, connected.close)
        try:
            deadline_s = monotonic_s() + timeout_s
            connected.sendall(self._session.hello(hello or greeting()))
            self.peer = welcomed(self._receive(deadline_s))
        except BaseException as error:
            self.close()
            if (meaning := _meaning(error, timeout_s)) is not None:
                raise meaning from error
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
            CacheRequestError: the request is too large; nothing was sent.
        """
        session = self._session
        deadline_s = monotonic_s() + timeout_s
        try:
            if abs(timeout_s - self._timeout_s) > TIMEOUT_SLACK_S:
                self._set_timeout(timeout_s)
            _, frame = session.request(request)
            frame, self._unsent = self._unsent + frame, bytearray()
            self._socket.sendall(frame)
            if len(frame) > UNBLOCKED_SIZE_BYTES:
                self._set_timeout_until(deadline_s)
            if isinstance(request, Write):
                self._await_disk(deadline_s)
            # Nearly always one read brings the whole reply.
            if data := self._socket.recv(RECEIVE_SIZE_BYTES):
                if (reply := session.receive_reply(data)) is not None:
                    return reply
                if (envelope := session.next_event()) is not None:
                    return envelope.body
            else:
                feed(session, data)
            return self._receive(deadline_s)
        except LocalProtocolError as error:
            # Nothing was sent: the connection ended with an earlier exchange, or this request fits into no frame.
            raise CacheRequestError(str(error)) if self.is_open else lost(error) from error
        except BaseException as error:
            self.close()
            if (meaning := _meaning(error, timeout_s)) is not None:
                raise meaning from error
            raise

    def ask(self, request: Request) -> None:
        """Send a request whose answer may take hours.

        Raises:
            CacheError: as `exchange`.
        """
        try:
            _, frame = self._session.request(request)
            frame, self._unsent = self._unsent + frame, bytearray()
            self._socket.sendall(frame)
        except LocalProtocolError as error:
            raise CacheRequestError(str(error)) if self.is_open else lost(error) from error
        except OSError as error:
            self.close()
            raise lost(error) from error

    def answer(self, wait_s: float) -> Reply | None:
        """The answer, or None if it did not come in time; the connection stays as it is then.

        Raises:
            CacheUnavailable: the connection was lost.
        """
        try:
            if (envelope := next_event(self._session)) is not None:
                return envelope.body
            if not self._poll.poll(max(0.0, wait_s) * 1000):
                return None
            feed(self._session, self._socket.recv(RECEIVE_SIZE_BYTES))
        except OSError as error:
            self.close()
            raise lost(error) from error
        envelope = next_event(self._session)
        return None if envelope is None else envelope.body

    def collect(self, request: Request, timeout_s: float) -> list[Reply]:
        """Send one request and wait for all pages of its reply.

        Raises:
            CacheError: as `exchange`.
        """
        deadline_s = monotonic_s() + timeout_s
        replies = [self.exchange(request, timeout_s)]
        try:
            while not is_final(replies[-1]):
                replies.append(self._receive(deadline_s))
        except BaseException as error:
            self.close()
            if (meaning := _meaning(error, timeout_s)) is not None:
                raise meaning from error
            raise
        return replies

    def stream(
        self, request: Request, silence_s: float, take: Callable[[Reply], None], when_silent: Callable[[], object]
    ) -> None:
        """Send one request and hand out all messages of its reply, as they come.

        Args:
            request: what to ask.
            silence_s: how long each of them may take, before `when_silent` is called.
            take: called with each.
            when_silent: asks whether the daemon is well, in another way; raises if it is not.

        Raises:
            CacheUnavailable: the connection was lost.
            CacheRequestError: the request is too large; nothing was sent.
        """
        self.ask(request)
        reply: Reply | None = None
        while reply is None or not is_final(reply):
            deadline_s = monotonic_s() + silence_s
            while (reply := self.answer(deadline_s - monotonic_s())) is None:
                # A part of a message is no silence.
                if monotonic_s() >= deadline_s:
                    when_silent()
                    deadline_s = monotonic_s() + silence_s
            take(reply)

    def hold(self, notices: Sequence[Notice]) -> None:
        """Send notices with the next request."""
        for notice in notices:
            with suppress(LocalProtocolError):  # one that is lost costs a count
                self._unsent += self._session.notice(notice)

    def tell(self, notices: Sequence[Notice]) -> None:
        """Send notices as far as the socket takes them now; what is left goes with the next request. Never fails."""
        if self._unsent or not self.is_open:
            # The daemon does not read: nothing is gathered for it.
            return
        self.hold(notices)
        with suppress(OSError):  # the next request will say so
            del self._unsent[: self._socket.send(self._unsent, socket.MSG_DONTWAIT)]

    def drain(self, reason: str, timeout_s: float) -> None:
        """Ask the daemon to end."""
        try:
            self.exchange(Drain(reason=reason), timeout_s)
        except CacheUnavailable:
            # It ended before it answered.
            pass
        self.close()

    def _await_disk(self, deadline_s: float) -> None:
        """Wait for an answer that takes the disk's time, without being woken in between.

        Whoever blocks in recv() is also woken when the daemon takes the request out of the socket: both wait in one
        queue. A lookup's answer follows at once, but a write would wake up for nothing, and take the processor from the
        daemon. poll() is woken by what it waits for.
        """
        left_s = deadline_s - monotonic_s()
        if left_s <= 0 or not self._poll.poll(left_s * 1000):
            raise BlockingIOError

    def _receive(self, deadline_s: float) -> Reply:
        """Read until the reply is there, each time for as long as the reads before it have left."""
        session = self._session
        while True:
            # Only one request is open: the session lets no other's reply through.
            if (envelope := next_event(session)) is not None:
                return envelope.body
            self._set_timeout_until(deadline_s)
            feed(session, self._socket.recv(RECEIVE_SIZE_BYTES))

    def _set_timeout_until(self, deadline_s: float) -> None:
        left_s = deadline_s - monotonic_s()
        if left_s <= 0:
            raise BlockingIOError
        if left_s < self._timeout_s - TIMEOUT_SLACK_S:
            self._set_timeout(left_s)

    def _set_timeout(self, timeout_s: float) -> None:
        set_timeout(self._socket, timeout_s)
        self._timeout_s = timeout_s


def _meaning(error: BaseException, timeout_s: float) -> CacheError | None:
    """What an error of the socket or the session is to a caller; None if it is nothing of theirs."""
    if isinstance(error, CacheError):
        return None
    if isinstance(error, BlockingIOError):
        return no_answer(timeout_s, outcome_known=False)
    if isinstance(error, RemoteProtocolError):
        return foreign_speech(error)
    return lost(error) if isinstance(error, OSError) else None


def lost(error: Exception | None) -> ConnectionLost:
    """The error for a connection that ended."""
    reason = "the daemon closed the connection" if error is None else f"the connection to the daemon was lost ({error})"
    return ConnectionLost(reason, False)


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
        raise foreign_speech(error) from error


def replies_in(session: ClientSession, data: bytes) -> Iterator[ReplyEnvelope]:
    """All replies that are whole with the bytes that were received; those before what is wrong, too.

    Raises:
        ConnectionLost: there were no bytes: the daemon closed.
        CacheProtocolError: the other side is no daemon of ours.
    """
    if not data:
        feed(session, data)
    yield from session.receive_replies(data)
    while (envelope := next_event(session)) is not None:
        yield envelope


def foreign_speech(error: RemoteProtocolError) -> CacheProtocolError:
    """The error for bytes that no daemon of ours sends."""
    return CacheProtocolError(f"what listens at the cache's socket is no motoolsd: {error}")
