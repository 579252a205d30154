"""InMemoryCache: the same protocol in one process, for tests of code that uses a cache.

Layer: motools.cache. Imports calls' checks, entries and keys.
Invariant: accepts and refuses what `Cache` does; nothing is shared, nothing is kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from motools.cache import calls
from motools.cache.clock import utc_text
from motools.cache.entries import CacheStats, DatasetEntry, EvalEntry, EvalHits, ModelEntry, text_of
from motools.cache.keys import canonical_json
from motoolsd.wire.keys import json_hash, model_key

EvalKey = tuple[str, str, str, str | None]


class InMemoryCache:
    """A cache that lives and dies with this object. Its methods never wait, and work under any event loop."""

    def __init__(self, *, labels: Mapping[str, str] | None = None, version: str | None = None) -> None:
        """Start empty."""
        self._provenance = calls.Provenance(labels, version)
        self._datasets: dict[str, DatasetEntry] = {}
        self._models: dict[str, ModelEntry] = {}
        self._evals: dict[EvalKey, EvalEntry] = {}
        self._last_eval_id = 0

    async def __aenter__(self) -> InMemoryCache:
        """As `Cache`."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """As `Cache`; what is stored stays readable."""

    async def aclose(self) -> None:
        """As `Cache`; nothing is open."""

    async def get_file_id(self, dataset_hash: str) -> str | None:
        """The file id of a dataset, or None."""
        entry = self._datasets.get(calls.text(dataset_hash, "dataset_hash"))
        return None if entry is None else entry.file_id

    async def set_file_id(self, dataset_hash: str, file_id: str) -> None:
        """Remember the file id of a dataset."""
        key, value = calls.text(dataset_hash, "dataset_hash"), text_of(calls.value_bytes(file_id, "file_id"))
        self._datasets[key] = DatasetEntry(dataset_hash=key, file_id=value, **self._now())

    async def get_model_id(
        self, dataset_hash: str, config: Mapping[str, Any], backend_type: str = "openai"
    ) -> str | None:
        """The id of the model trained from this dataset with this configuration, or None."""
        entry = self._models.get(_model_key(dataset_hash, config, backend_type))
        return None if entry is None else entry.model_id

    async def set_model_id(
        self, dataset_hash: str, config: Mapping[str, Any], model_id: str, backend_type: str = "openai"
    ) -> None:
        """Remember a trained model."""
        key = _model_key(dataset_hash, config, backend_type)
        self._models[key] = ModelEntry(
            cache_key=key,
            model_id=text_of(calls.value_bytes(model_id, "model_id")),
            dataset_hash=dataset_hash,
            config=json.loads(canonical_json(config, "config")),
            backend_type=backend_type,
            **self._now(),
        )

    async def get_eval_log_paths(
        self,
        model_id: str,
        task_ids: Sequence[str],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
    ) -> dict[str, str] | None:
        """The log of each task, or None if one of them is missing."""
        hits = await self.get_evals(model_id, task_ids, backend_type, inspect_kwargs)
        return None if hits.missing else hits.found

    async def get_evals(
        self,
        model_id: str,
        task_ids: Sequence[str],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
    ) -> EvalHits:
        """Which of the tasks are cached, and which are missing."""
        found, missing = {}, []
        for task_id in dict.fromkeys(calls.texts(task_ids, "task_ids")):
            entry = self._evals.get(_eval_key(model_id, task_id, backend_type, inspect_kwargs))
            if entry is None:
                missing.append(task_id)
            else:
                found[task_id] = entry.log_file_path
        return EvalHits(found, missing)

    async def set_eval_log_paths(
        self,
        model_id: str,
        task_log_paths: Mapping[str, str | os.PathLike[str]],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Remember the logs of a model's evaluations, all or none."""
        # The call checks everything before the first entry is made.
        calls.set_eval_log_paths(self._provenance, model_id, task_log_paths, backend_type, inspect_kwargs)
        for task_id, path in task_log_paths.items():
            key = _eval_key(model_id, task_id, backend_type, inspect_kwargs)
            old = self._evals.get(key)
            self._last_eval_id += old is None
            self._evals[key] = EvalEntry(
                id=self._last_eval_id if old is None else old.id,
                model_id=model_id,
                task_id=task_id,
                backend_type=backend_type,
                log_file_path=text_of(calls.value_bytes(path, "log path")),
                inspect_kwargs_hash=key[3],
                inspect_kwargs=dict(inspect_kwargs) if inspect_kwargs else None,
                **self._now(),
            )

    async def list_datasets(self) -> list[DatasetEntry]:
        """All datasets, in the order in which they were first stored."""
        return list(self._datasets.values())

    async def list_models(self, model_id: str | None = None) -> list[ModelEntry]:
        """All models, or those with one id."""
        return [entry for entry in self._models.values() if model_id in (None, entry.model_id)]

    async def list_evals(self, model_id: str | None = None, task_id: str | None = None) -> list[EvalEntry]:
        """All evaluations, or those of one model, one task, or both."""
        return [
            entry
            for entry in self._evals.values()
            if model_id in (None, entry.model_id) and task_id in (None, entry.task_id)
        ]

    async def get_stats(self) -> CacheStats:
        """How many entries there are; the size is that of the text that they hold."""
        sizes = await self.get_size_breakdown()
        return CacheStats(
            num_datasets=len(self._datasets),
            num_models=len(self._models),
            num_evals=len(self._evals),
            total_size_bytes=sum(sizes.values()),
        )

    async def get_size_breakdown(self) -> dict[str, int]:
        """No files here; `database` is what the entries take as JSON."""
        entries = [*self._datasets.values(), *self._models.values(), *self._evals.values()]
        return {"datasets": 0, "runs": 0, "evals": 0, "database": sum(len(msgspec.json.encode(entry)) for entry in entries)}

    async def clear_datasets(self, dataset_hashes: Sequence[str] | None = None) -> int:
        """Remove some datasets, or all; how many were removed."""
        wanted = None if dataset_hashes is None else calls.texts(dataset_hashes, "dataset_hashes")
        return _remove(self._datasets, lambda entry: _is_in(entry.dataset_hash, wanted))

    async def clear_models(self, model_ids: Sequence[str] | None = None) -> int:
        """Remove the models with these ids, or all; how many were removed."""
        wanted = None if model_ids is None else calls.texts(model_ids, "model_ids")
        return _remove(self._models, lambda entry: _is_in(entry.model_id, wanted))

    async def clear_evals(
        self, model_ids: Sequence[str] | None = None, task_ids: Sequence[str] | None = None
    ) -> int:
        """Remove the evaluations that match both lists, or all; how many were removed."""
        models = None if model_ids is None else calls.texts(model_ids, "model_ids")
        tasks = None if task_ids is None else calls.texts(task_ids, "task_ids")
        return _remove(self._evals, lambda entry: _is_in(entry.model_id, models) and _is_in(entry.task_id, tasks))

    async def clear_all(self) -> dict[str, int]:
        """Remove everything; how many of each kind were removed."""
        return {
            "datasets": await self.clear_datasets(),
            "models": await self.clear_models(),
            "evals": await self.clear_evals(),
        }

    def _now(self) -> dict[str, Any]:
        return {"created_at": utc_text(), "labels": self._provenance.labels, "version": self._provenance.version}


def _model_key(dataset_hash: str, config: Mapping[str, Any], backend_type: str) -> str:
    dataset, backend = calls.text(dataset_hash, "dataset_hash"), calls.text(backend_type, "backend_type")
    return model_key(dataset, canonical_json(config, "config"), backend)


def _eval_key(model_id: str, task_id: str, backend_type: str, kwargs: Mapping[str, Any] | None) -> EvalKey:
    kwargs_hash = json_hash(canonical_json(kwargs, "inspect_kwargs")) if kwargs else None
    model, task = calls.text(model_id, "model_id"), calls.text(task_id, "task id")
    return model, task, calls.text(backend_type, "backend_type"), kwargs_hash


def _is_in(value: str, wanted: Sequence[str] | None) -> bool:
    return wanted is None or value in wanted


def _remove(entries: dict[Any, Any], is_wanted: Any) -> int:
    keys = [key for key, entry in entries.items() if is_wanted(entry)]
    for key in keys:
        del entries[key]
    return len(keys)
