"""What the blocking and the async client have in common: address, options, fallback, forks, pickling.

Layer: motools.cache. Imports calls, errors, launch, recovery and motoolsd.wire.
Invariant: constructing a client does no I/O.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from motools.cache.calls import RAISES, Call, Provenance
from motools.cache.errors import CacheDirectoryMissing, CacheError, CacheRequestError
from motools.cache.launch import autostart_is_on
from motools.cache.recovery import RequestKeys, is_outdated
from motools.cache.remembered import ENTRIES_DEFAULT, Memory
from motoolsd.wire.messages import Welcome
from motoolsd.wire.names import DATABASE

T = TypeVar("T")

OnUnavailable = Literal["raise", "miss"]
TIMEOUT_S = 30.0
TIMEOUT_MAX_S = 31_536_000
"""A year."""


class Client:
    """An address and how to use it. `SyncCache` and `Cache` add the waiting."""

    def __init__(
        self,
        cache_dir: str | os.PathLike[str] = ".motools",
        *,
        autostart: bool = True,
        memory_entries: int = ENTRIES_DEFAULT,
        timeout_s: float = TIMEOUT_S,
        on_unavailable: OnUnavailable = "raise",
        labels: Mapping[str, str] | None = None,
        version: str | None = None,
    ) -> None:
        """Remember all of it; nothing is opened, made or started yet.

        Args:
            cache_dir: the cache directory. A relative path means what it means now, also after a change of the
                working directory.
            autostart: start a daemon where none runs, and make the directory where there is none.
            memory_entries: answers, hits and misses alike, that this client remembers and gives again without asking
                the daemon for as long as they are true; the least recently used go. 0: every lookup asks.
            timeout_s: bounds each whole call, with reconnects, the start of a daemon and retries inside it.
            on_unavailable: `"raise"`, or `"miss"`: when the daemon cannot be had, lookups miss and writes are logged
                and dropped, so that the cache never fails a job. Mistakes in the call itself raise all the same.
            labels: stored with every entry that this client stores.
            version: the same, one text: the version of the code that computed the value.

        Raises:
            CacheRequestError: an option makes no sense.
            CacheDirectoryMissing: a relative path, in a working directory that was removed.
        """
        if on_unavailable not in ("raise", "miss"):
            raise CacheRequestError(f'on_unavailable is "raise" or "miss", not {on_unavailable!r}')
        _check_timeout(timeout_s)
        _check_count(memory_entries)
        if "\0" in os.fspath(cache_dir):
            raise CacheRequestError(f"cache_dir holds a NUL character: {cache_dir!r}")
        self.cache_dir = Path(cache_dir)
        self.db_path = self.cache_dir / DATABASE
        self._directory = _absolute(cache_dir)
        self._autostart = autostart
        self._creates = True
        self._may_upgrade = autostart
        self._memory_entries = memory_entries
        self._timeout_s = float(timeout_s)
        self._on_unavailable: OnUnavailable = on_unavailable
        self._provenance = Provenance(labels, version)
        self._held: set[bytes] = set()
        self._in_use: set[bytes] = set()
        self._keys = RequestKeys()
        self._memory = Memory(self._directory, memory_entries)
        self._start_fresh()
        _clients.add(self)

    @property
    def directory(self) -> str:
        """The absolute path, as it was meant when the client was made."""
        return self._directory

    @property
    def autostart(self) -> bool:
        """Whether it starts a daemon where none runs."""
        return self._autostart

    def __repr__(self) -> str:
        """The class and its directory."""
        return f"{type(self).__name__}({str(self.cache_dir)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickled client is its address and options; the copy connects for itself."""
        options = {
            "autostart": self._autostart,
            "memory_entries": self._memory_entries,
            "timeout_s": self._timeout_s,
            "on_unavailable": self._on_unavailable,
            "labels": self._provenance.labels,
            "version": self._provenance.version,
        }
        return _unpickle, (type(self), self._directory, options)

    def _fall_back(self, call: Call[T], error: CacheError) -> T:
        """The result of a call that found no daemon.

        Raises:
            CacheError: the error itself, unless misses were asked for and the call can be one.
        """
        if call.fallback is RAISES:
            raise error
        self._miss(error, "dropped a write" if call.is_write else "a lookup missed")
        return cast("T", call.fallback)

    def _drop_write(self, error: CacheError) -> None:
        """Go on without a write that found no daemon.

        Raises:
            CacheError: the error itself, unless misses were asked for.
        """
        self._miss(error, "dropped a write")

    def _miss(self, error: CacheError, action: str) -> None:
        if self._on_unavailable != "miss":
            raise error
        import logging  # only when something is wrong: it is a third of this package's import time

        logging.getLogger("motools.cache").warning("%s, because the cache is unavailable: %s", action, error)

    def _asks_to_drain(self, peer: Welcome) -> bool:
        """Whether to make a daemon end, so that ours is started; at most once, should ours turn out to be old too."""
        if not is_outdated(peer):
            return False
        may_upgrade = self._may_upgrade and peer.started_by == "client" and autostart_is_on()
        if not may_upgrade and self._directory not in _warned_of:
            _warned_of.add(self._directory)
            import logging  # as above

            text = "the daemon of %s is of version %s, older than this client: restart it with `motools daemon restart`"
            logging.getLogger("motools.cache").warning(text, self._directory, peer.version)
        self._may_upgrade = False
        return may_upgrade

    def _start_fresh(self) -> None:
        """Set up what belongs to one process: at construction, and again in a forked child."""
        raise NotImplementedError

    def _drop_connection(self) -> None:
        """Close this process's end of the connection, if there is one."""
        raise NotImplementedError

    def _forget_after_fork(self) -> None:
        """In a forked child: drop what belongs to the parent, whose connection stays open."""
        self._drop_connection()
        self._held = set()
        self._in_use = set()
        self._keys = RequestKeys()
        self._memory = Memory(self._directory, self._memory_entries)
        self._start_fresh()


def _check_timeout(timeout_s: object) -> None:
    # None, a text, NaN and infinity too: each would come out as a bare error of the socket, and late.
    if not isinstance(timeout_s, int | float) or not 0 < timeout_s <= TIMEOUT_MAX_S:
        raise CacheRequestError(f"timeout_s must be a number above 0 and up to {TIMEOUT_MAX_S}, not {timeout_s!r}")


def _check_count(memory_entries: object) -> None:
    if not isinstance(memory_entries, int) or isinstance(memory_entries, bool) or memory_entries < 0:
        raise CacheRequestError(f"memory_entries must be a whole number, 0 or more, not {memory_entries!r}")


def _absolute(cache_dir: str | os.PathLike[str]) -> str:
    try:
        return os.path.abspath(cache_dir)
    except OSError as error:
        message = f"{os.fspath(cache_dir)!r} is relative to the working directory, which is gone: name it from the root"
        raise CacheDirectoryMissing(message) from error


def _unpickle(kind: type[Client], directory: str, options: dict[str, Any]) -> Client:
    return kind(directory, **options)


_warned_of: set[str] = set()
"""Directories whose older daemon was named already: said once is enough."""

_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._forget_after_fork()  # noqa: SLF001 - the hook is this module's


os.register_at_fork(after_in_child=_after_fork_in_child)
