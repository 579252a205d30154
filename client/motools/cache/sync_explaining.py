"""Explaining a cache, blocking: why, show, lineage, differences, statistics, invalidation.

Layer: motools.cache. Imports explaining_calls.
Invariant: as in `sync_management`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from motools.cache import explaining_calls as table
from motools.cache.arguments import Duration
from motools.cache.calls import Call
from motools.cache.filtering import AnyFilterOptions
from motools.cache.lookups import KindName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from motools.cache.explanations import (
        Difference,
        EntryDetails,
        Explanation,
        Lineage,
        Listing,
        Miss,
        Usage,
    )

T = TypeVar("T")


class SyncExplaining:
    """What explains something, of a blocking cache."""

    def list_entries(
        self,
        kind: KindName,
        *,
        sort: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        **filters: Unpack[AnyFilterOptions],
    ) -> Listing:
        """Entries of one kind, page by page.

        An entry that changes what it is sorted by meanwhile may come twice or never; every other one comes once.

        Args:
            kind: `"dataset"`, `"model"` or `"eval"`.
            sort: a field to sort by, as `size:desc`; None: the order in which they were first stored.
            limit: entries of a page; None: all.
            cursor: that of the page before, with the same kind, sort and filters; None: the first page.
            filters: see `AnyFilterOptions`.

        Raises:
            CacheRequestError: a filter cannot be read or does not fit, or the cursor is of another listing.
        """
        return self._call(table.list_entries(kind, sort, limit, cursor, filters))

    def explain(self, key: str, kind: KindName | None = None, version: str | None = None) -> Explanation:
        """Why a key hits or misses now. Asking is no lookup, and is not counted.

        Args:
            key: of a dataset, a model or an evaluation.
            kind: None: whatever has such a key.
            version: as a client of that version would see it; None: as this one does.
        """
        found = [self._call(table.explain(key, one, version)) for one in table.kinds_of_key(key, kind)]
        return table.likeliest(found)

    def explain_dataset(self, dataset_hash: str, *, version: str | None = None) -> Explanation:
        """Why the file id of a dataset is cached or not."""
        return self._call(table.explain_dataset(dataset_hash, version))

    def explain_model(
        self,
        dataset_hash: str,
        config: Mapping[str, Any],
        backend_type: str = "openai",
        *,
        version: str | None = None,
    ) -> Explanation:
        """Why a model is cached or not, and the nearest that is, field by field: before the GPU hours are spent."""
        return self._call(table.explain_model(dataset_hash, config, backend_type, version))

    def explain_eval(
        self,
        model_id: str,
        task_id: str,
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
        *,
        version: str | None = None,
    ) -> Explanation:
        """Why an evaluation is cached or not, and the nearest that is."""
        return self._call(table.explain_eval(model_id, task_id, backend_type, inspect_kwargs, version))

    def list_misses(self, limit: int = 1) -> list[Miss]:
        """The latest misses of the directory, the last first; the last 1,000 are kept."""
        return self._call(table.list_misses(limit))

    def show(self, name: str, kind: KindName | None = None) -> EntryDetails:
        """Everything about one entry: who made it, when and from what, its files, and what was made from it.

        Args:
            name: a key, a value (file id, model id, path of a log), an evaluation's number, or the beginning of a key
                or value.
            kind: only entries of one kind.

        Raises:
            EntryNotFound: nothing has that name.
            AmbiguousName: several have; `candidates` names them.
        """
        return self._call(table.show(name, kind))

    def lineage(self, name: str, kind: KindName | None = None, *, up: bool = True, down: bool = True) -> Lineage:
        """What an entry was made from (`up`), and what was made from it (`down`): dataset, models, evaluations.

        Raises:
            EntryNotFound: nothing has that name.
            AmbiguousName: several entries have.
        """
        return self._call(table.get_lineage(name, kind, up=up, down=down))

    def compare(self, name: str, other: str, kind: KindName | None = None) -> list[Difference]:
        """In what the inputs of two entries of one kind differ; `cached` is the first one's.

        Raises:
            EntryNotFound: nothing has one of the names.
            AmbiguousName: several have.
            CacheRequestError: the entries are of two kinds.
        """
        return self._call(table.compare(name, other, kind))

    def get_usage(
        self,
        *,
        since: Duration | None = None,
        job: str | None = None,
        labels: Mapping[str, str] | None = None,
        by_label: str | None = None,
        by_job: bool = False,
    ) -> list[Usage]:
        """What lookups came to, over restarts: hits, misses by reason, time and cost saved; one row for each kind.

        Args:
            since: only the last so long, by whole hours: seconds, a timedelta or a text such as "24h".
            job: only of this job.
            labels: only of clients that have all of these.
            by_label: a row for each value of this label.
            by_job: a row for each job.
        """
        return self._call(table.get_usage(since, job, labels, by_label, by_job=by_job))

    def invalidate(
        self,
        *,
        reason: str,
        kinds: Sequence[KindName] | None = None,
        downstream: bool = False,
        dry_run: bool = False,
        **filters: Unpack[AnyFilterOptions],
    ) -> dict[str, int]:
        """Let entries miss without removing them; how many of each kind. `restore` takes it back.

        Args:
            reason: what `explain` says.
            kinds: only these; None: all that the filters fit.
            downstream: also what was made from them.
            dry_run: only count them.
            filters: see `AnyFilterOptions`; at least one, or `kinds`.

        Raises:
            CacheRequestError: nothing was chosen, or a filter makes no sense.
        """
        chosen = table.invalidate(reason, kinds, filters, restore=False, downstream=downstream, dry_run=dry_run)
        return self._call(chosen)

    def restore(
        self,
        *,
        kinds: Sequence[KindName] | None = None,
        downstream: bool = False,
        dry_run: bool = False,
        **filters: Unpack[AnyFilterOptions],
    ) -> dict[str, int]:
        """Let entries count again that were invalidated; how many of each kind. The arguments are as there."""
        chosen = table.invalidate(None, kinds, filters, restore=True, downstream=downstream, dry_run=dry_run)
        return self._call(chosen)

    def _call(self, call: Call[T], timeout_s: float | None = None) -> T:
        raise NotImplementedError
