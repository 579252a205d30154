"""One method per operation.

Layer: engine. Imports index, writer, usage, store and core.
Invariant: lookups are answered from memory; SQLite is asked only for what memory cannot know, and what it says is
shown only while no commit is changing the same slot.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence

import anyio

from motoolsd.core.errors import RequestError, StorageFailed
from motoolsd.core.guards import Guard
from motoolsd.core.ports import Clock, FileTree, Processes
from motoolsd.core.settings import Settings
from motoolsd.core.slots import ALL, Slots
from motoolsd.engine.budget import Budget
from motoolsd.engine.census import Census
from motoolsd.engine.checks import check_listing, check_write
from motoolsd.engine.claims import Claims
from motoolsd.engine.cleaner import Cleaner
from motoolsd.engine.index import Index
from motoolsd.engine.presence import Presence
from motoolsd.engine.protection import Protection
from motoolsd.engine.publishing import Publishing
from motoolsd.engine.usage import UsageCounts
from motoolsd.engine.verification import Verification
from motoolsd.engine.writer import Answer, Writer
from motoolsd.store.ownership import Publication
from motoolsd.store.puts import put_keys
from motoolsd.store.reads import FROM_START, Filter, Values
from motoolsd.store.store import Store
from motoolsd.wire.keys import Kind, slot_of
from motoolsd.wire.messages import (
    DatasetPage,
    EntryPage,
    EvalPage,
    Found,
    ListEntries,
    Lookup,
    ModelPage,
    Put,
    Used,
    WriteReply,
    WriteRequest,
)
from motoolsd.wire.sizes import Stats

logger = logging.getLogger(__name__)

READ_ATTEMPTS = 3
"""Reads of SQLite for one lookup, when commits keep changing its slot; then the last one stands: it began after the
lookup did, so it is as good an answer as any."""

SETTLE_ATTEMPTS = 1000
"""Looks at keys before a claim, while others write them."""

_PAGE_TYPES = {Kind.DATASET: DatasetPage, Kind.MODEL: ModelPage, Kind.EVAL: EvalPage}


class Engine:
    """What the daemon can do, over the open store."""

    def __init__(  # noqa: PLR0913 - the parts of the outside world, all keyword-only
        self,
        *,
        store: Store,
        index: Index,
        slots: Slots,
        writer: Writer,
        files: FileTree,
        settings: Settings,
        processes: Processes,
        users: Processes,
        clock: Clock,
        host: str,
    ) -> None:
        """Wire up; nothing starts here. `processes` are those that compute, `users` those that use entries."""
        self._store = store
        self._index = index
        self._slots = slots
        self._settings = settings
        self._clock = clock
        self._usage = UsageCounts(settings.usage_entries_max)
        self._presence = Presence(files, clock, writer, slots)
        self.served = 0
        """Lookups so far: whoever works in the background sees by it how busy we are."""
        self.writer = writer
        self.claims = Claims(writer=writer, processes=processes, clock=clock, values=self.standing_values, host=host)
        self.census = Census(store, files, clock, writer, slots, served=lambda: self.served)
        self.publishing = Publishing(store, files, self.census, clock, writer, self.enqueue_nowait)
        self.protection = Protection(store, writer, clock, users, self.claims)
        self.cleaner = Cleaner(store, files, clock, writer, self.census, self.protection, settings)
        self.verification = Verification(store, files, writer, slots, self.census, self.cleaner)
        self.budget = Budget(self.census, self.cleaner, files, settings)

    async def recover(self) -> None:
        """Take over what an earlier daemon left, and bring to its end what it had begun.

        Raises:
            RequestError: the database cannot be read or written.
        """
        await self.census.start()
        await self.protection.start()
        await self.publishing.recover()
        await self.cleaner.recover()

    def apply_settings(self, settings: Settings) -> None:
        """Take over what may change while the daemon runs."""
        self.budget.settings = settings
        self.cleaner.keep_s = settings.trash_keep_s

    @property
    def is_needed(self) -> bool:
        """Whether somebody relies on the daemon though nobody is connected."""
        return bool(self.claims.held or self.protection.uses)

    @property
    def entries(self) -> int:
        """Entries in memory: all there are, once they are loaded and as long as they fit."""
        return len(self._index)

    def lookup_nowait(self, request: Lookup) -> Found | None:
        """Answer from memory, or None if SQLite or the files of an entry must be looked at."""
        self.served += 1
        values = self._index.find(request.kind, request.keys)
        if (None in values and not self._index.is_complete) or self._index.guards(request.kind, request.keys):
            return None
        self._usage.count(request.kind, request.keys, values)
        if self._usage.is_full:
            self.flush_usage_nowait()
        return Found(values=values)

    async def lookup(self, request: Lookup) -> Found:
        """Answer with SQLite's help, and after a look at the files that the values depend on.

        Raises:
            RequestError: a key is none of ours, or the database cannot be read.
        """
        for _ in range(READ_ATTEMPTS):
            values, guards = await self._find(request)
            if not guards or await self._presence.is_settled(request.kind, guards):
                self._count(request, values)
                return Found(values=values, lasts=all(guard.expires is None for guard in guards.values()))
        # Stored and lost again each time: whatever it is, it is not there now.
        found = zip(request.keys, values, strict=True)
        return Found(values=[None if key in guards else value for key, value in found])

    async def _find(self, request: Lookup) -> tuple[list[bytes | None], Mapping[str, Guard]]:
        """The values of keys, from memory or SQLite, and what they depend on."""
        slots = [slot_of(request.kind, key) for key in request.keys]
        read = Values({}, {})
        for _ in range(READ_ATTEMPTS):
            values = self._index.find(request.kind, request.keys)
            if None not in values or self._index.is_complete:
                return values, self._index.guards(request.kind, request.keys)
            numbers = [self._slots.number(slot) for slot in slots]
            read = await self._read(request)
            if any(map(self._slots.is_moving, slots)):
                # The read may have seen a commit that nobody else can see yet: hold the answer until all can.
                await self.writer.wait_settled()
            if all(map(self._slots.is_current, slots, numbers)):
                for key, value in read.found.items():
                    self._index.store(request.kind, key, value, read.guards.get(key))
                break
        return [read.found.get(key) for key in request.keys], read.guards

    async def _read(self, request: Lookup) -> Values:
        # All of the keys, those that memory knows included: one read transaction sees a write of several whole.
        try:
            return await self._store.values(request.kind, request.keys)
        except ValueError as error:
            raise RequestError(str(error)) from error

    def _count(self, request: Lookup, values: Sequence[bytes | None]) -> None:
        self._usage.count(request.kind, request.keys, values)
        if self._usage.is_full:
            self.flush_usage_nowait()

    def submit_nowait(self, request: WriteRequest, answer: Answer) -> None:
        """Queue a write.

        Raises:
            RequestError: its content breaks a rule, or the daemon is stopping.
            anyio.WouldBlock: the queue is full; see `Writer.when_space`.
        """
        check_write(request)
        self.enqueue_nowait(request, answer)

    def enqueue_nowait(self, item: WriteRequest | Publication, answer: Answer) -> None:
        """Queue a write that was checked; raises as `submit_nowait`."""
        request = item.put if isinstance(item, Publication) else item
        # Whether a lease still counts is decided on disk, in the transaction that stores its value.
        is_fulfilling = isinstance(request, Put) and request.token > 0
        if self.claims.held and not is_fulfilling:
            self._submit_over_leases(item, request, answer)
            return
        self.writer.submit_nowait(item, answer)

    def _submit_over_leases(self, item: WriteRequest | Publication, request: WriteRequest, answer: Answer) -> None:
        """Queue a write that wins over whoever computes what it stores or removes."""
        keys = put_keys(request) if isinstance(request, Put) else self.claims.matching(request)
        if not self.writer.has_room(2):
            raise anyio.WouldBlock
        given_way = self.claims.give_way(keys)

        def tell(outcome: WriteReply | RequestError) -> None:
            if isinstance(outcome, RequestError):
                self.claims.restore_rows(given_way)
            elif not isinstance(request, Put):
                self.claims.revoke(given_way)
            answer(outcome)

        try:
            self.writer.submit_nowait(item, tell)
        except RequestError:
            self.claims.restore_rows(given_way)
            raise

    def count_used(self, notice: Used) -> None:
        """Count the hits that a client's own memory has answered."""
        self._usage.add(notice.kind, notice.hits)
        if self._usage.is_full:
            self.flush_usage_nowait()

    async def standing_values(self, kind: Kind, keys: Sequence[str]) -> list[bytes | None]:
        """The values of keys, as they stand at the moment of the return: no change of them is under way then.

        Raises:
            RequestError: a key is none of ours, the database cannot be read, or the keys change all the time.
        """
        slots = [slot_of(kind, key) for key in keys]
        # The numbers at which everything that the values depend on was looked at.
        sound: list[int] | None = None
        for _ in range(SETTLE_ATTEMPTS):
            if any(map(self._slots.is_moving, slots)):
                await self.writer.wait_settled()
                continue
            numbers = [self._slots.number(slot) for slot in slots]
            values = self._index.find(kind, keys)
            guards: Mapping[str, Guard] = self._index.guards(kind, keys)
            if None in values and not self._index.is_complete:
                read = await self._read(Lookup(kind=kind, keys=list(keys)))
                if not all(map(self._slots.is_current, slots, numbers)):
                    continue
                values, guards = [read.found.get(key) for key in keys], read.guards
            if not guards or numbers == sound:
                self._count(Lookup(kind=kind, keys=list(keys)), values)
                return values
            sound = numbers if await self._presence.is_settled(kind, guards) else None
        message = "these keys are written all the time: try again"
        raise StorageFailed(message)

    async def list_entries(self, request: ListEntries) -> AsyncGenerator[EntryPage, None]:
        """Pages of a listing, the last one marked.

        Raises:
            RequestError: a filter does not fit the kind, or the database cannot be read.
        """
        check_listing(request)
        only = Filter(request.model_id, request.task_id)
        make_page = _PAGE_TYPES[request.kind]
        after: int | None = FROM_START
        while after is not None:
            page = await self._store.page(
                request.kind,
                only,
                after,
                rows_max=self._settings.page_rows_max,
                size_bytes=self._settings.page_size_bytes,
            )
            after = page.next_after
            yield make_page(items=list(page.rows), is_last=after is None)

    async def stats(self) -> Stats:
        """Counts of entries, and the room that everything takes."""
        counts = await self._counts()
        figures = await self.census.current()
        return Stats(
            num_datasets=counts[Kind.DATASET],
            num_models=counts[Kind.MODEL],
            num_evals=counts[Kind.EVAL],
            total_size_bytes=figures.total_size_bytes,
            as_of=figures.as_of,
        )

    def flush_usage_nowait(self) -> None:
        """Queue the hits counted so far; while the queue has no room they stay counted."""
        for kind in Kind:
            if self.writer.is_full:
                return
            usage = self._usage.take(kind)
            if usage is None:
                continue
            try:
                self.writer.submit_nowait(usage, _log_refusal)
            except StorageFailed as error:
                _log_refusal(error)

    async def notice_outside_edit(self) -> bool:
        """Look whether another program changed cache.db, and if so forget what is in memory.

        To be called every second or so.
        """
        if not await self._store.changed_outside():
            return False
        logger.info("cache.db was changed by another program: its entries are read again")
        self._slots.bump(ALL)
        self._index.forget()
        return True

    async def load_index(self) -> None:
        """Read the whole database into memory, in slices between which lookups go on.

        Returns when everything is loaded, memory is full, or everything was forgotten meanwhile.
        """
        generation = self._index.generation
        for kind in Kind:
            after: int | None = FROM_START
            while after is not None:
                # The numbers are copied before the read transaction begins: a commit that comes in between shows.
                numbers = self._slots.snapshot()
                part = await self._store.slice(kind, after, self._settings.load_rows)
                if generation != self._index.generation:
                    return
                unsure = self._take_in(kind, part.entries, part.guards, numbers)
                while unsure and generation == self._index.generation:
                    unsure = await self._read_again(kind, unsure)
                if generation != self._index.generation or self._index.has_dropped:
                    return
                after = part.next_after
        self._index.complete(generation)

    async def _read_again(self, kind: Kind, keys: Sequence[str]) -> list[str]:
        """Load keys one by one whose slot changed while they were read; those that changed again are returned.

        The commit that moved the slot may have been another key's: left out, this one would become a false miss.
        """
        await self.writer.wait_settled()
        numbers = self._slots.snapshot()
        read = await self._store.values(kind, keys)
        return self._take_in(kind, read.found.items(), read.guards, numbers)

    async def run_loader(self) -> None:
        """Load the index, and again whenever it was forgotten. Runs until cancelled."""
        while True:
            forgotten = self._index.forgotten = anyio.Event()
            try:
                await self.load_index()
            except RequestError as error:
                logger.error("the index cannot be loaded, lookups ask SQLite: %s", error.message)
            await forgotten.wait()

    async def run_disposal(self) -> None:
        """Free what left the index. Runs until cancelled."""
        await self._index.run_disposal(self._clock)

    async def _counts(self) -> dict[Kind, int]:
        if self._index.is_complete:
            return {kind: self._index.count(kind) for kind in Kind}
        return await self._store.counts()

    def _take_in(
        self, kind: Kind, entries: Iterable[tuple[str, bytes]], guards: Mapping[str, Guard], numbers: Sequence[int]
    ) -> list[str]:
        """Put what was read into memory; returns the keys whose slot changed since, or is changing."""
        unsure = []
        for key, value in entries:
            slot = slot_of(kind, key)
            if not self._slots.is_current(slot, numbers[slot]):
                unsure.append(key)
            elif not self._index.add_loaded(kind, key, value, guards.get(key)):
                self._index.mark_incomplete()
                logger.info("memory holds %d entries, the limit: others are read when asked for", len(self._index))
                return []
        return unsure


def _log_refusal(outcome: object) -> None:
    if isinstance(outcome, RequestError):
        logger.warning("usage counts were not written: %s", outcome.message)
