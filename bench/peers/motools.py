"""motoolsd: the blocking and the async client, with and without their memory."""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from bench.keys import stored
from bench.peers.protocol import AsyncSession, Session
from bench.peers.servers import temporary_directory
from motools.cache import Cache, SyncCache
from motoolsd.core.checksums import row_checksum
from motoolsd.wire.names import CONFIG, DATABASE

INSERT = "INSERT INTO dataset_files (dataset_hash, file_id, created_at, checksum) VALUES (?, ?, ?, ?)"
CREATED_AT = "2026-01-01 00:00:00"
HAS_MEMORY = "memory_entries" in inspect.signature(SyncCache).parameters


def fill(directory: Path, entries: Iterable[tuple[str, str]]) -> None:
    """Put keys and values into the database of a directory whose daemon does not run.

    One by one through the daemon, each on disk before the next, a million entries would take half an hour.
    """
    from motools.cache.control import start_daemon, stop_daemon

    # The daemon makes its own tables.
    start_daemon(str(directory))
    stop_daemon(str(directory))
    rows = ((key, value, CREATED_AT, row_checksum(key, value.encode())) for key, value in entries)
    with closing(sqlite3.connect(directory / DATABASE)) as connection, connection:
        connection.executemany(INSERT, rows)


class Daemon:
    """A cache directory with its daemon."""

    directory: Path

    def __init__(self, settings: str = "") -> None:
        """What stands in its config.toml."""
        self._settings = settings

    def available(self) -> str | None:
        """It always is."""
        return None

    @contextmanager
    def serve(self, entries: int) -> Iterator[None]:
        """Fill the directory and start the daemon."""
        from motools.cache.control import start_daemon, stop_daemon

        with temporary_directory() as self.directory:
            (self.directory / CONFIG).write_text(self._settings)
            try:
                fill(self.directory, stored(entries))
                start_daemon(str(self.directory))
                yield
            finally:
                stop_daemon(str(self.directory))


FULL = Daemon()
NORMAL = Daemon('durability = "normal"\n')


def options_for(*, is_warm: bool) -> dict[str, Any]:
    """How a client is made: as it comes, or so that every lookup asks the daemon."""
    return {"memory_entries": 0} if HAS_MEMORY and not is_warm else {}


class Cold:
    """The blocking client without its memory, one connection a process: every lookup is a round trip."""

    name = "motoolsd, cold"
    durability = "disk: write-ahead log, synchronous=FULL, group commit"
    remembers = False
    store = FULL
    client = SyncCache

    def available(self) -> str | None:
        """It always is."""
        return None

    def options(self) -> dict[str, Any]:
        """How the client is made."""
        return options_for(is_warm=self.remembers)

    def connect(self) -> Session:
        """Connect on first use."""
        cache = self.client(self.store.directory, **self.options())
        return Session(
            get=cache.get_file_id,
            put=cache.set_file_id,
            get_many=_get_many(cache),
            close=cache.close,
            compute_once=cache.get_or_upload,
        )


class Warm(Cold):
    """The blocking client as it comes: what it was told once, it knows for as long as it is true."""

    name = "motoolsd, warm"
    remembers = True

    def available(self) -> str | None:
        """Whether this client has a memory."""
        return None if HAS_MEMORY else "this client has no memory: every lookup asks the daemon"


class _Unsigned(SyncCache):
    """Says nothing of who writes: what the recording costs is the difference."""

    def _signed(self, connection: Any, request: Any) -> Any:  # noqa: ANN401, ARG002 - nothing is looked at
        return request


class Bare(Cold):
    """The blocking client, and no record of who wrote an entry."""

    name = "motoolsd, bare"
    client = _Unsigned


class Labelled(Warm):
    """The blocking client with two labels and a version, as in a sweep."""

    name = "motoolsd, labelled"

    def options(self) -> dict[str, Any]:
        """Whom its entries and lookups are counted for."""
        return {**super().options(), "labels": {"experiment": "sweep", "owner": "bench"}, "version": "1.2.0"}


class Normal(Cold):
    """A daemon whose writes survive its own crash, but not a power cut."""

    name = "motoolsd, normal"
    durability = "crash of the daemon only: write-ahead log, synchronous=NORMAL, group commit"
    store = NORMAL


class AsyncCold:
    """The async client without its memory: all tasks share one connection."""

    name = "motoolsd async, cold"
    durability = Cold.durability
    remembers = False
    store = FULL

    def available(self) -> str | None:
        """It always is."""
        return None

    def connect(self) -> AsyncSession:
        """Connect on first use."""
        cache = Cache(self.store.directory, **options_for(is_warm=self.remembers))
        return AsyncSession(get=cache.get_file_id, put=cache.set_file_id, get_many=_get_many(cache), close=cache.aclose)


class AsyncWarm(AsyncCold):
    """The async client as it comes."""

    name = "motoolsd async, warm"
    remembers = True

    def available(self) -> str | None:
        """Whether this client has a memory."""
        return None if HAS_MEMORY else "this client has no memory: every lookup asks the daemon"


def _get_many(cache: SyncCache | Cache) -> Callable[[list[str]], Any] | None:
    ask = getattr(cache, "get_many", None)
    return None if ask is None else lambda keys: ask("dataset", keys)
