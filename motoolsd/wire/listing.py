"""Messages that list entries, and those that let entries miss without removing them.

Layer: wire. Imports entries, fields, filters and keys.
Invariant: as in messages: fields are only ever added, with a default.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from motoolsd.wire.entries import DatasetRow, EvalRow, ModelRow
from motoolsd.wire.fields import Message, OriginId, Page
from motoolsd.wire.filters import Filters, Order
from motoolsd.wire.keys import Kind

LISTED_MAX = 2**31 - 1
REASON_SIZE_MAX = 4_096

Cursor = Annotated[bytes, Meta(min_length=1, max_length=1 << 20)]


class ListEntries(Message, tag="list", frozen=True, kw_only=True):
    """Stream the entries of one kind, unless told otherwise in the order in which they were first stored."""

    kind: Kind
    model_id: str | None = None
    task_id: str | None = None
    filters: Filters | None = None
    order: Order | None = None
    limit: Annotated[int, Meta(ge=1, le=LISTED_MAX)] | None = None
    """No more than so many; the last page says where to go on."""
    after: Cursor | None = None
    """`next_after` of an earlier answer to the same question."""


class EntryPageBase(Page, frozen=True, kw_only=True):
    """What pages of every kind have."""

    next_after: bytes | None = None
    """In the last page of a listing with a limit, if there is more: opaque, for `after`."""


class DatasetPage(EntryPageBase, tag="dataset_page", frozen=True, kw_only=True):
    """Some datasets."""

    items: list[DatasetRow]


class ModelPage(EntryPageBase, tag="model_page", frozen=True, kw_only=True):
    """Some models."""

    items: list[ModelRow]


class EvalPage(EntryPageBase, tag="eval_page", frozen=True, kw_only=True):
    """Some evaluations."""

    items: list[EvalRow]


EntryPage = DatasetPage | ModelPage | EvalPage


class Invalidate(Message, tag="invalidate", frozen=True, kw_only=True):
    """Let the entries that pass the filters miss, or count again. Harmless when repeated."""

    kinds: Annotated[tuple[Kind, ...], Meta(min_length=1, max_length=len(Kind))]
    filters: Filters = Filters()
    downstream: bool = False
    """Also what was made from them."""
    reason: Annotated[str, Meta(min_length=1, max_length=REASON_SIZE_MAX)] | None = None
    restore: bool = False
    """Whether those that were invalidated count again, instead."""
    dry_run: bool = False
    """Only count them."""
    origin: OriginId | None = None
    """Who does it: as in `Write`."""


class Invalidated(Message, tag="invalidated", frozen=True, kw_only=True):
    """How many entries of each kind miss now, or count again."""

    datasets: int = 0
    models: int = 0
    evals: int = 0
