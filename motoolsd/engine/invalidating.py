"""Letting entries miss that stay where they are, and count again.

Layer: engine. Imports filtering, writer, store and core.
Invariant: no entry is removed, and no file touched. What misses for another reason keeps that one.
"""

from __future__ import annotations

from typing import Final

from motoolsd.core.deadlines import Moment
from motoolsd.core.ports import Clock
from motoolsd.core.retention import DOWNSTREAM
from motoolsd.engine.explaining import named_origin
from motoolsd.engine.filtering import matching
from motoolsd.engine.writer import Writer
from motoolsd.store.candidates import select_made_rows
from motoolsd.store.entries import ClearVoid, SetVoid, select_voidable
from motoolsd.store.history import INVALIDATED
from motoolsd.store.origins import select_origin
from motoolsd.store.store import Store
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import LISTED_MAX, Invalidate, Invalidated

ROWS_AT_ONCE: Final = 500
"""Rows of one internal write: others are written in between."""


class Invalidating:
    """Marks entries, and takes the mark away."""

    def __init__(self, store: Store, writer: Writer, clock: Clock) -> None:
        """Wire up."""
        self._store = store
        self._writer = writer
        self._clock = clock

    async def invalidate(self, request: Invalidate) -> Invalidated:
        """Mark what passes the filters, or take its mark away; how many entries that were.

        Cancellation: what was marked by then stays so.

        Raises:
            RequestError: a filter makes no sense or does not fit a kind, or the database cannot be read or written.
        """
        now = self._clock.moment()
        rows = {kind: await self._rows(request, kind, now) for kind in dict.fromkeys(request.kinds)}
        if request.downstream:
            await self._add_made(rows)
        detail = await self._detail(request)
        counts = {kind: await self._mark(request, detail, kind, numbers) for kind, numbers in rows.items()}
        return Invalidated(
            datasets=counts.get(Kind.DATASET, 0), models=counts.get(Kind.MODEL, 0), evals=counts.get(Kind.EVAL, 0)
        )

    async def _detail(self, request: Invalidate) -> str | None:
        """The reason, and who gave it."""
        if request.restore or request.origin is None:
            return request.reason
        await self._writer.wait_settled()
        origin = await self._store.read(select_origin, request.origin)
        by = "" if origin is None else f"by {named_origin(origin)}"
        return ", ".join(filter(None, (request.reason, by)))

    async def _rows(self, request: Invalidate, kind: Kind, now: Moment) -> list[int]:
        return await matching(self._store, kind, request.filters, None, LISTED_MAX, now)

    async def _add_made(self, rows: dict[Kind, list[int]]) -> None:
        """Add what was made from the entries with these row numbers, directly or not."""
        made: dict[Kind, list[int]] = {}
        for source, kinds in DOWNSTREAM.items():
            numbers = rows.get(source, [])
            for start in range(0, len(numbers), ROWS_AT_ONCE):
                keys = await self._store.read(select_voidable, source, numbers[start : start + ROWS_AT_ONCE])
                for kind in kinds:
                    found = await self._store.read(
                        select_made_rows, kind, source, [one.key for one in keys], LISTED_MAX
                    )
                    made.setdefault(kind, []).extend(number for _, number in found)
        for kind, numbers in made.items():
            rows[kind] = list(dict.fromkeys([*rows.get(kind, []), *numbers]))

    async def _mark(self, request: Invalidate, detail: str | None, kind: Kind, numbers: list[int]) -> int:
        count = 0
        for start in range(0, len(numbers), ROWS_AT_ONCE):
            part = await self._store.read(select_voidable, kind, numbers[start : start + ROWS_AT_ONCE])
            wanted = INVALIDATED if request.restore else None
            keys = tuple((kind, one.key) for one in part if one.void_reason == wanted)
            if not keys:
                continue
            if request.dry_run:
                count += len(keys)
                continue
            change = ClearVoid(keys, INVALIDATED) if request.restore else SetVoid(keys, INVALIDATED, detail)
            count += (await self._writer.change(change)).number
        return count
