"""The blocking connection by itself: greeting, system calls, clean-up."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from motools.cache.connection import BlockingConnection
from motools.cache.endpoint import open_socket
from motools.cache.errors import CacheProtocolError, ConnectionLost, DaemonBusy
from motoolsd.wire.frames import REQUEST_SIZE_MAX
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import DatasetPage, ListEntries
from motoolsd.wire.messages import Found, Hello, Lookup, Stored, Used
from motoolsd.wire.version import __version__
from tests.cache.scripted import Talk, scripted_daemon
from tests.cache.stamped import hits_told, next_question

TIMEOUT_S = 5.0
LOOKUP = Lookup(kind=Kind.DATASET, keys=["d"])
USED = Used(kind=Kind.DATASET, hits={"d": 1})
LARGE = Used(kind=Kind.DATASET, hits={f"{number:01000}": 1 for number in range(1000)})
"""About as large as notices become, and more than a socket takes at once."""


def connect(directory: Path, timeout_s: float = TIMEOUT_S) -> BlockingConnection:
    """A connection that was greeted."""
    return BlockingConnection(open_socket(str(directory), timeout_s=timeout_s), timeout_s)


class CountingSocket:
    """A socket whose calls are counted."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self.calls: list[str] = []

    def sendall(self, data: bytearray) -> None:
        """Count and send."""
        self.calls.append("send")
        self._socket.sendall(data)

    def recv(self, size: int) -> bytes:
        """Count and receive."""
        self.calls.append("recv")
        return self._socket.recv(size)

    def setsockopt(self, *_: object) -> None:
        """Count."""
        self.calls.append("setsockopt")


def test_greeting_says_who_is_there(cache_dir: Path) -> None:
    """Version, pid and name, for the daemon's log."""
    with scripted_daemon(cache_dir) as daemon:
        connection = connect(cache_dir)
        hello = daemon.requests[0]
        assert isinstance(hello, Hello)
        assert (hello.version, hello.client) == (__version__, "motools.cache")
        assert connection.peer.version == __version__
        connection.close()


def test_round_trip_is_two_system_calls(cache_dir: Path) -> None:
    """One send, one receive: the timeout is kept by the kernel, and set anew only when it changes."""
    with scripted_daemon(cache_dir):
        connection = connect(cache_dir)
        counting = CountingSocket(connection._socket)  # noqa: SLF001 - the calls on it are the promise
        connection._socket = counting  # type: ignore[assignment]  # noqa: SLF001 - as above
        for _ in range(3):
            assert isinstance(connection.exchange(LOOKUP, TIMEOUT_S), Found)
        assert counting.calls == ["send", "recv"] * 3
        connection.close()


def test_refused_greeting_closes_the_socket(cache_dir: Path) -> None:
    """No descriptor stays behind."""
    with scripted_daemon(cache_dir, lambda _: None):
        connected = open_socket(str(cache_dir), timeout_s=TIMEOUT_S)
        with pytest.raises(ConnectionLost):
            BlockingConnection(connected, TIMEOUT_S)
        assert connected.fileno() == -1


def test_answer_to_a_greeting_that_is_no_welcome_is_a_protocol_error(cache_dir: Path) -> None:
    """Whoever answers so is no daemon of ours."""

    def odd(talk: Talk) -> None:
        request = talk.next()
        assert request is not None
        talk.reply(request, Stored())
        talk.wait_until_gone()

    with scripted_daemon(cache_dir, odd), pytest.raises(CacheProtocolError, match="Stored"):
        connect(cache_dir)


def test_pages_that_come_in_one_read_are_all_given(cache_dir: Path) -> None:
    """However the stream is cut into reads."""

    def three_pages(talk: Talk) -> None:
        talk.greet()
        request = talk.next()
        assert request is not None
        for number in range(3):
            talk.reply(request, DatasetPage(items=[], is_last=number == 2))
        talk.serve()

    with scripted_daemon(cache_dir, three_pages):
        connection = connect(cache_dir)
        assert len(connection.collect(ListEntries(kind=Kind.DATASET), TIMEOUT_S)) == 3
        assert isinstance(connection.exchange(LOOKUP, TIMEOUT_S), Found)
        connection.close()


