"""What is looked up and stored, blocking.

Layer: motools.cache. Imports calls, files, lookups, owned, publishing, recording and remembered.
Invariant: every method is a call of the tables; how one is carried out is the client's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from motools.cache import calls, lookups
from motools.cache.calls import Call
from motools.cache.entries import DatasetEntry, EvalHits
from motools.cache.files import Content
from motools.cache.lookups import KindName
from motools.cache.owned import own_logs, own_run
from motools.cache.publishing import DatasetPut, put_dataset
from motools.cache.recording import Owned, Provenance, Record, RecordOptions
from motools.cache.remembered import ANSWERS_MAX, Memory

T = TypeVar("T")

if TYPE_CHECKING:
    from motools.cache.sync import SyncCache


class SyncEntries:
    """The entries of a blocking cache. `SyncCache` adds everything else."""

    _memory: Memory
    _provenance: Provenance
    _directory: str

    # The older package's names.

    def get_file_id(self, dataset_hash: str) -> str | None:
        """The file id of a dataset, or None."""
        # What nearly always comes, by the shortest way; everything else about lookups is in `_call`.
        memory = self._memory
        try:
            found = memory.datasets.get(dataset_hash)
        except TypeError:
            found = None  # it is no text: the long way says so
        if found is not None:
            value, slot, number = found
            used = memory.used
            if memory.numbers[slot] == number and len(used) < ANSWERS_MAX:
                used.append(dataset_hash)
                return value
        return self._call(lookups.get_file_id(dataset_hash))

    def set_file_id(self, dataset_hash: str, file_id: str, **record: Unpack[RecordOptions]) -> None:
        """Remember the file id of a dataset; on disk when this returns. Options: as in `RecordOptions`."""
        self._call(calls.set_file_id(self._provenance, dataset_hash, file_id, owned=Owned(record=Record(**record))))

    def get_model_id(self, dataset_hash: str, config: Mapping[str, Any], backend_type: str = "openai") -> str | None:
        """The id of the model trained from this dataset with this configuration, or None."""
        return self._call(lookups.get_model_id(dataset_hash, config, backend_type))

    def set_model_id(
        self,
        dataset_hash: str,
        config: Mapping[str, Any],
        model_id: str,
        backend_type: str = "openai",
        *,
        run_dir: str | os.PathLike[str] | None = None,
        **record: Unpack[RecordOptions],
    ) -> None:
        """Remember a trained model; on disk when this returns.

        With `run_dir`, a directory below `runs/` of the cache directory, that belongs to the entry from now on.
        Other options: as in `RecordOptions`.

        Raises:
            CacheRequestError: `run_dir` is no directory, or lies where no entry can own it.
        """
        owned = Owned(files=own_run(self._directory, run_dir), record=Record(**record))
        self._call(calls.set_model_id(self._provenance, dataset_hash, config, model_id, backend_type, owned=owned))

    def get_eval_log_paths(
        self,
        model_id: str,
        task_ids: Sequence[str],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
    ) -> dict[str, str] | None:
        """The log of each task, or None if one of them is missing."""
        return self._call(lookups.get_eval_log_paths(model_id, task_ids, backend_type, inspect_kwargs))

    def set_eval_log_paths(
        self,
        model_id: str,
        task_log_paths: Mapping[str, str | os.PathLike[str]],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
        **record: Unpack[RecordOptions],
    ) -> None:
        """Remember the logs of a model's evaluations, all or none; on disk when this returns.

        A log that lies below `datasets/`, `runs/` or `evals/` of the cache directory, links resolved, belongs to its
        entry from now on; any other path or address is remembered as it stands, and never touched.
        Options: as in `RecordOptions`.
        """
        owned = Owned(logs=own_logs(self._directory, task_log_paths), record=Record(**record))
        identity = model_id, task_log_paths, backend_type, inspect_kwargs
        self._call(calls.set_eval_log_paths(self._provenance, *identity, owned=owned))

    # Beyond them.

    def get_evals(
        self,
        model_id: str,
        task_ids: Sequence[str],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
    ) -> EvalHits:
        """Which of the tasks are cached, and which are missing."""
        return self._call(lookups.get_evals(model_id, task_ids, backend_type, inspect_kwargs))

    def get_many(self, kind: KindName, questions: Sequence[Any]) -> list[str | None]:
        """The values of many entries of one kind, None where one is missing, with one question to the daemon.

        Args:
            kind: `"dataset"`, `"model"` or `"eval"`.
            questions: at most 10,000. Of datasets their hashes, of models `(dataset_hash, config, backend_type)`, of
                evaluations `(model_id, task_id, backend_type, inspect_kwargs)`; the last two's last may be left out.

        Raises:
            CacheRequestError: a question is none of that kind, or there are too many.
        """
        return self._call(lookups.get_many(kind, questions))

    def put_dataset(
        self,
        path_or_bytes: Content,
        file_id: str | None = None,
        **record: Unpack[RecordOptions],
    ) -> DatasetEntry:
        """Store a dataset with its content, of any size; both are on disk when this returns.

        It is a copy, which shares blocks where the file system can: the original may be changed or removed.

        Args:
            path_or_bytes: a path, or the content itself.
            file_id: None: the hash.
            record: as in `RecordOptions`.

        Returns:
            The entry; its hash is that of `hash_content`.

        Raises:
            CacheRequestError: no regular file that can be read, or it changed while it was copied.
            StorageFailed: the disk is full; nothing was stored, nothing is left behind.
        """
        return put_dataset(self._as_cache(), DatasetPut(path_or_bytes, file_id, self._provenance, Record(**record)))

    def _call(self, call: Call[T], timeout_s: float | None = None) -> T:
        raise NotImplementedError

    def _as_cache(self) -> SyncCache:
        raise NotImplementedError
