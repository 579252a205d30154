"""What lookups came to, over restarts.

Layer: engine. Imports usage, writer, store.statistics and core.
Invariant: what was counted before the question is part of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from motoolsd.core.ports import Clock
from motoolsd.engine.writer import Writer
from motoolsd.store.origins import ForgetOrigins
from motoolsd.store.statistics import (
    COST_SAVED,
    HITS,
    HOUR_S,
    MISSES,
    REASON_PREFIX,
    SECONDS_SAVED,
    Counted,
    FoldCounts,
    select_counts_since,
)
from motoolsd.store.store import Store
from motoolsd.wire.explaining import GetUsage, UsageRow, UsageTable
from motoolsd.wire.keys import Kind


class Reporting:
    """Sums of what was counted."""

    def __init__(self, store: Store, writer: Writer, clock: Clock, flush: Callable[[], None]) -> None:
        """Wire up; `flush` queues what is counted in memory."""
        self._store = store
        self._writer = writer
        self._clock = clock
        self._flush = flush

    async def table(self, request: GetUsage) -> UsageTable:
        """Sums by kind, and by label or job where that is asked for.

        Raises:
            RequestError: the database cannot be read.
        """
        await self.flush()
        hour = 0 if request.since_s is None else int(self._clock.moment().wall_s - request.since_s) // HOUR_S
        counts = await self._store.read(select_counts_since, hour, request.job)
        rows: dict[tuple[Kind, str], dict[str, float]] = {}
        for one in counts:
            if _has(one.labels, request.labels):
                sums = rows.setdefault((one.kind, _group(request, one)), {})
                sums[one.name] = sums.get(one.name, 0.0) + one.value
        return UsageTable(
            items=[_row(kind, group, sums) for (kind, group), sums in sorted(rows.items())],
            since=None if request.since_s is None else datetime.fromtimestamp(hour * HOUR_S, UTC).isoformat(),
        )

    async def flush(self) -> None:
        """Have what is counted in memory written down."""
        self._flush()
        await self._writer.wait_settled()

    async def fold(self) -> None:
        """Keep old counts in fewer rows; once a day is enough.

        Raises:
            RequestError: the database cannot be written.
        """
        await self._writer.change(FoldCounts(int(self._clock.moment().wall_s) // HOUR_S))
        await self._writer.change(ForgetOrigins())


def _has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in wanted.items())


def _group(request: GetUsage, one: Counted) -> str:
    if request.by_job:
        return one.job
    return "" if request.by_label is None else one.labels.get(request.by_label, "")


def _row(kind: Kind, group: str, sums: Mapping[str, float]) -> UsageRow:
    reasons = {
        name.removeprefix(REASON_PREFIX): int(value) for name, value in sums.items() if name.startswith(REASON_PREFIX)
    }
    return UsageRow(
        kind=kind,
        group=group,
        hits=int(sums.get(HITS, 0)),
        misses=int(sums.get(MISSES, 0)),
        reasons=reasons,
        seconds_saved=sums.get(SECONDS_SAVED, 0.0),
        cost_saved=sums.get(COST_SAVED, 0.0),
    )
