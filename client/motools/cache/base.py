"""CacheBackend: what every cache can do.

Layer: motools.cache. Imports entries.
Invariant: `Cache` and `InMemoryCache` fulfil it as it stands; `SyncCache` has the same names, and waits.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol, Unpack, runtime_checkable

from motools.cache.entries import CacheStats, DatasetEntry, EvalEntry, EvalHits, LeaseEntry, ModelEntry
from motools.cache.files import Content
from motools.cache.filtering import FilterOptions
from motools.cache.lookups import KindName
from motools.cache.recording import RecordOptions

if TYPE_CHECKING:
    from motools.cache.async_claims import AsyncClaim
    from motools.cache.claims import OnFailure


@runtime_checkable
class CacheBackend(Protocol):
    """Lookups, writes and introspection of a cache. What each method promises stands at `Cache`."""

    async def get_file_id(self, dataset_hash: str) -> str | None:
        """The file id of a dataset, or None."""
        ...

    async def set_file_id(self, dataset_hash: str, file_id: str, **record: Unpack[RecordOptions]) -> None:
        """Remember the file id of a dataset."""
        ...

    async def get_model_id(
        self, dataset_hash: str, config: Mapping[str, Any], backend_type: str = "openai"
    ) -> str | None:
        """The id of a trained model, or None."""
        ...

    async def set_model_id(
        self,
        dataset_hash: str,
        config: Mapping[str, Any],
        model_id: str,
        backend_type: str = "openai",
        *,
        run_dir: str | os.PathLike[str] | None = None,
        **record: Unpack[RecordOptions],
    ) -> None:
        """Remember a trained model, and the directory that belongs to it."""
        ...

    async def get_eval_log_paths(
        self,
        model_id: str,
        task_ids: Sequence[str],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
    ) -> dict[str, str] | None:
        """The logs of all tasks, or None if one of them is missing."""
        ...

    async def set_eval_log_paths(
        self,
        model_id: str,
        task_log_paths: Mapping[str, str | os.PathLike[str]],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
        **record: Unpack[RecordOptions],
    ) -> None:
        """Remember the logs of a model's evaluations."""
        ...

    async def get_evals(
        self,
        model_id: str,
        task_ids: Sequence[str],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
    ) -> EvalHits:
        """Which of the tasks are cached, and which are missing."""
        ...

    async def put_dataset(
        self,
        path_or_bytes: Content,
        file_id: str | None = None,
        **record: Unpack[RecordOptions],
    ) -> DatasetEntry:
        """Store a dataset with its content."""
        ...

    def using(self, *entries: DatasetEntry | ModelEntry | EvalEntry) -> AbstractAsyncContextManager[None]:
        """Keep entries from being cleaned up while a block lasts."""
        ...

    async def get_many(self, kind: KindName, questions: Sequence[Any]) -> list[str | None]:
        """The values of many entries of one kind, None where one is missing."""
        ...

    async def list_datasets(
        self, *, sort: str | None = None, limit: int | None = None, **filters: Unpack[FilterOptions]
    ) -> list[DatasetEntry]:
        """All datasets."""
        ...

    async def list_models(
        self,
        model_id: str | None = None,
        *,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Unpack[FilterOptions],
    ) -> list[ModelEntry]:
        """All models, or those with one id."""
        ...

    async def list_evals(
        self,
        model_id: str | None = None,
        task_id: str | None = None,
        *,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Unpack[FilterOptions],
    ) -> list[EvalEntry]:
        """All evaluations, or those of one model, one task, or both."""
        ...

    async def get_stats(self) -> CacheStats:
        """Counts and total size."""
        ...

    async def get_size_breakdown(self) -> dict[str, int]:
        """Bytes of each category."""
        ...

    async def clear_datasets(self, dataset_hashes: Sequence[str] | None = None) -> int:
        """Remove some datasets, or all."""
        ...

    async def clear_models(self, model_ids: Sequence[str] | None = None) -> int:
        """Remove some models, or all."""
        ...

    async def clear_evals(self, model_ids: Sequence[str] | None = None, task_ids: Sequence[str] | None = None) -> int:
        """Remove the evaluations that match both lists, or all."""
        ...

    async def clear_all(self) -> dict[str, int]:
        """Remove everything."""
        ...

    def claim_dataset(
        self,
        dataset_hash: str,
        *,
        wait: bool = True,
        timeout_s: float | None = None,
        on_failure: OnFailure = "raise",
        work_dir: str | os.PathLike[str] | None = None,
    ) -> AsyncClaim:
        """Claim the file id of a dataset."""
        ...

    def claim_model(
        self,
        dataset_hash: str,
        config: Mapping[str, Any],
        backend_type: str = "openai",
        *,
        wait: bool = True,
        timeout_s: float | None = None,
        on_failure: OnFailure = "raise",
        work_dir: str | os.PathLike[str] | None = None,
    ) -> AsyncClaim:
        """Claim a model that is to be trained."""
        ...

    def claim_eval(
        self,
        model_id: str,
        task_id: str,
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
        *,
        wait: bool = True,
        timeout_s: float | None = None,
        on_failure: OnFailure = "raise",
        work_dir: str | os.PathLike[str] | None = None,
    ) -> AsyncClaim:
        """Claim the log of an evaluation."""
        ...

    async def get_or_upload(self, dataset_hash: str, upload: Callable[[], Awaitable[str]]) -> str:
        """The file id of a dataset, uploaded once."""
        ...

    async def get_or_train(
        self,
        dataset_hash: str,
        config: Mapping[str, Any],
        train: Callable[[], Awaitable[str]],
        backend_type: str = "openai",
    ) -> str:
        """The id of a model, trained once."""
        ...

    async def get_or_evaluate(
        self,
        model_id: str,
        task_ids: Sequence[str],
        evaluate: Callable[[list[str]], Awaitable[Mapping[str, str]]],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
        *,
        one_by_one: bool = False,
    ) -> dict[str, str]:
        """The logs of evaluations, each made once."""
        ...

    async def list_leases(self) -> list[LeaseEntry]:
        """Who computes what."""
        ...

    async def break_lease(self, key: str, kind: str | None = None) -> int:
        """Take a lease away."""
        ...
