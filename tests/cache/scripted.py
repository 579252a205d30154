"""A daemon that does what a script says: a thread with a Unix socket, built on the real server session.

Each accepted connection runs the next script, the last one again and again; a script is a function of a `Talk`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from motoolsd.wire.cleaning import EndUse, Use
from motoolsd.wire.envelopes import ReplyEnvelope, RequestEnvelope
from motoolsd.wire.errors import ErrorCode, RemoteProtocolError
from motoolsd.wire.explaining import Introduce, Missed
from motoolsd.wire.keys import Kind
from motoolsd.wire.leases import Released
from motoolsd.wire.messages import (
    Clear,
    ClearAll,
    Cleared,
    Drain,
    Draining,
    Failure,
    Found,
    GetStatus,
    Hello,
    Lookup,
    Reply,
    Request,
    Status,
    Stored,
)
from motoolsd.wire.names import SOCKET
from motoolsd.wire.session import Refused, ServerSession, encode_frame
from motoolsd.wire.version import __version__

JOIN_TIMEOUT_S = 10.0
CLEARED = {Kind.DATASET: 1, Kind.MODEL: 2, Kind.EVAL: 3}


class Talk:
    """One connection, as a script sees it."""

    def __init__(self, daemon: ScriptedDaemon, connection: socket.socket) -> None:
        self.daemon = daemon
        self.connection = connection
        self.session = ServerSession()

    def greet(self, *, version: str = __version__, started_by: str = "command") -> None:
        """Take the hello and welcome the client."""
        hello = self.next()
        if hello is None:
            return
        assert isinstance(hello.body, Hello)
        self.reply(hello, self.session.welcome(version=version, pid=os.getpid(), started_by=started_by))

    def next(self) -> RequestEnvelope | None:
        """The next request, or None when the client has gone. Who asks, and what lookups were about, is kept aside."""
        while (request := self._next()) is not None and isinstance(request.body, Introduce | Missed):
            self.daemon.told.append(request.body)
        if request is not None:
            self.daemon.requests.append(request.body)
        return request

    def _next(self) -> RequestEnvelope | None:
        while (event := self.session.next_event()) is None:
            data = self.connection.recv(65536)
            if not data:
                return None
            self.session.receive_data(data)
        assert not isinstance(event, Refused), event
        return event

    def reply(self, request: RequestEnvelope, body: Reply) -> None:
        """Answer it."""
        self.send(encode_frame(ReplyEnvelope(request.id, body)))

    def send(self, data: bytes | bytearray) -> None:
        """Put bytes on the wire, whatever they are."""
        self.connection.sendall(data)

    def serve(self) -> None:
        """Answer everything as a daemon would, until the client goes."""
        while (request := self.next()) is not None:
            self.reply(request, answer_to(request.body))

    def wait_until_gone(self) -> None:
        """Say nothing more until the client goes."""
        while self.next() is not None:
            pass


def answer_to(request: Request) -> Reply:
    """What a daemon with all entries in the world would say: the value of key k is `value of k`."""
    match request:
        case Lookup():
            return Found(values=[f"value of {key}".encode() for key in request.keys])
        case Drain():
            return Draining()
        case GetStatus():
            return Status(pid=1, version="0", socket=b"s", uptime_s=1.0, clients=1, entries=0)
        case Clear():
            return _cleared(request.kind)
        case ClearAll():
            return _cleared(*Kind)
        case Use() | EndUse():
            return Released(count=1)
    if type(request).__name__.startswith("Put"):
        return Stored()
    return Failure(code=ErrorCode.INVALID_REQUEST, message=f"the script has no answer to {type(request).__name__}")


def _cleared(*kinds: Kind) -> Cleared:
    datasets, models, evals = (CLEARED[kind] if kind in kinds else 0 for kind in Kind)
    return Cleared(datasets=datasets, models=models, evals=evals)


Script = Callable[[Talk], None]


def serve(talk: Talk) -> None:
    """Welcome, and answer everything."""
    talk.greet()
    talk.serve()


def silent(talk: Talk) -> None:
    """Welcome, and never answer."""
    talk.greet()
    talk.wait_until_gone()


class ScriptedDaemon:
    """The listening socket and the threads behind it. Made by `scripted_daemon`.

    Attributes:
        requests: everything that came, in order, over all connections.
        told: what else was told, and wants no answer.
        accepted: how many connections there were.
    """

    def __init__(self, directory: Path, scripts: tuple[Script, ...]) -> None:
        self.directory = directory
        self.requests: list[Request] = []
        self.told: list[Introduce | Missed] = []
        self.accepted = 0
        self.failures: list[BaseException] = []
        self._scripts = scripts
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(directory / SOCKET))
        self._listening.listen(128)
        self._start(self._accept)

    def kinds(self) -> list[str]:
        """The names of the requests that came, hellos left out."""
        return [type(request).__name__ for request in self.requests if not isinstance(request, Hello)]

    def close(self) -> None:
        """Cut everything, and wait for the threads."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(JOIN_TIMEOUT_S)
            assert not thread.is_alive(), "a script hangs"
        self._listening.close()

    def _start(self, function: Callable[[], None]) -> None:
        thread = threading.Thread(target=function, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            script = self._scripts[min(self.accepted, len(self._scripts) - 1)]
            self.accepted += 1
            self._connections.append(connection)
            self._start(lambda connection=connection, script=script: self._run(connection, script))  # type: ignore[misc]

    def _run(self, connection: socket.socket, script: Script) -> None:
        with connection:
            try:
                script(Talk(self, connection))
            except (OSError, RemoteProtocolError):
                # The client went, or the test is over.
                pass
            except BaseException as error:  # noqa: BLE001 - shown by the test that wrote the script
                self.failures.append(error)


@contextlib.contextmanager
def scripted_daemon(directory: Path, *scripts: Script) -> Iterator[ScriptedDaemon]:
    """A daemon in a directory, made if it is missing, for as long as the block lasts."""
    directory.mkdir(exist_ok=True)
    (directory / SOCKET).unlink(missing_ok=True)
    daemon = ScriptedDaemon(directory, scripts or (serve,))
    try:
        yield daemon
    finally:
        daemon.close()
    assert daemon.failures == []
