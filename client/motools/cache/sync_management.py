"""Looking after a cache, blocking: lists, sizes, clearing, clean-up, the trash, pins and verifying.

Layer: motools.cache. Imports calls, cleaning, cleaning_calls, entries, explaining_calls and filtering.
Invariant: every method is a call of the tables, or two of them; how one is carried out is the client's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar, Unpack, cast

from motools.cache import calls, explaining_calls
from motools.cache import cleaning_calls as table
from motools.cache.arguments import Duration
from motools.cache.backups import Backup, backup
from motools.cache.calls import Call
from motools.cache.cleaning import CleanupResult, OnProgress, SizeReport, TrashItem, VerifyReport
from motools.cache.entries import CacheStats, DatasetEntry, EvalEntry, ModelEntry
from motools.cache.filtering import FilterOptions, is_plain, with_ids
from motools.cache.lookups import KindName
from motools.cache.sync_clearing import SyncClearing
from motools.cache.sync_explaining import SyncExplaining
from motoolsd.wire.messages import Status
from motoolsd.wire.sizes import Size

T = TypeVar("T")


class SyncManagement(SyncExplaining, SyncClearing):
    """The management of a blocking cache. `SyncCache` adds everything else.

    What takes long (a rescan, plans, `apply_plan`, `undo`, `empty_trash`, `verify`) uses a connection of its own, so
    that other threads go on. The client's `timeout_s` does not bound the whole, but how long the daemon may be silent,
    to a question in between, too.
    KeyboardInterrupt, or an `on_progress` that raises, closes that connection: the daemon stops at the next step, and
    what a clean-up removed by then lies in the trash.
    """

    def list_datasets(
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
            return self._ask_any(calls.list_datasets)
        return cast("list[DatasetEntry]", self._listed("dataset", sort, limit, filters))

    def list_models(
        self,
        model_id: str | None = None,
        *,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Unpack[FilterOptions],
    ) -> list[ModelEntry]:
        """All models, or those with one id: as `list_datasets`."""
        if is_plain(sort, limit, filters):
            return self._ask_any(calls.list_models, model_id)
        chosen = with_ids(filters, model_id=model_id)
        return cast("list[ModelEntry]", self._listed("model", sort, limit, chosen))

    def list_evals(
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
            return self._ask_any(calls.list_evals, model_id, task_id)
        chosen = with_ids(filters, model_id=model_id, task_id=task_id)
        return cast("list[EvalEntry]", self._listed("eval", sort, limit, chosen))

    def _listed(self, kind: KindName, sort: str | None, limit: int | None, options: Mapping[str, Any]) -> list[Any]:
        return self._call(explaining_calls.list_entries(kind, sort, limit, None, options)).items

    def get_stats(self) -> CacheStats:
        """How many entries there are, and the bytes that everything takes."""
        return self._ask_any(calls.get_stats)

    def get_size_breakdown(self) -> dict[str, int]:
        """Bytes of `datasets`, `runs`, `evals`, `database`, `trash` and `staging`."""
        return self._ask_any(calls.get_size_breakdown)

    def get_sizes(self) -> dict[str, Size]:
        """The same with the bytes allocated on disk."""
        return self._call(calls.get_sizes())

    def get_size_report(
        self, *, rescan: bool = False, top: int = 0, on_progress: OnProgress | None = None
    ) -> SizeReport:
        """What everything takes, orphans and dangling entries included.

        Args:
            rescan: count anew and wait for it; else what is known is the answer, at once.
            top: name so many of the largest entries; up to 1,000.
            on_progress: told how far a rescan has come.
        """
        if rescan:
            return self._call_long(table.rescan(top=top), on_progress)
        return self._call(table.get_size_report(top=top))

    def get_status(self) -> Status:
        """What the daemon says of itself."""
        return self._call(calls.get_status())

    # The trash.

    def undo(self, removal_id: int | None = None, *, on_progress: OnProgress | None = None) -> CleanupResult:
        """Put back what a clean-up took, rows and files: all of it, or nothing.

        Args:
            removal_id: which; None: the latest that lies in the trash.
            on_progress: told how far it has come.

        Raises:
            EntryNotFound: there is nothing to undo.
            CacheRequestError: something stands where it was, and is named.
        """
        return self._call_long(table.undo(removal_id), on_progress, is_repeatable=False)

    def list_trash(self) -> list[TrashItem]:
        """What can be put back, the latest first."""
        return self._call(table.list_trash())

    def empty_trash(
        self, removal_ids: Sequence[int] | None = None, *, on_progress: OnProgress | None = None
    ) -> CleanupResult:
        """Free the room of what lies in the trash, for ever.

        Args:
            removal_ids: which; None: all; an empty list: nothing.
            on_progress: told how far it has come.

        Raises:
            EntryNotFound: one of them is not there; nothing was freed.
        """
        return self._call_long(table.empty_trash(removal_ids), on_progress, is_repeatable=False)

    # Protection, and verifying.

    def pin(
        self,
        key: str,
        *,
        kind: KindName | None = None,
        reason: str = "",
        until: datetime | Duration | None = None,
    ) -> int:
        """Protect entries, and what they were made from, from every clean-up; how many there are.

        Args:
            key: a key or a value (a file id, model id or path): all entries that have it.
            kind: only those of one kind.
            reason: shown where they are spared.
            until: a time (aware, or local), or seconds, a timedelta or a text such as "30d" from now; None: for good.

        Raises:
            EntryNotFound: nothing has that name.
        """
        return self._call(table.pin(key, kind, reason, until))

    def unpin(self, key: str, *, kind: KindName | None = None) -> int:
        """Take that protection away; how many entries there are.

        Raises:
            EntryNotFound: nothing has that name.
        """
        return self._call(table.unpin(key, kind))

    def verify(
        self, *, deep: bool = False, repair: bool = False, on_progress: OnProgress | None = None
    ) -> VerifyReport:
        """Compare rows, files and the database with what they should be.

        Args:
            deep: read the content of files, too.
            repair: let entries whose files are missing or damaged miss, so that they are made anew. No file is removed.
            on_progress: told how far it has come.
        """
        return self._call_long(table.verify(deep=deep, repair=repair), on_progress)

    def backup(
        self, path: str | os.PathLike[str], *, force: bool = False, on_progress: OnProgress | None = None
    ) -> Backup:
        """Copy the database while it is in use; everything acknowledged before the call is in the copy.

        The copy is one file, 0600, checked and on disk when this returns; the files of entries are not in it.

        Args:
            path: of the file to make, outside of the cache directory.
            force: replace a file that is there.
            on_progress: told how many pages are copied.

        Raises:
            CacheRequestError: there is something at the path, or its directory is missing.
            StorageFailed: the copy cannot be written; nothing half-written stays.
        """
        return self._call_long(backup(path, force=force), on_progress)

    def _ask_any(self, make: Callable[..., Call[T]], *arguments: object) -> T:
        """What every backend can do, under the table's name for it."""
        return self._call(make(*arguments))

    def _call(self, call: Call[T], timeout_s: float | None = None) -> T:
        raise NotImplementedError

    def _call_long(self, call: Call[T], on_progress: OnProgress | None = None, *, is_repeatable: bool = True) -> T:
        raise NotImplementedError
