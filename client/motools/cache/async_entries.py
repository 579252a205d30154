"""What is looked up and stored, for asyncio and trio.

Layer: motools.cache. Imports calls, files, lookups, owned, publishing, recording and remembered.
Invariant: as in `sync_entries`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, Unpack

from motools.cache import calls, lookups
from motools.cache.async_files import in_thread
from motools.cache.calls import Call
from motools.cache.entries import DatasetEntry, EvalHits
from motools.cache.files import Content
from motools.cache.lookups import KindName
from motools.cache.owned import own_logs, own_run
from motools.cache.publishing import DatasetPut
from motools.cache.recording import Owned, Provenance, Record, RecordOptions
from motools.cache.remembered import ANSWERS_MAX, Memory

T = TypeVar("T")


class AsyncEntries:
    """The entries of an async cache. `Cache` adds everything else."""

    _memory: Memory
    _thread: int | None
    _provenance: Provenance
    _directory: str

    # The older package's names.

    async def get_file_id(self, dataset_hash: str) -> str | None:
        """The file id of a dataset, or None."""
        memory = self._memory
        try:
            found = memory.datasets.get(dataset_hash)
        except TypeError:
            found = None  # as in `SyncCache`
        if found is not None:
            value, slot, number = found
            used = memory.used
            if memory.numbers[slot] == number and len(used) < ANSWERS_MAX and threading.get_ident() == self._thread:
                used.append(dataset_hash)
                return value
        return await self._call(lookups.get_file_id(dataset_hash))

    async def set_file_id(self, dataset_hash: str, file_id: str, **record: Unpack[RecordOptions]) -> None:
        """Remember the file id of a dataset; on disk when this returns. Options: as in `RecordOptions`."""
        await self._call(
            calls.set_file_id(self._provenance, dataset_hash, file_id, owned=Owned(record=Record(**record)))
        )

    async def get_model_id(
        self, dataset_hash: str, config: Mapping[str, Any], backend_type: str = "openai"
    ) -> str | None:
        """The id of the model trained from this dataset with this configuration, or None."""
        return await self._call(lookups.get_model_id(dataset_hash, config, backend_type))

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
        """Remember a trained model and what it owns; on disk when this returns: as `SyncCache.set_model_id`."""
        files = await in_thread(own_run, self._directory, run_dir) if run_dir is not None else ()
        owned, identity = Owned(files=files, record=Record(**record)), (dataset_hash, config, model_id, backend_type)
        await self._call(calls.set_model_id(self._provenance, *identity, owned=owned))

    async def get_eval_log_paths(
        self,
        model_id: str,
        task_ids: Sequence[str],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
    ) -> dict[str, str] | None:
        """The log of each task, or None if one of them is missing."""
        return await self._call(lookups.get_eval_log_paths(model_id, task_ids, backend_type, inspect_kwargs))

    async def set_eval_log_paths(
        self,
        model_id: str,
        task_log_paths: Mapping[str, str | os.PathLike[str]],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
        **record: Unpack[RecordOptions],
    ) -> None:
        """Remember the logs of a model's evaluations, all or none: as `SyncCache.set_eval_log_paths`."""
        owned = Owned(logs=await in_thread(own_logs, self._directory, task_log_paths), record=Record(**record))
        identity = model_id, task_log_paths, backend_type, inspect_kwargs
        await self._call(calls.set_eval_log_paths(self._provenance, *identity, owned=owned))

    # Beyond them.

    async def get_evals(
        self,
        model_id: str,
        task_ids: Sequence[str],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
    ) -> EvalHits:
        """Which of the tasks are cached, and which are missing."""
        return await self._call(lookups.get_evals(model_id, task_ids, backend_type, inspect_kwargs))

    async def get_many(self, kind: KindName, questions: Sequence[Any]) -> list[str | None]:
        """The values of many entries of one kind, None where one is missing; see `SyncCache.get_many`."""
        return await self._call(lookups.get_many(kind, questions))

    async def put_dataset(
        self,
        path_or_bytes: Content,
        file_id: str | None = None,
        **record: Unpack[RecordOptions],
    ) -> DatasetEntry:
        """Store a dataset with its content, of any size: as `SyncCache.put_dataset`.

        Cancellation: the copy, which a worker thread makes, stops at the next chunk; nothing is left behind.
        """
        return await self._keep(DatasetPut(path_or_bytes, file_id, self._provenance, Record(**record)))

    async def _call(self, call: Call[T]) -> T:
        raise NotImplementedError

    async def _keep(self, put: DatasetPut) -> DatasetEntry:
        raise NotImplementedError
