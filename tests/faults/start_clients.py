"""`python -m tests.faults.start_clients DIR COUNT`: clients that are there already, and call at the same moment.

A process of its own, because it forks and must have no threads: it says "ready" once all clients wait, releases them
when its input ends, and prints what became of each, one JSON text a line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from motools.cache import SyncCache
from tests.daemons import ROOT

CALLS_MAX_S = 60.0
LINE_SIZE_MAX_BYTES = 4_000
"""Less than a pipe takes in one piece: the lines of many processes are not mixed."""


class Result(msgspec.Struct):
    """What became of one client."""

    client: int
    ended_s: float = 0.0
    """On the monotonic clock, which all processes share."""
    pid: int = 0
    """The daemon that answered."""
    error: str = ""


class Prepared:
    """Clients that wait for the word; for whoever attacks with them."""

    def __init__(self, directory: Path, count: int) -> None:
        """Returns once all of them wait."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(directory), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            # Should everything die here, no daemon stays for a quarter of an hour.
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}", "MOTOOLS_IDLE_TIMEOUT": "20"},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def release(self) -> float:
        """Let them call; when that was, on the monotonic clock."""
        assert self._process.stdin is not None
        began_s = time.monotonic()
        self._process.stdin.close()
        return began_s

    def results(self) -> list[Result]:
        """Wait for all of them."""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            found = [msgspec.json.decode(line, type=Result) for line in lines]
        self._process.wait()
        return found


def _prepare(directory: str, count: int) -> None:
    waiting, word = os.pipe()
    arrived, arriving = os.pipe()
    for client in range(count):
        if os.fork() == 0:
            os.close(word)
            os.write(arriving, b".")
            os.close(arriving)
            os.close(arrived)
            os.read(waiting, 1)
            _call(directory, client)
            os._exit(0)
    os.close(arriving)
    there = 0
    while there < count and (said := os.read(arrived, count)):
        there += len(said)
    os.write(1, b"ready\n")
    os.read(0, 1)
    os.close(word)
    for _ in range(count):
        with suppress(ChildProcessError):
            os.wait()


def _call(directory: str, client: int) -> None:
    result = Result(client)
    try:
        cache = SyncCache(directory)
        cache.set_file_id(f"client {client}", "file")
        result.pid = cache.get_status().pid
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        result.error = f"{type(error).__name__}: {error}"[: LINE_SIZE_MAX_BYTES // 4]
    result.ended_s = time.monotonic()
    os.write(1, msgspec.json.encode(result) + b"\n")


if __name__ == "__main__":
    _prepare(sys.argv[1], int(sys.argv[2]))
