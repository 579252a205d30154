"""CacheUtils: looking after a cache from a script.

Layer: motools.cache. Imports base, sync, sync_management and using.
Invariant: never makes a directory or a database; a missing one is an error that names it.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar, Unpack

from motools.cache.base import CacheBackend
from motools.cache.calls import Call, ClearScope
from motools.cache.cleaning import OnProgress
from motools.cache.client import TIMEOUT_S, Client
from motools.cache.endpoint import check_directory
from motools.cache.entries import DatasetEntry, LeaseEntry
from motools.cache.errors import CacheRequestError
from motools.cache.files import Content
from motools.cache.recording import RecordOptions
from motools.cache.sync import SyncCache
from motools.cache.sync_management import SyncManagement
from motools.cache.using import SyncUsing
from motoolsd.wire.diagnosis import Diagnosis

T = TypeVar("T")


class _ExistingCache(SyncCache):
    """A SyncCache that makes nothing."""

    def _start_fresh(self) -> None:
        super()._start_fresh()
        self._creates = False


class CacheUtils(SyncUsing, SyncManagement):
    """Lists, sizes, clearing and clean-up; synchronous, over the daemon of a directory or over any `CacheBackend`.

    Of a backend without a daemon: lists, statistics, leases and clearing of entries; everything else raises
    CacheRequestError.

    Resources: `close` or a `with` block lets go of the connection; not needed, a forgotten one is closed when it is
    collected.
    """

    def __init__(
        self,
        cache: str | os.PathLike[str] | CacheBackend | SyncCache = ".motools",
        *,
        autostart: bool = True,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Choose what to look after.

        Args:
            cache: a directory, a `SyncCache` or `Cache` (its directory and `autostart` are used), or any other backend.
            autostart: start a daemon where a cache is, but none runs.
            timeout_s: for each call; a listing may take this long for every page.

        Raises:
            CacheDirectoryMissing: there is no cache in the directory.
            PeerRefused: the directory belongs to another user.
        """
        if isinstance(cache, Client):
            autostart = autostart and cache.autostart
            cache = cache.directory
        if isinstance(cache, str | os.PathLike):
            check_directory(os.path.abspath(cache))
            cache = _ExistingCache(cache, autostart=autostart, timeout_s=timeout_s)
        self._backend: CacheBackend | SyncCache = cache

    def __enter__(self) -> Self:
        """Use it in a `with` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Let go of the connection, if there is one of its own."""
        if isinstance(self._backend, _ExistingCache):
            self._backend.close()

    def put_dataset(
        self,
        path_or_bytes: Content,
        file_id: str | None = None,
        **record: Unpack[RecordOptions],
    ) -> DatasetEntry:
        """Store a dataset with its content: as `SyncCache.put_dataset`."""
        return _result(self._backend.put_dataset, path_or_bytes, file_id, **record)

    def list_leases(self) -> list[LeaseEntry]:
        """Who computes what, the oldest first."""
        return _result(self._backend.list_leases)

    def break_lease(self, key: str, kind: str | None = None) -> int:
        """Take the lease of a key away from its owner; how many there were."""
        return _result(self._backend.break_lease, key, kind)

    def doctor(self, *, fix: bool = False, deep: bool = False, on_progress: OnProgress | None = None) -> Diagnosis:
        """Look at everything in the directory, whether or not its daemon runs or can run.

        Args:
            fix: mend what can be mended safely; the database is never removed or rebuilt.
            deep: read the content of datasets, too.
            on_progress: told how far mending has come.

        Returns:
            What was found; with `fix`, how it is afterwards and what was done.

        Raises:
            CacheError: the examination itself could not be run.
            CacheRequestError: the backend has no directory.
        """
        from motools.cache.doctor import examine, mend, planned_mends

        directory = self._as_cache().directory
        found = examine(directory, deep=deep)
        if not fix or not planned_mends(found):
            return found
        return mend(directory, found, deep=deep, on_progress=on_progress)

    # What any backend can do is asked of it under the same name; the rest of the management, of a daemon.

    def _ask_any(self, make: Callable[..., Call[T]], *arguments: object) -> T:
        method: Callable[..., T] = getattr(self._backend, make.__name__)
        return _result(method, *arguments)

    def _clear(self, make: Callable[..., Call[T]], *chosen: object) -> T:
        if isinstance(self._backend, SyncCache):
            return self._backend._clear(make, *chosen)  # noqa: SLF001 - one table of calls
        *ids, scope = chosen
        if isinstance(scope, ClearScope) and (scope.filters is not None or scope.downstream):
            self._as_cache()  # says that there is no daemon
        return self._ask_any(make, *ids)

    def _call(self, call: Call[T], timeout_s: float | None = None) -> T:
        return self._as_cache()._call(call, timeout_s)  # noqa: SLF001 - as above

    def _call_long(self, call: Call[T], on_progress: OnProgress | None = None, *, is_repeatable: bool = True) -> T:
        return self._as_cache()._call_long(call, on_progress, is_repeatable=is_repeatable)  # noqa: SLF001 - as above

    def _as_cache(self) -> SyncCache:
        """The client of a daemon.

        Raises:
            CacheRequestError: the backend has none.
        """
        if not isinstance(self._backend, SyncCache):
            raise CacheRequestError(f"{type(self._backend).__name__} has no daemon to ask")
        return self._backend


def _result(method: Callable[..., T | Awaitable[T]], *arguments: object, **options: object) -> T:
    """What a method gives, also if it has to be awaited."""
    result = method(*arguments, **options)
    return _run(result) if isinstance(result, Awaitable) else result


def _run(awaitable: Awaitable[T]) -> T:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    async def run() -> T:
        return await awaitable

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run())
    # This thread's loop is busy running us: the awaitable gets one of its own.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run()).result()
