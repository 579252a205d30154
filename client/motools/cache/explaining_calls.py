"""The table of calls that explain: why, show, lineage, compare, statistics; and invalidation.

Layer: motools.cache. Imports arguments, calls, errors, explanations, filtering, labels, lookups and motoolsd.wire.
Invariant: as in `calls`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from motools.cache.arguments import duration, optional_kind, optional_text, text
from motools.cache.calls import FILTERS, Call
from motools.cache.errors import AmbiguousName, CacheProtocolError, CacheRequestError
from motools.cache.explanations import (
    Difference,
    EntryDetails,
    Explanation,
    Lineage,
    Listing,
    Miss,
    Usage,
    difference,
    entry_details,
    entry_name,
    entry_of,
    explanation,
    lineage,
    misses,
    usage,
)
from motools.cache.filtering import (
    cursor_bytes,
    cursor_text,
    filters_of,
    fitting_kinds,
    kinds_named,
    limit_of,
    order_of,
)
from motools.cache.lookups import eval_inputs, eval_keys_of, model_inputs, model_key_of
from motoolsd.wire import explaining as wire
from motoolsd.wire.filters import Filters
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import (
    REASON_SIZE_MAX,
    DatasetPage,
    EntryPage,
    EvalPage,
    Invalidate,
    Invalidated,
    ListEntries,
    ModelPage,
)

PAGE_TYPES: Mapping[Kind, type[EntryPage]] = {Kind.DATASET: DatasetPage, Kind.MODEL: ModelPage, Kind.EVAL: EvalPage}


# Why.


def explain(key: str, kind: str, version: str | None) -> Call[Explanation]:
    """Why a key hits or misses, with what is known of its inputs."""
    chosen = optional_kind(kind)
    assert chosen is not None, "callers choose"
    return _explain(wire.Explain(kind=chosen, key=text(key, "key"), version=optional_text(version, "version")))


def kinds_of_key(key: object, kind: object) -> list[str]:
    """The kinds that a key may be of; the first is the likeliest.

    Raises:
        CacheRequestError: the kind is none, or the key no text.
    """
    if (chosen := optional_kind(kind)) is not None:
        return [chosen.value]
    return [Kind.EVAL.value] if text(key, "key").startswith("[") else [Kind.MODEL.value, Kind.DATASET.value]


def likeliest(found: Sequence[Explanation]) -> Explanation:
    """Of explanations of one key under several kinds that which knows something of it."""
    unknown = {"never_computed", "different_inputs"}
    return next((one for one in found if one.reason not in unknown), found[0])


def explain_dataset(dataset_hash: str, version: str | None) -> Call[Explanation]:
    """Why a dataset hits or misses."""
    return explain(dataset_hash, Kind.DATASET.value, version)


def explain_model(
    dataset_hash: str, config: Mapping[str, Any], backend_type: str, version: str | None
) -> Call[Explanation]:
    """Why a model hits or misses, before it is trained."""
    return _explain(
        wire.Explain(
            kind=Kind.MODEL,
            key=model_key_of(dataset_hash, config, backend_type),
            inputs=model_inputs(dataset_hash, config, backend_type),
            version=optional_text(version, "version"),
        )
    )


def explain_eval(
    model_id: str, task_id: str, backend_type: str, inspect_kwargs: Mapping[str, Any] | None, version: str | None
) -> Call[Explanation]:
    """Why an evaluation hits or misses."""
    (key,) = eval_keys_of(model_id, [text(task_id, "task_id")], backend_type, inspect_kwargs)
    inputs = eval_inputs(model_id, task_id, backend_type, inspect_kwargs)
    return _explain(wire.Explain(kind=Kind.EVAL, key=key, inputs=inputs, version=optional_text(version, "version")))


def _explain(request: wire.Explain) -> Call[Explanation]:
    return Call(request, wire.Explanation, explanation)


def list_misses(limit: object) -> Call[list[Miss]]:
    """The latest misses."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= wire.MISSES_LISTED_MAX:
        raise CacheRequestError(f"limit must be a whole number from 1 to {wire.MISSES_LISTED_MAX}, not {limit!r}")
    return Call(wire.ListMisses(limit=limit), wire.MissPage, misses, is_stream=True)


