"""What explanations, lineages and statistics look like to a caller.

Layer: motools.cache. Imports entries and motoolsd.wire.
Invariant: names are those of the JSON that the commands print; times are RFC 3339 UTC, durations seconds.
"""

from __future__ import annotations

import json
from typing import Any

from msgspec import Struct

from motools.cache.entries import (
    DatasetEntry,
    EvalEntry,
    LeaseEntry,
    ModelEntry,
    dataset_entry,
    eval_entry,
    lease_entry,
    mapping_of,
    model_entry,
    text_of,
)
from motoolsd.wire import explaining as wire
from motoolsd.wire.entries import DatasetRow, EvalRow, ModelRow
from motoolsd.wire.origins import Origin
from motoolsd.wire.reasons import Reason


class Difference(Struct, frozen=True, kw_only=True):
    """One field in which the inputs of two entries differ.

    Attributes:
        path: dotted, as `config.hyperparameters.epochs`; `[n]` in lists.
        cached, asked: the two values; None also where a side has no such field.
        in_cached, in_asked: whether it has.
    """

    path: str
    cached: Any = None
    asked: Any = None
    in_cached: bool = True
    in_asked: bool = True


class NearEntry(Struct, frozen=True, kw_only=True):
    """An entry whose inputs are near to those asked for.

    Attributes:
        why_not: why it would miss itself; None if it is a hit.
        differences: from its inputs to those asked for; empty if what differs is masked.
    """

    key: str
    value: str
    created_at: str | None = None
    why_not: str | None = None
    differences: list[Difference] = []


class Explanation(Struct, frozen=True, kw_only=True):
    """Why a key hits or misses.

    Attributes:
        result: `hit` or `miss`.
        reason: one word of a fixed vocabulary, `motoolsd.wire.reasons.Reason`.
        detail: in words.
        value: of a hit, and of an entry that is there but misses.
        since: since when it is so.
        by: who did what the reason says.
        holder: who computes it now.
        nearest: up to three entries with nearly the same inputs, the nearest first.
    """

    kind: str
    key: str
    result: str
    reason: str
    detail: str = ""
    value: str | None = None
    since: str | None = None
    by: Origin | None = None
    holder: LeaseEntry | None = None
    nearest: list[NearEntry] = []


class Miss(Struct, frozen=True, kw_only=True):
    """One of the latest misses, with the reason that it had then."""

    kind: str
    key: str
    missed_at: str
    reason: str
    inputs: dict[str, Any] | None = None
    job: str = ""
    labels: dict[str, str] = {}


class EntryName(Struct, frozen=True, kw_only=True):
    """Enough of an entry to choose it; `value` is None where there is no such entry."""

    kind: str
    key: str
    value: str | None = None


class EntryDetails(Struct, frozen=True, kw_only=True):
    """Everything about one entry.

    Attributes:
        origin: who stored it.
        holder: who computes it anew.
        made_from, made: what it was made from; what was made from it, the first of `num_made`.
    """

    kind: str
    key: str
    entry: DatasetEntry | ModelEntry | EvalEntry
    origin: Origin | None = None
    holder: LeaseEntry | None = None
    made_from: list[EntryName] = []
    made: list[EntryName] = []
    num_made: int = 0


class LineageNode(Struct, frozen=True, kw_only=True):
    """An entry of a lineage, or something that is only known as the source of one: then `value` is None.

    Attributes:
        made_from: places of its sources among all nodes.
        detail: of an evaluation, its task.
    """

    kind: str
    key: str
    value: str | None = None
    made_from: tuple[int, ...] = ()
    detail: str = ""


class Lineage(Struct, frozen=True, kw_only=True):
    """Entries that were made from each other; `root` is the place of the one asked for."""

    nodes: list[LineageNode]
    root: int = 0
    is_cut: bool = False


