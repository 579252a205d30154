"""Malformed input: frames that are none, or none that make sense, at the live daemon; an honest client beside them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from motoolsd.wire.envelopes import OPERATIONS
from motoolsd.wire.errors import RemoteProtocolError
from motoolsd.wire.frames import FRAME_SIZE_MAX, HEADER_SIZE
from motoolsd.wire.messages import PROTOCOL, Hello
from motoolsd.wire.names import SOCKET
from motoolsd.wire.session import ClientSession, ServerSession, State
from tests.daemons import TIMEOUT_S, running
from tests.faults.attack import Attack, Report, scratch
from tests.faults.honest import HonestClient, Usage

GOLDEN: Final = Path(__file__).parents[1] / "wire" / "golden"
FRAMES_PER_ROUND: Final = 1_000
FRAMES_PER_CONNECTION: Final = 40
WARM_ROUNDS: Final = 20
"""By then the daemon has all that it needs."""
GROWTH_MIB: Final = 20.0
HARMFUL: Final = ("drain", "clear", "clear_all", "apply_plan", "empty_trash", "back_up", "make_plan", "break_lease")
"""Requests that are valid, and would do what they say."""
Frame = bytes


def golden_frames() -> dict[str, Frame]:
    """Real requests, by name; without those that would end what is attacked."""
    frames = {path.stem: bytes.fromhex(path.read_text()) for path in sorted(GOLDEN.iterdir())}
    return {name: frame for name, frame in frames.items() if name in OPERATIONS and name not in HARMFUL}


def _framed(payload: bytes) -> Frame:
    return struct.pack(">I", len(payload)) + payload


class Mutator:
    """Makes frames of all kinds of wrong, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        """From real frames, and from nothing."""
        self._random = Random(seed)
        self._golden = golden_frames()
        self._kinds: tuple[Callable[[], Frame], ...] = (
            self._lengths,
            self._nested,
            self._types,
            self._flipped,
            self._flipped,
            self._truncated,
            self._noise,
            self._joined,
            self._huge_counts,
            self._whole,
        )

    def frame(self) -> Frame:
        """The next one."""
        return self._random.choice(self._kinds)()

    def hello(self) -> Frame:
        """A first message: mostly a good one."""
        if self._random.random() < 0.6:
            return bytes(ClientSession().hello(Hello(protocol=PROTOCOL, version="0.1.0")))
        protocol = self._random.choice([0, 2, 99, -1, 2**63, 2**64 - 1, "1", None, 1.5])
        body = {"op": self._random.choice(["hello", "hello", "lookup", ""]), "protocol": protocol, "version": "9.9.9"}
        return _framed(msgspec.msgpack.encode([0, body]))

    def _any_golden(self) -> Frame:
        return self._random.choice(list(self._golden.values()))

    def _lengths(self) -> Frame:
        size = self._random.choice([0, 1, 2**31, 2**32 - 1, FRAME_SIZE_MAX, FRAME_SIZE_MAX + 1, 5])
        return struct.pack(">I", size) + self._random.randbytes(self._random.randrange(64))

    def _nested(self) -> Frame:
        depth = self._random.choice([10, 100, 1_000, 20_000])
        opening = self._random.choice([b"\x91", b"\x81\xa1a", b"\xdd\x00\x00\x00\x01"])
        return _framed(b"\x92\x01" + opening * depth + b"\xc0")

    def _types(self) -> Frame:
        values: list[Any] = [
            None,
            True,
            -1,
            2**64 - 1,
            1.5,
            float("nan"),
            "",
            "x" * 10_000,
            b"\xff",
            [],
            {},
            [[]] * 50,
            {"a": {}},
        ]
        operation = self._random.choice([*self._golden, "nothing", ""])
        names = ["kind", "keys", "request_key", "dataset_hash", "file_id", "criteria", "where", "claim_id", "model_id"]
        body = {"op": operation} | {name: self._random.choice(values) for name in self._random.sample(names, 4)}
        envelope = self._random.choice([[1, body], [body, 1], [1], [], body, [2**70 % 2**64, body, 3], None, 7])
        return _framed(msgspec.msgpack.encode(envelope))

    def _flipped(self) -> Frame:
        frame = bytearray(self._any_golden())
        for _ in range(self._random.randint(1, 8)):
            frame[self._random.randrange(HEADER_SIZE, len(frame))] = self._random.randrange(256)
        return bytes(frame)

    def _truncated(self) -> Frame:
        frame = self._any_golden()
        return _framed(frame[HEADER_SIZE : self._random.randrange(HEADER_SIZE + 1, len(frame))])

    def _noise(self) -> Frame:
        return self._random.randbytes(self._random.randrange(1, 500))

    def _joined(self) -> Frame:
        return self._any_golden() + self._any_golden()[HEADER_SIZE:] + self._flipped()

    def _huge_counts(self) -> Frame:
        """Counts and sizes of which nothing follows: nothing may be allocated for them."""
        head = self._random.choice([b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"])
        return _framed(b"\x92\x01\x82\xa2op\xa6lookup\xa4keys" + head + b"\xff\xff\xff\xf0")

    def _whole(self) -> Frame:
        return self._any_golden()


def attack(report: Report, rounds: range, bug: str | None = None, frames: int = FRAMES_PER_ROUND) -> None:
    """Send them over many connections, and see what the daemon needs, and whether it lives."""
    with scratch() as top:
        directory = top / ".motools"
        directory.mkdir()
        with running(directory, bug=bug) as daemon:
            usage, honest = Usage(daemon.process.pid), HonestClient(directory)
            settled: tuple[float, int] | None = None
            with honest.at_work():
                for number in rounds:
                    is_there = _round(directory, number, frames, report)
                    report.rounds += 1
                    if not is_there:
                        code, words = daemon.wait()
                        report.violate(f"round {number}: the daemon has ended, {code}: {words[-300:]}")
                        report.count("deaths")
                        return
                    if settled is None and number - rounds.start + 1 >= min(WARM_ROUNDS, len(rounds) // 2 + 1):
                        settled = (usage.resident_mib, usage.descriptors)
            report.count("deaths", 0)
            report.expect(not honest.failures, f"honest lookups failed: {honest.failures[:3]}")
            assert settled is not None
            grown_mib, more = usage.resident_mib - settled[0], usage.descriptors - settled[1]
            report.note("memory more than at the start, MiB", grown_mib)
            report.note("descriptors more than at the start", more)
            report.expect(grown_mib <= GROWTH_MIB, f"rounds {rounds}: memory grew by {grown_mib:.1f} MiB")
            # The honest client's own may have come or gone.
            report.expect(more <= 2, f"rounds {rounds}: {more} descriptors more are open")


def _round(directory: Path, number: int, frames: int, report: Report) -> bool:
    """Send so many; whether somebody still listens."""
    mutator = Mutator(number)
    sent = 0
    while sent < frames:
        said = _conversation(mutator, min(FRAMES_PER_CONNECTION, frames - sent))
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_S)
            try:
                connection.connect(str(directory / SOCKET))
            except ConnectionError:
                return False
            with suppress(OSError):
                connection.sendall(b"".join(said))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass
        sent += len(said)
    report.count("frames", sent)
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(directory / SOCKET)) == 0


def _conversation(mutator: Mutator, frames: int) -> list[Frame]:
    """Frames for one connection: the first that ends it is the last, so that each of them is looked at."""
    session = ServerSession()
    said: list[Frame] = []
    while len(said) <= frames:
        said.append(mutator.frame() if said else mutator.hello())
        session.receive_data(said[-1])
        try:
            while session.next_event() is not None:
                if len(said) == 1:
                    session.welcome(version="0.1.0", pid=1, started_by="command")
        except RemoteProtocolError:
            break
        if session.state is State.CLOSED or not session._frames.is_empty():  # noqa: SLF001 - nothing after it is seen
            break
    return said


def feed_framing(data: bytes) -> None:
    """What a coverage-guided fuzzer calls: bytes in two pieces at both ends; only a protocol error may come of it.

    Args:
        data: the first byte says where it is cut.
    """
    cut = data[0] * len(data) // 256 if data else 0
    server, client = ServerSession(), ClientSession()
    for session in (server, client):
        with suppress(RemoteProtocolError):
            for piece in (data[1:cut], data[cut:]):
                session.receive_data(piece)
                while session.next_event() is not None:
                    pass


ATTACK = Attack(
    name="malformed",
    promise="malformed input",
    says="frames with wrong lengths, nesting, types, order, protocols; real ones with wrong bytes; at the live daemon",
    wanted="1,000 rounds of 1,000 frames: 0 deaths, memory +20 MiB at most, descriptors +0, an honest client served",
    rounds=1_000,
    chunk=100,
    run=attack,
)