# Entries.


def show(name: str, kind: str | None) -> Call[EntryDetails]:
    """Everything about one entry."""
    asked = text(name, "name")

    def decode(reply: wire.Details) -> EntryDetails:
        if reply.candidates:
            raise AmbiguousName(asked, [entry_name(one) for one in reply.candidates])
        if reply.kind is None or (reply.dataset or reply.model or reply.evaluation) is None:
            raise CacheProtocolError(f"the daemon says nothing of {asked[:80]!r}, and not that there is no such entry")
        return entry_details(reply)

    return Call(wire.Show(name=asked, kind=optional_kind(kind)), wire.Details, decode)


def get_lineage(name: str, kind: str | None, *, up: bool, down: bool) -> Call[Lineage]:
    """What an entry was made from, and what was made from it."""
    request = wire.GetLineage(name=text(name, "name"), kind=optional_kind(kind), up=bool(up), down=bool(down))
    return Call(request, wire.Lineage, lineage)


def compare(name: str, other: str, kind: str | None) -> Call[list[Difference]]:
    """In what the inputs of two entries differ."""

    def decode(reply: wire.Comparison) -> list[Difference]:
        return [difference(one) for one in reply.differences]

    request = wire.Compare(name=text(name, "name"), other=text(other, "other"), kind=optional_kind(kind))
    return Call(request, wire.Comparison, decode)


def list_entries(
    kind: str, sort: str | None, limit: int | None, cursor: str | None, options: Mapping[str, Any]
) -> Call[Listing]:
    """A page of entries."""
    chosen = optional_kind(kind)
    if chosen is None:
        raise CacheRequestError(f"kind is one of {', '.join(Kind)}, not None")
    filters = filters_of(options)
    fitting_kinds(filters, [chosen])
    order = order_of(sort, chosen)
    request = ListEntries(kind=chosen, filters=filters, order=order, limit=limit_of(limit), after=cursor_bytes(cursor))

    def decode(pages: list[EntryPage]) -> Listing:
        items = [entry_of(row) for page in pages for row in page.items]
        return Listing(items=items, cursor=cursor_text(pages[-1].next_after))

    return Call(request, PAGE_TYPES[chosen], decode, is_stream=True, needs=FILTERS)


# Statistics.


def get_usage(
    since: object, job: str | None, labels: Mapping[str, str] | None, by_label: str | None, *, by_job: bool
) -> Call[list[Usage]]:
    """What lookups came to."""
    if by_label is not None and by_job:
        message = "by_label and by_job exclude each other: a row has one group"
        raise CacheRequestError(message)
    request = wire.GetUsage(
        since_s=None if since is None else duration(since, "since"),
        job=None if job is None else text(job, "job"),
        labels=filters_of({"labels": labels}).labels,
        by_label=optional_text(by_label, "by_label"),
        by_job=bool(by_job),
    )
    return Call(request, wire.UsageTable, usage)


# Invalidation.


def invalidate(
    reason: str | None,
    kinds: Sequence[str] | None,
    options: Mapping[str, Any],
    *,
    restore: bool,
    downstream: bool,
    dry_run: bool,
) -> Call[dict[str, int]]:
    """Let entries miss, or count again; how many of each kind."""
    filters = filters_of(options)
    if filters == Filters() and kinds is None:
        message = "say which entries are meant: pass a filter, or kinds"
        raise CacheRequestError(message)
    if not restore:
        reason = text(reason, "reason")
        if len(reason) > REASON_SIZE_MAX:
            raise CacheRequestError(f"reason is longer than {REASON_SIZE_MAX} characters")
    request = Invalidate(
        kinds=fitting_kinds(filters, kinds_named(kinds)),
        filters=filters,
        downstream=bool(downstream),
        reason=reason,
        restore=restore,
        dry_run=bool(dry_run),
    )

    def decode(reply: Invalidated) -> dict[str, int]:
        return {"datasets": reply.datasets, "models": reply.models, "evals": reply.evals}

    return Call(request, Invalidated, decode)
