"""Versions: frames of earlier versions at today's daemon, other protocols on both sides: served or refused in words."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from motools.cache import SyncCache
from motools.cache.errors import CacheError, VersionMismatch
from motoolsd.wire.envelopes import OPERATIONS
from motoolsd.wire.frames import HEADER, HEADER_SIZE
from motoolsd.wire.names import SOCKET
from tests.daemons import TIMEOUT_S, BlockingGuest, running
from tests.faults.attack import Attack, Report, scratch
from tests.faults.malformed import GOLDEN, HARMFUL

EARLIER: Final = GOLDEN.parent / "golden_earlier"
KEPT: Final = ("join", "hello", "use", "end_use")
"""Greetings, and requests that belong to the connection that made them."""
NOTICES: Final = ("used", "missed", "introduce")
"""What is not answered: the request after it is."""
OWN_ANSWERS: Final = {"failure", "missed"}
"""What any request may be answered with."""


class Case(NamedTuple):
    """One exchange with another version."""

    name: str
    act: Callable[[Report, str, Path, str | None], None]


class Plain:
    """A client that knows frames and MessagePack, and nothing of today's messages."""

    def __init__(self, directory: Path) -> None:
        """Connect."""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect(str(directory / SOCKET))

    def send(self, frame: bytes) -> None:
        """A whole frame."""
        self.socket.sendall(frame)

    def receive(self) -> Any:  # noqa: ANN401 - whatever it is
        """The next frame; None at the end."""
        head = self._exactly(HEADER_SIZE)
        return None if head is None else msgspec.msgpack.decode(self._exactly(HEADER.unpack(head)[0]) or b"\xc0")

    def ask(self, envelope: list[Any]) -> Any:  # noqa: ANN401
        """A request, and the first reply."""
        payload = msgspec.msgpack.encode(envelope)
        self.send(HEADER.pack(len(payload)) + payload)
        return self.receive()

    def _exactly(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            if not (piece := self.socket.recv(size - len(data))):
                return None
            data += piece
        return data


def _earlier_frames() -> Iterator[tuple[str, bytes]]:
    for path in (*sorted(GOLDEN.iterdir()), *sorted(EARLIER.iterdir())):
        operation = path.name.split(".")[0]
        if operation in OPERATIONS and operation not in (*HARMFUL, *KEPT):
            yield path.name.removesuffix(".hex"), bytes.fromhex(path.read_text())


def _frame_is_served(name: str, frame: bytes) -> Case:
    """A request as an earlier version wrote it gets an answer of today's, to that very request."""

    def act(report: Report, where: str, directory: Path, bug: str | None) -> None:
        with running(directory, bug=bug), BlockingGuest(directory).socket as greeted:
            greeted.sendall(frame)
            client = Plain.__new__(Plain)
            client.socket = greeted
            if name.split(".", maxsplit=1)[0] in NOTICES:
                answer = client.ask([99, {"op": "get_status"}])
                report.expect(answer[0] == 99 and answer[1]["op"] == "status", f"{where}: {name}: {answer}")
                return
            answer = client.receive()
            number = msgspec.msgpack.decode(frame[HEADER_SIZE:])[0]
            is_answer = isinstance(answer, list) and answer[0] == number and isinstance(answer[1], dict)
            report.expect(is_answer, f"{where}: {name} of an earlier version was answered with {answer!r}")
            if not is_answer:
                return
            operation, expected = answer[1]["op"], _answers(name.split(".", maxsplit=1)[0])
            report.expect(operation in expected | OWN_ANSWERS, f"{where}: {name} was taken for {operation}")
            if operation == "failure":
                report.expect(len(answer[1]["message"]) > 10, f"{where}: {name} was refused without words")
                report.expect(
                    answer[1]["code"] not in ("protocol_error", "unknown_operation"), f"{where}: {name}: {answer[1]}"
                )

    return Case(f"frame {name}", act)


def _answers(operation: str) -> set[str]:
    """What a request may be answered with, by the kinds of requests."""
    by_request = {
        "lookup": {"found"}, "list": {"dataset_page", "model_page", "eval_page"}, "get_stats": {"stats"},
        "get_sizes": {"sizes", "progress"}, "get_status": {"status"}, "get_usage": {"usage"}, "claim": {"claimed"},
        "put_dataset": {"stored"}, "put_model": {"stored"}, "put_evals": {"stored"}, "release": {"released"},
        "fail": {"released"}, "list_leases": {"lease_page"}, "list_misses": {"miss_page"}, "show": {"details"},
        "explain": {"explanation"}, "get_lineage": {"lineage"}, "compare": {"comparison"},
        "list_trash": {"trash_page"}, "pin": {"pinned"}, "verify": {"finding_page", "progress"},
        "undo": {"cleaned", "progress"}, "invalidate": {"invalidated"},
    }  # fmt: skip
    return by_request.get(operation, set())


def _hello_of(protocol: int, version: str) -> Case:
    """A client of another protocol is refused in words that name both; of this one, with fields to come, served."""

    def act(report: Report, where: str, directory: Path, bug: str | None) -> None:
        with running(directory, bug=bug):
            client = Plain(directory)
            with client.socket:
                hello = {"op": "hello", "protocol": protocol, "version": version, "what_is_to_come": {"a": [1]}}
                answer = client.ask([0, hello])
                if protocol == 1:
                    report.expect(answer[1]["op"] == "welcome", f"{where}: {answer}")
                    answer = client.ask([1, {"op": "lookup", "kind": "dataset", "keys": ["a"], "more": [None]}, "more"])
                    report.expect(answer == [1, answer[1]] and answer[1]["op"] == "found", f"{where}: {answer}")
                    answer = client.ask([2, {"op": "what_is_to_come", "keys": ["a"]}])
                    report.expect(answer[1].get("code") == "unknown_operation", f"{where}: {answer}")
                    report.expect("older" in answer[1].get("message", ""), f"{where}: {answer}")
                    return
                report.expect(answer is not None and answer[1]["op"] == "failure", f"{where}: {answer}")
                words = answer[1].get("message", "") if answer is not None else ""
                report.expect(str(protocol) in words and version in words and "install" in words, f"{where}: {words!r}")
                report.expect(client.receive() is None, f"{where}: the conversation went on")

    return Case(f"hello of protocol {protocol}", act)


def _daemon_of(name: str, welcome: dict[str, Any], answer: dict[str, Any] | None) -> Case:
    """Today's client at another daemon: it understands what it can, and says what it cannot."""

    def act(report: Report, where: str, directory: Path, bug: str | None) -> None:
        del bug  # it is the other side that is another here
        directory.mkdir()
        with _scripted(directory, welcome, answer), SyncCache(directory, autostart=False, timeout_s=5.0) as cache:
            try:
                value = cache.get_file_id("a")
            except VersionMismatch as error:
                report.expect(welcome["op"] == "failure", f"{where}: refused: {error}")
                report.expect("install" in str(error), f"{where}: no way out is named: {error}")
            except CacheError as error:
                report.expect(answer is None or "values" not in answer, f"{where}: {type(error).__name__}: {error}")
                report.count("refused in words")
            else:
                report.expect(answer is not None and value == "v", f"{where}: it was read as {value!r}")

    return Case(name, act)


@contextmanager
def _scripted(directory: Path, welcome: dict[str, Any], answer: dict[str, Any] | None) -> Iterator[None]:
    """A daemon that greets, answers each request alike, and ends with the block."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(directory / SOCKET))
    listening.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                other = Plain.__new__(Plain)
                other.socket = connection
                connection.settimeout(TIMEOUT_S)
                try:
                    hello = other.receive()
                    other.send(_frame([0 if hello is None else hello[0], welcome]))
                    while (request := other.receive()) is not None:
                        if answer is not None:
                            other.send(_frame([request[0], answer, "more"]))
                except OSError:
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(TIMEOUT_S)


def _frame(envelope: list[Any]) -> bytes:
    payload = msgspec.msgpack.encode(envelope)
    return HEADER.pack(len(payload)) + payload


FIRST_WELCOME: Final = {"op": "welcome", "protocol": 1, "version": "0.0.1", "pid": 1}
LATER_WELCOME: Final = {**FIRST_WELCOME, "version": "9.9.9", "what_is_to_come": [1, {"a": 2}], "features": ["x", "y"]}
MISMATCH: Final = {
    "op": "failure",
    "code": "version_mismatch",
    "message": "the client speaks protocol 1, this daemon speaks 2: install the same version",
}
CASES: Final = (
    *(_frame_is_served(name, frame) for name, frame in _earlier_frames()),
    *(_hello_of(protocol, "9.9.9") for protocol in (0, 1, 2, 2**31)),
    _daemon_of("a daemon of the first version", FIRST_WELCOME, {"op": "found", "values": [b"v"]}),
    _daemon_of("a later daemon", LATER_WELCOME, {"op": "found", "values": [b"v"], "more": {"a": 1}}),
    _daemon_of("a daemon of another protocol", MISMATCH, None),
    _daemon_of("a daemon that answers something else", FIRST_WELCOME, {"op": "what_is_to_come", "value": b"v"}),
    _daemon_of("a daemon that does not know lookups", FIRST_WELCOME, {
        "op": "failure", "code": "unknown_operation", "message": "this daemon does not know the operation lookup",
    }),
    _daemon_of("a later daemon with a code to come", LATER_WELCOME, {
        "op": "failure", "code": "what_is_to_come", "message": "something that did not exist yet has happened",
    }),
)  # fmt: skip


def attack(report: Report, rounds: range, bug: str | None = None) -> None:
    """One exchange after the other, each with a daemon of its own."""
    for number in rounds:
        case = CASES[number % len(CASES)]
        with scratch() as top:
            case.act(report, f"round {number}, {case.name}", top / ".motools", bug)
        report.count("exchanges")
        report.rounds += 1


ATTACK = Attack(
    name="versions",
    promise="versions",
    says="frames of earlier versions, fields and operations to come, other protocols, on both sides",
    wanted="every exchange: served, or refused in words, never misread",
    rounds=len(CASES),
    chunk=len(CASES),
    run=attack,
)
