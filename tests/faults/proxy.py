"""A proxy between clients and their daemon that passes a request on and drops its reply."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from motoolsd.wire.names import SOCKET

REAL_SOCKET: Final = "real.sock"
PIECE_SIZE_BYTES: Final = 65_536


class Proxy:
    """Passes everything on, until it is armed: the next reply is dropped, and its connection with it."""

    def __init__(self, directory: Path) -> None:
        """Take the place of the daemon's socket; `serve` begins to pass things on."""
        (directory / SOCKET).rename(directory / REAL_SOCKET)
        self._directory = directory
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / SOCKET))
        self._listener.listen()
        self._end, self._ended = socket.socketpair()
        self._armed: Callable[[], None] | None = None
        self._threads: list[threading.Thread] = []
        self.dropped = 0

    def arm(self, meanwhile: Callable[[], None]) -> None:
        """Drop the next reply, after `meanwhile` was done and before its client can ask again."""
        self._armed = meanwhile

    def serve(self) -> None:
        """Accept until `end`."""
        while self._end not in select.select([self._listener, self._end], [], [])[0]:
            client, _ = self._listener.accept()
            thread = threading.Thread(target=self._pass, args=(client,))
            self._threads = [one for one in self._threads if one.is_alive()]
            self._threads.append(thread)
            thread.start()

    def end(self) -> None:
        """Accept nobody any more, and end every connection."""
        self._ended.close()

    def close(self) -> None:
        """Give the place back, once `serve` has returned."""
        for thread in self._threads:
            thread.join()
        self._listener.close()
        self._end.close()
        (self._directory / REAL_SOCKET).rename(self._directory / SOCKET)

    def _pass(self, client: socket.socket) -> None:
        daemon = socket.socket(socket.AF_UNIX)
        with client, daemon, suppress(OSError):
            daemon.connect(str(self._directory / REAL_SOCKET))
            while True:
                ready, _, _ = select.select([client, daemon, self._end], [], [])
                if self._end in ready:
                    return
                for source, target in ((client, daemon), (daemon, client)):
                    if source not in ready:
                        continue
                    data = source.recv(PIECE_SIZE_BYTES)
                    if not data:
                        return
                    if source is daemon and self._armed is not None:
                        meanwhile, self._armed = self._armed, None
                        meanwhile()
                        self.dropped += 1
                        return
                    target.sendall(data)


@contextmanager
def open_proxy(directory: Path) -> Iterator[Proxy]:
    """A proxy in front of the daemon of a directory."""
    proxy = Proxy(directory)
    thread = threading.Thread(target=proxy.serve)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.end()
        thread.join()
        proxy.close()
