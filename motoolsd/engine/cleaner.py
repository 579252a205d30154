"""Clean-up: a plan, then exactly that plan; and what lies in the trash since.

Layer: engine. Imports planning, removing, writer, store and core.
Invariant: one clean-up at a time. An entry is whole, or whole in the trash, whenever the daemon is not in the middle of
moving it; after a kill, once it has started again.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.to_thread
import msgspec

from motoolsd.core.deadlines import Moment
from motoolsd.core.errors import EntryNotFound, PlanOutdated, RequestError
from motoolsd.core.leases import Key
from motoolsd.core.points import reached
from motoolsd.core.ports import Clock, FileTree
from motoolsd.core.retention import Plan, PlannedItem, changes_since
from motoolsd.core.settings import Settings
from motoolsd.engine.census import Census
from motoolsd.engine.disk import run_on_disk
from motoolsd.engine.planning import Planning
from motoolsd.engine.protection import Protection
from motoolsd.engine.removing import ITEMS_AT_ONCE, Trash, cleaned
from motoolsd.engine.writer import Writer
from motoolsd.store.history import Why
from motoolsd.store.plans import SavePlan, packed_outcome, select_plan
from motoolsd.store.removals import (
    BeginRemoval,
    DropRemoval,
    Removal,
    RemovedPath,
    SetRemovalState,
    State,
    select_entries,
    select_paths,
    select_removal,
    select_removal_of,
    select_removals,
    select_standing,
    select_trash,
)
from motoolsd.store.store import Store
from motoolsd.wire.cleaning import (
    ORPHAN,
    ApplyPlan,
    Cleaned,
    Criteria,
    EmptyTrash,
    Kept,
    MakePlan,
    PlanPage,
    Progress,
    TrashPage,
    Undo,
)
from motoolsd.wire.reasons import Reason

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAGE_ITEMS: Final = 500
PAGE_SIZE_BYTES: Final = 256 * 1024
TRASH_PAGE_ROWS: Final = 1_000
CHECKED_AT_ONCE: Final = 500

Reply = Progress | Cleaned


class Cleaner:
    """Plans and what comes of them."""

    def __init__(
        self,
        store: Store,
        files: FileTree,
        clock: Clock,
        writer: Writer,
        census: Census,
        protection: Protection,
        settings: Settings,
    ) -> None:
        """Wire up."""
        self._store = store
        self._files = files
        self._clock = clock
        self._writer = writer
        self.keep_s = settings.trash_keep_s
        """How long what is removed can be put back."""
        self._planning = Planning(store, files, writer, census, protection)
        self._trash = Trash(store, files, writer, census, protection)
        self._lock = anyio.Lock()
        self._started = clock.moment()

    # Plans.

    async def plan(self, request: MakePlan) -> AsyncGenerator[PlanPage, None]:
        """Pages of what would go; the plan is kept.

        Raises:
            RequestError: the criteria make no sense, or the database cannot be read or written.
        """
        plan = await self._planning.draw(new_plan_id(), request.criteria, self._clock.moment())
        await self._writer.change(SavePlan(plan))
        for items in _pages(plan.items, _item_size):
            yield PlanPage(items=[item.shown() for item in items])
        for protected in _pages(plan.protected, lambda one: len(one.key) + len(one.why)):
            yield PlanPage(protected=protected)
        for kept in _pages(plan.kept, lambda one: len(one.path) + len(one.why)):
            yield PlanPage(kept=kept)
        size_bytes = sum(item.size_bytes for item in plan.items)
        yield PlanPage(plan_id=plan.plan_id, freed_bytes=plan.allocated_bytes, size_bytes=size_bytes, is_last=True)

    async def apply(self, request: ApplyPlan) -> AsyncGenerator[Reply, None]:
        """Carry out exactly a plan; asked again, tell what came of it.

        Cancellation: after the items under way; what was removed by then lies in the trash as a removal of its own.

        Raises:
            EntryNotFound: there is no such plan.
            PlanOutdated: what it saw is not so any more; nothing was removed.
            RequestError: the database cannot be written; what was removed by then lies in the trash.
        """
        async with self._lock:
            kept = await self._store.read(select_plan, request.plan_id)
            plan = kept.plan
            if (told := kept.outcome or await self._interrupted(plan)) is not None:
                yield told
                return
            now = await self._planning.draw(plan.plan_id, plan.criteria, plan.made)
            # Large plans would hold up lookups: what is pure works in a thread.
            if changed := await anyio.to_thread.run_sync(changes_since, plan, now):
                raise PlanOutdated(plan.plan_id, changed)
            why = Why(Reason.CLEARED, f"clean-up: {plan.reason}", request.origin)
            removing = self._trash.removing(await self._begin(plan), why)
            done = 0
            try:
                while done < len(plan.items):
                    with anyio.CancelScope(shield=True):
                        await removing.remove(done, plan.items[done : done + ITEMS_AT_ONCE])
                    done = min(done + ITEMS_AT_ONCE, len(plan.items))
                    yield Progress(done=done, total=len(plan.items), freed_bytes=removing.freed_bytes)
            finally:
                is_kept = request.to_trash and not removing.is_empty
                told = removing.told(removing.removal if is_kept else 0, is_complete=done == len(plan.items))
                with anyio.CancelScope(shield=True):
                    await self._end(removing.removal, told)
            yield told

    async def remove(self, criteria: Criteria, reason: str, *, to_trash: bool = False) -> Cleaned:
        """Remove what fits, without showing it first.

        Args:
            criteria: what is to go.
            reason: for the trash's list.
            to_trash: whether it can be undone; else the room is freed at once.

        Raises:
            RequestError: the database cannot be read or written.
        """
        async with self._lock:
            plan = await self._planning.draw(new_plan_id(), criteria, self._clock.moment(), reason=reason)
            if not plan.items:
                return Cleaned()
            why = Why(Reason.FILE_GONE if to_trash else Reason.EVICTED, reason)
            removing = self._trash.removing(await self._begin(plan), why)
            for start in range(0, len(plan.items), ITEMS_AT_ONCE):
                with anyio.CancelScope(shield=True):
                    await removing.remove(start, plan.items[start : start + ITEMS_AT_ONCE])
            told = removing.told(removing.removal if to_trash and not removing.is_empty else 0)
            await self._end(removing.removal, told)
            return told

    async def _begin(self, plan: Plan) -> int:
        expires = self._clock.moment().after(self.keep_s)
        begun = await self._writer.change(BeginRemoval(plan.plan_id, plan.reason, expires))
        reached("removal begun")
        return begun.number

    async def _end(self, removal: int, told: Cleaned) -> None:
        is_kept = told.removal_id != 0
        state = State.TRASHED if is_kept else State.PURGING
        await self._writer.change(SetRemovalState(removal, state, packed_outcome(told)))
        reached("removal ended")
        if not is_kept:
            await self._trash.purge(removal)

    async def _interrupted(self, plan: Plan) -> Cleaned | None:
        """What came of a plan in whose middle an earlier daemon was killed; None if there was none."""
        removal = await self._store.read(select_removal_of, plan.plan_id)
        if removal is None:
            return None
        entries = await self._store.read(select_entries, removal.id)
        paths = await self._store.read(select_paths, removal.id)
        taken = {path.path for path in paths}
        orphans = sum(item.kind == ORPHAN and item.paths[0].path in taken for item in plan.items)
        told = cleaned(removal.id, entries, orphans, sum(path.allocated_bytes for path in paths))
        return msgspec.structs.replace(told, is_complete=len(entries) + orphans == len(plan.items))

    # The trash.

    async def list_trash(self) -> AsyncGenerator[TrashPage, None]:
        """What lies in the trash, the latest first."""
        rows = await self._store.read(select_trash)
        starts = range(0, max(1, len(rows)), TRASH_PAGE_ROWS)
        for start in starts:
            yield TrashPage(items=rows[start : start + TRASH_PAGE_ROWS], is_last=start == starts[-1])

    async def undo(self, request: Undo) -> AsyncGenerator[Reply, None]:
        """Put back what a clean-up took: all of it, or nothing.

        Cancellation: once it has begun it goes on to its end, at the latest by the next daemon.

        Raises:
            EntryNotFound: there is nothing to undo.
            RequestError: something stands where it was; nothing was put back.
        """
        async with self._lock:
            removal = await self._store.read(select_removal, request.removal_id)
            entries = await self._store.read(select_entries, removal.id)
            paths = await self._store.read(select_paths, removal.id)
            await self._check_free(removal.id, entries, paths)
            left: list[Kept] = []
            with anyio.CancelScope(shield=True):
                await self._writer.change(SetRemovalState(removal.id, State.RESTORING))
            reached("undo begun")
            steps = self._trash.put_back(removal.id, entries, paths, left)
            try:
                async for done in steps:
                    yield Progress(done=done, total=len(entries) + len(paths))
            finally:
                with anyio.CancelScope(shield=True):
                    await _finish(steps)
            orphans = 0 if entries else len(paths)
            yield cleaned(removal.id, entries, orphans, sum(path.allocated_bytes for path in paths), left)

    async def _check_free(self, removal: int, entries: Sequence[Key], paths: Sequence[RemovedPath]) -> None:
        """Make sure that nothing would be overwritten."""
        standing: list[Key] = []
        for start in range(0, len(entries), CHECKED_AT_ONCE):
            standing += await self._store.read(select_standing, entries[start : start + CHECKED_AT_ONCE])
        taken = await run_on_disk(partial(self._trash.taken, removal, paths))
        conflicts = [f"{kind.value} {key} was stored again" for kind, key in standing]
        conflicts += [f"something lies at {path.decode('utf-8', 'backslashreplace')}" for path in taken]
        if conflicts:
            named = "; ".join(conflicts[:5])
            message = f"removal {removal} cannot be put back, and nothing was: {named}. Move that away first"
            raise RequestError(message)

    async def empty_trash(self, request: EmptyTrash) -> AsyncGenerator[Reply, None]:
        """Free what lies in the trash, for ever.

        Cancellation: after the removal under way.

        Raises:
            EntryNotFound: one of the numbers is none; nothing was freed.
        """
        async with self._lock:
            known = [row.id for row in await self._store.read(select_trash)]
            numbers = request.removal_ids
            if numbers is None:
                # What lies there without a row was left by a database that is gone: it is trash all the same.
                strays = await run_on_disk(self._files.trash_names)
                numbers = [*known, *(name for name in strays if name not in known)]
            elif unknown := [number for number in numbers if number not in known]:
                message = f"there is nothing with number {unknown[0]} in the trash: see `motools cache trash list`"
                raise EntryNotFound(message)
            freed_bytes = 0
            for done, number in enumerate(numbers):
                yield Progress(done=done, total=len(numbers), unit="removals", freed_bytes=freed_bytes)
                with anyio.CancelScope(shield=True):
                    freed_bytes += await self._purge(number)
            yield Cleaned(freed_bytes=freed_bytes)

    async def _purge(self, removal: int) -> int:
        await self._writer.change(SetRemovalState(removal, State.PURGING))
        return await self._trash.purge(removal)

    async def trim_trash(self, room_bytes: int | None) -> int:
        """Free what has expired, what was on its way out, and the oldest of what is above its room.

        Returns:
            How much, in allocated bytes.

        Args:
            room_bytes: how much may lie there; None: any amount.

        Raises:
            RequestError: the database cannot be read or written.
        """
        now = self._clock.moment()
        freed_bytes = 0
        async with self._lock:
            found = await self._store.read(select_removals)
            for one in found:
                if one.state == State.PURGING:
                    freed_bytes += await self._trash.purge(one.id)
            removals = [one for one in found if one.state == State.TRASHED]
            sizes = {row.id: row.allocated_bytes for row in await self._store.read(select_trash)}
            left_bytes = sum(sizes.get(one.id, 0) for one in removals)
            for one in removals:
                is_above = room_bytes is not None and left_bytes > room_bytes
                if not is_above and not self._has_expired(one, now):
                    continue
                freed_bytes += await self._purge(one.id)
                left_bytes -= sizes.get(one.id, 0)
        return freed_bytes

    def _has_expired(self, removal: Removal, now: Moment) -> bool:
        if removal.expires is None or not removal.expires.is_over(now):
            return False
        # A wall clock that jumped is not believed; where it does not count, it does not matter.
        return removal.expires.boot_id == now.boot_id or not self._started.has_jumped(now)

    # What a kill left half done.

    async def recover(self) -> None:
        """Bring to its end what an earlier daemon began, but for what is only to be freed: `trim_trash` does that.

        Before the first connection is accepted.

        Raises:
            RequestError: the database cannot be read or written.
        """
        for removal in await self._store.read(select_removals):
            entries = await self._store.read(select_entries, removal.id)
            paths = await self._store.read(select_paths, removal.id)
            match removal.state:
                case State.REMOVING if not entries and not paths:
                    # It is as if its plan had not been carried out.
                    await self._writer.change(DropRemoval(removal.id, is_undone=True))
                case State.REMOVING:
                    await self._trash.removing(removal.id).move(paths)
                    await self._writer.change(SetRemovalState(removal.id, State.TRASHED))
                    logger.warning("removal %d was interrupted: %d entries lie in the trash", removal.id, len(entries))
                case State.RESTORING:
                    await _finish(self._trash.put_back(removal.id, entries, paths, []))
                    logger.warning("an interrupted undo was brought to its end: %d entries", len(entries))
                case _:
                    continue


def _pages(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Parts that fit into a frame: at most `PAGE_ITEMS`, and about `PAGE_SIZE_BYTES`."""
    page: list[T] = []
    room = PAGE_SIZE_BYTES
    for item in items:
        if page and (len(page) >= PAGE_ITEMS or room < size(item)):
            yield page
            page, room = [], PAGE_SIZE_BYTES
        page.append(item)
        room -= size(item)
    if page:
        yield page


def _item_size(item: PlannedItem) -> int:
    return len(item.key) + len(item.value) + sum(len(path.path) for path in item.paths)


async def _finish(steps: AsyncGenerator[int, None]) -> None:
    """Carry out what is left of something that must come to its end."""
    async for _ in steps:
        pass


def new_plan_id() -> str:
    """A name that is easy to copy."""
    return secrets.token_hex(6)
