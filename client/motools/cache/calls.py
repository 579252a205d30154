"""The one table of calls: what each method asks, and what its reply means. Lookups have a table of their own.

Layer: motools.cache. Imports arguments, entries, errors, keys, recording and motoolsd.wire.
Invariant: the blocking and the async client differ in how they wait, and in nothing else. Arguments are checked
before anything is sent, replies before anything is believed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from motools.cache.arguments import json_bytes, kwargs_json, optional_text, optional_texts, text, value_bytes
from motools.cache.entries import (
    CacheStats,
    DatasetEntry,
    EvalEntry,
    ModelEntry,
    dataset_entry,
    eval_entry,
    model_entry,
)
from motools.cache.errors import CacheError, CacheProtocolError, CacheRequestError, error_from
from motools.cache.recording import NOTHING, Owned, Provenance, Record, masked_json
from motoolsd.wire import messages as m
from motoolsd.wire.fields import KEYS_PER_REQUEST_MAX
from motoolsd.wire.filters import Filters
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import DatasetPage, EntryPage, EvalPage, ListEntries, ModelPage
from motoolsd.wire.sizes import GetSizes, GetStats, Size, Sizes, Stats

T = TypeVar("T")

FILTERS: Final = "filters"
"""The feature of daemons that know filters, orders and pages."""

RAISES: Final = object()
"""The fallback of calls that have none: they raise, whatever `on_unavailable` says."""


Inputs = Callable[[int], bytes]


class Call(Struct, Generic[T]):
    """A question to the daemon, put together by the functions below.

    A Struct, because one is made for every lookup: its constructor is no Python function.

    Attributes:
        request: what is asked; of a write, None.
        expects: what a daemon answers with that does not fail.
        decode: the result, from the reply; from all pages, where the reply is a stream.
        fallback: the result with `on_unavailable="miss"` when there is no daemon.
        make: of a write, its request, given the key under which it may be repeated.
        is_stream: whether the reply comes in pages.
        of_values: of a lookup, the result from what is remembered of its keys.
        inputs: of a lookup, what the key at a place is made from, to be told when it misses.
        needs: the feature without which a daemon would misread the request, so that it is not asked.
    """

    request: m.Request | None
    expects: type[m.Reply]
    decode: Callable[[Any], T]
    fallback: object = RAISES
    make: Callable[[m.RequestKey], m.Request] | None = None
    is_stream: bool = False
    of_values: Callable[[Sequence[str | None]], T] | None = None
    inputs: Inputs | None = None
    needs: str | None = None

    @property
    def is_write(self) -> bool:
        """Whether it changes something."""
        return self.make is not None

    def request_for(self, key: m.RequestKey | None) -> m.Request:
        """The request, under the key of a write."""
        if self.make is None:
            assert self.request is not None, "a call has a request or makes one"
            return self.request
        assert key is not None, "a write has a key"
        return self.make(key)

    def result(self, reply: m.Reply) -> T:
        """What the reply means.

        Raises:
            CacheError: it is a failure, or no reply to this.
        """
        if type(reply) is not self.expects:
            raise refusal(reply)
        return self.decode(reply)

    def result_of_pages(self, pages: list[m.Reply]) -> T:
        """The same of a stream."""
        for page in pages:
            if type(page) is not self.expects:
                raise refusal(page)
        return self.decode(pages)


def refusal(reply: m.Reply) -> CacheError:
    """The error for a reply that is not what was expected: the failure that it is, or one of the protocol."""
    if isinstance(reply, m.Failure):
        return error_from(reply)
    return CacheProtocolError(f"the daemon answered with {type(reply).__name__}, which is no answer to what was asked")


def _nothing(_reply: object) -> None:
    return None


# Writes.


def _storing(put: Callable[..., m.Request], provenance: Provenance, record: Record, **fields: object) -> Call[None]:
    fields.update(record.fields(provenance))

    def make(request_key: m.RequestKey) -> m.Request:
        return put(request_key=request_key, **fields)

    return Call(None, m.Stored, _nothing, None, make=make)


def set_file_id(
    provenance: Provenance, dataset_hash: str, file_id: str, token: int = 0, owned: Owned = NOTHING
) -> Call[None]:
    """Remember a dataset's file id."""
    key, value = text(dataset_hash, "dataset_hash"), value_bytes(file_id, "file_id")

    return _storing(
        m.PutDataset,
        provenance,
        owned.record,
        token=token,
        dataset_hash=key,
        file_id=value,
        staged=owned.staged,
    )


