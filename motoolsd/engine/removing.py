"""Moving entries and their files into the trash, back, and out of the world.

Layer: engine. Imports census, protection, writer, store and core.
Invariant: rows leave before their files and come back after them. Each step can be done twice: that is how what a kill
left half done is brought to its end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, Iterable, Sequence
from functools import partial
from typing import Final

import msgspec

from motoolsd.core.files import overlaps
from motoolsd.core.leases import Key
from motoolsd.core.points import reached
from motoolsd.core.ports import DiskFull, FileTree, PathChanged, PathMissing, TreeError
from motoolsd.core.retention import PlannedItem
from motoolsd.engine.census import Census
from motoolsd.engine.disk import run_on_disk
from motoolsd.engine.protection import Protection
from motoolsd.engine.writer import Writer
from motoolsd.store.history import Why
from motoolsd.store.removals import (
    DropRemoval,
    ForgetPaths,
    RemovedPath,
    RemoveItems,
    RestoreEntries,
    SetRemovalState,
    State,
    path_number,
    select_paths,
)
from motoolsd.store.store import Store
from motoolsd.wire.cleaning import ORPHAN, Cleaned, Kept
from motoolsd.wire.keys import Kind

logger = logging.getLogger(__name__)

ITEMS_AT_ONCE: Final = 100
"""Items between two looks at whether to go on; their rows are one internal write."""
BUSY_SERVED: Final = 4
BUSY_PAUSE_S: Final = 0.002
"""A purge pauses so long after each step in which more lookups came than that."""


class Trash:
    """Where removed files lie, and the rows that say so."""

    def __init__(self, store: Store, files: FileTree, writer: Writer, census: Census, protection: Protection) -> None:
        """Wire up."""
        self._store = store
        self._files = files
        self._writer = writer
        self._census = census
        self._protection = protection

    def removing(self, removal: int, why: Why | None = None) -> Removing:
        """One removal, from its beginning; `why` is remembered of each entry."""
        return Removing(self._store, self._files, self._writer, self._census, self._protection, removal, why or Why())

    def taken(self, removal: int, paths: Sequence[RemovedPath]) -> list[bytes]:
        """The paths of a removal whose old place is taken by something else. Blocks."""
        return [
            path.path
            for path in paths
            if self._files.is_in_trash(removal, path.number) and self._files.see(path.path) is not None
        ]

    async def put_back(
        self, removal: int, entries: Sequence[Key], paths: Sequence[RemovedPath], left: list[Kept]
    ) -> AsyncGenerator[int, None]:
        """Files first, then rows; gives after each part how many of them are done.

        Cancellation: whoever leaves in the middle has to go on with the same generator, or leaves it to the next
        daemon: an entry is never half there.

        Args:
            removal: its number.
            entries: all that it took.
            paths: all that it took.
            left: what cannot be put back stays in the trash, and is named here.

        Raises:
            RequestError: the database cannot be written; the next daemon goes on with it.
        """
        for start in range(0, len(paths), ITEMS_AT_ONCE):
            part = paths[start : start + ITEMS_AT_ONCE]
            left += await run_on_disk(partial(self._move_back, removal, part))
            yield start + len(part)
        reached("files put back")
        for start in range(0, len(entries), ITEMS_AT_ONCE):
            keys = tuple(entries[start : start + ITEMS_AT_ONCE])
            await self._writer.change(RestoreEntries(removal, keys))
            reached("rows put back")
            yield len(paths) + start + len(keys)
        if left:
            logger.error("%d paths of removal %d stay in the trash", len(left), removal)
            stayed = {kept.path for kept in left}
            put_back = tuple(path.number for path in paths if path.path not in stayed)
            await self._writer.change(ForgetPaths(removal, put_back))
            await self._writer.change(SetRemovalState(removal, State.TRASHED))
            return
        if not await run_on_disk(partial(self._files.discard, removal)):
            logger.warning("trash/%d holds what no removal took: it stays until the trash is emptied", removal)
        reached("undo ended")
        await self._writer.change(DropRemoval(removal, is_undone=True))

    def _move_back(self, removal: int, paths: Sequence[RemovedPath]) -> list[Kept]:
        left: list[Kept] = []
        for path in paths:
            try:
                self._files.move_back(removal, path.number, path.path)
            except PathMissing:
                continue  # an earlier try has put it back
            except TreeError as error:
                left.append(Kept(path=path.path, why=error.reason))
                continue
            reached("path put back")
            self._census.put_back(path.path, path.size_bytes, path.allocated_bytes)
        self._files.sync_trash(removal, [path.path for path in paths])
        return left

    async def purge(self, removal: int) -> int:
        """Free the room of a removal that is on its way out; how much, in allocated bytes.

        Cancellation: the next daemon goes on with it.

        Raises:
            RequestError: the database cannot be read or written.
        """
        reached("purge begun")
        paths = await self._store.read(select_paths, removal)
        is_empty = await run_on_disk(partial(self._purge, removal))
        reached("files purged")
        if not is_empty:
            return 0
        for path in paths:
            self._census.purged(path.size_bytes, path.allocated_bytes)
        await self._writer.change(DropRemoval(removal))
        reached("purge ended")
        return sum(path.allocated_bytes for path in paths)

    def _purge(self, removal: int) -> bool:
        """Empty its directory; False if something in it cannot be removed."""
        pause = threading.Event()
        served = self._census.served()

        def step(_count: int) -> None:
            nonlocal served
            reached("part purged")
            if (now := self._census.served()) - served > BUSY_SERVED:
                pause.wait(BUSY_PAUSE_S)
            served = now

        try:
            return self._files.purge(removal, step=step, is_stopped=pause.is_set)
        except TreeError as error:
            logger.error("something stays in the trash: %s", error)
            return False


class Removing:
    """One removal under way, and what it has done."""

    def __init__(
        self,
        store: Store,
        files: FileTree,
        writer: Writer,
        census: Census,
        protection: Protection,
        removal: int,
        why: Why,
    ) -> None:
        """Nothing is removed yet."""
        self._why = why
        self._store = store
        self._files = files
        self._writer = writer
        self._census = census
        self._protection = protection
        self.removal = removal
        self.entries: list[Key] = []
        self.orphans = 0
        self.freed_bytes = 0
        self.left: list[Kept] = []

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to undo."""
        return not self.entries and not self.orphans

    async def remove(self, first_number: int, items: Sequence[PlannedItem]) -> None:
        """Rows, then files, of some items; what somebody has come to need since the plan was checked stays.

        Raises:
            RequestError: the database cannot be written.
        """
        protected = self._protection.protected_nowait()
        work_dirs = self._protection.work_dirs()
        going = tuple(item for item in items if not self._is_needed(item, protected, work_dirs))
        reached("rows about to go")
        applied = await self._writer.change(RemoveItems(self.removal, first_number, going, self._why))
        reached("rows removed")
        self.entries += applied.removed
        paths = await self._store.read(select_paths, self.removal, path_number(first_number, 0))
        self.orphans += sum(item.kind == ORPHAN for item in going)
        await self.move(paths)

    def _is_needed(self, item: PlannedItem, protected: dict[Key, str], work_dirs: dict[bytes, str]) -> bool:
        why = None if item.kind == ORPHAN else protected.get((Kind(item.kind), item.key))
        for path in item.paths:
            why = why or next((use for other, use in work_dirs.items() if overlaps(path.path, other)), None)
        if why is not None:
            self.left += [Kept(path=path.path, why=why) for path in item.paths]
        return why is not None

    async def move(self, paths: Sequence[RemovedPath]) -> None:
        """Bring paths into the trash; one that cannot go stays, and is no part of the removal any more.

        Raises:
            RequestError: the database cannot be written.
        """
        stayed = await run_on_disk(partial(self._move, paths))
        reached("files moved")
        if stayed:
            await self._writer.change(ForgetPaths(self.removal, tuple(stayed)))

    def _move(self, paths: Sequence[RemovedPath]) -> list[int]:
        stayed: list[int] = []
        for path in paths:
            try:
                self._move_one(path)
            except (PathMissing, PathChanged) as error:
                # An earlier try may have moved it: then what lies there now has come since.
                if not self._files.is_in_trash(self.removal, path.number):
                    stayed.append(path.number)
                    self.left += _named(path.path, error)
                continue
            except TreeError as error:
                stayed.append(path.number)
                self.left += _named(path.path, error)
                continue
            reached("path moved")
            self.freed_bytes += path.allocated_bytes
            self._census.trashed(path.path, path.size_bytes, path.allocated_bytes)
        if paths:
            self._files.sync_trash(self.removal, [path.path for path in paths])
        return stayed

    def _move_one(self, path: RemovedPath) -> None:
        """Move it; where there is no room for its new name, once more with what is kept for that."""
        try:
            self._files.move_to_trash(path.path, self.removal, path.number, path.seen)
        except DiskFull:
            if not self._writer.make_room():
                raise
            self._files.move_to_trash(path.path, self.removal, path.number, path.seen)

    def told(self, removal_id: int, *, is_complete: bool = True) -> Cleaned:
        """What was done."""
        counted = cleaned(removal_id, self.entries, self.orphans, self.freed_bytes, self.left)
        return counted if is_complete else msgspec.structs.replace(counted, is_complete=False)


def _named(path: bytes, error: TreeError) -> list[Kept]:
    """A path that stays, and why; what is gone by itself is not worth a word."""
    return [] if isinstance(error, PathMissing) else [Kept(path=path, why=error.reason)]


def cleaned(
    removal_id: int, entries: Iterable[Key], orphans: int, freed_bytes: int, left: Sequence[Kept] = ()
) -> Cleaned:
    """The reply that counts what went, or came back."""
    counts = dict.fromkeys(Kind, 0)
    for kind, _ in entries:
        counts[kind] += 1
    return Cleaned(
        removal_id=removal_id,
        datasets=counts[Kind.DATASET],
        models=counts[Kind.MODEL],
        evals=counts[Kind.EVAL],
        orphans=orphans,
        freed_bytes=freed_bytes,
        left=list(left),
    )
