"""Listings, page by page.

Layer: engine. Imports checks, filtering, store and core.
Invariant: a page fits into a frame. A listing without filters needs no memory for what it has not come to yet; one
with filters holds row numbers, and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

import msgspec

from motoolsd.core.ports import Clock
from motoolsd.core.settings import Settings
from motoolsd.engine.checks import check_listing
from motoolsd.engine.filtering import matching_page
from motoolsd.store.reads import FROM_START, Filter, select_numbered
from motoolsd.store.store import Store
from motoolsd.wire.filters import Filters
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import LISTED_MAX, DatasetPage, EntryPage, EvalPage, ListEntries, ModelPage

_PAGE_TYPES: Final = {Kind.DATASET: DatasetPage, Kind.MODEL: ModelPage, Kind.EVAL: EvalPage}


class Listing:
    """Streams entries."""

    def __init__(self, store: Store, settings: Settings, clock: Clock) -> None:
        """Wire up."""
        self._store = store
        self._settings = settings
        self._clock = clock

    def entries(self, request: ListEntries) -> AsyncGenerator[EntryPage, None]:
        """Pages of a listing, the last one marked.

        Raises:
            RequestError: filters, order or cursor make no sense, or the database cannot be read.
        """
        is_plain = request.filters is None and request.order is None and request.limit is None and request.after is None
        return self._in_stored_order(request) if is_plain else self._selected(request)

    async def _in_stored_order(self, request: ListEntries) -> AsyncGenerator[EntryPage, None]:
        check_listing(request)
        only = Filter(request.model_id, request.task_id)
        after: int | None = FROM_START
        while after is not None:
            page = await self._store.page(
                request.kind,
                only,
                after,
                rows_max=self._settings.page_rows_max,
                size_bytes=self._settings.page_size_bytes,
            )
            after = page.next_after
            yield _PAGE_TYPES[request.kind](items=list(page.rows), is_last=after is None)

    async def _selected(self, request: ListEntries) -> AsyncGenerator[EntryPage, None]:
        check_listing(request)
        kind, make_page = request.kind, _PAGE_TYPES[request.kind]
        found = await matching_page(
            self._store,
            kind,
            _filters(request),
            request.order,
            request.limit or LISTED_MAX,
            self._clock.moment(),
            request.after,
        )
        numbers = found.row_numbers
        start = 0
        while True:
            part = numbers[start : start + self._settings.page_rows_max]
            page = await self._store.read(
                select_numbered,
                kind,
                part,
                rows_max=self._settings.page_rows_max,
                size_bytes=self._settings.page_size_bytes,
            )
            start += page.num_done
            is_last = start >= len(numbers)
            yield make_page(items=list(page.rows), is_last=is_last, next_after=found.next_after if is_last else None)
            if is_last:
                return


def _filters(request: ListEntries) -> Filters:
    """All filters of a listing, those of older clients among them."""
    filters = request.filters or Filters()
    if request.model_id is not None and filters.model_ids is None:
        filters = msgspec.structs.replace(filters, model_ids=[request.model_id])
    if request.task_id is not None and filters.task_ids is None:
        filters = msgspec.structs.replace(filters, task_ids=[request.task_id])
    return filters
