"""One method per operation.

Layer: engine. Imports index, writer, usage, store and core.
Invariant: lookups are answered from memory; SQLite is asked only for what memory cannot know, and what it says is
shown only while no commit is changing the same slot.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import anyio

from motoolsd.core.errors import NoRoom, RequestError, StorageFailed
from motoolsd.core.guards import Guard
from motoolsd.core.ports import Clock, FileTree, Processes
from motoolsd.core.settings import Settings
from motoolsd.core.slots import ALL, Slots
from motoolsd.engine.backups import Backups
from motoolsd.engine.budget import Budget
from motoolsd.engine.census import Census
from motoolsd.engine.checks import check_write
from motoolsd.engine.claims import Claims
from motoolsd.engine.cleaner import Cleaner
from motoolsd.engine.explaining import Explaining
from motoolsd.engine.filtering import check_selection
from motoolsd.engine.index import Index
from motoolsd.engine.invalidating import Invalidating
from motoolsd.engine.listing import Listing
from motoolsd.engine.lookups import Lookups
from motoolsd.engine.nearest import Nearest
from motoolsd.engine.presence import Presence
from motoolsd.engine.protection import Protection
from motoolsd.engine.publishing import Publishing
from motoolsd.engine.reporting import Reporting
from motoolsd.engine.showing import Showing
from motoolsd.engine.usage import Tally, UsageCounts
from motoolsd.engine.verification import Verification
from motoolsd.engine.writer import Answer, Writer
from motoolsd.store.origins import SaveOrigin
from motoolsd.store.ownership import Publication
from motoolsd.store.puts import put_keys
from motoolsd.store.reads import FROM_START
from motoolsd.store.store import Store
from motoolsd.wire.explaining import Introduce, Missed
from motoolsd.wire.fields import Outcome
from motoolsd.wire.keys import Kind, slot_of
from motoolsd.wire.messages import Clear, Put, Used, WriteReply, WriteRequest
from motoolsd.wire.sizes import Stats

logger = logging.getLogger(__name__)


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
        self.usage = UsageCounts(settings.usage_entries_max, clock)
        self.lookups = Lookups(store, index, slots, writer, Presence(files, clock, writer, slots))
        self.writer = writer
        self.claims = Claims(writer=writer, processes=processes, clock=clock, values=self.lookups.standing, host=host)
        self.census = Census(store, files, clock, writer, slots, served=lambda: self.lookups.served)
        self.publishing = Publishing(store, files, self.census, clock, writer, self.enqueue_nowait)
        self.protection = Protection(store, writer, clock, users, self.claims)
        self.cleaner = Cleaner(store, files, clock, writer, self.census, self.protection, settings)
        self.verification = Verification(store, files, writer, slots, self.census, self.cleaner)
        self.nearest = Nearest(store, writer)
        self.reporting = Reporting(store, writer, clock, self.flush_usage_nowait)
        self.explaining = Explaining(store, self.lookups, self.claims, self.nearest, self.usage, self.reporting.flush)
        self.showing = Showing(store, self.claims)
        self.listing = Listing(store, settings, clock)
        self.invalidating = Invalidating(store, writer, clock)
        self.budget = Budget(self.census, self.cleaner, files, settings)
        self.backups = Backups(store, files, writer, clock, settings)

    async def recover(self) -> None:
        """Take over what an earlier daemon left, and bring to its end what it had begun.

        Raises:
            RequestError: the database cannot be read or written.
        """
        await self.census.start()
        await self.protection.start()
        for recover in (self.publishing.recover, self.cleaner.recover):
            try:
                await recover()
            except NoRoom as error:
                # What is half done shows as missing, never as wrong: lookups need not wait until there is room.
                logger.error("what an earlier daemon began is left to the next one: %s", error.message)

    def apply_settings(self, settings: Settings) -> None:
        """Take over what may change while the daemon runs."""
        self.budget.settings = self.backups.settings = settings
        self.cleaner.keep_s = settings.trash_keep_s

    @property
    def is_needed(self) -> bool:
        """Whether somebody relies on the daemon though nobody is connected."""
        return bool(self.claims.held or self.protection.uses)

    @property
    def entries(self) -> int:
        """Entries in memory: all there are, once they are loaded and as long as they fit."""
        return len(self._index)

    def submit_nowait(self, request: WriteRequest, answer: Answer) -> None:
        """Queue a write.

        Raises:
            RequestError: its content breaks a rule, or the daemon is stopping.
            anyio.WouldBlock: the queue is full; see `Writer.when_space`.
        """
        check_write(request)
        if isinstance(request, Clear) and request.filters is not None:
            check_selection(request.kind, request.filters, None, self._clock.moment())
        self.enqueue_nowait(request, answer)

    def enqueue_nowait(self, item: WriteRequest | Publication, answer: Answer) -> None:
        """Queue a write that was checked; raises as `submit_nowait`."""
        request = item.put if isinstance(item, Publication) else item
        # Whether a lease still counts is decided on disk, in the transaction that stores its value.
        is_fulfilling = isinstance(request, Put) and (request.token > 0 or request.outcome is not Outcome.SUCCESS)
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

    def notice(self, body: Used | Missed | Introduce, tally: Tally) -> None:
        """Take in what a client tells without asking.

        Raises:
            anyio.WouldBlock: the writer's queue is full; see `Writer.when_space`.
            RequestError: the daemon is stopping.
        """
        match body:
            case Used():
                tally.add(body.kind, body.hits)
            case Missed():
                tally.explain(body.kind, body.inputs)
            case Introduce():
                self.writer.change_nowait(SaveOrigin(body.origin), _log_refusal)
        if self.usage.is_full:
            self.flush_usage_nowait()

    def flush_usage_nowait(self) -> None:
        """Queue what lookups came to so far; while the queue has no room it stays counted."""
        while not self.writer.is_full and (report := self.usage.take()) is not None:
            try:
                self.writer.change_nowait(report, _log_refusal)
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
        """How many rows there are; those that miss (invalidated, failed, without their file) are not in the index."""
        try:
            return await self._store.counts()
        except RequestError:
            if not self._index.is_complete:
                raise
            # The disk is ill: who looks at what the daemon does is answered all the same.
            return {kind: self._index.count(kind) for kind in Kind}

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