class Usage(Struct, frozen=True, kw_only=True):
    """What the lookups of one kind, and one job or label, came to.

    Attributes:
        group: the job, or the label's value.
        reasons: misses by reason; of those of a flood only the first have one.
        seconds_saved, cost_saved: what the hits took to compute, and what their metadata says under `cost`.
    """

    kind: str
    group: str = ""
    hits: int = 0
    misses: int = 0
    reasons: dict[str, int] = {}
    seconds_saved: float = 0.0
    cost_saved: float = 0.0


class Listing(Struct, frozen=True, kw_only=True):
    """A page of entries; `cursor` leads to the next, None: there is none."""

    items: list[DatasetEntry | ModelEntry | EvalEntry]
    cursor: str | None = None


def _json(text: bytes | None) -> Any:  # noqa: ANN401 - any JSON
    return None if text is None else json.loads(text)


def difference(found: wire.Difference) -> Difference:
    """A difference as callers see it."""
    return Difference(
        path=found.path,
        cached=_json(found.cached),
        asked=_json(found.asked),
        in_cached=found.cached is not None,
        in_asked=found.asked is not None,
    )


def explanation(reply: wire.Explanation) -> Explanation:
    """An explanation as callers see it."""
    return Explanation(
        kind=reply.kind.value,
        key=reply.key,
        result="hit" if reply.reason is Reason.HIT else "miss",
        reason=reply.reason.value,
        detail=reply.detail,
        value=None if reply.value is None else text_of(reply.value),
        since=reply.since,
        by=reply.by,
        holder=None if reply.holder is None else lease_entry(reply.holder),
        nearest=[
            NearEntry(
                key=row.key,
                value=text_of(row.value),
                created_at=row.created_at,
                why_not=row.why_not,
                differences=[difference(one) for one in row.differences],
            )
            for row in reply.nearest
        ],
    )


def misses(pages: list[wire.MissPage]) -> list[Miss]:
    """Misses as callers see them."""
    return [
        Miss(
            kind=item.kind.value,
            key=item.key,
            missed_at=item.missed_at,
            reason=item.reason,
            inputs=mapping_of(item.inputs),
            job=item.job,
            labels=item.labels,
        )
        for page in pages
        for item in page.items
    ]


def entry_name(name: wire.EntryName) -> EntryName:
    """A name as callers see it; the daemon has no value for what is no entry."""
    return EntryName(kind=name.kind.value, key=name.key, value=text_of(name.value) if name.value else None)


def entry_of(row: DatasetRow | ModelRow | EvalRow) -> DatasetEntry | ModelEntry | EvalEntry:
    """A row of any kind as callers see it."""
    match row:
        case DatasetRow():
            return dataset_entry(row)
        case ModelRow():
            return model_entry(row)
        case EvalRow():
            return eval_entry(row)


def entry_details(reply: wire.Details) -> EntryDetails:
    """Details as callers see them; the reply is of one entry."""
    row = reply.dataset or reply.model or reply.evaluation
    assert row is not None, "it is of one entry"
    assert reply.kind is not None, "so is this"
    return EntryDetails(
        kind=reply.kind.value,
        key=reply.key,
        entry=entry_of(row),
        origin=reply.origin,
        holder=None if reply.holder is None else lease_entry(reply.holder),
        made_from=[entry_name(one) for one in reply.made_from],
        made=[entry_name(one) for one in reply.made],
        num_made=reply.num_made,
    )


def lineage(reply: wire.Lineage) -> Lineage:
    """A lineage as callers see it."""
    nodes = [
        LineageNode(
            kind=node.kind.value,
            key=node.key,
            value=None if node.value is None else text_of(node.value),
            made_from=node.made_from,
            detail=node.detail,
        )
        for node in reply.nodes
    ]
    return Lineage(nodes=nodes, root=reply.root, is_cut=reply.is_cut)


def usage(reply: wire.UsageTable) -> list[Usage]:
    """Statistics as callers see them."""
    return [
        Usage(
            kind=row.kind.value,
            group=row.group,
            hits=row.hits,
            misses=row.misses,
            reasons=row.reasons,
            seconds_saved=row.seconds_saved,
            cost_saved=row.cost_saved,
        )
        for row in reply.items
    ]
