"""One daemon: a hundred clients start at once beside what a dead one has left, and one process becomes the daemon."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from motoolsd.wire.names import LOCK, SOCKET, START_LOCK
from tests.daemons import wait_for_end
from tests.faults.attack import Attack, Report, scratch

CLIENTS: Final = 100
WITHIN_S: Final = 2.0
TIMEOUT_S: Final = 120.0
CROWD: Final = Path(__file__).with_name("crowd.py")


def attack(report: Report, rounds: range, bug: str | None = None, clients: int = CLIENTS) -> None:
    """Let them start in a new directory, which a killed daemon has left."""
    for number in rounds:
        with scratch() as top:
            directory = top / ".motools"
            _leave(directory)
            try:
                _round(report, f"round {number}", directory, clients, bug)
            finally:
                for pid in daemons_of(directory):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    wait_for_end(pid)
        report.rounds += 1


def _leave(directory: Path) -> None:
    """A socket on which nobody listens, and the lock files of a process that is gone."""
    directory.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(directory / SOCKET))
    (directory / LOCK).write_text('{"pid": 999999999, "start_time": 1, "boot_id": "another"}\n')
    (directory / START_LOCK).touch()


def _round(report: Report, where: str, directory: Path, clients: int, bug: str | None) -> None:
    command = [sys.executable, str(CROWD), str(directory), str(clients), *([bug] if bug is not None else [])]
    environment = {**os.environ, "PYTHONPATH": str(CROWD.parents[2])}
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    report.count("clients", len(answers))
    report.expect(len(answers) == clients, f"{where}: {len(answers)} of {clients} clients came back")
    for answer in answers:
        report.expect(not answer["error"], f"{where}: a client failed: {answer['error']}")
        report.note("first answer, s", answer["took_s"])
    slow = sum(answer["took_s"] > WITHIN_S for answer in answers)
    report.expect(slow == 0, f"{where}: {slow} clients waited for more than {WITHIN_S:g} s")
    pids = {answer["pid"] for answer in answers} - {None}
    running = daemons_of(directory)
    report.expect(len(pids) == 1, f"{where}: {len(pids)} daemons have answered")
    report.expect(len(running) == 1, f"{where}: {len(running)} daemons run")
    started = (directory / "motoolsd.log").read_text().count(" serves ")
    report.expect(started == 1, f"{where}: {started} daemons have served")


def daemons_of(directory: Path) -> list[int]:
    """The processes that serve a directory, whatever its lock says."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with suppress(OSError):
                arguments = (process / "cmdline").read_bytes().split(b"\0")
                if b"serve" in arguments and os.fsencode(directory) in arguments:
                    found.append(int(process.name))
    return found


ATTACK = Attack(
    name="one-daemon",
    promise="one daemon",
    says="100 clients start at once beside a stale socket and stale locks",
    wanted="20 rounds, 1 daemon, 0 failed, under 2 s",
    rounds=20,
    chunk=5,
    run=attack,
)
