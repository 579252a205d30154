"""Removing entries and their files, under asyncio or trio: clearing, plans and what comes of them.

Layer: motools.cache. Imports calls, cleaning, cleaning_calls, clearing_options and errors.
Invariant: as in `async_management`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar, Unpack, overload

import msgspec

from motools.cache import calls
from motools.cache import cleaning_calls as table
from motools.cache.calls import Call, ClearScope
from motools.cache.cleaning import CleanupPlan, CleanupResult, OnProgress
from motools.cache.cleaning_calls import PLANS_MAX
from motools.cache.clearing_options import (
    Clearing,
    ClearOptions,
    FilteredClearOptions,
    PruneOptions,
    filtered,
    pruning,
)
from motools.cache.errors import PlanOutdated
from motoolsd.wire.cleaning import Criteria
from motoolsd.wire.keys import Kind

T = TypeVar("T")


class AsyncClearing:
    """What removes something, of an async cache."""

    @overload
    async def clear_datasets(
        self,
        dataset_hashes: Sequence[str] | None = None,
        *,
        delete_files: Literal[False] = False,
        **options: Unpack[FilteredClearOptions],
    ) -> int: ...
    @overload
    async def clear_datasets(
        self,
        dataset_hashes: Sequence[str] | None = None,
        *,
        delete_files: Literal[True],
        dry_run: Literal[False] = False,
        **options: Unpack[FilteredClearOptions],
    ) -> CleanupResult: ...
    @overload
    async def clear_datasets(
        self,
        dataset_hashes: Sequence[str] | None = None,
        *,
        delete_files: Literal[True],
        dry_run: Literal[True],
        **options: Unpack[FilteredClearOptions],
    ) -> CleanupPlan: ...
    @overload
    async def clear_datasets(
        self,
        dataset_hashes: Sequence[str] | None = None,
        *,
        delete_files: bool = False,
        dry_run: bool = False,
        **options: Unpack[FilteredClearOptions],
    ) -> int | CleanupResult | CleanupPlan: ...
    async def clear_datasets(
        self,
        dataset_hashes: Sequence[str] | None = None,
        *,
        delete_files: bool = False,
        dry_run: bool = False,
        **options: Unpack[FilteredClearOptions],
    ) -> int | CleanupResult | CleanupPlan:
        """Remove some datasets, or all.

        Args:
            dataset_hashes: None: all; an empty list: none.
            delete_files: remove their files with them, sparing what is pinned, computed or in use; else only the
                entries go, pinned ones not, and their files stay behind.
            dry_run: with `delete_files`, change nothing and return the plan, for `apply_plan`.
            options: `force=True` overrides pins. With `delete_files`, `to_trash=False` frees the room at once, so that
                it cannot be undone, and `on_progress` is told how far it has come.

        Returns:
            How many were removed; with `delete_files` a CleanupResult, with `dry_run` too a CleanupPlan.

        Raises:
            CacheRequestError: `dry_run` without `delete_files`.
        """
        how, scope = filtered(options, Kind.DATASET)
        if not table.is_with_files(delete_files=delete_files, dry_run=dry_run):
            return await self._call(calls.clear_datasets(dataset_hashes, scope))
        return await self._clean(table.datasets(dataset_hashes, scope), how, dry_run=dry_run)

    @overload
    async def clear_models(
        self,
        model_ids: Sequence[str] | None = None,
        *,
        delete_files: Literal[False] = False,
        **options: Unpack[FilteredClearOptions],
    ) -> int: ...
    @overload
    async def clear_models(
        self,
        model_ids: Sequence[str] | None = None,
        *,
        delete_files: Literal[True],
        dry_run: Literal[False] = False,
        **options: Unpack[FilteredClearOptions],
    ) -> CleanupResult: ...
    @overload
    async def clear_models(
        self,
        model_ids: Sequence[str] | None = None,
        *,
        delete_files: Literal[True],
        dry_run: Literal[True],
        **options: Unpack[FilteredClearOptions],
    ) -> CleanupPlan: ...
    @overload
    async def clear_models(
        self,
        model_ids: Sequence[str] | None = None,
        *,
        delete_files: bool = False,
        dry_run: bool = False,
        **options: Unpack[FilteredClearOptions],
    ) -> int | CleanupResult | CleanupPlan: ...
    async def clear_models(
        self,
        model_ids: Sequence[str] | None = None,
        *,
        delete_files: bool = False,
        dry_run: bool = False,
        **options: Unpack[FilteredClearOptions],
    ) -> int | CleanupResult | CleanupPlan:
        """Remove the models with these ids, or all: as `clear_datasets`."""
        how, scope = filtered(options, Kind.MODEL)
        if not table.is_with_files(delete_files=delete_files, dry_run=dry_run):
            return await self._call(calls.clear_models(model_ids, scope))
        return await self._clean(table.models(model_ids, scope), how, dry_run=dry_run)

    @overload
    async def clear_evals(
        self,
        model_ids: Sequence[str] | None = None,
        task_ids: Sequence[str] | None = None,
        *,
        delete_files: Literal[False] = False,
        **options: Unpack[FilteredClearOptions],
    ) -> int: ...
    @overload
    async def clear_evals(
        self,
        model_ids: Sequence[str] | None = None,
        task_ids: Sequence[str] | None = None,
        *,
        delete_files: Literal[True],
        dry_run: Literal[False] = False,
        **options: Unpack[FilteredClearOptions],
    ) -> CleanupResult: ...
    @overload
    async def clear_evals(
        self,
        model_ids: Sequence[str] | None = None,
        task_ids: Sequence[str] | None = None,
        *,
        delete_files: Literal[True],
        dry_run: Literal[True],
        **options: Unpack[FilteredClearOptions],
    ) -> CleanupPlan: ...
    @overload
    async def clear_evals(
        self,
        model_ids: Sequence[str] | None = None,
        task_ids: Sequence[str] | None = None,
        *,
        delete_files: bool = False,
        dry_run: bool = False,
        **options: Unpack[FilteredClearOptions],
    ) -> int | CleanupResult | CleanupPlan: ...
    async def clear_evals(
        self,
        model_ids: Sequence[str] | None = None,
        task_ids: Sequence[str] | None = None,
        *,
        delete_files: bool = False,
        dry_run: bool = False,
        **options: Unpack[FilteredClearOptions],
    ) -> int | CleanupResult | CleanupPlan:
        """Remove the evaluations that match both lists, or all: as `clear_datasets`."""
        how, scope = filtered(options, Kind.EVAL)
        if not table.is_with_files(delete_files=delete_files, dry_run=dry_run):
            return await self._call(calls.clear_evals(model_ids, task_ids, scope))
        return await self._clean(table.evals(model_ids, task_ids, scope), how, dry_run=dry_run)

    @overload
    async def clear_all(
        self, *, delete_files: Literal[False] = False, **options: Unpack[ClearOptions]
    ) -> dict[str, int]: ...
    @overload
    async def clear_all(
        self, *, delete_files: Literal[True], dry_run: Literal[False] = False, **options: Unpack[ClearOptions]
    ) -> CleanupResult: ...
    @overload
    async def clear_all(
        self, *, delete_files: Literal[True], dry_run: Literal[True], **options: Unpack[ClearOptions]
    ) -> CleanupPlan: ...
    @overload
    async def clear_all(
        self, *, delete_files: bool = False, dry_run: bool = False, **options: Unpack[ClearOptions]
    ) -> dict[str, int] | CleanupResult | CleanupPlan: ...
    async def clear_all(
        self, *, delete_files: bool = False, dry_run: bool = False, **options: Unpack[ClearOptions]
    ) -> dict[str, int] | CleanupResult | CleanupPlan:
        """Remove every entry: as `clear_datasets`. Without `delete_files` in one transaction; how many of each kind."""
        how = Clearing(**options)
        if not table.is_with_files(delete_files=delete_files, dry_run=dry_run):
            return await self._call(calls.clear_all(ClearScope(force=how.force)))
        return await self._clean(table.everything(force=how.force), how, dry_run=dry_run)

    @overload
    async def prune(self, *, dry_run: Literal[False] = False, **options: Unpack[PruneOptions]) -> CleanupResult: ...
    @overload
    async def prune(self, *, dry_run: Literal[True], **options: Unpack[PruneOptions]) -> CleanupPlan: ...
    @overload
    async def prune(self, *, dry_run: bool = False, **options: Unpack[PruneOptions]) -> CleanupResult | CleanupPlan: ...
    async def prune(self, *, dry_run: bool = False, **options: Unpack[PruneOptions]) -> CleanupResult | CleanupPlan:
        """Remove what is old, unused, too much, or of no use; with its files.

        Args:
            dry_run: change nothing and return the plan, for `apply_plan`.
            options: what goes, of which at least one is given, and how: see `PruneOptions`. Durations are seconds, a
                timedelta or a text such as "30d"; sizes bytes or a text such as "50GB".

        Raises:
            CacheRequestError: nothing was chosen, or something cannot be read.
        """
        how = pruning(options)
        return await self._clean(how.criteria(), how, dry_run=dry_run)

    async def apply_plan(
        self, plan_id: str, *, to_trash: bool = True, on_progress: OnProgress | None = None
    ) -> CleanupResult:
        """Carry out exactly a plan that a dry run made; asked again, tell what came of the first time.

        Raises:
            PlanOutdated: what it saw is not so any more; nothing was removed.
            EntryNotFound: there is no such plan.
        """
        return await self._call_long(table.apply_plan(plan_id, to_trash=to_trash), on_progress)

    async def _clean(self, criteria: Criteria, how: Clearing, *, dry_run: bool) -> CleanupResult | CleanupPlan:
        for attempt in range(1, PLANS_MAX + 1):
            plan = await self._call_long(table.make_plan(criteria))
            if dry_run:
                return plan
            if not plan.items:
                break
            try:
                result = await self.apply_plan(plan.plan_id, to_trash=how.to_trash, on_progress=how.on_progress)
            except PlanOutdated:
                if attempt == PLANS_MAX:
                    raise
                continue
            return msgspec.structs.replace(result, protected=plan.protected)
        return CleanupResult(protected=plan.protected)

    async def _call(self, call: Call[T]) -> T:
        raise NotImplementedError

    async def _call_long(
        self, call: Call[T], on_progress: OnProgress | None = None, *, is_repeatable: bool = True
    ) -> T:
        raise NotImplementedError