def set_model_id(
    provenance: Provenance,
    dataset_hash: str,
    config: Mapping[str, Any],
    model_id: str,
    backend_type: str,
    token: int = 0,
    owned: Owned = NOTHING,
) -> Call[None]:
    """Remember a trained model."""
    dataset, backend = text(dataset_hash, "dataset_hash"), text(backend_type, "backend_type")
    config_json, value = json_bytes(config, "config"), value_bytes(model_id, "model_id")

    return _storing(
        m.PutModel,
        provenance,
        owned.record,
        token=token,
        dataset_hash=dataset,
        config=config_json,
        masked_config=masked_json(config, config_json, "config"),
        backend_type=backend,
        model_id=value,
        files=list(owned.files),
    )


def set_eval_log_paths(
    provenance: Provenance,
    model_id: str,
    task_log_paths: Mapping[str, str | os.PathLike[str]],
    backend_type: str,
    inspect_kwargs: Mapping[str, Any] | None,
    token: int = 0,
    owned: Owned = NOTHING,
) -> Call[None]:
    """Remember the logs of a model's evaluations."""
    if not isinstance(task_log_paths, Mapping):
        raise CacheRequestError(f"task_log_paths must map task ids to paths, not {type(task_log_paths).__name__}")
    model, backend = text(model_id, "model_id"), text(backend_type, "backend_type")
    paths = task_log_paths.items()
    logs = {text(task, "task id"): value_bytes(path, f"the log path of {task}") for task, path in paths}
    kwargs, _ = kwargs_json(inspect_kwargs)
    if len(logs) > KEYS_PER_REQUEST_MAX:
        raise CacheRequestError(f"more than {KEYS_PER_REQUEST_MAX} task_log_paths in one call")

    return _storing(
        m.PutEvals,
        provenance,
        owned.record,
        token=token,
        model_id=model,
        backend_type=backend,
        kwargs=kwargs,
        masked_kwargs=None if kwargs is None else masked_json(inspect_kwargs, kwargs, "inspect_kwargs"),
        logs=logs,
        files=dict(owned.logs),
    )


# Introspection and clearing.


def _listing(request: ListEntries, page_type: type[EntryPage], entry: Callable[[Any], T]) -> Call[list[T]]:
    def decode(pages: list[EntryPage]) -> list[T]:
        return [entry(row) for page in pages for row in page.items]

    return Call(request, page_type, decode, is_stream=True)


def list_datasets() -> Call[list[DatasetEntry]]:
    """All datasets, in the order in which they were first stored."""
    return _listing(ListEntries(kind=Kind.DATASET), DatasetPage, dataset_entry)


def list_models(model_id: str | None) -> Call[list[ModelEntry]]:
    """All models, or those with one id."""
    request = ListEntries(kind=Kind.MODEL, model_id=optional_text(model_id, "model_id"))
    return _listing(request, ModelPage, model_entry)


def list_evals(model_id: str | None, task_id: str | None) -> Call[list[EvalEntry]]:
    """All evaluations, or those of one model, one task, or both."""
    model, task = optional_text(model_id, "model_id"), optional_text(task_id, "task_id")
    return _listing(ListEntries(kind=Kind.EVAL, model_id=model, task_id=task), EvalPage, eval_entry)


