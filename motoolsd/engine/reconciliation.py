"""What a scan means for rows: sizes, files that are gone or back, files that belong to an entry without saying so.

Layer: engine. Imports writer, store and core.
Invariant: an entry becomes void only if its file is still missing when that is looked at again, and nothing has changed
the entry meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias, TypeVar

import anyio.to_thread

from motoolsd.core.files import LOGS, Measured, Scan, dataset_of, is_within, relative_of, spellings
from motoolsd.core.guards import MISSING
from motoolsd.core.leases import Key
from motoolsd.core.ports import FileTree, TreeError
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
from motoolsd.store.holdings import ENTRY, PATH, ROOM, SIZE, VOID, Holding, select_holdings, select_keys_of
from motoolsd.store.ownership import ForgetUnowned, OwnedFile
from motoolsd.store.reads import FROM_START
from motoolsd.store.rows import Cell, bytes_of
from motoolsd.store.store import Store
from motoolsd.wire.keys import Kind, slot_of
from motoolsd.wire.names import RUNS

logger = logging.getLogger(__name__)

T = TypeVar("T")
Pause = Callable[[], Awaitable[None]]
_Held: TypeAlias = tuple[Kind, Holding]
_MISSING: Final = MISSING.encode()

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

    def __init__(self, store: Store, files: FileTree, writer: Writer, slots: Slots, *, pause: Pause) -> None:
        """Wire up; `pause` is called after each page, and lets others work."""
        self._pause = pause
        self._store = store
        self._files = files
        self._writer = writer
        self._slots = slots
        self._owned: dict[bytes, list[_Held]] = {}
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
                page = await self._store.read(select_holdings, kind, after, PAGE_ROWS)
                for item in page.items:
                    self._owned.setdefault(item[PATH], []).append((kind, item))
                await self._pause()
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
        # Of nearly all there is nothing to say: that is found out in a thread.
        compared = await anyio.to_thread.run_sync(_compared, owned, scan)
        await self._record_sizes(compared.changed)
        await self._mark_missing(compared.gone)
        await self._heal(compared.back)
        adopted = await self._adopt_found(scan)
        await self._writer.change(ForgetUnowned())
        dangling = await self._store.read(select_dangling_count)
        return Reconciled(dangling, adopted, await self._store.read(select_unowned))

    async def _record_sizes(self, changed: list[tuple[_Held, OwnedFile]]) -> None:
        for part in _parts(changed):
            keys = await self._keys([held for held, _ in part])
            files = tuple((*key, file) for key, (_, file) in zip(keys, part, strict=True) if key is not None)
            await self._writer.change(RecordSizes(files))

    async def _mark_missing(self, gone: list[_Held]) -> None:
        """Let entries miss whose file is gone."""
        for part in _parts(gone):
            present = await anyio.to_thread.run_sync(self._files.present, [item[PATH] for _, item in part])
            keys = await self._keys(part)
            missing = [key for key, is_there in zip(keys, present, strict=True) if key is not None and not is_there]
            unchanged = tuple(key for key in dict.fromkeys(missing) if self._is_unchanged(key))
            if unchanged:
                logger.warning("the files of %d entries are gone: they miss (%s %s ...)", len(unchanged), *unchanged[0])
                await self._writer.change(SetVoid(unchanged, MISSING))

    async def _heal(self, back: list[_Held]) -> None:
        """Let entries hit again whose file is back."""
        for part in _parts(back):
            present = await anyio.to_thread.run_sync(self._files.present, [item[PATH] for _, item in part])
            keys = await self._keys(part)
            found = [(key, is_there) for key, is_there in zip(keys, present, strict=True) if key is not None]
            gone = {key for key, is_there in found if not is_there}
            if healed := tuple(key for key in dict.fromkeys(key for key, _ in found) if key not in gone):
                logger.info("the files of %d entries are back: they hit again", len(healed))
                await self._writer.change(ClearVoid(healed, MISSING))

    async def _keys(self, holdings: Sequence[_Held]) -> list[Key | None]:
        """The keys of those entries, in their order; None of one that is gone."""
        keys: dict[tuple[Kind, Cell], str] = {}
        for kind in Kind:
            entries = {item[ENTRY] for other, item in holdings if other is kind}
            if entries:
                found = await self._store.read(select_keys_of, kind, entries)
                keys.update({(kind, entry): key for entry, key in found.items()})
        return [(kind, key) if (key := keys.get((kind, item[ENTRY]))) is not None else None for kind, item in holdings]

    def _is_unchanged(self, key: Key) -> bool:
        slot = slot_of(*key)
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
            measured = await anyio.to_thread.run_sync(self._measured, [path for _, _, path in part])
            files = tuple(
                (kind, key, OwnedFile(path, size.size_bytes, size.allocated_bytes))
                for (kind, key, path), size in zip(part, measured, strict=True)
                if size is not None
            )
            if files:
                await self._writer.change(Adopt(files))

    def _measured(self, paths: Sequence[bytes]) -> list[Measured | None]:
        return [self._measure(path) for path in paths]

    def _measure(self, path: bytes) -> Measured | None:
        try:
            return self._files.measure(path)
        except TreeError as error:
            # One path that cannot be looked at must not end every scan: whatever a row may call a log.
            logger.info("no entry owns what cannot be looked at: %s", error)
            return None


class _Compared(NamedTuple):
    """What is not as the rows say."""

    changed: list[tuple[_Held, OwnedFile]]
    gone: list[_Held]
    back: list[_Held]
    """Those that were gone."""


def _compared(owned: Mapping[bytes, Sequence[_Held]], scan: Scan) -> _Compared:
    compared = _Compared([], [], [])
    for path, holders in owned.items():
        found = scan.owned.get(path)
        for held in holders:
            kind, item = held
            reason = item[VOID]
            if found is None:
                compared.gone.extend([held] if reason is None else [])
                continue
            if reason is not None and bytes_of(reason) == _MISSING:
                compared.back.append(held)
            # What datasets and logs had when they were published is what they should have: `verify` compares.
            if (kind is Kind.MODEL or item[SIZE] is None) and (item[SIZE], item[ROOM]) != (
                found.size_bytes,
                found.allocated_bytes,
            ):
                compared.changed.append((held, OwnedFile(path, found.size_bytes, found.allocated_bytes)))
    return compared


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
