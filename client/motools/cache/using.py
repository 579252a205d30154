"""Entries in use: what no clean-up takes while a block lasts.

Layer: motools.cache. Imports cleaning_calls, errors and, for the async twin when it is used, anyio.
Invariant: a use ends with its block, its client or its process, whichever comes first. A forked child that leaves the
block ends nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

from motools.cache import cleaning_calls
from motools.cache.cleaning_calls import UsePart
from motools.cache.entries import DatasetEntry, EvalEntry, ModelEntry
from motools.cache.errors import CacheError

if TYPE_CHECKING:
    from motools.cache.async_waiting import Asker
    from motools.cache.sync import SyncCache

END_TIMEOUT_S: Final = 2.0
"""For telling the daemon that a use is over, when an exception may be on its way."""


class SyncUsing:
    """The uses of a blocking cache."""

    @contextmanager
    def using(self, *entries: DatasetEntry | ModelEntry | EvalEntry) -> Iterator[None]:
        """Keep entries and their files from being cleaned up until the block is left, or this process ends.

        Clearing the rows alone (`clear_*` without `delete_files`) is not kept off.

        Raises:
            EntryNotFound: one is gone already.
            CacheRequestError: one is no entry; or the daemon cannot see this process (another PID namespace).
        """
        cache, parts = self._as_cache(), list(cleaning_calls.use_parts(entries))
        try:
            for part in parts:
                _begin(cache, part)
            yield
        finally:
            for part in parts:
                end_use(cache, part.use_id)

    def _as_cache(self) -> SyncCache:
        raise NotImplementedError


class AsyncUsing:
    """The uses of an async cache."""

    @asynccontextmanager
    async def using(self, *entries: DatasetEntry | ModelEntry | EvalEntry) -> AsyncIterator[None]:
        """Keep entries and their files from being cleaned up until the block is left: as `SyncCache.using`.

        Cancellation: the use ends.
        """
        asker, parts = self._as_asker(), list(cleaning_calls.use_parts(entries))
        try:
            for part in parts:
                await _begin_async(asker, part)
            yield
        finally:
            for part in parts:
                await end_use_async(asker, part.use_id)

    def _as_asker(self) -> Asker:
        raise NotImplementedError


def _begin(cache: SyncCache, part: UsePart) -> None:
    cache._in_use.add(part.use_id)  # noqa: SLF001 - one object, in two parts
    # Protected first, and looked at then: in the other order a clean-up may come in between.
    if cache._call(part.begin()) is not None:  # noqa: SLF001
        part.check(cache._call(part.look()))  # noqa: SLF001


async def _begin_async(asker: Asker, part: UsePart) -> None:
    asker._in_use.add(part.use_id)  # noqa: SLF001 - one object, in two parts
    if await asker._ask(part.begin()) is not None:  # noqa: SLF001
        part.check(await asker._ask(part.look()))  # noqa: SLF001


def end_use(cache: SyncCache, use_id: bytes) -> None:
    """End a use that has not ended; without a daemon, it notices by itself when this process ends.

    A forked child's client knows of none: those of the parent are the parent's to end.
    """
    if use_id not in cache._in_use:  # noqa: SLF001 - as above
        return
    cache._in_use.discard(use_id)  # noqa: SLF001
    try:
        timeout_s = min(cache._timeout_s, END_TIMEOUT_S)  # noqa: SLF001
        cache._call(cleaning_calls.end_use(use_id), timeout_s=timeout_s)  # noqa: SLF001
    except CacheError:
        _warn()


async def end_use_async(asker: Asker, use_id: bytes) -> None:
    """The same, cancelled or not."""
    import anyio

    if use_id not in asker._in_use:  # noqa: SLF001 - as above
        return
    asker._in_use.discard(use_id)  # noqa: SLF001
    try:
        with anyio.move_on_after(END_TIMEOUT_S, shield=True):
            await asker._ask(cleaning_calls.end_use(use_id))  # noqa: SLF001
            return
    except CacheError:
        pass
    _warn()


def _warn() -> None:
    import logging  # only when something is wrong

    logging.getLogger("motools.cache").warning("the end of a use could not be told; it ends with this process")
