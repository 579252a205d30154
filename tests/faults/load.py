"""Load: thousands of half-open connections, clients that never read, no descriptors left, a slow disk.

An honest client is served beside all of it, the daemon's memory stays bounded and comes back, its log is no flood.
"""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from motools.cache import SyncCache
from motools.cache.errors import CacheError
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import ListEntries
from motoolsd.wire.messages import PROTOCOL, Hello
from motoolsd.wire.names import SOCKET
from motoolsd.wire.session import ClientSession
from tests.daemons import TIMEOUT_S, DaemonProcess, running
from tests.faults.attack import Attack, Report, scratch
from tests.faults.honest import HonestClient, Usage
from tests.faults.shim import Shim, open_shim, unavailable
from tests.faults.state import Ledger

P99_S: Final = 0.010
SLOW_DISK_P99_S: Final = 0.050
RESIDENT_MIB: Final = 200.0
BACK_MIB: Final = 30.0
"""What may be more than before, once the load is gone."""
LINES_PER_S: Final = 10
SETTLE_S: Final = 1.5
"""Within which it notices that there are none."""
SPINNING: Final = 0.5
"""Of a core: more is a loop that turns for nothing."""
SYNC_MS: Final = 2_000
ROWS: Final = 3_000
ROW_SIZE_BYTES: Final = 2_000


class Size(NamedTuple):
    """How much of everything."""

    half_open: int
    readers: int
    refused: int
    seconds: float


LONG: Final = Size(half_open=9_900, readers=100, refused=50, seconds=5.0)


class Scene(NamedTuple):
    """One round."""

    directory: Path
    daemon: DaemonProcess
    size: Size
    report: Report
    where: str
    shim: Shim
    usage: Usage

    def expect(self, is_so: bool, text: str) -> None:  # noqa: FBT001 - as `Report.expect`
        """Violated if it is not so."""
        self.report.expect(is_so, f"{self.where}: {text}")

    def connect(self) -> socket.socket:
        """A connection that has said nothing."""
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(TIMEOUT_S)
        ends_s = time.monotonic() + TIMEOUT_S
        while True:
            try:
                made.connect(str(self.directory / SOCKET))
            except BlockingIOError:  # as many wait to be accepted as may
                assert time.monotonic() < ends_s, "nobody is accepted"
                time.sleep(0.01)
            else:
                return made


def attack(report: Report, rounds: range, bug: str | None = None, size: Size = LONG) -> None:
    """One kind of load after the other, each on a daemon of its own."""
    with open_shim() as shim, _many_descriptors():
        for number in rounds:
            kind = KINDS[number % len(KINDS)]
            with scratch() as top:
                directory = top / ".motools"
                directory.mkdir()
                shim.disarm()
                with running(directory, bug=bug, environment=shim.environment) as daemon:
                    where = f"round {number}, {kind.__name__.strip('_').replace('_', ' ')}"
                    scene = Scene(directory, daemon, size, report, where, shim, Usage(daemon.process.pid))
                    _watched(scene, kind)
                    shim.disarm()
            report.rounds += 1


