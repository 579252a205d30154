"""However many clients find no daemon at the same moment, one is started, beside whatever a dead one has left."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from motools.cache import SyncCache
from motoolsd.wire.names import LOCK, LOG, SOCKET, START_LOCK
from tests.daemons import DaemonProcess, wait_for_end
from tests.e2e.daemons import is_alive
from tests.faults.attack import Attack, Report, scratch
from tests.faults.start_clients import Prepared, Result

CLIENTS: Final = 100
WANTED_S: Final = 2.0
ROUND_MAX_S: Final = 10.0
"""A machine that is busy with other things is given this much."""
RIVALS: Final = 2
"""Daemons that are started by hand at the same moment, in every other round: they know of no start lock."""
SERVES: Final = re.compile(r" serves .*, pid (\d+), ")


def fresh(_directory: Path) -> None:
    """Nothing is there."""


def stale(directory: Path) -> None:
    """A socket that nobody listens at, the lock file of a process that is gone, and a start lock that nobody holds."""
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / SOCKET))
    (directory / SOCKET).chmod(0o600)
    (directory / LOCK).write_text(json.dumps({"pid": _ended_pid(), "start_time": 7, "version": "0.0.1"}))
    (directory / START_LOCK).touch(mode=0o600)


def garbled(directory: Path) -> None:
    """The same, after a crash of the machine: blocks of zeros."""
    stale(directory)
    (directory / LOCK).write_bytes(bytes(4096))


def killed(directory: Path) -> None:
    """What `kill -9` has left, the write-ahead log with an acknowledged entry among it."""
    directory.mkdir(mode=0o700)
    daemon = DaemonProcess(directory)
    with SyncCache(directory, autostart=False) as cache:
        cache.set_file_id("before", "file")
    daemon.kill()
    assert (directory / SOCKET).is_socket()
    (directory / LOG).unlink()


LEFT: Final[tuple[Callable[[Path], None], ...]] = (stale, stale, killed, killed, garbled, fresh)
"""By turns; of those that come twice, the second has rivals."""


def _ended_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def attack(report: Report, rounds: range, bug: str | None = None, clients: int = CLIENTS) -> None:
    """Prepare clients, release them together, and count daemons."""
    for number in rounds:
        left = LEFT[number % len(LEFT)]
        with scratch() as top:
            directory = top / ".motools"
            left(directory)
            where = f"round {number}, {left.__name__}"
            prepared = Prepared(directory, clients)
            try:
                _round(report, where, directory, prepared, rivals=RIVALS * (number % 2), bug=bug, clients=clients)
            finally:
                _end_all(directory)
        report.rounds += 1


def _round(
    report: Report, where: str, directory: Path, prepared: Prepared, *, rivals: int, bug: str | None, clients: int
) -> None:
    with ThreadPoolExecutor(max(rivals, 1)) as pool:
        directory.mkdir(mode=0o700, exist_ok=True)
        starting = [pool.submit(DaemonProcess, directory, bug=bug) for _ in range(rivals)]
        began_s = prepared.release()
        results = prepared.results()
        others = [one.result() for one in starting]
    try:
        _judge(report, where, directory, results, took_s=max(one.ended_s for one in results) - began_s, clients=clients)
    finally:
        for other in others:
            other.kill()


def _judge(report: Report, where: str, directory: Path, results: list[Result], *, took_s: float, clients: int) -> None:
    for one in results:
        report.expect(not one.error, f"{where}: client {one.client} failed: {one.error}")
    report.expect(len(results) == clients, f"{where}: of {clients} clients {len(results)} came back")
    answered = {one.pid for one in results if not one.error}
    served = _served(directory)
    report.expect(len(served) == 1, f"{where}: {len(served)} daemons served: {served}")
    report.expect(answered == set(served), f"{where}: clients were answered by {answered}, {served} served")
    report.expect(took_s <= ROUND_MAX_S, f"{where}: it took {took_s:.1f} s")
    report.count("clients", len(results))
    report.count("clients that failed", sum(bool(one.error) for one in results))
    report.count("daemons", len(served))
    report.count(f"rounds over {WANTED_S:g} s", took_s > WANTED_S)
    report.note("last client done, s", took_s)
    with SyncCache(directory, autostart=False) as cache:
        names = [*(f"client {one.client}" for one in results if not one.error)]
        lost = [name for name in names if cache.get_file_id(name) != "file"]
        report.expect(not lost, f"{where}: acknowledged and lost: {lost}")


def _served(directory: Path) -> list[int]:
    """The pids of all that came to serve, from the log that they share."""
    try:
        return [int(pid) for pid in SERVES.findall((directory / LOG).read_text(errors="replace"))]
    except FileNotFoundError:
        return []


def _end_all(directory: Path) -> None:
    for pid in _served(directory):
        with suppress(ProcessLookupError, FileNotFoundError):
            if is_alive(pid) and os.fsencode(directory) in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
                wait_for_end(pid)


ATTACK = Attack(
    name="one_daemon",
    promise="one daemon a directory",
    says="100 prepared clients call at once, beside stale sockets and locks, and beside daemons started by hand",
    wanted="20 rounds, 1 daemon, 0 failed clients, under 2 s from the first call to the last answer",
    rounds=20,
    chunk=5,
    run=attack,
)
