"""Drawing a plan: reading what fits, and looking at the files.

Layer: engine. Imports census, protection, writer, store and core.
Invariant: nothing is changed. What is decided is decided in core.retention; here it is only gathered.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import anyio.to_thread

from motoolsd.core.deadlines import Moment
from motoolsd.core.errors import RequestError
from motoolsd.core.files import Seen
from motoolsd.core.ports import FileTree
from motoolsd.core.retention import (
    DOWNSTREAM,
    PLAN_ITEMS_MAX,
    Candidate,
    Draft,
    EntryName,
    Plan,
    choose,
    choose_orphans,
    place_paths,
    with_downstream,
)
from motoolsd.engine.census import Census
from motoolsd.engine.disk import run_on_disk
from motoolsd.engine.filtering import check_selection
from motoolsd.engine.protection import Protection
from motoolsd.engine.writer import Writer
from motoolsd.store.candidates import select_candidate_rows, select_candidates, select_made_rows, select_owner_names
from motoolsd.store.facts import select_unowned
from motoolsd.store.store import Store
from motoolsd.wire.cleaning import Criteria
from motoolsd.wire.keys import Kind

ROWS_AT_ONCE: Final = 500
"""Rows read in one hop: others read in between, and the interpreter's lock is free."""


class Planning:
    """Draws plans."""

    def __init__(self, store: Store, files: FileTree, writer: Writer, census: Census, protection: Protection) -> None:
        """Wire up."""
        self._store = store
        self._files = files
        self._writer = writer
        self._census = census
        self._protection = protection

    async def draw(self, plan_id: str, criteria: Criteria, moment: Moment, *, reason: str = "") -> Plan:
        """What would go, given the cache as it is now and ages as of a moment.

        Cancellation: leaves at once.

        Raises:
            RequestError: the criteria make no sense, or the database cannot be read.
        """
        check_criteria(criteria, moment)
        # A use that nobody has written down yet is a use.
        await self._writer.wait_settled()
        protected = await self._protection.protected(ignore_pins=criteria.force)
        candidates = await self._candidates(criteria, moment)
        live_bytes = await self._live_bytes(criteria)
        # Large plans would hold up lookups: what is pure works in a thread.
        draft = await anyio.to_thread.run_sync(choose, candidates, criteria, protected.entries, live_bytes)
        if criteria.downstream:
            made = await self._made_from(draft, moment)
            draft = await anyio.to_thread.run_sync(with_downstream, draft, made, criteria, protected.entries)
        paths = await anyio.to_thread.run_sync(_paths_of, draft)
        owners, seen = await self._owners(paths), await self._look(paths)
        items, kept = await anyio.to_thread.run_sync(place_paths, draft.chosen, owners, seen)
        stay = draft.protected
        if criteria.orphans:
            await self._census.rescan()
            orphans, others = choose_orphans(
                self._census.orphans,
                now=moment,
                age_s=criteria.orphan_age_s,
                unowned=await self._store.read(select_unowned),
                work_dirs=protected.work_dirs,
            )
            items += orphans
            stay = [*stay, *others]
        return Plan(plan_id, moment, criteria, items, stay, kept, reason or described(criteria))

    async def _live_bytes(self, criteria: Criteria) -> int:
        if criteria.to_bytes is None:
            return 0
        return (await self._census.current()).live_size_bytes

    async def _candidates(self, criteria: Criteria, moment: Moment) -> list[Candidate]:
        """The entries that fit, the least recently used first, whatever their kind."""
        kinds = tuple(Kind) if criteria.dangling else criteria.kinds
        rows: list[tuple[str, Kind, int]] = []
        for kind in kinds:
            found = await self._store.read(select_candidate_rows, kind, criteria, moment, PLAN_ITEMS_MAX)
            rows += [(used_at, kind, number) for used_at, number in found]
        return await self._read(rows, moment)

    async def _made_from(self, draft: Draft, moment: Moment) -> list[Candidate]:
        """What was made from chosen entries, chosen or not."""
        keys: dict[Kind, list[str]] = {}
        for candidate, _ in draft.chosen:
            keys.setdefault(candidate.kind, []).append(candidate.key)
        rows: list[tuple[str, Kind, int]] = []
        for source, kinds in DOWNSTREAM.items():
            for kind in kinds:
                for start in range(0, len(named := keys.get(source, [])), ROWS_AT_ONCE):
                    part = named[start : start + ROWS_AT_ONCE]
                    found = await self._store.read(select_made_rows, kind, source, part, PLAN_ITEMS_MAX)
                    rows += [(used_at, kind, number) for used_at, number in found]
        return await self._read(list(dict.fromkeys(rows)), moment)

    async def _read(self, rows: list[tuple[str, Kind, int]], moment: Moment) -> list[Candidate]:
        """The entries behind row numbers, the least recently used first."""
        numbers_of = await anyio.to_thread.run_sync(_sorted, rows)
        found_of: dict[tuple[Kind, int], Candidate] = {}
        for kind, numbers in numbers_of.items():
            for start in range(0, len(numbers), ROWS_AT_ONCE):
                part = numbers[start : start + ROWS_AT_ONCE]
                candidates = await self._store.read(select_candidates, kind, part, moment)
                found_of.update({(kind, number): candidate for number, candidate in candidates.items()})

        def in_order() -> list[Candidate]:
            return [found_of[kind, number] for _, kind, number in rows if (kind, number) in found_of]

        return await anyio.to_thread.run_sync(in_order)

    async def _owners(self, paths: Sequence[bytes]) -> dict[bytes, list[EntryName]]:
        owners: dict[bytes, list[EntryName]] = {}
        for start in range(0, len(paths), ROWS_AT_ONCE):
            owners.update(await self._store.read(select_owner_names, paths[start : start + ROWS_AT_ONCE]))
        return owners

    async def _look(self, paths: Sequence[bytes]) -> dict[bytes, Seen | None]:
        def look(part: Sequence[bytes]) -> dict[bytes, Seen | None]:
            return {path: self._files.see(path) for path in part}

        seen: dict[bytes, Seen | None] = {}
        for start in range(0, len(paths), ROWS_AT_ONCE):
            seen.update(await run_on_disk(partial(look, paths[start : start + ROWS_AT_ONCE])))
        return seen


