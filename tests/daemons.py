"""A daemon in a process of its own, and a blocking client of it."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from motoolsd.wire.messages import PROTOCOL, Failure, Hello, Reply, Request
from motoolsd.wire.names import LOG, SOCKET
from motoolsd.wire.readiness import Readiness
from motoolsd.wire.session import ClientSession

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 15.0
"""Longer than anything here takes on a busy machine."""


class BlockingGuest:
    """A client without a loop."""

    def __init__(self, directory: Path, name: str = SOCKET) -> None:
        """Connect to a socket of the directory and say hello."""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT_S)
        descriptor = os.open(directory, os.O_PATH)
        try:
            self.socket.connect(f"/proc/self/fd/{descriptor}/{name}")  # the path itself may be too long
        finally:
            os.close(descriptor)
        self.session = ClientSession()
        self.socket.sendall(self.session.hello(Hello(protocol=PROTOCOL, version="0.1.0")))
        self.receive()

    def send(self, *bodies: Request) -> None:
        """Send requests, all at once."""
        self.socket.sendall(b"".join(self.session.request(body)[1] for body in bodies))

    def receive(self) -> Reply:
        """The next reply; raises ConnectionError at the end."""
        while (reply := self.session.next_event()) is None:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionResetError
            self.session.receive_data(data)
        return reply.body

    def ask(self, body: Request) -> Reply:
        """One request, one reply."""
        self.send(body)
        return self.receive()


class DaemonProcess:
    """`motoolsd serve`, started and heard out."""

    def __init__(
        self, directory: Path, *options: str, bug: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it; `readiness` is what it says to its starter.

        Args:
            directory: to serve.
            options: of `motoolsd serve`.
            bug: one of `tests.faults.planted`.
            environment: beside ours.
        """
        self.directory = directory
        reader, writer = os.pipe()
        module = ["motoolsd"] if bug is None else ["tests.faults.planted", bug]
        command = [sys.executable, "-P", "-m", *module, "serve", "-d", str(directory), "--ready-fd", str(writer)]
        # No pipe: a daemon under attack may say more than one holds, and would wait for a reader.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._words = ""
        self.process = subprocess.Popen(
            [*command, *options],
            pass_fds=[writer],
            stderr=self._said,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        )
        os.close(writer)
        self.readiness = _read_readiness(reader)

    @property
    def failure(self) -> Failure:
        """Why it does not start."""
        assert self.readiness is not None
        assert self.readiness.failure is not None, self.readiness
        return self.readiness.failure

    @property
    def log(self) -> str:
        """Its log so far."""
        return (self.directory / LOG).read_text()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        self.process.send_signal(number)

    def wait(self) -> tuple[int, str]:
        """Wait for its end: exit code, and what it said on stderr."""
        self.process.wait(TIMEOUT_S)
        if not self._said.closed:
            self._said.seek(0)
            self._words = self._said.read().decode(errors="replace")
            self._said.close()
        return self.process.returncode, self._words

    def kill(self) -> None:
        """End it as the kernel does, and wait."""
        self.process.kill()
        self.wait()

    def stop(self) -> tuple[int, str]:
        """Ask it to end, and wait."""
        self.signal(signal.SIGTERM)
        return self.wait()

    @contextmanager
    def connect(self) -> Iterator[BlockingGuest]:
        """A client of it."""
        guest = BlockingGuest(self.directory)
        with guest.socket:
            yield guest


def _read_readiness(reader: int) -> Readiness | None:
    said = b""
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], TIMEOUT_S)[0]:
            piece = pipe.read(65536)
            if not piece:
                return msgspec.json.decode(said, type=Readiness) if said else None
            said += piece
    raise TimeoutError("the daemon said nothing")


@contextmanager
def running(
    directory: Path, *options: str, bug: str | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[DaemonProcess]:
    """A daemon that is ready; ended when the block is left, whatever happened in it."""
    daemon = DaemonProcess(directory, *options, bug=bug, environment=environment)
    try:
        assert daemon.readiness is not None, daemon.wait()
        assert daemon.readiness.failure is None, daemon.readiness
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.signal(signal.SIGTERM)
        daemon.wait()


def wait_for_end(pid: int) -> None:
    """Wait until a process that is no child of ours has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], TIMEOUT_S)[0], f"{pid} is still running"
    finally:
        os.close(descriptor)
