"""Servers that the suite starts for itself, on Unix sockets."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 10.0
PAUSE_S = 0.01
LOG_TAIL_CHARACTERS = 2_000


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """A short path for files and a socket; removed whatever happens."""
    path = Path(tempfile.mkdtemp(prefix="mtb-"))
    try:
        yield path
    finally:
        # A server that has just ended may still be removing a file of its own.
        shutil.rmtree(path, ignore_errors=True)


def missing_command(name: str, package: str) -> str | None:
    """Why a server cannot be started; None if it can."""
    return None if shutil.which(name) else f"no {name} on PATH (Debian: apt install {package})"


@contextmanager
def run_server(command: list[str], address: Path) -> Iterator[None]:
    """Start a server and wait until it accepts connections; stop it in the end.

    It has a session of its own, as the daemon does: the kernel's scheduler may give each session its share.

    Raises:
        RuntimeError: it does not start.
    """
    log = address.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=address.parent, start_new_session=True
        )
    try:
        _wait_until_up(process, command[0], address, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_up(process: subprocess.Popen[bytes], name: str, address: Path, log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not _accepts(address):
        if process.poll() is not None or time.monotonic() > deadline_s:
            tail = log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
            raise RuntimeError(f"{name} does not start. The end of its output:\n{tail}")
        time.sleep(PAUSE_S)


def _accepts(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(address))
        except OSError:
            return False
    return True
