"""How much room everything takes, known at any time.

Layer: engine. Imports writer, store and core.
Invariant: figures are those of the last whole scan plus what was published, moved and freed since. A scan never makes
lookups wait: it works in a thread, in steps, and pauses after each while lookups come.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

import anyio
import msgspec

from motoolsd.core.errors import RequestError
from motoolsd.core.files import Measured, Orphan, Scan, ancestors_of, category_of
from motoolsd.core.ports import Clock, FileTree
from motoolsd.core.slots import Slots
from motoolsd.engine.disk import run_on_disk
from motoolsd.engine.reconciliation import Reconciliation
from motoolsd.engine.writer import Writer
from motoolsd.store.entries import select_largest
from motoolsd.store.facts import LAST_SCAN, SetFact, select_fact
from motoolsd.store.ownership import OwnedFile
from motoolsd.store.store import Store
from motoolsd.wire.cleaning import ORPHAN, Progress
from motoolsd.wire.names import BALLAST, TRASH
from motoolsd.wire.sizes import EntrySize, GetSizes, Size, Sizes

logger = logging.getLogger(__name__)

QUICK_SCAN_S: Final = 0.010
"""A tree that took no longer is counted anew for each question."""
QUICK_WAIT_S: Final = 0.015
"""So long a question waits for that; then the figures of the scan before are the answer."""
DISTURBED_PAUSE_S: Final = 60.0
DISTURBED_FACTOR: Final = 20
"""A scan during which figures changed is soon followed by another, which costs at most a twentieth of the time."""
BUSY_SERVED: Final = 4
"""Lookups during one step of a scan, above which it pauses."""
BUSY_PAUSE_S: Final = 0.002
BUSY_PAUSE_MAX_S: Final = 0.1
BUSY_PAUSE_FACTOR: Final = 3.0
"""While lookups come, a scan pauses for so many times what its last step took: lookups keep three quarters."""
ORPHANS_MAX: Final = 100_000
PROGRESS_INTERVAL_S: Final = 0.1
DATABASE: Final = "database"


class Figures(msgspec.Struct):
    """What is known of the room that is taken."""

    categories: dict[str, Size] = msgspec.field(default_factory=dict)
    as_of: str | None = None
    """When the last whole scan ended, RFC 3339 UTC."""
    duration_s: float = 0.0
    orphans: Size = Size()
    num_orphans: int = 0
    num_dangling: int = 0
    files: int = 0

    @property
    def total_size_bytes(self) -> int:
        """Of all categories."""
        return sum(size.size_bytes for size in self.categories.values())

    @property
    def budgeted_size_bytes(self) -> int:
        """Of all that a budget counts: not the ballast, which removing entries makes no smaller."""
        return self.total_size_bytes - self.categories.get(BALLAST, Size()).size_bytes

    @property
    def live_size_bytes(self) -> int:
        """Of what a budget counts, all but the trash."""
        return self.budgeted_size_bytes - self.categories.get(TRASH, Size()).size_bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Figures)


class Census:
    """The figures, and the scans that keep them true. One scan at a time; who asks meanwhile shares the next one."""

    def __init__(
        self, store: Store, files: FileTree, clock: Clock, writer: Writer, slots: Slots, *, served: Callable[[], int]
    ) -> None:
        """Wire up; `served` counts lookups.

        Nothing is known before `start`.
        """
        self._store = store
        self._files = files
        self._clock = clock
        self._writer = writer
        self.served = served
        self._reconciliation = Reconciliation(store, files, writer, slots, pause=self._pause_while_busy)
        self._served_before = 0
        self._resumed_s = 0.0
        self._figures = Figures()
        self._lock = anyio.Lock()
        self._begun = 0
        self._ended = 0
        self._is_scanning = False
        self._progress = 0
        self._orphans: dict[bytes, Orphan] = {}
        self._unowned: dict[bytes, Orphan] = {}
        """What lay there before there was ownership: counted, but no orphan."""
        self._scanned_ns = 0
        self._counting = threading.Lock()
        """Files are moved in threads."""
        self._is_disturbed = False

    @property
    def orphans(self) -> list[Orphan]:
        """Those that the last scan found, at most `ORPHANS_MAX`, and that nothing was published from since."""
        return list(self._orphans.values())

    async def start(self) -> None:
        """Begin with what the daemon before knew.

        Raises:
            RequestError: the database cannot be read.
        """
        stored = await self._store.read(select_fact, LAST_SCAN)
        if stored is not None:
            try:
                self._figures = _decoder.decode(stored)
            except (msgspec.MsgspecError, TypeError) as error:
                logger.warning("the figures of the last scan cannot be read, all is counted anew: %s", error)

    async def run_scans(self, interval_s: float) -> None:
        """Scan now, and then every so often. Runs until cancelled."""
        while True:
            try:
                await self.rescan()
            except RequestError as error:
                logger.error("the size scan was given up, the next one follows: %s", error.message)
            pause_s = max(DISTURBED_PAUSE_S, DISTURBED_FACTOR * self._figures.duration_s)
            await self._clock.sleep(min(pause_s, interval_s) if self._is_disturbed else interval_s)

    async def current(self) -> Figures:
        """The figures, within milliseconds: counted anew where that is quick, else as of the last scan."""
        if self._figures.as_of is None or self._figures.duration_s <= QUICK_SCAN_S:
            with anyio.move_on_after(QUICK_WAIT_S):
                try:
                    await self.rescan()
                except RequestError as error:
                    logger.error("sizes are those of the last scan: %s", error.message)
        figures = self._figures
        database = await run_on_disk(self._files.database_size)
        return msgspec.structs.replace(figures, categories={**figures.categories, DATABASE: database})

    async def sizes(self, request: GetSizes) -> AsyncGenerator[Progress | Sizes, None]:
        """What each category takes, after a new scan if that is asked for, with its progress.

        Raises:
            RequestError: the database cannot be read.
        """
        if request.rescan:
            # Left in the middle, it is to end here and now: it has a task of its own.
            async with aclosing(self._watched_rescan()) as watched:
                async for progress in watched:
                    yield progress
        figures = await self.current()
        yield Sizes(
            categories=figures.categories,
            as_of=figures.as_of,
            is_scanning=self._is_scanning,
            orphans=figures.orphans,
            num_orphans=figures.num_orphans,
            num_dangling=figures.num_dangling,
            top=await self._largest(request.top),
        )

    async def _largest(self, count: int) -> tuple[EntrySize, ...]:
        if not count:
            return ()
        entries = [*await self._store.read(select_largest, count), *map(_orphan_size, self.orphans)]
        return tuple(sorted(entries, key=lambda entry: -entry.size_bytes)[:count])

    async def _watched_rescan(self) -> AsyncGenerator[Progress, None]:
        async with anyio.create_task_group() as group:
            failures: list[RequestError] = []
            done = anyio.Event()

            async def scan() -> None:
                try:
                    await self.rescan()
                except RequestError as error:
                    failures.append(error)
                finally:
                    done.set()

            group.start_soon(scan)
            try:
                while not done.is_set():
                    yield Progress(done=self._progress, total=self._figures.files, unit="files")
                    with anyio.move_on_after(PROGRESS_INTERVAL_S):
                        await done.wait()
            except GeneratorExit:
                # Whoever asked has left. Out of a task group this would come as a group, which ends no generator.
                group.cancel_scope.cancel()
        if failures:
            raise failures[0]

    async def rescan(self) -> None:
        """Count everything anew, from a moment after the call on.

        Cancellation: leaves at once; a scan that others wait for too is begun again by one of them.

        Raises:
            RequestError: the database cannot be read or written.
        """
        needed = self._begun + 1
        async with self._lock:
            if self._ended >= needed:
                return
            self._begun = max(self._begun, needed)
            number = self._begun
            began_s = self._clock.monotonic_s()
            began_ns = int(self._clock.moment().wall_s * 1e9)
            self._is_disturbed = False
            self._is_scanning = True
            try:
                owned = await self._reconciliation.owned()
                scan = await self._scan(list(owned))
            finally:
                self._is_scanning = False
            duration_s = self._clock.monotonic_s() - began_s
            self._take(scan, duration_s)
            self._scanned_ns = began_ns
            # What the scan means for rows is not part of the answer to how much room is taken.
            self._ended = number
            await self._reconcile(scan)

    async def _scan(self, owned: list[bytes]) -> Scan:
        stopped = threading.Event()
        served, began_s = self.served(), self._clock.monotonic_s()

        def step(files: int) -> None:
            nonlocal served, began_s
            self._progress = files
            if self.served() - served > BUSY_SERVED:
                worked_s = self._clock.monotonic_s() - began_s
                stopped.wait(min(max(BUSY_PAUSE_S, BUSY_PAUSE_FACTOR * worked_s), BUSY_PAUSE_MAX_S))
            served, began_s = self.served(), self._clock.monotonic_s()

        def scan() -> Scan:
            return self._files.scan(owned, orphans_max=ORPHANS_MAX, step=step, is_stopped=stopped.is_set)

        try:
            return await run_on_disk(scan, abandon_on_cancel=True)
        finally:
            stopped.set()

    async def _pause_while_busy(self) -> None:
        """Let lookups go on, if some came since the last time."""
        if self.served() - self._served_before > BUSY_SERVED:
            worked_s = self._clock.monotonic_s() - self._resumed_s
            await anyio.sleep(min(max(BUSY_PAUSE_S, BUSY_PAUSE_FACTOR * worked_s), BUSY_PAUSE_MAX_S))
        self._served_before, self._resumed_s = self.served(), self._clock.monotonic_s()

    def _take(self, scan: Scan, duration_s: float) -> None:
        """Replace the figures. What changed while the scan ran may be counted or not; the next one has it right."""
        with self._counting:
            self._replace(scan, duration_s)

    def _replace(self, scan: Scan, duration_s: float) -> None:
        self._figures = Figures(
            categories=dict(scan.categories),
            as_of=f"{self._clock.utc_text().replace(' ', 'T')}Z",
            duration_s=duration_s,
            orphans=scan.orphan_size,
            num_orphans=scan.orphan_count,
            num_dangling=self._figures.num_dangling,
            files=scan.files,
        )
        self._orphans = {orphan.path: orphan for orphan in scan.orphans}
        self._unowned = {}
        self._progress = 0

    async def _reconcile(self, scan: Scan) -> None:
        outcome = await self._reconciliation.apply(scan)
        self._figures.num_dangling = outcome.num_dangling
        gone = set(outcome.adopted) | {orphan.path for orphan in scan.orphans if outcome.is_unowned(orphan.path)}
        for path in gone:
            if (orphan := self._take_orphan(path)) is not None and outcome.is_unowned(path):
                self._unowned[path] = orphan
        if not self._writer.is_full:
            await self._writer.change(SetFact(LAST_SCAN, _encoder.encode(self._figures)))

    # What changes in between.

    def published(self, path: bytes, found: Measured, recorded: OwnedFile | None) -> None:
        """An entry got a file or directory: what the last scan has counted of it is not counted again.

        Args:
            path: where it lies.
            found: as it is now.
            recorded: as it was when an entry got it before.
        """
        with self._counting:
            known = Size()
            if recorded is not None:
                known = Size(recorded.size_bytes, recorded.allocated_bytes)
            elif (orphan := self._take_orphan(path) or self._unowned.pop(path, None)) is not None:
                known = Size(orphan.measured.size_bytes, orphan.measured.allocated_bytes)
            elif found.newest_ns < self._scanned_ns:
                known = self._counted_above(path, found)
            self._add(
                category_of(path), found.size_bytes - known.size_bytes, found.allocated_bytes - known.allocated_bytes
            )

    def _counted_above(self, path: bytes, found: Measured) -> Size:
        """What was counted of a path as a part of something that no entry named."""
        above = ancestors_of(path)
        known = Size(found.size_bytes, found.allocated_bytes)
        if any(one in self._orphans for one in above):
            self._figures.orphans = _added(self._figures.orphans, -known.size_bytes, -known.allocated_bytes)
            return known
        return known if any(one in self._unowned for one in above) else Size()

    def _take_orphan(self, path: bytes) -> Orphan | None:
        """It is nobody's no more."""
        if (orphan := self._orphans.pop(path, None)) is not None:
            size = orphan.measured
            self._figures.num_orphans -= not orphan.is_empty
            self._figures.orphans = _added(self._figures.orphans, -size.size_bytes, -size.allocated_bytes)
        return orphan

    def trashed(self, path: bytes, size_bytes: int, allocated_bytes: int) -> None:
        """A path was moved into the trash."""
        with self._counting:
            self._take_orphan(path)
            self._add(category_of(path), -size_bytes, -allocated_bytes)
            self._add(TRASH, size_bytes, allocated_bytes)

    def put_back(self, path: bytes, size_bytes: int, allocated_bytes: int) -> None:
        """A path was moved out of the trash again."""
        with self._counting:
            self._add(TRASH, -size_bytes, -allocated_bytes)
            self._add(category_of(path), size_bytes, allocated_bytes)

    def purged(self, size_bytes: int, allocated_bytes: int) -> None:
        """Something in the trash is gone for good."""
        with self._counting:
            self._add(TRASH, -size_bytes, -allocated_bytes)

    def _add(self, category: str, size_bytes: int, allocated_bytes: int) -> None:
        self._is_disturbed = self._is_disturbed or self._is_scanning
        new = _added(self._figures.categories.get(category, Size()), size_bytes, allocated_bytes)
        self._figures.categories = {**self._figures.categories, category: new}


def _added(size: Size, size_bytes: int, allocated_bytes: int) -> Size:
    return Size(max(0, size.size_bytes + size_bytes), max(0, size.allocated_bytes + allocated_bytes))


def _orphan_size(orphan: Orphan) -> EntrySize:
    return EntrySize(
        kind=ORPHAN,
        key=orphan.path.decode("utf-8", "backslashreplace"),
        size_bytes=orphan.measured.size_bytes,
        allocated_bytes=orphan.measured.allocated_bytes,
    )
