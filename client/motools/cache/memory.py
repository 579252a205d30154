"""InMemoryCache: the same protocol in one process, for tests of code that uses a cache.

Layer: motools.cache. Imports calls, clock, entries, memory_leases, memory_rows and motoolsd.wire.
Invariant: the requests and replies are those of the daemon, so that it accepts, refuses and returns what `Cache` does;
nothing is shared, nothing is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

import msgspec

from motools.cache import calls, lookups
from motools.cache.async_claims import AsyncClaims
from motools.cache.async_files import in_thread
from motools.cache.async_waiting import Asker, give_up
from motools.cache.calls import Call
from motools.cache.claims import Target
from motools.cache.clock import monotonic_s, utc_text, wall_s
from motools.cache.entries import CacheStats, DatasetEntry, EvalEntry, EvalHits, ModelEntry, text_of
from motools.cache.errors import CacheRequestError
from motools.cache.files import Content, digest_of
from motools.cache.filtering import FilterOptions
from motools.cache.lookups import KindName
from motools.cache.memory_leases import Key, MemoryLeases
from motools.cache.memory_rows import copies, is_cleared, is_in, keys_of, remove
from motools.cache.publishing import DatasetPut
from motools.cache.recording import Owned, Provenance, Record, RecordOptions
from motools.cache.using import AsyncUsing
from motoolsd.wire import messages as m
from motoolsd.wire.cleaning import EndUse, Use
from motoolsd.wire.entries import DatasetRow, EvalRow, ModelRow, Row
from motoolsd.wire.keys import Kind, eval_key, json_hash, model_key
from motoolsd.wire.leases import BreakLease, Claim, Claimed, LeasePage, ListLeases, RecordFailure, Release, Released
from motoolsd.wire.listing import DatasetPage, EvalPage, ListEntries, ModelPage
from motoolsd.wire.sizes import GetSizes, GetStats, Size, Sizes, Stats

T = TypeVar("T")

_KEY = m.RequestKey(bytes(16), 1, 1)
"""No reply is ever lost here: every write may have the same."""


class InMemoryCache(AsyncClaims, AsyncUsing):
    """A cache that lives and dies with this object. Its methods never wait, and work under any event loop."""

    directory: None = None

    def __init__(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        version: str | None = None,
        now_s: Callable[[], float] = monotonic_s,
    ) -> None:
        """Start empty; `now_s` is the clock that entries with an end go by."""
        self._provenance = Provenance(labels, version)
        self._datasets: dict[str, DatasetRow] = {}
        self._models: dict[str, ModelRow] = {}
        self._evals: dict[str, EvalRow] = {}
        self._last_eval_id = 0
        self._now_s = now_s
        self._ends_s: dict[Key, float] = {}
        self._held: set[bytes] = set()
        self._in_use: set[bytes] = set()
        self._leases = MemoryLeases(self._value_of)

    async def __aenter__(self) -> Self:
        """As `Cache`."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """As `Cache`."""
        await self.aclose()

    async def aclose(self) -> None:
        """As `Cache`; nothing is open, and what is stored stays readable."""
        while self._held:
            await give_up(self, self._held.pop())

    async def get_file_id(self, dataset_hash: str) -> str | None:
        """The file id of a dataset, or None."""
        return self._call(lookups.get_file_id(dataset_hash))

    async def set_file_id(self, dataset_hash: str, file_id: str, **record: Unpack[RecordOptions]) -> None:
        """Remember the file id of a dataset."""
        self._call(calls.set_file_id(self._provenance, dataset_hash, file_id, owned=Owned(record=Record(**record))))

    async def put_dataset(
        self,
        path_or_bytes: Content,
        file_id: str | None = None,
        **record: Unpack[RecordOptions],
    ) -> DatasetEntry:
        """Store a dataset by the hash of its content, which is not kept."""
        return await self._keep(DatasetPut(path_or_bytes, file_id, self._provenance, Record(**record)))

    async def get_model_id(
        self, dataset_hash: str, config: Mapping[str, Any], backend_type: str = "openai"
    ) -> str | None:
        """The id of the model trained from this dataset with this configuration, or None."""
        return self._call(lookups.get_model_id(dataset_hash, config, backend_type))

    async def set_model_id(
        self,
        dataset_hash: str,
        config: Mapping[str, Any],
        model_id: str,
        backend_type: str = "openai",
        *,
        run_dir: str | os.PathLike[str] | None = None,  # noqa: ARG002 - nothing owns files here
        **record: Unpack[RecordOptions],
    ) -> None:
        """Remember a trained model."""
        identity, owned = (dataset_hash, config, model_id, backend_type), Owned(record=Record(**record))
        self._call(calls.set_model_id(self._provenance, *identity, owned=owned))

    async def get_eval_log_paths(
        self,
        model_id: str,
        task_ids: Sequence[str],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
    ) -> dict[str, str] | None:
        """The log of each task, or None if one of them is missing."""
        return self._call(lookups.get_eval_log_paths(model_id, task_ids, backend_type, inspect_kwargs))

    async def get_evals(
        self,
        model_id: str,
        task_ids: Sequence[str],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
    ) -> EvalHits:
        """Which of the tasks are cached, and which are missing."""
        return self._call(lookups.get_evals(model_id, task_ids, backend_type, inspect_kwargs))

    async def set_eval_log_paths(
        self,
        model_id: str,
        task_log_paths: Mapping[str, str | os.PathLike[str]],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
        **record: Unpack[RecordOptions],
    ) -> None:
        """Remember the logs of a model's evaluations, all or none."""
        identity, owned = (model_id, task_log_paths, backend_type, inspect_kwargs), Owned(record=Record(**record))
        self._call(calls.set_eval_log_paths(self._provenance, *identity, owned=owned))

    async def get_many(self, kind: KindName, questions: Sequence[Any]) -> list[str | None]:
        """As `Cache`."""
        return self._call(lookups.get_many(kind, questions))

    async def list_datasets(
        self, *, sort: str | None = None, limit: int | None = None, **filters: Unpack[FilterOptions]
    ) -> list[DatasetEntry]:
        """All datasets, in the order in which they were first stored."""
        _refuse(sort, limit, filters)
        return self._call(calls.list_datasets())

    async def list_models(
        self,
        model_id: str | None = None,
        *,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Unpack[FilterOptions],
    ) -> list[ModelEntry]:
        """All models, or those with one id."""
        _refuse(sort, limit, filters)
        return self._call(calls.list_models(model_id))

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
        _refuse(sort, limit, filters)
        return self._call(calls.list_evals(model_id, task_id))

    async def get_stats(self) -> CacheStats:
        """How many entries there are, and the bytes that they take."""
        return self._call(calls.get_stats())

    async def get_size_breakdown(self) -> dict[str, int]:
        """No files here; `database` is what the entries take as MessagePack."""
        return self._call(calls.get_size_breakdown())

    async def clear_datasets(self, dataset_hashes: Sequence[str] | None = None) -> int:
        """Remove some datasets, or all; how many were removed."""
        return self._call(calls.clear_datasets(dataset_hashes))

    async def clear_models(self, model_ids: Sequence[str] | None = None) -> int:
        """Remove the models with these ids, or all; how many were removed."""
        return self._call(calls.clear_models(model_ids))

    async def clear_evals(self, model_ids: Sequence[str] | None = None, task_ids: Sequence[str] | None = None) -> int:
        """Remove the evaluations that match both lists, or all; how many were removed."""
        return self._call(calls.clear_evals(model_ids, task_ids))

    async def clear_all(self) -> dict[str, int]:
        """Remove everything; how many of each kind were removed."""
        return self._call(calls.clear_all())

    # What the daemon would answer.

    def _call(self, call: Call[T]) -> T:
        reply = self._answer(call.request_for(_KEY))
        return call.result_of_pages([reply]) if call.is_stream else call.result(reply)

    def _as_asker(self) -> Asker:
        return self

    async def _ask(self, call: Call[T]) -> T:
        return self._call(call)

    async def _ask_for_hours(self, call: Call[T]) -> T:
        request = call.request_for(None)
        assert isinstance(request, Claim), "nothing else takes hours"
        return call.result(Claimed(states=await self._leases.wait(request)))

    async def _own(self, target: Target, value: object, run_dir: object, record: Record) -> Owned:
        return target.owned(None, value, run_dir, record)

    async def _keep(self, put: DatasetPut) -> DatasetEntry:
        digest, _ = await in_thread(digest_of, put.content)
        self._call(put.call(digest, None))
        return put.entry(digest, None)

    def _work_path(self, work_dir: str | os.PathLike[str] | None) -> bytes | None:  # noqa: ARG002 - nothing is cleaned
        return None

    def _value_of(self, key: Key) -> bytes | None:
        self._drop_ended()
        row = self._rows(key[0]).get(key[1])
        return None if row is None else row.value

    def _drop_ended(self) -> None:
        now_s = self._now_s()
        for key in [key for key, end_s in self._ends_s.items() if end_s <= now_s]:
            del self._ends_s[key]
            self._rows(key[0]).pop(key[1], None)

    def _answer(self, request: m.Request) -> m.Reply:
        self._drop_ended()
        match request:
            case Claim() | Release() | RecordFailure() | BreakLease() | ListLeases() | Use() | EndUse():
                return self._answer_claim(request)
            case m.Lookup():
                rows = self._rows(request.kind)
                return m.Found(values=[rows[key].value if key in rows else None for key in request.keys])
            case ListEntries():
                return self._page(request)
            case m.Clear():
                return self._clear(request)
            case m.ClearAll():
                return self._clear_all()
            case GetStats() | GetSizes():
                return self._measure(request)
            case m.PutDataset() | m.PutModel() | m.PutEvals():
                return self._put(request)
        raise AssertionError(request)

    def _answer_claim(
        self, request: Claim | Release | RecordFailure | BreakLease | ListLeases | Use | EndUse
    ) -> m.Reply:
        match request:
            case Use() | EndUse():
                return Released()  # nothing is cleaned up here
            case Claim():
                return Claimed(states=self._leases.claim(request))
            case Release():
                return Released(count=self._leases.release(request.claim_id))
            case RecordFailure():
                self._leases.fail(request)
                return Released(count=1)
            case BreakLease():
                kinds = list(Kind) if request.kind is None else [request.kind]
                wanted = [(kind, request.key) for kind in kinds]
                return Released(count=self._leases.revoke(self._leases.matching(lambda key: key in wanted)))
            case ListLeases():
                return LeasePage(items=self._leases.rows(), is_last=True)

    def _rows(self, kind: Kind) -> dict[str, Row]:
        tables: dict[Kind, dict[str, Any]] = {
            Kind.DATASET: self._datasets,
            Kind.MODEL: self._models,
            Kind.EVAL: self._evals,
        }
        return tables[kind]

    def _put(self, request: m.PutDataset | m.PutModel | m.PutEvals) -> m.Reply:
        ttl_s = request.ttl_s
        made: dict[str, Any] = {"created_at": utc_text(), "labels": request.labels, "version": request.version}
        made["expires_at"] = None if ttl_s is None else utc_text(wall_s() + ttl_s)
        keys = keys_of(request)
        if request.token:
            self._leases.check(keys[0], request.token)
        self._store(request, made)
        for key in keys:
            self._ends_s.pop(key, None)
            if ttl_s is not None:
                self._ends_s[key] = self._now_s() + ttl_s
            self._leases.settle(key, self._rows(key[0])[key[1]].value)
        return m.Stored()

    def _store(self, request: m.PutDataset | m.PutModel | m.PutEvals, made: dict[str, Any]) -> None:
        match request:
            case m.PutDataset(dataset_hash=key, file_id=value):
                self._datasets[key] = DatasetRow(dataset_hash=key, value=value, **made)
            case m.PutModel(dataset_hash=dataset, config=config, backend_type=backend, model_id=value):
                key = model_key(dataset, config.decode(), backend)
                row = ModelRow(
                    cache_key=key, dataset_hash=dataset, config=config, backend_type=backend, value=value, **made
                )
                self._models[key] = row
            case m.PutEvals():
                for task, value in request.logs.items():
                    self._put_eval(request, task, value, made)

    def _put_eval(self, request: m.PutEvals, task_id: str, log: bytes, made: dict[str, Any]) -> None:
        kwargs_hash = None if request.kwargs is None else json_hash(request.kwargs.decode())
        key = eval_key(request.model_id, task_id, request.backend_type, kwargs_hash)
        old = self._evals.get(key)
        self._last_eval_id += old is None
        self._evals[key] = EvalRow(
            id=self._last_eval_id if old is None else old.id,
            model_id=request.model_id,
            task_id=task_id,
            backend_type=request.backend_type,
            kwargs_hash=kwargs_hash,
            kwargs=request.kwargs,
            value=log,
            **made,
        )

    def _page(self, request: ListEntries) -> m.Reply:
        if request.kind is Kind.DATASET:
            return DatasetPage(items=copies(self._datasets, lambda _: True), is_last=True)
        wanted_model = request.model_id
        if request.kind is Kind.MODEL:
            models = copies(self._models, lambda row: wanted_model in (None, text_of(row.value)))
            return ModelPage(items=models, is_last=True)
        wanted = (wanted_model, request.task_id)
        evals = copies(self._evals, lambda row: wanted[0] in (None, row.model_id) and wanted[1] in (None, row.task_id))
        return EvalPage(items=evals, is_last=True)

    def _clear(self, request: m.Clear) -> m.Reply:
        match request.kind:
            case Kind.DATASET:
                count = remove(self._datasets, lambda row: is_in(row.dataset_hash, request.keys))
            case Kind.MODEL:
                count = remove(self._models, lambda row: is_in(text_of(row.value), request.model_ids))
            case Kind.EVAL:
                models, tasks = request.model_ids, request.task_ids
                count = remove(self._evals, lambda row: is_in(row.model_id, models) and is_in(row.task_id, tasks))
        self._leases.revoke(self._leases.matching(lambda key: is_cleared(request, key)))
        counts = dict.fromkeys(Kind, 0) | {request.kind: count}
        return m.Cleared(datasets=counts[Kind.DATASET], models=counts[Kind.MODEL], evals=counts[Kind.EVAL])

    def _clear_all(self) -> m.Reply:
        cleared = m.Cleared(datasets=len(self._datasets), models=len(self._models), evals=len(self._evals))
        for rows in (self._datasets, self._models, self._evals):
            rows.clear()
        self._leases.revoke(self._leases.matching(lambda _: True))
        return cleared

    def _measure(self, request: GetStats | GetSizes) -> m.Reply:
        rows = [*self._datasets.values(), *self._models.values(), *self._evals.values()]
        taken = sum(len(msgspec.msgpack.encode(row)) for row in rows)
        if isinstance(request, GetSizes):
            names = ("datasets", "runs", "evals", "database", "trash", "staging", "ballast")
            sizes = dict.fromkeys(names, Size())
            return Sizes(categories={**sizes, "database": Size(taken, taken)})
        return Stats(
            num_datasets=len(self._datasets),
            num_models=len(self._models),
            num_evals=len(self._evals),
            total_size_bytes=taken,
        )


def _refuse(sort: object, limit: object, filters: Mapping[str, object]) -> None:
    """Filters are the daemon's work.

    Raises:
        CacheRequestError: one was given; ignoring it would list too much.
    """
    given = [name for name, value in {"sort": sort, "limit": limit, **filters}.items() if value is not None]
    if given:
        raise CacheRequestError(f"InMemoryCache has no daemon to ask, and cannot list by {', '.join(given)}")
