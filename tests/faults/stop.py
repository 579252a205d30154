"""SIGTERM under load: every client gets a reply or an end, the daemon exits soon, and leaves no write-ahead log."""

from __future__ import annotations

import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final

from motools.cache import SyncCache
from motools.cache.errors import CacheError
from motoolsd.wire.names import SOCKET
from tests.daemons import DaemonProcess
from tests.faults.attack import Attack, Report, scratch
from tests.faults.kills import CALL_TIMEOUT_S, check_database, compare, work_until
from tests.faults.state import Ledger

EXIT_S: Final = 5.0
STOP_AFTER_S: Final = (0.02, 0.2)
HALF_OPEN: Final = 5
WAITED_FOR: Final = "waited for"
JOIN_S: Final = 30.0


class Bystanders:
    """Clients that do not write: one holds a lease, others wait for it, list, or have sent half a frame."""

    def __init__(self, directory: Path, report: Report, where: str) -> None:
        """Nothing is asked yet."""
        self._directory = directory
        self._report = report
        self._where = where
        self._held = threading.Event()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=one) for one in (self._hold, self._wait, self._wait, self._list)]
        self._half_open: list[socket.socket] = []

    def start(self) -> None:
        """All of them are there when it returns."""
        for thread in self._threads:
            thread.start()
            if thread is self._threads[0]:
                self._held.wait(CALL_TIMEOUT_S)
        for _ in range(HALF_OPEN):
            half = socket.socket(socket.AF_UNIX)
            half.connect(str(self._directory / SOCKET))
            half.sendall(b"\0\0")
            self._half_open.append(half)

    def end(self) -> None:
        """The daemon is gone: each of them must have noticed."""
        self._ended.set()
        for thread in self._threads:
            thread.join(JOIN_S)
            self._report.expect(not thread.is_alive(), f"{self._where}: a client still waits for the daemon")
        for half in self._half_open:
            half.settimeout(1.0)
            try:
                self._report.expect(half.recv(1) == b"", f"{self._where}: half a frame was answered")
            except ConnectionError:
                pass
            except TimeoutError:
                self._report.violate(f"{self._where}: a half-open connection was left open")
            half.close()

    def _client(self) -> SyncCache:
        return SyncCache(self._directory, autostart=False, timeout_s=CALL_TIMEOUT_S, memory_entries=0)

    def _hold(self) -> None:
        with suppress(CacheError), self._client() as cache, cache.claim_dataset(WAITED_FOR):
            self._held.set()
            self._ended.wait(JOIN_S)

    def _wait(self) -> None:
        with self._client() as cache:
            try:
                with cache.claim_dataset(WAITED_FOR, timeout_s=CALL_TIMEOUT_S) as claim:
                    self._report.expect(not claim.is_owner, f"{self._where}: two hold one lease")
            except CacheError:
                self._report.count("waiting clients that were told")

    def _list(self) -> None:
        with self._client() as cache:
            try:
                while not self._ended.is_set():
                    list(cache.list_datasets())
            except CacheError:
                pass


def attack(report: Report, rounds: range, bug: str | None = None) -> None:
    """Stop, start again, and look for everything that was answered."""
    with scratch() as top:
        directory, ledger = top / ".motools", Ledger()
        directory.mkdir()
        with SyncCache(directory, autostart=False, timeout_s=CALL_TIMEOUT_S) as warm:
            for number in rounds:
                daemon = DaemonProcess(directory, bug=bug)
                try:
                    if daemon.readiness is None or daemon.readiness.failure is not None:
                        report.violate(f"round {number}: the daemon does not start: {daemon.readiness}")
                        return
                    compare(directory, warm, ledger, report, f"round {number}")
                    _work_and_stop(number, daemon, ledger, report)
                finally:
                    if daemon.process.poll() is None:
                        daemon.kill()
                report.rounds += 1
        check_database(directory, report)


def _work_and_stop(number: int, daemon: DaemonProcess, ledger: Ledger, report: Report) -> None:
    where = f"round {number}"
    bystanders = Bystanders(daemon.directory, report, where)
    bystanders.start()

    def stop() -> None:
        time.sleep(Random(number).uniform(*STOP_AFTER_S))
        began_s = time.monotonic()
        daemon.signal(signal.SIGTERM)
        code, said = daemon.wait()
        took_s = time.monotonic() - began_s
        report.note("exit, s", took_s)
        report.expect(took_s <= EXIT_S, f"{where}: it took {took_s:.1f} s to end")
        report.expect(code == 0, f"{where}: exit code {code}: {said[-300:]}")
        left = [name for name in ("cache.db-wal", "cache.db-shm", SOCKET) if (daemon.directory / name).exists()]
        report.expect(not left, f"{where}: {', '.join(left)} was left")

    try:
        work_until(stop, number, daemon.directory, ledger, report)
    finally:
        bystanders.end()


ATTACK = Attack(
    name="stop",
    promise="stop",
    says="SIGTERM under writes, clears, leases, waiting clients, a listing and half-open connections",
    wanted="200 rounds: every client gets a reply or an end, exit in 5 s, no -wal left, 0 lost",
    rounds=200,
    chunk=20,
    run=attack,
)
