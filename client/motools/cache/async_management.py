"""Looking after a cache under asyncio or trio: lists, sizes, clearing, clean-up, the trash, pins and verifying.

Layer: motools.cache. Imports calls, cleaning, cleaning_calls, entries, errors, explaining_calls, filtering, multiplex
and recovery.
Invariant: every method is a call of the tables, or two of them; how one is carried out is the client's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

import anyio

from motools.cache import calls, explaining_calls
from motools.cache import cleaning_calls as table
from motools.cache.arguments import Duration
from motools.cache.async_clearing import AsyncClearing
from motools.cache.async_explaining import AsyncExplaining
from motools.cache.backups import Backup, backup
from motools.cache.calls import Call
from motools.cache.cleaning import CleanupResult, OnProgress, SizeReport, TrashItem, VerifyReport
from motools.cache.cleaning_calls import (
    Gathering,
    after_break,
)
from motools.cache.clock import monotonic_s
from motools.cache.entries import CacheStats, DatasetEntry, EvalEntry, ModelEntry
from motools.cache.errors import UNAVAILABLE
from motools.cache.filtering import FilterOptions, is_plain, with_ids
from motools.cache.lookups import KindName
from motools.cache.multiplex import MultiplexedConnection
from motools.cache.recovery import Recovery, no_answer
from motoolsd.wire.cleaning import ApplyPlan
from motoolsd.wire.messages import Status
from motoolsd.wire.sizes import Size

if TYPE_CHECKING:
    from motools.cache.cache import Cache

T = TypeVar("T")


class AsyncManagement(AsyncExplaining, AsyncClearing):
    """The management of an async cache. `Cache` adds everything else.

    What takes long (a rescan, plans, `apply_plan`, `undo`, `empty_trash`, `verify`) uses a connection of its own. The
    client's `timeout_s` does not bound the whole, but how long the daemon may be silent, to a question in between, too.

    Cancellation: closes that connection, as an `on_progress` that raises does: the daemon stops at the next step, and
    what a clean-up removed by then lies in the trash.
    """

    async def list_datasets(
        self, *, sort: str | None = None, limit: int | None = None, **filters: Unpack[FilterOptions]
    ) -> list[DatasetEntry]:
        """All datasets, or those that pass the filters, in the order in which they were first stored.

        Args:
            sort: a field to sort by, as `size:desc`, `created_at` or `key`.
            limit: no more than so many.
            filters: see `FilterOptions`.

        Raises:
            CacheRequestError: a filter cannot be read, or does not fit.
        """
        if is_plain(sort, limit, filters):
            return await self._call(calls.list_datasets())
        return cast("list[DatasetEntry]", await self._listed("dataset", sort, limit, filters))

    async def list_models(
        self,
        model_id: str | None = None,
        *,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Unpack[FilterOptions],
    ) -> list[ModelEntry]:
        """All models, or those with one id: as `list_datasets`."""
        if is_plain(sort, limit, filters):
            return await self._call(calls.list_models(model_id))
        chosen = with_ids(filters, model_id=model_id)
        return cast("list[ModelEntry]", await self._listed("model", sort, limit, chosen))

    async def list_evals(
        self,
        model_id: str | None = None,
        task_id: str | None = None,
        *,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Unpack[FilterOptions],
    ) -> list[EvalEntry]:
        """All evaluations, or those of one model, one task, or both: as `list_datasets`."""
        if is_plain(sort, limit, filters):
            return await self._call(calls.list_evals(model_id, task_id))
        chosen = with_ids(filters, model_id=model_id, task_id=task_id)
        return cast("list[EvalEntry]", await self._listed("eval", sort, limit, chosen))

    async def _listed(
        self, kind: KindName, sort: str | None, limit: int | None, options: Mapping[str, Any]
    ) -> list[Any]:
        return (await self._call(explaining_calls.list_entries(kind, sort, limit, None, options))).items

    async def get_stats(self) -> CacheStats:
        """How many entries there are, and the bytes that everything takes."""
        return await self._call(calls.get_stats())

    async def get_size_breakdown(self) -> dict[str, int]:
        """Bytes of `datasets`, `runs`, `evals`, `database`, `trash` and `staging`."""
        return await self._call(calls.get_size_breakdown())

    async def get_sizes(self) -> dict[str, Size]:
        """The same with the bytes allocated on disk."""
        return await self._call(calls.get_sizes())

    async def get_size_report(
        self, *, rescan: bool = False, top: int = 0, on_progress: OnProgress | None = None
    ) -> SizeReport:
        """What everything takes, orphans and dangling entries included.

        Args:
            rescan: count anew and wait for it; else what is known is the answer, at once.
            top: name so many of the largest entries; up to 1,000.
            on_progress: told how far a rescan has come.
        """
        if rescan:
            return await self._call_long(table.rescan(top=top), on_progress)
        return await self._call(table.get_size_report(top=top))

    async def get_status(self) -> Status:
        """What the daemon says of itself."""
        return await self._call(calls.get_status())

    # The trash.

    async def undo(self, removal_id: int | None = None, *, on_progress: OnProgress | None = None) -> CleanupResult:
        """Put back what a clean-up took, rows and files: all of it, or nothing. As `SyncCache.undo`.

        Cancellation: once it has begun it goes on to its end.
        """
        return await self._call_long(table.undo(removal_id), on_progress, is_repeatable=False)

    async def list_trash(self) -> list[TrashItem]:
        """What can be put back, the latest first."""
        return await self._call(table.list_trash())

    async def empty_trash(
        self, removal_ids: Sequence[int] | None = None, *, on_progress: OnProgress | None = None
    ) -> CleanupResult:
        """Free the room of what lies in the trash, for ever. As `SyncCache.empty_trash`."""
        return await self._call_long(table.empty_trash(removal_ids), on_progress, is_repeatable=False)

    # Protection, and verifying.

    async def pin(
        self,
        key: str,
        *,
        kind: KindName | None = None,
        reason: str = "",
        until: datetime | Duration | None = None,
    ) -> int:
        """Protect entries, and what they were made from, from every clean-up. As `SyncCache.pin`."""
        return await self._call(table.pin(key, kind, reason, until))

    async def unpin(self, key: str, *, kind: KindName | None = None) -> int:
        """Take that protection away; how many entries there are. As `SyncCache.unpin`."""
        return await self._call(table.unpin(key, kind))

    async def verify(
        self, *, deep: bool = False, repair: bool = False, on_progress: OnProgress | None = None
    ) -> VerifyReport:
        """Compare rows, files and the database with what they should be. As `SyncCache.verify`."""
        return await self._call_long(table.verify(deep=deep, repair=repair), on_progress)

    async def backup(
        self, path: str | os.PathLike[str], *, force: bool = False, on_progress: OnProgress | None = None
    ) -> Backup:
        """Copy the database while it is in use. As `SyncCache.backup`.

        Cancellation: the half-written copy goes.
        """
        return await self._call_long(backup(path, force=force), on_progress)

    async def _call(self, call: Call[T]) -> T:
        raise NotImplementedError

    async def _call_long(
        self, call: Call[T], on_progress: OnProgress | None = None, *, is_repeatable: bool = True
    ) -> T:
        """A call whose answer comes bit by bit, on a connection of its own: as in `SyncCache`."""
        cache = self._as_cache()
        cache._check_context()  # noqa: SLF001 - one object, in two parts
        recovery = Recovery(cache._timeout_s, monotonic_s(), is_write=False)  # noqa: SLF001
        while True:
            gathering = Gathering(on_progress)
            connection: MultiplexedConnection | None = None
            try:
                connection = await _opened(cache, recovery.left_s(monotonic_s()))
                if isinstance(call.request, ApplyPlan) and not cache._knows_origin:  # noqa: SLF001
                    await cache._learn_origin()  # noqa: SLF001
                request, silence_s = cache._request(connection, call, None), cache._timeout_s  # noqa: SLF001
                await connection.stream(request, silence_s, gathering.take, self.get_status)
                return call.result_of_pages(gathering.pages)
            except UNAVAILABLE as error:
                recovery = after_break(recovery, error, gathering, is_repeatable=is_repeatable or connection is None)
                await anyio.sleep(recovery.after(error, monotonic_s()))
            finally:
                if connection is not None:
                    connection.close()

    def _as_cache(self) -> Cache:
        raise NotImplementedError


async def _opened(cache: Cache, left_s: float) -> MultiplexedConnection:
    with anyio.move_on_after(left_s):
        return await cache._open_connection(left_s)  # noqa: SLF001 - as above
    raise no_answer(left_s, outcome_known=True)
