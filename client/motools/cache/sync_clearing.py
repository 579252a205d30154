"""Removing entries and their files, blocking: clearing, plans and what comes of them.

Layer: motools.cache. Imports calls, cleaning, cleaning_calls, clearing_options and errors.
Invariant: as in `sync_management`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class SyncClearing:
    """What removes something, of a blocking cache."""

    @overload
    def clear_datasets(
        self,
        dataset_hashes: Sequence[str] | None = None,
        *,
        delete_files: Literal[False] = False,
        **options: Unpack[FilteredClearOptions],
    ) -> int: ...
    @overload
    def clear_datasets(
        self,
        dataset_hashes: Sequence[str] | None = None,
        *,
        delete_files: Literal[True],
        dry_run: Literal[False] = False,
        **options: Unpack[FilteredClearOptions],
    ) -> CleanupResult: ...
    @overload
    def clear_datasets(
        self,
        dataset_hashes: Sequence[str] | None = None,
        *,
        delete_files: Literal[True],
        dry_run: Literal[True],
        **options: Unpack[FilteredClearOptions],
    ) -> CleanupPlan: ...
    @overload
    def clear_datasets(
        self,
        dataset_hashes: Sequence[str] | None = None,
        *,
        delete_files: bool = False,
        dry_run: bool = False,
        **options: Unpack[FilteredClearOptions],
    ) -> int | CleanupResult | CleanupPlan: ...
    def clear_datasets(
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
            options: filters, as in `FilterOptions`; `downstream=True` takes what was made from them, too; `force=True`
                overrides pins. With `delete_files`, `to_trash=False` frees the room at once, so that
                it cannot be undone, and `on_progress` is told how far it has come.

        Returns:
            How many were removed; with `delete_files` a CleanupResult, with `dry_run` too a CleanupPlan.

        Raises:
            CacheRequestError: `dry_run` without `delete_files`.
        """
        how, scope = filtered(options, Kind.DATASET)
        if not table.is_with_files(delete_files=delete_files, dry_run=dry_run):
            return self._clear(calls.clear_datasets, dataset_hashes, scope)
        return self._clean(table.datasets(dataset_hashes, scope), how, dry_run=dry_run)

    @overload
    def clear_models(
        self,
        model_ids: Sequence[str] | None = None,
        *,
        delete_files: Literal[False] = False,
        **options: Unpack[FilteredClearOptions],
    ) -> int: ...
    @overload
    def clear_models(
        self,
        model_ids: Sequence[str] | None = None,
        *,
        delete_files: Literal[True],
        dry_run: Literal[False] = False,
        **options: Unpack[FilteredClearOptions],
    ) -> CleanupResult: ...
    @overload
    def clear_models(
        self,
        model_ids: Sequence[str] | None = None,
        *,
        delete_files: Literal[True],
        dry_run: Literal[True],
        **options: Unpack[FilteredClearOptions],
    ) -> CleanupPlan: ...
    @overload
    def clear_models(
        self,
        model_ids: Sequence[str] | None = None,
        *,
        delete_files: bool = False,
        dry_run: bool = False,
        **options: Unpack[FilteredClearOptions],
    ) -> int | CleanupResult | CleanupPlan: ...
    def clear_models(
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
            return self._clear(calls.clear_models, model_ids, scope)
        return self._clean(table.models(model_ids, scope), how, dry_run=dry_run)

    @overload
    def clear_evals(
        self,
        model_ids: Sequence[str] | None = None,
        task_ids: Sequence[str] | None = None,
        *,
        delete_files: Literal[False] = False,
        **options: Unpack[FilteredClearOptions],
    ) -> int: ...
    @overload
    def clear_evals(
        self,
        model_ids: Sequence[str] | None = None,
        task_ids: Sequence[str] | None = None,
        *,
        delete_files: Literal[True],
        dry_run: Literal[False] = False,
        **options: Unpack[FilteredClearOptions],
    ) -> CleanupResult: ...
    @overload
    def clear_evals(
        self,
        model_ids: Sequence[str] | None = None,
        task_ids: Sequence[str] | None = None,
        *,
        delete_files: Literal[True],
        dry_run: Literal[True],
        **options: Unpack[FilteredClearOptions],
    ) -> CleanupPlan: ...
    @overload
    def clear_evals(
        self,
        model_ids: Sequence[str] | None = None,
        task_ids: Sequence[str] | None = None,
        *,
        delete_files: bool = False,
        dry_run: bool = False,
        **options: Unpack[FilteredClearOptions],
    ) -> int | CleanupResult | CleanupPlan: ...
    def clear_evals(
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
            return self._clear(calls.clear_evals, model_ids, task_ids, scope)
        return self._clean(table.evals(model_ids, task_ids, scope), how, dry_run=dry_run)

    @overload
    def clear_all(self, *, delete_files: Literal[False] = False, **options: Unpack[ClearOptions]) -> dict[str, int]: ...
    @overload
    def clear_all(
        self, *, delete_files: Literal[True], dry_run: Literal[False] = False, **options: Unpack[ClearOptions]
    ) -> CleanupResult: ...
    @overload
    def clear_all(
        self, *, delete_files: Literal[True], dry_run: Literal[True], **options: Unpack[ClearOptions]
    ) -> CleanupPlan: ...
    @overload
    def clear_all(
        self, *, delete_files: bool = False, dry_run: bool = False, **options: Unpack[ClearOptions]
    ) -> dict[str, int] | CleanupResult | CleanupPlan: ...
    def clear_all(
        self, *, delete_files: bool = False, dry_run: bool = False, **options: Unpack[ClearOptions]
    ) -> dict[str, int] | CleanupResult | CleanupPlan:
        """Remove every entry: as `clear_datasets`. Without `delete_files` in one transaction; how many of each kind."""
        how = Clearing(**options)
        if not table.is_with_files(delete_files=delete_files, dry_run=dry_run):
            return self._clear(calls.clear_all, ClearScope(force=how.force))
        return self._clean(table.everything(force=how.force), how, dry_run=dry_run)

    @overload
    def prune(self, *, dry_run: Literal[False] = False, **options: Unpack[PruneOptions]) -> CleanupResult: ...
    @overload
    def prune(self, *, dry_run: Literal[True], **options: Unpack[PruneOptions]) -> CleanupPlan: ...
    @overload
    def prune(self, *, dry_run: bool = False, **options: Unpack[PruneOptions]) -> CleanupResult | CleanupPlan: ...
    def prune(self, *, dry_run: bool = False, **options: Unpack[PruneOptions]) -> CleanupResult | CleanupPlan:
        """Remove what is old, unused, too much, or of no use; with its files.

        Args:
            dry_run: change nothing and return the plan, for `apply_plan`.
            options: what goes, of which at least one is given, and how: see `PruneOptions`. Durations are seconds, a
                timedelta or a text such as "30d"; sizes bytes or a text such as "50GB".

        Raises:
            CacheRequestError: nothing was chosen, or something cannot be read.
        """
        how = pruning(options)
        return self._clean(how.criteria(), how, dry_run=dry_run)

    def apply_plan(
        self, plan_id: str, *, to_trash: bool = True, on_progress: OnProgress | None = None
    ) -> CleanupResult:
        """Carry out exactly a plan that a dry run made; asked again, tell what came of the first time.

        Raises:
            PlanOutdated: what it saw is not so any more; nothing was removed.
            EntryNotFound: there is no such plan.
        """
        return self._call_long(table.apply_plan(plan_id, to_trash=to_trash), on_progress)

    def _clean(self, criteria: Criteria, how: Clearing, *, dry_run: bool) -> CleanupResult | CleanupPlan:
        for attempt in range(1, PLANS_MAX + 1):
            plan = self._call_long(table.make_plan(criteria))
            if dry_run:
                return plan
            if not plan.items:
                break
            try:
                result = self.apply_plan(plan.plan_id, to_trash=how.to_trash, on_progress=how.on_progress)
            except PlanOutdated:
                if attempt == PLANS_MAX:
                    raise
                continue
            return msgspec.structs.replace(result, protected=plan.protected)
        return CleanupResult(protected=plan.protected)

    def _clear(self, make: Callable[..., Call[T]], *chosen: object) -> T:
        return self._call(make(*chosen))

    def _call(self, call: Call[T], timeout_s: float | None = None) -> T:
        raise NotImplementedError

    def _call_long(self, call: Call[T], on_progress: OnProgress | None = None, *, is_repeatable: bool = True) -> T:
        raise NotImplementedError