@contextmanager
def _many_descriptors() -> Iterator[None]:
    """This process needs as many as the daemon."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _watched(scene: Scene, kind: Callable[[Scene], None]) -> None:
    """Carry a load out beside an honest client, and judge what it and the daemon went through."""
    before_mib = scene.usage.resident_mib
    honest = HonestClient(scene.directory)
    with honest.at_work():
        kind(scene)
    name = kind.__name__.strip("_").replace("_", " ")
    limit_s = SLOW_DISK_P99_S if kind is _slow_disk else P99_S
    scene.report.note(f"p99 of an honest client beside {name}, ms", 1000 * honest.p99_s)
    scene.report.count("honest lookups", len(honest.took_s))
    scene.expect(not honest.failures, f"{len(honest.failures)} honest lookups failed, such as {honest.failures[:1]}")
    scene.expect(honest.p99_s <= limit_s, f"an honest client's p99 was {1000 * honest.p99_s:.1f} ms")
    scene.expect(scene.daemon.process.poll() is None, "the daemon has ended")
    back_mib = _settled_mib(scene, before_mib)
    scene.report.note(f"memory above the start after {name}, MiB", back_mib - before_mib)
    scene.expect(back_mib <= before_mib + BACK_MIB, f"{back_mib:.0f} MiB stay of {before_mib:.0f} at the start")
    seconds = Counter(line[:19] for line in scene.daemon.log.splitlines() if line[:2] == "20")
    most = max(seconds.values(), default=0)
    scene.report.note("log lines in a second", most)
    # The lines of the start come in its first second.
    scene.expect(most <= LINES_PER_S, f"{most} lines were logged in a second")


def _settled_mib(scene: Scene, before_mib: float) -> float:
    """What it uses once everybody has left; it may take a moment to notice."""
    ends_s = time.monotonic() + TIMEOUT_S
    while (now_mib := scene.usage.resident_mib) > before_mib + BACK_MIB and time.monotonic() < ends_s:
        time.sleep(0.1)
    return now_mib


def _note_memory(scene: Scene) -> None:
    resident_mib = scene.usage.resident_mib
    scene.report.note("memory, MiB", resident_mib)
    scene.expect(resident_mib <= RESIDENT_MIB, f"the daemon uses {resident_mib:.0f} MiB")


def _half_open(scene: Scene) -> None:
    """Connections with half a header, which never send the rest."""
    with ExitStack() as opened:
        for _ in range(scene.size.half_open):
            connection = opened.enter_context(closing(scene.connect()))
            connection.sendall(b"\0\0")
        scene.report.count("half-open connections", scene.size.half_open)
        time.sleep(scene.size.seconds)
        _note_memory(scene)


def _clients_that_never_read(scene: Scene) -> None:
    """Each asks for listings, again and again, and takes no byte of them."""
    with SyncCache(scene.directory, autostart=False, timeout_s=TIMEOUT_S) as cache:
        for number in range(ROWS // 100):
            with cache.claim_dataset(f"rows {number}"):
                pass
        for number in range(ROWS // 10):
            cache.set_file_id(f"row {number}", "x" * ROW_SIZE_BYTES)
    with ExitStack() as opened:
        for _ in range(scene.size.readers):
            connection = opened.enter_context(closing(scene.connect()))
            session = ClientSession()
            connection.sendall(session.hello(Hello(protocol=PROTOCOL, version="0.1.0")))
            while session.next_event() is None:
                session.receive_data(connection.recv(65_536))
            requests = [session.request(ListEntries(kind=Kind.DATASET))[1] for _ in range(30)]
            connection.setblocking(False)
            with suppress(BlockingIOError):
                connection.send(b"".join(requests))
        scene.report.count("clients that never read", scene.size.readers)
        ends_s = time.monotonic() + scene.size.seconds
        while time.monotonic() < ends_s:
            _note_memory(scene)
            time.sleep(0.1)


def _no_descriptors(scene: Scene) -> None:
    """The limit falls to what is open: nobody new is served, nobody who is there notices; then it rises again."""
    pid = scene.daemon.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (scene.usage.descriptors, hard))
    with ExitStack() as opened:
        waiting = [opened.enter_context(closing(scene.connect())) for _ in range(scene.size.refused)]
        time.sleep(SETTLE_S)
        before = scene.usage.cpu_ticks
        time.sleep(scene.size.seconds)
        share = (scene.usage.cpu_ticks - before) / 100 / scene.size.seconds
        scene.report.note("of a core without descriptors", share)
        scene.expect(share <= SPINNING, f"the daemon uses {share:.0%} of a core while it can accept nobody")
        scene.report.count("connections without a descriptor", len(waiting))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        with SyncCache(scene.directory, autostart=False, timeout_s=TIMEOUT_S) as cache:
            try:
                cache.set_file_id("late", "file")
            except CacheError as error:
                scene.report.violate(f"{scene.where}: nobody is served any more: {error}")


def _slow_disk(scene: Scene) -> None:
    """Every sync takes two seconds: lookups do not wait for it, and writes are late, or refused, and never lost."""
    ledger = Ledger()
    scene.shim.arm({"sync"}, k=1, sticky=True, action="delay", delay_ms=SYNC_MS)
    ends_s = time.monotonic() + scene.size.seconds

    def write(writer: int) -> None:
        with SyncCache(scene.directory, autostart=False, timeout_s=TIMEOUT_S, memory_entries=0) as cache:
            step = 0
            while time.monotonic() < ends_s:
                step += 1
                key, value = f"w{writer}", f"{step}"
                ledger.began(key, value)
                with suppress(CacheError):
                    cache.set_file_id(key, value)
                    ledger.acknowledged(key, value)
                    scene.report.count("writes to a slow disk")

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * TIMEOUT_S)
        scene.expect(not thread.is_alive(), "a write did not come back")
    scene.shim.disarm()
    with SyncCache(scene.directory, autostart=False, timeout_s=TIMEOUT_S, memory_entries=0) as cache:
        ledger.judge([(key, cache.get_file_id(key)) for key in ledger.keys], scene.report, scene.where)


KINDS: Final = (_half_open, _clients_that_never_read, _no_descriptors, _slow_disk)
ATTACK = Attack(
    name="load",
    promise="load",
    says="9,900 connections with half a header; clients that never read; no descriptors left; a sync that takes 2 s",
    wanted="an honest client's p99 under 10 ms (slow disk: 50), memory under 200 MiB and back, 10 log lines a second",
    rounds=20,
    chunk=4,
    run=attack,
    unavailable=unavailable,
)
