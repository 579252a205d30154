"""CacheUtils: looking after a cache from a script.

Layer: motools.cache. Imports base, sync and entries.
Invariant: never makes a directory or a database; a missing one is an error that names it.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from motools.cache.base import CacheBackend
from motools.cache.client import TIMEOUT_S, Client
from motools.cache.endpoint import check_directory
from motools.cache.entries import CacheStats, DatasetEntry, EvalEntry, LeaseEntry, ModelEntry
from motools.cache.errors import CacheRequestError
from motools.cache.sync import SyncCache
from motoolsd.wire.messages import Status
from motoolsd.wire.sizes import Size

T = TypeVar("T")


class _ExistingCache(SyncCache):
    """A SyncCache that makes nothing."""

    def _start_fresh(self) -> None:
        super()._start_fresh()
        self._creates = False


class CacheUtils:
    """Lists, statistics and clearing; synchronous, over the daemon of a directory or over any `CacheBackend`.

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

    def list_datasets(self) -> list[DatasetEntry]:
        """All datasets, in the order in which they were first stored."""
        return _result(self._backend.list_datasets)

    def list_models(self, model_id: str | None = None) -> list[ModelEntry]:
        """All models, or those with one id, in the order in which they were first stored."""
        return _result(self._backend.list_models, model_id)

    def list_evals(self, model_id: str | None = None, task_id: str | None = None) -> list[EvalEntry]:
        """All evaluations, or those of one model, one task, or both, in the order in which they were first stored."""
        return _result(self._backend.list_evals, model_id, task_id)

    def get_stats(self) -> CacheStats:
        """How many entries there are, and the bytes that everything takes."""
        return _result(self._backend.get_stats)

    def get_size_breakdown(self) -> dict[str, int]:
        """Bytes of `datasets`, `runs`, `evals` and `database`."""
        return _result(self._backend.get_size_breakdown)

    def get_sizes(self) -> dict[str, Size]:
        """The same with the bytes allocated on disk.

        Raises:
            CacheRequestError: the backend has no daemon.
        """
        return self._daemon().get_sizes()

    def get_status(self) -> Status:
        """What the daemon says of itself.

        Raises:
            CacheRequestError: the backend has no daemon.
        """
        return self._daemon().get_status()

    def list_leases(self) -> list[LeaseEntry]:
        """Who computes what, the oldest first."""
        return _result(self._backend.list_leases)

    def break_lease(self, key: str, kind: str | None = None) -> int:
        """Take the lease of a key away from its owner; how many there were."""
        return _result(self._backend.break_lease, key, kind)

    def clear_datasets(self, dataset_hashes: Sequence[str] | None = None) -> int:
        """Remove some datasets, or all; an empty list removes nothing. How many were removed."""
        return _result(self._backend.clear_datasets, dataset_hashes)

    def clear_models(self, model_ids: Sequence[str] | None = None) -> int:
        """Remove the models with these ids, or all; an empty list removes nothing. How many were removed."""
        return _result(self._backend.clear_models, model_ids)

    def clear_evals(self, model_ids: Sequence[str] | None = None, task_ids: Sequence[str] | None = None) -> int:
        """Remove the evaluations that match both lists, or all; an empty list removes nothing. How many went."""
        return _result(self._backend.clear_evals, model_ids, task_ids)

    def clear_all(self) -> dict[str, int]:
        """Remove everything; how many of each kind were removed."""
        return _result(self._backend.clear_all)

    def _daemon(self) -> SyncCache:
        if not isinstance(self._backend, SyncCache):
            raise CacheRequestError(f"{type(self._backend).__name__} has no daemon to ask")
        return self._backend


def _result(method: Callable[..., T | Awaitable[T]], *args: object) -> T:
    """What a method gives, also if it has to be awaited."""
    result = method(*args)
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
