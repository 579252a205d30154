"""SIGTERM under load: everybody gets a reply or an end, nothing that was answered is lost, and nothing is left over."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from motools.cache import SyncCache
from motoolsd.wire.errors import RemoteProtocolError
from motoolsd.wire.fields import Page
from motoolsd.wire.keys import Kind
from motoolsd.wire.leases import Claim, Claimed
from motoolsd.wire.listing import ListEntries
from motoolsd.wire.messages import Failure, Found, Lookup, PutDataset, PutModel, Reply, RequestKey, Stored
from motoolsd.wire.names import DATABASE, SOCKET
from tests.daemons import TIMEOUT_S, BlockingGuest, DaemonProcess
from tests.faults.attack import Attack, Report, scratch
from tests.faults.kills import check_database, compare, work_until
from tests.faults.state import Ledger

EXIT_MAX_S: Final = 5.0
CALL_TIMEOUT_S: Final = 10.0
SIGNAL_AFTER_S: Final = (0.0, 0.15)
AT_ONCE: Final = 4
"""In every so manieth round the signal comes as soon as the daemon says that it is ready."""
AGAIN: Final = 3
"""In every so manieth round it is sent again and again until the daemon has ended, as the impatient do."""
UNREAD: Final = 10
"""In every so manieth round somebody asks for a listing and reads nothing: that takes the whole time to drain."""
STEADY: Final = 300
"""Entries that are there all the time; several pages of a listing."""
STORED_AT_ONCE: Final = 100
SETTINGS: Final = "page_rows_max = 20\n"
SLOTS: Final = 4
"""Keys of one writer, and writes that it has open at a time."""
HALVES: Final = (b"\x00", b"\x00\x00\x00\x20\x92\x00", b"")


class Scene(NamedTuple):
    """One round."""

    number: int
    directory: Path
    ledger: Ledger
    report: Report

    def violate(self, text: str) -> None:
        """The promise is broken."""
        self.report.violate(f"round {self.number}: {text}")

    def expect(self, is_so: bool, text: str) -> None:  # noqa: FBT001 - as `Report.expect`
        """Violated if it is not so."""
        self.report.expect(is_so, f"round {self.number}: {text}")


def attack(report: Report, rounds: range, bug: str | None = None) -> None:
    """Load, SIGTERM, a look at what everybody got, and a start on what is left."""
    with scratch() as top:
        directory, ledger = top / ".motools", Ledger()
        directory.mkdir(mode=0o700)
        (directory / "config.toml").write_text(SETTINGS)
        with SyncCache(directory, autostart=False, timeout_s=CALL_TIMEOUT_S) as warm:
            for number in rounds:
                scene = Scene(number, directory, ledger, report)
                with _started(scene, bug) as daemon:
                    if daemon is None:
                        return
                    _round(scene, daemon, warm)
                report.rounds += 1
            last = Scene(rounds.stop, directory, ledger, report)
            with _started(last, bug) as daemon:
                if daemon is not None:
                    compare(directory, warm, ledger, report, "at the end")
        check_database(directory, report)


@contextmanager
def _started(scene: Scene, bug: str | None) -> Iterator[DaemonProcess | None]:
    daemon = DaemonProcess(scene.directory, bug=bug)
    try:
        if daemon.readiness is None or daemon.readiness.failure is not None:
            scene.violate(f"the daemon does not start: {daemon.readiness}")
            yield None
        else:
            yield daemon
    finally:
        daemon.kill()


def _round(scene: Scene, daemon: DaemonProcess, warm: SyncCache) -> None:
    if scene.number % AT_ONCE == AT_ONCE - 1:
        _stop(scene, daemon)
        return
    compare(scene.directory, warm, scene.ledger, scene.report, f"round {scene.number}")
    _store_steady(scene)
    with ExitStack() as opened:
        clients = [client(opened, scene) for client in (Reader, Writer, Writer, Lister, Waiter)]
        silent = _silent_ones(opened, scene)
        threads = [threading.Thread(target=client.run) for client in clients]
        for thread in threads:
            thread.start()

        def end() -> None:
            time.sleep(Random(scene.number).uniform(*SIGNAL_AFTER_S))
            _stop(scene, daemon)

        work_until(end, scene.number, scene.directory, scene.ledger, scene.report)
        for client, thread in zip(clients, threads, strict=True):
            thread.join(TIMEOUT_S)
            scene.expect(not thread.is_alive(), f"a {type(client).__name__.lower()} got no end")
        for name, connection in silent:
            _expect_end(scene, name, connection)


def _store_steady(scene: Scene) -> None:
    """What listings are long of."""
    if scene.ledger.certain("steady") is not None:
        return
    guest = BlockingGuest(scene.directory)
    with guest.socket:
        model: dict[str, Any] = {"config": b"{}", "backend_type": "openai", "model_id": b"model"}
        for first in range(1, STEADY + 1, STORED_AT_ONCE):
            numbers = range(first, first + STORED_AT_ONCE)
            keys = [RequestKey(bytes(16), number, first) for number in numbers]
            guest.send(*(PutModel(request_key=key, dataset_hash=f"steady {key.number}", **model) for key in keys))
            scene.expect({type(guest.receive()) for _ in numbers} == {Stored}, "what is to be listed was not stored")
    with SyncCache(scene.directory, autostart=False, timeout_s=CALL_TIMEOUT_S) as cache:
        cache.set_file_id("steady", "value")
    scene.ledger.acknowledged("steady", "value")


def _stop(scene: Scene, daemon: DaemonProcess) -> None:
    """Ask it to end, and see how it does; it is gone when this returns."""
    began_s = time.monotonic()
    daemon.signal(signal.SIGTERM)
    while scene.number % AGAIN == 0 and daemon.process.poll() is None and time.monotonic() < began_s + EXIT_MAX_S:
        daemon.signal(signal.SIGTERM)
        time.sleep(0.0005)
    with suppress(subprocess.TimeoutExpired):
        daemon.process.wait(max(0.0, began_s + EXIT_MAX_S - time.monotonic()))
    took_s = time.monotonic() - began_s
    if daemon.process.poll() is None:
        scene.violate(f"it is still there after {EXIT_MAX_S:g} s")
        daemon.kill()
        return
    code, said = daemon.wait()
    scene.expect(code == 0, f"it ended with {code}: {said[-300:]}")
    left = [name for name in (f"{DATABASE}-wal", f"{DATABASE}-shm", SOCKET) if (scene.directory / name).exists()]
    scene.expect(not left, f"left over: {', '.join(left)}")
    scene.report.count("stops")
    scene.report.note("longest until the exit, s", took_s)


# ------------------------------------------------------------------------------------------------------- the clients


class Client:
    """One connection, used until its end."""

    def __init__(self, opened: ExitStack, scene: Scene) -> None:
        """Connect."""
        self.scene = scene
        self.guest = BlockingGuest(scene.directory)
        opened.enter_context(self.guest.socket)

    def run(self) -> None:
        """Until the end; whatever else comes is a violation."""
        name = type(self).__name__.lower()
        try:
            self._work()
        except RemoteProtocolError as error:
            self.scene.violate(f"a {name}'s reply was cut: {error}")
        except TimeoutError:
            self.scene.violate(f"a {name} got neither reply nor end")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no end
            self.scene.violate(f"a {name} met {type(error).__name__}: {error}")
        self.scene.report.count("ends seen")

    def _work(self) -> None:
        raise NotImplementedError

    def _send(self, *bodies: Lookup | PutDataset | ListEntries | Claim) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # what was answered before is still to be read
            self.guest.send(*bodies)

    def _receive(self) -> Reply | None:
        """The next reply, or None at the end.

        Raises:
            RemoteProtocolError: the end came in the middle of a reply.
        """
        try:
            return self.guest.receive()
        except ConnectionError:
            self.guest.session.receive_data(b"")
            return None


class Reader(Client):
    """Looks up, four at a time."""

    def _work(self) -> None:
        while True:
            self._send(*[Lookup(kind=Kind.DATASET, keys=["steady"])] * 4)
            for _ in range(4):
                reply = self._receive()
                if reply is None:
                    return
                self.scene.expect(reply == Found(values=[b"value"]), f"a lookup gave {reply}")


class Writer(Client):
    """Writes, `SLOTS` at a time. What was not answered was not taken: it must not be there afterwards."""

    _numbers = iter(range(1, 1 << 62))

    def __init__(self, opened: ExitStack, scene: Scene) -> None:
        """With keys that no other writer of the round has."""
        super().__init__(opened, scene)
        self._name = f"raw {next(self._numbers) % 2}"
        self._client = Random(f"{scene.number}/{self._name}").randbytes(16)

    def _work(self) -> None:
        for step in range(1 << 30):
            first = 1 + step * SLOTS
            items = [(f"{self._name}.{slot}", f"{self.scene.number}.{step}.{slot}") for slot in range(SLOTS)]
            keys = [RequestKey(self._client, first + slot, first) for slot in range(SLOTS)]
            self._send(
                *(
                    PutDataset(request_key=request_key, dataset_hash=key, file_id=value.encode())
                    for request_key, (key, value) in zip(keys, items, strict=True)
                )
            )
            for key, value in items:
                reply = self._receive()
                if reply is None:
                    return
                if self._is_refused(reply):
                    continue
                self.scene.ledger.acknowledged(key, value)
                self.scene.report.count("acknowledged changes")

    def _is_refused(self, reply: Reply) -> bool:
        self.scene.expect(isinstance(reply, Stored), f"a write was answered with {reply}")
        return isinstance(reply, Failure)


class Lister(Client):
    """Reads listings; one that has begun comes to its end."""

    def _work(self) -> None:
        while True:
            self._send(ListEntries(kind=Kind.MODEL))
            count = 0
            while (reply := self._receive()) is not None:
                self.scene.expect(isinstance(reply, Page), f"a listing was answered with {type(reply).__name__}")
                count += len(getattr(reply, "items", ()))
                if not isinstance(reply, Page) or reply.is_last:
                    break
            if reply is None:
                self.scene.expect(count == 0, f"a listing ended after {count} entries")
                return
            self.scene.report.count("whole listings")
            self.scene.expect(count == STEADY, f"{count} entries were listed")


class Waiter(Client):
    """Waits for a key that somebody else computes, until there is an end."""

    def __init__(self, opened: ExitStack, scene: Scene) -> None:
        """Somebody else has the lease."""
        super().__init__(opened, scene)
        holder = BlockingGuest(scene.directory)
        opened.enter_context(holder.socket)
        self._key = f"wait {scene.number}"
        reply = holder.ask(self._claim(b"holder", wait=False))
        scene.expect(isinstance(reply, Claimed), f"a claim was answered with {reply}")

    def _claim(self, name: bytes, *, wait: bool) -> Claim:
        claim_id = (name + b"%d" % self.scene.number).ljust(16, b".")
        return Claim(claim_id=claim_id, context=name, kind=Kind.DATASET, keys=[self._key], wait=wait)

    def _work(self) -> None:
        self._send(self._claim(b"waiter", wait=False))
        if self._receive() is None:
            return
        self._send(self._claim(b"waiter", wait=True))
        reply = self._receive()
        self.scene.expect(reply is None, f"a waiter was answered though nobody is done: {reply}")


def _silent_ones(opened: ExitStack, scene: Scene) -> list[tuple[str, socket.socket]]:
    """Connections that say nothing, half of something, or read nothing."""
    silent = []
    for half in HALVES:
        connection = opened.enter_context(socket.socket(socket.AF_UNIX))
        connection.settimeout(TIMEOUT_S)
        connection.connect(str(scene.directory / SOCKET))
        connection.sendall(half)
        silent.append((f"one that sent {half!r} and no hello", connection))
    idle, half_closed, halfway = (BlockingGuest(scene.directory).socket for _ in range(3))
    half_closed.shutdown(socket.SHUT_WR)
    halfway.sendall(b"\x00\x00\x10\x00half a request")
    silent += [("an idle one", idle), ("one that sends no more", half_closed), ("one in a request", halfway)]
    if scene.number % UNREAD == UNREAD // 2:
        unread = BlockingGuest(scene.directory)
        unread.send(*[ListEntries(kind=Kind.MODEL)] * 20)
        silent.append(("one that does not read", unread.socket))
        scene.report.count("stops beside one that does not read")
    for _, connection in silent[len(HALVES) :]:
        opened.enter_context(connection)
    return silent


def _expect_end(scene: Scene, name: str, connection: socket.socket) -> None:
    """The daemon is gone: what it sent is there, and then the end."""
    try:
        while connection.recv(1 << 20):
            pass
    except TimeoutError:
        scene.violate(f"{name} got no end")
    except ConnectionResetError:
        pass  # it had sent what nobody took: an end as well
    scene.report.count("ends seen")


ATTACK = Attack(
    name="stop",
    promise="a stop is clean",
    says="SIGTERM under writers, readers, listings, waiters and half-open connections; at once, and again and again",
    wanted="200 rounds: a reply or an end for everybody, 0 lost, exit 0 within 5 s, no -wal, the next start works",
    rounds=200,
    chunk=20,
    run=attack,
)