def test_exchange_that_failed_leaves_nothing_to_be_taken_for_the_next_reply(cache_dir: Path) -> None:
    """After a timeout the connection is closed: the late reply would be the next call's."""

    def mute(talk: Talk) -> None:
        talk.greet()
        talk.wait_until_gone()

    with scripted_daemon(cache_dir, mute):
        connection = connect(cache_dir)
        with pytest.raises(DaemonBusy, match=r"within 0\.05 s"):
            connection.exchange(LOOKUP, 0.05)
        assert not connection.is_open


def test_draining_takes_a_daemon_that_ends_before_it_answers(cache_dir: Path) -> None:
    """It did what it was asked."""

    def end(talk: Talk) -> None:
        talk.greet()
        talk.next()

    with scripted_daemon(cache_dir, end) as daemon:
        connection = connect(cache_dir)
        connection.drain("test", TIMEOUT_S)
        assert not connection.is_open
    assert daemon.kinds() == ["Drain"]


def answer_questions(talk: Talk) -> None:
    """Welcome, and answer everything but notices."""
    talk.greet()
    while (request := next_question(talk)) is not None:
        talk.reply(request, Found(values=[b"file"]))


def test_notice_that_is_held_goes_with_the_next_request(cache_dir: Path) -> None:
    """In front of it, in one system call; the answer is the request's."""
    with scripted_daemon(cache_dir, answer_questions) as daemon:
        connection = connect(cache_dir)
        counting = CountingSocket(connection._socket)  # noqa: SLF001 - the calls on it are the promise
        connection._socket = counting  # type: ignore[assignment]  # noqa: SLF001 - as above
        connection.hold([USED])
        connection.hold([USED])
        assert counting.calls == []
        assert connection.exchange(LOOKUP, TIMEOUT_S) == Found(values=[b"file"])
        assert counting.calls == ["send", "recv"]
        assert daemon.kinds() == ["Used", "Used", "Lookup"]
        connection.close()


def test_notice_arrives_without_a_request(cache_dir: Path) -> None:
    """Telling sends it at once."""
    arrived = threading.Event()

    def take_notice(talk: Talk) -> None:
        talk.greet()
        talk.next()
        arrived.set()

    with scripted_daemon(cache_dir, take_notice) as daemon:
        connection = connect(cache_dir)
        connection.tell([USED])
        assert arrived.wait(TIMEOUT_S)
        assert hits_told(daemon) == {"d": 1}
        connection.close()


def test_telling_never_waits_and_what_was_begun_stays_whole(cache_dir: Path) -> None:
    """A daemon that does not read: what its socket takes is sent, nothing is gathered, the rest goes with a request."""
    reads = threading.Event()

    def sleep_then_answer(talk: Talk) -> None:
        talk.greet()
        reads.wait(TIMEOUT_S)
        while (request := next_question(talk)) is not None:
            talk.reply(request, Found(values=[b"file"]))

    with scripted_daemon(cache_dir, sleep_then_answer) as daemon:
        connection = connect(cache_dir)
        begun_s = time.monotonic()
        for _ in range(50):
            connection.tell([LARGE])
        assert time.monotonic() - begun_s < TIMEOUT_S / 5
        assert 0 < len(connection._unsent) < 2 * 1_010_000  # noqa: SLF001 - what is gathered is bounded
        reads.set()
        assert connection.exchange(LOOKUP, TIMEOUT_S) == Found(values=[b"file"])
        connection.close()
        assert 0 < hits_told(daemon)[f"{0:01000}"] < 50


def test_telling_a_daemon_that_is_gone_says_nothing(cache_dir: Path) -> None:
    """The next request will; nor is anything said to a connection that was closed here."""
    with scripted_daemon(cache_dir, Talk.greet):
        connection = connect(cache_dir)
        for _ in range(3):
            connection.tell([USED])
        with pytest.raises(ConnectionLost):
            connection.exchange(LOOKUP, TIMEOUT_S)
        connection.tell([USED])
        connection.hold([USED])
        assert not connection.is_open


def test_notice_that_fits_into_no_frame_is_dropped_alone(cache_dir: Path) -> None:
    """A count is lost, the request behind it is not."""
    with scripted_daemon(cache_dir, answer_questions) as daemon:
        connection = connect(cache_dir)
        connection.hold([Used(kind=Kind.DATASET, hits={"x" * REQUEST_SIZE_MAX: 1})])
        assert connection.exchange(LOOKUP, TIMEOUT_S) == Found(values=[b"file"])
        assert daemon.kinds() == ["Lookup"]
        connection.close()
