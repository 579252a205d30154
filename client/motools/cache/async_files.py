"""Files of entries for asyncio and trio: what blocks runs in a worker thread, chunk by chunk.

Layer: motools.cache. Imports calls, claims, errors, files, owned and publishing.
Invariant: the event loop never waits for a disk. A thread that nobody waits for stops at its next chunk.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

import anyio
import anyio.from_thread
import anyio.to_thread

from motools.cache import calls
from motools.cache.claims import Target
from motools.cache.entries import DatasetEntry
from motools.cache.errors import UNAVAILABLE
from motools.cache.files import Check, Staging, digest_of
from motools.cache.owned import work_path
from motools.cache.publishing import DatasetPut
from motools.cache.recording import Owned, Record

if TYPE_CHECKING:
    from motools.cache.cache import Cache

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class _Stopped(Exception):
    """Nobody waits for what the thread does."""


class AsyncFiles:
    """The files of an async cache. `Cache` adds everything else."""

    async def _own(self, target: Target, value: object, run_dir: object, record: Record) -> Owned:
        return await in_thread(target.owned, self._as_cache().directory, value, run_dir, record)

    def _work_path(self, work_dir: str | os.PathLike[str] | None) -> bytes | None:
        return None if work_dir is None else work_path(self._as_cache().directory, work_dir)

    async def _keep(self, put: DatasetPut) -> DatasetEntry:
        """As `publishing.put_dataset`."""
        cache = self._as_cache()
        try:
            await self._reach()
            staging = Staging(cache.directory)
            try:
                staged = await in_thread(staging.stage, put.content)
                is_stored = await cache._call(put.call(staged.digest, staged.name))  # noqa: SLF001 - one object, in two parts
                return put.entry(staged.digest, staged if is_stored else None)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(staging.close)
        except UNAVAILABLE as error:
            cache._drop_write(error)  # noqa: SLF001
        digest, _ = await in_thread(digest_of, put.content)
        put.call(digest, None)
        return put.entry(digest, None)

    async def _reach(self) -> None:
        """Make sure that there is a directory, and a daemon."""
        cache = self._as_cache()
        if cache._connection is None or not cache._connection.is_open:  # noqa: SLF001 - as above
            await cache._call(calls.get_status())  # noqa: SLF001

    def _as_cache(self) -> Cache:
        raise NotImplementedError


async def in_thread(
    function: Callable[[*Arguments, Check], T],
    *arguments: *Arguments,
) -> T:
    """Run a function in a worker thread; its last argument is a check that ends it when nobody waits any more.

    Cancellation: waits for the thread's next check. A cancellation by asyncio's own means (`task.cancel()`,
    `asyncio.timeout`) does not wait.
    """
    stopped = threading.Event()

    def check() -> None:
        if stopped.is_set():
            raise _Stopped
        anyio.from_thread.check_cancelled()

    try:
        return await anyio.to_thread.run_sync(lambda: function(*arguments, check))
    finally:
        stopped.set()