def get_stats() -> Call[CacheStats]:
    """Counts and total size."""

    def decode(reply: Stats) -> CacheStats:
        return CacheStats(
            num_datasets=reply.num_datasets,
            num_models=reply.num_models,
            num_evals=reply.num_evals,
            total_size_bytes=reply.total_size_bytes,
            scanned_at=reply.as_of,
        )

    return Call(GetStats(), Stats, decode)


def get_sizes() -> Call[dict[str, Size]]:
    """Apparent and allocated bytes of each category."""
    return Call(GetSizes(), Sizes, lambda reply: reply.categories)


def get_size_breakdown() -> Call[dict[str, int]]:
    """Apparent bytes of each category."""

    def decode(reply: Sizes) -> dict[str, int]:
        return {name: size.size_bytes for name, size in reply.categories.items()}

    return Call(GetSizes(), Sizes, decode)


def get_status() -> Call[m.Status]:
    """What the daemon says of itself."""
    return Call(m.GetStatus(), m.Status, lambda reply: reply)


class ClearScope(Struct, frozen=True, kw_only=True):
    """What a clear takes beside what its ids say.

    Attributes:
        force: pinned entries, too.
        filters: entries must pass these, too.
        downstream: also what was made from them.
    """

    force: bool = False
    filters: Filters | None = None
    downstream: bool = False

    @property
    def needs(self) -> str | None:
        """The feature of daemons that take this: another would leave the filters out, and remove everything."""
        return FILTERS if self.filters is not None or self.downstream else None


UNPINNED: Final = ClearScope()


def _clearing(kind: Kind, scope: ClearScope, **chosen: list[str] | None) -> Call[int]:
    keys, model_ids, task_ids = (chosen.get(name) for name in ("keys", "model_ids", "task_ids"))

    def make(request_key: m.RequestKey) -> m.Request:
        return m.Clear(
            request_key=request_key,
            kind=kind,
            keys=keys,
            model_ids=model_ids,
            task_ids=task_ids,
            force=bool(scope.force),
            filters=scope.filters,
            downstream=bool(scope.downstream),
        )

    def decode(reply: m.Cleared) -> int:
        _say_what_stays(reply)
        return reply.datasets + reply.models + reply.evals

    return Call(None, m.Cleared, decode, make=make, needs=scope.needs)


def _say_what_stays(reply: m.Cleared) -> None:
    if not reply.num_protected:
        return
    import logging  # only when something stays

    named = ", ".join(f"{one.kind} {one.key} ({one.why})" for one in reply.protected[:5])
    text = "%d protected, and not removed: %s"
    logging.getLogger("motools.cache").warning(text, reply.num_protected, named)


def clear_datasets(dataset_hashes: Sequence[str] | None, scope: ClearScope = UNPINNED) -> Call[int]:
    """Remove some datasets, or all."""
    return _clearing(Kind.DATASET, scope, keys=optional_texts(dataset_hashes, "dataset_hashes"))


def clear_models(model_ids: Sequence[str] | None, scope: ClearScope = UNPINNED) -> Call[int]:
    """Remove some models, or all."""
    return _clearing(Kind.MODEL, scope, model_ids=optional_texts(model_ids, "model_ids"))


def clear_evals(
    model_ids: Sequence[str] | None, task_ids: Sequence[str] | None, scope: ClearScope = UNPINNED
) -> Call[int]:
    """Remove the evaluations that match both lists, or all."""
    chosen = {"model_ids": optional_texts(model_ids, "model_ids"), "task_ids": optional_texts(task_ids, "task_ids")}
    return _clearing(Kind.EVAL, scope, **chosen)


def clear_all(scope: ClearScope = UNPINNED) -> Call[dict[str, int]]:
    """Remove everything."""

    def decode(reply: m.Cleared) -> dict[str, int]:
        _say_what_stays(reply)
        return {"datasets": reply.datasets, "models": reply.models, "evals": reply.evals}

    return Call(None, m.Cleared, decode, make=lambda key: m.ClearAll(request_key=key, force=bool(scope.force)))