def _sorted(rows: list[tuple[str, Kind, int]]) -> dict[Kind, list[int]]:
    """Sort rows by their last use, and cut them to what a plan holds; the row numbers of each kind."""
    rows.sort(key=lambda row: (row[0], row[1].value, row[2]))
    del rows[PLAN_ITEMS_MAX:]
    numbers: dict[Kind, list[int]] = {}
    for _, kind, number in rows:
        numbers.setdefault(kind, []).append(number)
    return numbers


def _paths_of(draft: Draft) -> list[bytes]:
    return [file.path for candidate, _ in draft.chosen for file in candidate.files]


_FILTERS: Final = {
    "keys": (Kind.DATASET, Kind.MODEL),
    "model_ids": (Kind.MODEL, Kind.EVAL),
    "task_ids": (Kind.EVAL,),
}


def check_criteria(criteria: Criteria, now: Moment) -> None:
    """Make sure that criteria say what is to go.

    Raises:
        RequestError: nothing was asked for, or a filter does not fit a kind, or makes no sense.
    """
    if not criteria.kinds and not criteria.orphans and not criteria.dangling:
        message = "nothing is asked for: name kinds of entries, orphans or dangling entries"
        raise RequestError(message)
    for name, kinds in _FILTERS.items():
        wrong = [kind.plural for kind in criteria.kinds if kind not in kinds]
        if getattr(criteria, name) is not None and (wrong or not criteria.kinds):
            message = f"{', '.join(wrong) or 'nothing'} cannot be chosen by {name}"
            raise RequestError(message)

    if criteria.filters is not None:
        for kind in criteria.kinds:
            check_selection(kind, criteria.filters, None, now)


def described(criteria: Criteria) -> str:
    """Criteria in a few words, for the trash's list."""
    parts = [kind.plural for kind in criteria.kinds] if len(criteria.kinds) < len(Kind) else ["all entries"]
    if criteria.older_than_s is not None:
        parts.append(f"older than {criteria.older_than_s:g} s")
    if criteria.unused_for_s is not None:
        parts.append(f"unused for {criteria.unused_for_s:g} s")
    if criteria.to_bytes is not None:
        parts.append(f"down to {criteria.to_bytes} bytes")
    if criteria.filters is not None:
        parts.append("by filters")
    parts += ["what was made from them"] * criteria.downstream
    parts += ["orphans"] * criteria.orphans + ["dangling entries"] * criteria.dangling
    return ", ".join(parts)
