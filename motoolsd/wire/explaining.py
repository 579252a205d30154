"""Messages that explain: who stored an entry, why a lookup missed, what an entry was made from, what lookups came to.

Layer: wire. Imports entries, fields, filters, keys, origins and reasons.
Invariant: as in messages: fields are only ever added, with a default. Times are RFC 3339 UTC texts.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from motoolsd.wire.entries import DatasetRow, EvalRow, LeaseRow, ModelRow
from motoolsd.wire.fields import Json, Message, Page, Seconds, Text
from motoolsd.wire.keys import Kind
from motoolsd.wire.origins import Origin
from motoolsd.wire.reasons import Reason

MISSES_TOLD_MAX = 64
"""Keys of one `Missed`."""
CANDIDATES_MAX = 20
"""Entries that are named where a name means several."""
LINEAGE_MAX = 10_000
"""Entries of one lineage."""
MISSES_LISTED_MAX = 1_000


class Introduce(Message, tag="introduce", frozen=True, kw_only=True):
    """Tell who the process is, before the first write under its `origin_id`. A notice: nothing is the answer to it."""

    origin: Origin


class Missed(Message, tag="missed", frozen=True, kw_only=True):
    """Tell what keys that missed were made from, so that it can be explained. A notice, as `Used`."""

    kind: Kind
    inputs: Annotated[dict[Text, Json], Meta(max_length=MISSES_TOLD_MAX)]
    """By key: a mapping with the fields that the key is made of."""


class Explain(Message, tag="explain", frozen=True, kw_only=True):
    """Ask why a key hits or misses now."""

    kind: Kind
    key: Text
    inputs: Json | None = None
    """What it was made from; None: as far as that is known."""
    version: Text | None = None


class Difference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One field in which two entries differ."""

    path: str
    """Dotted: `config.hyperparameters.epochs`, `[n]` in lists."""
    cached: bytes | None = None
    """JSON; None: it has no such field."""
    asked: bytes | None = None


class NearRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry whose inputs are near to those asked for."""

    key: str
    value: bytes
    created_at: str | None = None
    why_not: str | None = None
    """Why it would miss itself; None if it hits."""
    differences: list[Difference] = msgspec.field(default_factory=list)


class Explanation(Message, tag="explanation", frozen=True, kw_only=True):
    """Why a key hits or misses."""

    kind: Kind
    key: str
    reason: Reason
    detail: str = ""
    """In words, with times and names."""
    value: bytes | None = None
    """Of a hit, and of an entry that is there but misses."""
    since: str | None = None
    by: Origin | None = None
    """Who did what the reason says."""
    holder: LeaseRow | None = None
    """Who computes it now."""
    nearest: list[NearRow] = msgspec.field(default_factory=list)


class ListMisses(Message, tag="list_misses", frozen=True, kw_only=True):
    """Ask for the latest misses, the last first."""

    limit: Annotated[int, Meta(ge=1, le=MISSES_LISTED_MAX)] = 1


class MissItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the latest misses."""

    kind: Kind
    key: str
    missed_at: str
    reason: str
    """As it was then."""
    inputs: bytes | None = None
    job: str = ""
    labels: dict[str, str] = {}


class MissPage(Page, tag="miss_page", frozen=True, kw_only=True):
    """Some misses."""

    items: list[MissItem]


class Show(Message, tag="show", frozen=True, kw_only=True):
    """Ask for everything about one entry."""

    name: Text
    """A key, a value, the number of an evaluation, or the beginning of one of the first two."""
    kind: Kind | None = None


class EntryName(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Enough of an entry to choose it."""

    kind: Kind
    key: str
    value: bytes


class Details(Message, tag="details", frozen=True, kw_only=True):
    """Everything about one entry; or, where the name means several, the first of those."""

    kind: Kind | None = None
    key: str = ""
    dataset: DatasetRow | None = None
    model: ModelRow | None = None
    evaluation: EvalRow | None = None
    origin: Origin | None = None
    holder: LeaseRow | None = None
    made_from: list[EntryName] = msgspec.field(default_factory=list)
    made: list[EntryName] = msgspec.field(default_factory=list)
    """What was made from it; at most `CANDIDATES_MAX`."""
    num_made: int = 0
    candidates: list[EntryName] = msgspec.field(default_factory=list)


class GetLineage(Message, tag="get_lineage", frozen=True, kw_only=True):
    """Ask what an entry was made from, and what was made from it."""

    name: Text
    kind: Kind | None = None
    up: bool = True
    down: bool = True


class LineageNode(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry, or something that is only known as the source of one."""

    kind: Kind
    key: str
    value: bytes | None = None
    """None: there is no such entry."""
    made_from: tuple[int, ...] = ()
    """Places of its sources among all nodes."""
    detail: str = ""
    """Of an evaluation, its task."""


class Lineage(Message, tag="lineage", frozen=True, kw_only=True):
    """Entries that were made from each other."""

    nodes: list[LineageNode]
    root: int = 0
    """The place of the entry that was asked for."""
    is_cut: bool = False
    """Whether there are more than `LINEAGE_MAX`."""


class Compare(Message, tag="compare", frozen=True, kw_only=True):
    """Ask in what the inputs of two entries of one kind differ."""

    name: Text
    """As `Show.name`; it must mean one entry."""
    other: Text
    kind: Kind | None = None


class Comparison(Message, tag="comparison", frozen=True, kw_only=True):
    """In what two entries differ; `cached` is the first one's."""

    first: EntryName
    second: EntryName
    differences: list[Difference] = msgspec.field(default_factory=list)


class GetUsage(Message, tag="get_usage", frozen=True, kw_only=True):
    """Ask what lookups came to."""

    since_s: Seconds | None = None
    """Only the last so many seconds, by whole hours; None: all that is kept."""
    job: str | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    by_label: str | None = None
    """Group by the value of a label."""
    by_job: bool = False


class UsageRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the lookups of one kind and group came to."""

    kind: Kind
    group: str = ""
    """The label's value, or the job."""
    hits: int = 0
    misses: int = 0
    reasons: dict[str, int] = {}
    """Misses by reason; of those of a flood only the first have one."""
    seconds_saved: float = 0.0
    cost_saved: float = 0.0


class UsageTable(Message, tag="usage", frozen=True, kw_only=True):
    """What lookups came to."""

    items: list[UsageRow]
    since: str | None = None
