"""What a scan means for rows: sizes, files that are gone or back, files that belong to an entry without saying so.

Layer: engine. Imports writer, store and core.
Invariant: an entry becomes void only if its file is still missing when that is looked at again, and nothing has changed
the entry meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeVar

import anyio.to_thread

from motoolsd.core.files import LOGS, Measured, Scan, dataset_of, is_within, relative_of, spellings
from motoolsd.core.guards import MISSING
from motoolsd.core.ports import FileTree
from motoolsd.core.slots import Slots
from motoolsd.engine.writer import Writer
from motoolsd.store.entries import (
    Adopt,
    ClearVoid,
    RecordSizes,
    SetVoid,
    select_adoptable_logs,
    select_dangling_count,
    select_named,
)
from motoolsd.store.facts import select_unowned
from motoolsd.store.ownership import ForgetUnowned, OwnedFile, OwnedPath, select_owned
from motoolsd.store.reads import FROM_START
from motoolsd.store.store import Store
from motoolsd.wire.keys import Kind, slot_of
from motoolsd.wire.names import RUNS

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAGE_ROWS: Final = 2_000
CHANGES_AT_ONCE: Final = 200
"""Rows of one internal write: others commit in between."""


class Reconciled(NamedTuple):
    """What was found out."""

    num_dangling: int
    adopted: frozenset[bytes]
    """Paths that were orphans, and belong to an entry now."""
    unowned: frozenset[bytes]

    def is_unowned(self, path: bytes) -> bool:
        """Whether it lay there before there was ownership."""
        return any(is_within(path, old) for old in self.unowned)


class Reconciliation:
    """Compares rows with files."""

    def __init__(self, store: Store, files: FileTree, writer: Writer, slots: Slots) -> None:
        """Wire up."""
        self._store = store
        self._files = files
        self._writer = writer
        self._slots = slots
        self._owned: dict[bytes, list[OwnedPath]] = {}
        self._numbers: Sequence[int] = ()

    async def owned(self) -> Iterable[bytes]:
        """The paths that entries own, as they stand now; before the scan that is to be compared with them.

        Raises:
            RequestError: the database cannot be read.
        """
        await self._adopt_logs()
        self._numbers = self._slots.snapshot()
        self._owned = {}
        for kind in Kind:
            after: tuple[object, bytes] | None = None
            while True:
                page = await self._store.read(select_owned, kind, after, PAGE_ROWS)
                for item in page.items:
                    self._owned.setdefault(item.path, []).append(item)
                if page.next_after is None:
                    break
                after = page.next_after
        return self._owned

    async def apply(self, scan: Scan) -> Reconciled:
        """Bring what the scan found into the rows.

        Raises:
            RequestError: the database cannot be read or written.
        """
        owned, self._owned = self._owned, {}
        await self._record_sizes(scan, owned)
        await self._mark_missing([item for path, items in owned.items() if path not in scan.owned for item in items])
        await self._heal([item for path, items in owned.items() if path in scan.owned for item in items])
        adopted = await self._adopt_found(scan)
        await self._writer.change(ForgetUnowned())
        dangling = await self._store.read(select_dangling_count)
        return Reconciled(dangling, adopted, await self._store.read(select_unowned))

    async def _record_sizes(self, scan: Scan, owned: dict[bytes, list[OwnedPath]]) -> None:
        changed = []
        for path, found in scan.owned.items():
            size = OwnedFile(path, found.size_bytes, found.allocated_bytes)
            changed += [
                (item.kind, item.key, size)
                for item in owned[path]
                # What datasets and logs had when they were published is what they should have: `verify` compares.
                if item.kind is Kind.MODEL or item.size_bytes is None
                if (item.size_bytes, item.allocated_bytes) != (size.size_bytes, size.allocated_bytes)
            ]
        for part in _parts(changed):
            await self._writer.change(RecordSizes(tuple(part)))

    async def _mark_missing(self, items: list[OwnedPath]) -> None:
        """Let entries miss whose file is gone."""
        items = [item for item in items if item.void_reason is None]
        for part in _parts(items):
            present = await anyio.to_thread.run_sync(self._files.present, [item.path for item in part])
            gone = [item for item, is_there in zip(part, present, strict=True) if not is_there]
            unchanged = tuple(dict.fromkeys((item.kind, item.key) for item in gone if self._is_unchanged(item)))
            if unchanged:
                logger.warning("the files of %d entries are gone: they miss (%s %s ...)", len(unchanged), *unchanged[0])
                await self._writer.change(SetVoid(unchanged, MISSING))

    async def _heal(self, items: list[OwnedPath]) -> None:
        """Let entries hit again whose file is back."""
        for part in _parts([item for item in items if item.void_reason == MISSING]):
            present = await anyio.to_thread.run_sync(self._files.present, [item.path for item in part])
            back = [(item.kind, item.key) for item, is_there in zip(part, present, strict=True) if is_there]
            gone = {(item.kind, item.key) for item, is_there in zip(part, present, strict=True) if not is_there}
            if healed := tuple(key for key in dict.fromkeys(back) if key not in gone):
                logger.info("the files of %d entries are back: they hit again", len(healed))
                await self._writer.change(ClearVoid(healed, MISSING))

    def _is_unchanged(self, item: OwnedPath) -> bool:
        slot = slot_of(item.kind, item.key)
        return self._slots.is_current(slot, self._numbers[slot])

    # Files that belong to an entry without saying so: the older package's, and those of rows written by hand.

    async def _adopt_logs(self) -> None:
        """Own the logs of evaluations whose rows name a path below the cache directory."""
        directory = self._files.directory
        prefixes = spellings(LOGS + b"/", directory)
        after: int | None = FROM_START
        while after is not None:
            rows, after = await self._store.read(select_adoptable_logs, prefixes, after)
            candidates = [(key, path) for key, value in rows if (path := relative_of(value, directory)) is not None]
            await self._adopt([(Kind.EVAL, key, path) for key, path in candidates])

    async def _adopt_found(self, scan: Scan) -> frozenset[bytes]:
        """Own `datasets/<hash>.jsonl` and `runs/<model id>` where there is such an entry; which paths those are."""
        datasets = {name: orphan.path for orphan in scan.orphans if (name := dataset_of(orphan.path)) is not None}
        runs = {name: orphan.path for orphan in scan.orphans if (name := _name_in(orphan.path, RUNS)) is not None}
        adopted: set[bytes] = set()
        for kind, paths in ((Kind.DATASET, datasets), (Kind.MODEL, runs)):
            for names in _parts(list(paths)):
                found = await self._store.read(select_named, kind, names)
                await self._adopt([(kind, key, paths[name]) for name, key in found.items()])
                adopted.update(paths[name] for name in found)
        return frozenset(adopted)

    async def _adopt(self, candidates: list[tuple[Kind, str, bytes]]) -> None:
        for part in _parts(candidates):
            measured = await anyio.to_thread.run_sync(self._measure, [path for _, _, path in part])
            files = tuple(
                (kind, key, OwnedFile(path, size.size_bytes, size.allocated_bytes))
                for (kind, key, path), size in zip(part, measured, strict=True)
                if size is not None
            )
            if files:
                await self._writer.change(Adopt(files))

    def _measure(self, paths: Sequence[bytes]) -> list[Measured | None]:
        return [self._files.measure(path) for path in paths]


def _name_in(path: bytes, category: str) -> str | None:
    """The name of what lies right below a category, if it is a text."""
    parent, _, name = path.partition(b"/")
    if parent != category.encode() or b"/" in name:
        return None
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None


def _parts(items: list[T]) -> Iterable[list[T]]:
    return (items[start : start + CHANGES_AT_ONCE] for start in range(0, len(items), CHANGES_AT_ONCE))
