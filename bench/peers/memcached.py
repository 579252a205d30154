"""memcached over a Unix socket, through pymemcache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from bench.keys import stored
from bench.peers.protocol import Session, missing_modules
from bench.peers.servers import missing_command, run_server, temporary_directory

MEMORY_MIB = 512
"""Enough that nothing is evicted: every miss is one that was asked for."""
FILL_TIMEOUT_S = 10.0
FILL_ENTRIES = 100
"""At a time: the client reads no reply before it has sent them all, and would wait for ever with full buffers."""


def batched(entries: Iterator[tuple[str, str]]) -> Iterator[dict[str, str]]:
    """The entries, so many at a time."""
    while part := dict(islice(entries, FILL_ENTRIES)):
        yield part


class MemcachedServer:
    """A memcached of our own."""

    address: Path

    def available(self) -> str | None:
        """Whether server and client are installed."""
        return missing_command("memcached", "memcached") or missing_modules("pymemcache")

    @contextmanager
    def serve(self, entries: int) -> Iterator[None]:
        """Start it and fill it."""
        from pymemcache.client.base import Client

        with temporary_directory() as directory:
            self.address = directory / "memcached.sock"
            command = ["memcached", "-s", str(self.address), "-m", str(MEMORY_MIB)]
            if os.getuid() == 0:
                command += ["-u", "root"]  # it refuses to run as root unless it is told to
            with run_server(command, self.address):
                client = Client(str(self.address), timeout=FILL_TIMEOUT_S)
                for part in batched(stored(entries)):
                    client.set_many(part, noreply=False)
                client.close()
                yield


class Memcached:
    """The plain client, one connection a process."""

    name = "memcached"
    durability = "none: memory"
    remembers = False

    def __init__(self) -> None:
        """With a server of its own."""
        self.store = MemcachedServer()

    def available(self) -> str | None:
        """As the server."""
        return None

    def connect(self) -> Session:
        """Connect on first use."""
        from pymemcache.client.base import Client

        client = Client(str(self.store.address), no_delay=False)

        def get(key: str) -> str | None:
            value: bytes | None = client.get(key)
            return None if value is None else value.decode()

        def get_many(keys: list[str]) -> list[str | None]:
            found: dict[str, bytes] = client.get_many(keys)
            return [found[key].decode() if key in found else None for key in keys]

        def put(key: str, value: str) -> None:
            client.set(key, value, noreply=False)

        return Session(get=get, put=put, get_many=get_many, close=client.close)
