"""Finding the entries that pass filters: the table in parts, which the store's readers search side by side.

Layer: engine. Imports store, core and wire.
Invariant: nothing is changed. No more parts are under way than there are readers, and a part takes some milliseconds: a
lookup that has to go to SQLite waits for one of them at the most. (sqlite3 gives the interpreter's lock away while it
searches.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Final, NamedTuple

import anyio
import anyio.to_thread
import msgspec

from motoolsd.core.deadlines import Moment
from motoolsd.core.errors import RequestError
from motoolsd.core.where import Condition, parse_where
from motoolsd.store.filtering import (
    Match,
    RowRange,
    Selection,
    has_candidates,
    is_indexed,
    merged,
    order_terms,
    select_among_candidates,
    select_matching,
    select_row_range,
)
from motoolsd.store.store import READERS, Store
from motoolsd.wire.filters import Filters, Order, check_filters, check_order
from motoolsd.wire.keys import Kind

PART_ROWS: Final = 12_500
"""Row numbers in a part; for large tables it grows."""
FIRST_PARTS_ARE_SMALLER: Final = 8
"""How many times, for each reader: they tell whether many fit, and what need not be looked at in all others."""
PARTS_MAX: Final = 64
CANDIDATES_FOR_MAX: Final = 1_000
"""Rows up to which a page is looked for among candidates; for more, all rows are read at once."""
MERGED_HERE_MAX: Final = 2_000
"""Rows that are put in order in the event loop; more, in a thread."""


class MatchPage(NamedTuple):
    """Some of the entries that fit."""

    row_numbers: list[int]
    next_after: bytes | None
    """Where the next page begins; None after the last."""


_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    """The last row of a page, as `next_after` carries it; the order belongs to it, and must be the same."""

    kind: Kind
    order: Order | None
    row_number: _Integer
    cells: tuple[bytes | _Integer | float | None, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Cursor)


async def matching(
    store: Store, kind: Kind, filters: Filters, order: Order | None, limit: int, now: Moment
) -> list[int]:
    """The row numbers of the entries that fit, in their order.

    Args:
        store: where they stand.
        kind: of the entries.
        filters: see `Filters`.
        order: None: as they were first stored.
        limit: no more than so many, at least 1.
        now: for ages, and pins that end.

    Cancellation: leaves at once; parts under way end in their threads.

    Raises:
        RequestError: filters, conditions or order make no sense (`WhereError` for a condition), or the database cannot
            be read.
    """
    selection = select(kind, filters, order, limit, now)
    return [match.row_number for match in await _matches(store, selection)]


async def matching_page(
    store: Store,
    kind: Kind,
    filters: Filters,
    order: Order | None,
    limit: int,
    now: Moment,
    after: bytes | None = None,
) -> MatchPage:
    """The same by pages: an entry that changes what it is sorted by may come twice or never, all others come once.

    Args:
        store: where they stand.
        kind: of the entries; this, filters and order as for the page before.
        filters: see `Filters`.
        order: None: as they were first stored.
        limit: no more than so many, at least 1.
        now: for ages; that of the first page, if pages are to agree.
        after: `next_after` of the page before; None: the first page.

    Cancellation: as `matching`.

    Raises:
        RequestError: as `matching`, or `after` is of another listing.
    """
    selection = select(kind, filters, order, limit + 1, now)._replace(after=_read_cursor(kind, order, after))
    found = await _matches(store, selection)
    if len(found) <= limit:
        return MatchPage([match.row_number for match in found], None)
    del found[limit:]
    last = _Cursor(kind, order, found[-1].row_number, found[-1].cells)
    return MatchPage([match.row_number for match in found], _encoder.encode(last))


def select(kind: Kind, filters: Filters, order: Order | None, limit: int, now: Moment) -> Selection:
    """Read and check what is asked for.

    Raises:
        RequestError: filters, conditions or order make no sense.
    """
    assert limit > 0, "somebody asks for something"
    return Selection(kind, filters, check_selection(kind, filters, order, now), now, order, limit)


def check_selection(kind: Kind, filters: Filters, order: Order | None, now: Moment) -> tuple[Condition, ...]:
    """Make sure that filters and order make sense for a kind; the conditions as they were read.

    Raises:
        RequestError: they do not.
    """
    try:
        check_filters(filters, kind, now.wall_s)
        if order is not None:
            check_order(order, kind)
    except ValueError as error:
        raise RequestError(str(error)) from None
    return tuple(parse_where(text, kind, now.wall_s) for text in filters.where)


def _read_cursor(kind: Kind, order: Order | None, after: bytes | None) -> Match | None:
    if after is None:
        return None
    try:
        cursor = _decoder.decode(after)
    except (msgspec.MsgspecError, UnicodeError):
        cursor = None
    if cursor is None or (cursor.kind, cursor.order, len(cursor.cells)) != (kind, order, len(order_terms(kind, order))):
        raise RequestError("the cursor is of another listing: begin again at the first page")
    return Match(cursor.row_number, cursor.cells)


async def _matches(store: Store, selection: Selection) -> list[Match]:
    if is_indexed(selection.filters):
        return await store.read(select_matching, selection)
    rows = await store.read(select_row_range, selection.kind)
    if rows is None:
        return []
    search = _Search(store, selection, list(_parts(rows)))
    async with anyio.create_task_group() as group:
        for _ in range(READERS):
            group.start_soon(search.run)
    found = search.found
    if sum(map(len, found)) <= MERGED_HERE_MAX:
        return merged(found, selection.order, selection.limit)
    return await anyio.to_thread.run_sync(merged, found, selection.order, selection.limit)


def _parts(rows: RowRange) -> Iterator[RowRange]:
    step = max(PART_ROWS, -(-(rows.last - rows.first + 1) // PARTS_MAX))
    small = max(1, step // FIRST_PARTS_ARE_SMALLER)
    begin = min(rows.first + READERS * small, rows.last + 1)
    for first in (*range(rows.first, begin, small), *range(begin, rows.last + 1, step)):
        yield RowRange(first, min(first + (step if first >= begin else small) - 1, rows.last))


class _Search:
    """One search, in parts."""

    def __init__(self, store: Store, selection: Selection, parts: Sequence[RowRange]) -> None:
        self._store = store
        self._selection = selection
        self._waiting = list(reversed(parts))
        self._enough = selection.limit
        self._tries_candidates = has_candidates(selection) and selection.limit <= CANDIDATES_FOR_MAX
        # Of an ordered search for few: the first ones of all parts so far.
        self._narrows = selection.order is not None and selection.limit <= CANDIDATES_FOR_MAX
        self._first: list[Match] = []
        self.found: list[list[Match]] = []

    async def run(self) -> None:
        """Search one part after the other, as long as there are any that matter."""
        while self._waiting and self._enough > 0:
            found = await self._part(self._waiting.pop())
            self.found.append(found)
            # Parts are taken in order: all before these are searched or under way, and what comes later is not wanted.
            if self._selection.order is None:
                self._enough -= len(found)
            elif self._narrows:
                self._narrow(found)

    def _narrow(self, found: list[Match]) -> None:
        """Of the parts that follow, only what comes before the last one that is wanted so far."""
        selection = self._selection
        self._first = merged([self._first, found], selection.order, selection.limit)
        if len(self._first) == selection.limit:
            self._selection = selection._replace(before=self._first[-1])

    async def _part(self, part: RowRange) -> list[Match]:
        if self._tries_candidates:
            found = await self._store.read(select_among_candidates, self._selection, part)
            if found is not None:
                return found
            self._tries_candidates = False  # few fit, and those of other parts are no different
        return await self._store.read(select_matching, self._selection, part)
