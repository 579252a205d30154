"""Why a key hits or misses, and what is known of an entry.

Layer: engine. Imports claims, lookups, nearest, usage, store and core.
Invariant: nothing is changed, and nothing is counted: asking why a lookup missed is no lookup.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Final

from motoolsd.core import inputs
from motoolsd.core.errors import RequestError
from motoolsd.core.inputs import (
    Inputs,
    inputs_of_eval,
    inputs_of_question,
    parsed_mapping,
)
from motoolsd.engine.claims import Claims
from motoolsd.engine.lookups import Lookups
from motoolsd.engine.nearest import NearEntry, Nearest
from motoolsd.engine.usage import UsageCounts
from motoolsd.store.history import Gone, Void, select_gone, select_misses, select_void
from motoolsd.store.lineage import (
    select_row,
)
from motoolsd.store.origins import select_origin
from motoolsd.store.statistics import select_audience
from motoolsd.store.store import Store
from motoolsd.wire.explaining import (
    Difference,
    Explain,
    Explanation,
    ListMisses,
    MissItem,
    MissPage,
    NearRow,
)
from motoolsd.wire.keys import Kind, parse_eval_key
from motoolsd.wire.messages import Lookup
from motoolsd.wire.origins import Origin
from motoolsd.wire.reasons import Reason

PAGE_ITEMS: Final = 100
NEAREST_SHOWN: Final = 3


class Explaining:
    """Looks at everything that is known of a key."""

    def __init__(
        self,
        store: Store,
        lookups: Lookups,
        claims: Claims,
        nearest: Nearest,
        usage: UsageCounts,
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        """Wire up; `flush` has what was counted in memory written down."""
        self._flush = flush
        self._store = store
        self._lookups = lookups
        self._claims = claims
        self._nearest = nearest
        self._usage = usage

    async def explain(self, request: Explain) -> Explanation:
        """Why a key hits or misses now.

        Raises:
            RequestError: the inputs are no mapping, or the database cannot be read.
        """
        kind, key = request.kind, request.key
        asked = Lookup(kind=kind, keys=[key], version=request.version)
        found = await self._lookups.find(asked, self._usage.silent)
        value = found.values[0]
        if value is not None and not found.versions:
            return Explanation(kind=kind, key=key, reason=Reason.HIT, value=value)
        nearest = await self._near(request)
        if value is not None:
            other = found.versions[0]
            detail = f"computed under version {other}, asked for under {request.version}"
            return Explanation(
                kind=kind, key=key, reason=Reason.OTHER_VERSION, detail=detail, value=value, nearest=nearest
            )
        if (holder := self._claims.holder((kind, key))) is not None:
            detail = f"pid {holder.pid} on {holder.host} computes it since {holder.since}: {holder.command}"
            return Explanation(
                kind=kind, key=key, reason=Reason.COMPUTING, detail=detail, since=holder.since, holder=holder
            )
        if (failure := self._claims.failures.reason((kind, key))) is not None:
            return Explanation(kind=kind, key=key, reason=Reason.FAILED, detail=failure, nearest=nearest)
        if (void := await self._store.read(select_void, kind, key)) is not None:
            return await self._of_void(request, void, nearest)
        gone = await self._store.read(select_gone, kind, key)
        return await self._of_gone(request, gone, nearest)

    async def _of_void(self, request: Explain, void: Void, nearest: list[NearRow]) -> Explanation:
        row = await self._store.read(select_row, request.kind, request.key)
        said = f": {void.detail}" if void.detail else ""
        # Who stored it is who failed; who invalidated it stands in the detail.
        by = None if row is None or row.origin is None or void.reason not in _FLAWED else row.origin
        return Explanation(
            kind=request.kind,
            key=request.key,
            reason=void.reason,
            detail=f"{_VOID_TEXT.get(void.reason, void.reason.value)} since {void.since}{said}",
            since=void.since,
            value=None if row is None else row.value,
            by=None if by is None else await self._origin(by),
            nearest=nearest,
        )

    async def _of_gone(self, request: Explain, gone: Gone | None, nearest: list[NearRow]) -> Explanation:
        by = None if gone is None or gone.origin is None else await self._origin(gone.origin)
        who = "" if by is None else f" by {named_origin(by)}"
        if gone is not None and gone.is_certain:
            said = f" ({gone.detail})" if gone.detail else ""
            reason = Reason(gone.reason)
            return Explanation(
                kind=request.kind,
                key=request.key,
                reason=reason,
                detail=f"{_GONE_TEXT.get(reason, reason.value)} at {gone.gone_at}{who}{said}",
                since=gone.gone_at,
                by=by,
                nearest=nearest,
            )
        detail = "no entry has this key"
        if nearest:
            count = len(nearest[0].differences)
            detail = f"the nearest entry differs in {count} field{'' if count == 1 else 's'}"
            if not count:
                detail = "the nearest entry differs in nothing that is kept: what looks like a credential is masked"
        if gone is not None:
            plural = request.kind.plural
            detail += f"; all {plural} were cleared at {gone.gone_at}{who}, and it may have been one of them"
        reason = Reason.DIFFERENT_INPUTS if nearest else Reason.NEVER_COMPUTED
        return Explanation(kind=request.kind, key=request.key, reason=reason, detail=detail, nearest=nearest)

    async def _near(self, request: Explain) -> list[NearRow]:
        inputs = await self._inputs(request)
        if inputs is None:
            return []
        found = await self._nearest.find(inputs, NEAREST_SHOWN + 1)
        return [_near_row(entry) for entry in found if entry.key != request.key][:NEAREST_SHOWN]

    async def _inputs(self, request: Explain) -> Inputs | None:
        """What the key was made from, as far as it is known."""
        told = request.inputs
        if told is None:
            await self._flush()
            for miss in await self._store.read(select_misses, PAGE_ITEMS):
                if (miss.kind, miss.key) == (request.kind, request.key) and miss.inputs is not None:
                    told = miss.inputs
                    break
        if told is not None:
            try:
                return inputs_of_question(request.kind, parsed_mapping(told))
            except ValueError as error:
                message = f"the inputs are not those of a {request.kind.value}: {error}"
                raise RequestError(message) from error
        if request.kind is Kind.EVAL:
            try:
                identity = parse_eval_key(request.key)
            except ValueError as error:
                raise RequestError(str(error)) from error
            return inputs_of_eval(identity, None)
        return None

    async def _origin(self, origin_id: bytes) -> Origin | None:
        return await self._store.read(select_origin, origin_id)

    # The latest misses.

    async def misses(self, request: ListMisses) -> AsyncGenerator[MissPage, None]:
        """The latest misses, the last first.

        Raises:
            RequestError: the database cannot be read.
        """
        await self._flush()
        items = []
        for row in await self._store.read(select_misses, request.limit):
            job, labels = "", dict[str, str]()
            if row.audience is not None:
                job, labels = await self._store.read(select_audience, row.audience)
            items.append(
                MissItem(
                    kind=row.kind,
                    key=row.key,
                    missed_at=row.missed_at,
                    reason=row.reason,
                    inputs=row.inputs,
                    job=job,
                    labels=labels,
                )
            )
        starts = range(0, max(1, len(items)), PAGE_ITEMS)
        for start in starts:
            yield MissPage(items=items[start : start + PAGE_ITEMS], is_last=start == starts[-1])


_FLAWED: Final = frozenset({Reason.FAILED, Reason.REFUSED, Reason.PARTIAL})
_VOID_TEXT: Final[Mapping[Reason, str]] = {
    Reason.FILE_GONE: "its file is gone",
    Reason.EXPIRED: "it has expired",
    Reason.DAMAGED: "it is damaged",
    Reason.INVALIDATED: "it is invalidated",
    Reason.FAILED: "it failed",
    Reason.REFUSED: "it was refused",
    Reason.PARTIAL: "it is partial",
}
_GONE_TEXT: Final[Mapping[Reason, str]] = {
    Reason.CLEARED: "cleared",
    Reason.EVICTED: "evicted",
    Reason.FAILED: "failed",
    Reason.FILE_GONE: "its file was gone, and its row was removed",
}


def named_origin(origin: Origin) -> str:
    """A process in a few words."""
    who = f"{origin.user or origin.uid}@{origin.host}" if origin.host else str(origin.user)
    command = " ".join(origin.command[:4])
    job = f", {origin.job_id}" if origin.job_id else ""
    return f"{who} (pid {origin.pid}{job}: {command})"


def _near_row(entry: NearEntry) -> NearRow:
    return NearRow(
        key=entry.key,
        value=entry.value,
        why_not=entry.void_reason,
        created_at=entry.created_at,
        differences=[told_difference(one) for one in entry.differences],
    )


def told_difference(found: inputs.Difference) -> Difference:
    """A difference as it is sent."""
    return Difference(path=found.path, cached=found.cached_json, asked=found.asked_json)
