"""Who keeps what from being cleaned up: pins, leases, uses, and what those were made from.

Layer: engine. Imports claims, writer, store and core.
Invariant: a use is on disk before its owner hears of it, and lasts as long as its process.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import anyio

from motoolsd.core.errors import EntryNotFound, RequestError, StorageFailed
from motoolsd.core.leases import Key, Process
from motoolsd.core.ports import Clock, Processes
from motoolsd.core.protection import InUse
from motoolsd.engine.claims import Claims
from motoolsd.engine.writer import Writer
from motoolsd.store.candidates import select_made_from, select_pinned
from motoolsd.store.entries import EndPins, SetPin, select_ended_pins
from motoolsd.store.facts import DropUses, SaveUse, select_uses
from motoolsd.store.store import Store
from motoolsd.wire.cleaning import EndUse, Pin, Pinned, Use
from motoolsd.wire.keys import Kind
from motoolsd.wire.leases import Released

logger = logging.getLogger(__name__)


class Protected(NamedTuple):
    """What must stay, and why."""

    entries: dict[Key, str]
    """Leases and uses and what was made for them; not the pins themselves, which their own rows tell of."""
    work_dirs: dict[bytes, str]


class Protection:
    """The uses, and what everybody else protects."""

    def __init__(self, store: Store, writer: Writer, clock: Clock, processes: Processes, claims: Claims) -> None:
        """Nothing is in use."""
        self._store = store
        self._writer = writer
        self._clock = clock
        self._processes = processes
        self._claims = claims
        self._uses: dict[bytes, InUse] = {}

    @property
    def uses(self) -> int:
        """How many there are."""
        return len(self._uses)

    async def start(self) -> None:
        """Take over what an earlier daemon left; uses of processes that have ended end soon.

        Raises:
            RequestError: the database cannot be read.
        """
        for use in await self._store.read(select_uses):
            self._uses[use.use_id] = use
            self._processes.watch(use.process, self._on_process_ended)

    async def use(self, request: Use, pid: int) -> Released:
        """Protect entries while a process lives.

        Raises:
            RequestError: the process cannot be seen from here, or the use cannot be stored.
        """
        process = self._processes.identify(pid)
        if process is None or not process.is_visible:
            message = (
                "this process cannot be seen from the daemon, so nothing would tell when it ends: pin them instead"
            )
            raise RequestError(message)
        use = InUse(request.use_id, tuple((request.kind, key) for key in request.keys), process)
        await self._writer.change(SaveUse(use))
        self._uses[use.use_id] = use
        self._processes.watch(process, self._on_process_ended)
        return Released(count=len(use.entries))

    async def end_use(self, request: EndUse) -> Released:
        """Protect them no more."""
        use = self._uses.pop(request.use_id, None)
        if use is None:
            return Released()
        await self._writer.change(DropUses((use.use_id,)))
        if not any(other.process == use.process for other in self._uses.values()):
            self._processes.unwatch(use.process)
        return Released(count=len(use.entries))

    async def pin(self, request: Pin) -> Pinned:
        """Pin or unpin entries.

        Raises:
            EntryNotFound: nothing has that name.
        """
        until = None if request.until_s is None else self._clock.moment().after(request.until_s)
        change = SetPin(
            kinds=tuple(Kind) if request.kind is None else (request.kind,),
            name=request.key,
            is_pinned=request.is_pinned,
            reason=request.reason or None if request.is_pinned else None,
            until=until if request.is_pinned else None,
        )
        applied = await self._writer.change(change)
        if not applied.number:
            message = f"no entry has the key or value {request.key}: see `motools cache list`"
            raise EntryNotFound(message)
        return Pinned(count=applied.number)

    async def end_pins(self) -> None:
        """Take away the pins whose time is over.

        Raises:
            RequestError: the database cannot be read or written.
        """
        now = self._clock.moment()
        for kind in Kind:
            if await self._store.read(select_ended_pins, kind, now):
                await self._writer.change(EndPins(now))
                return

    def protected_nowait(self) -> dict[Key, str]:
        """What is computed or in use at this moment."""
        found: dict[Key, str] = {}
        for use in self._uses.values():
            found.update(dict.fromkeys(use.entries, f"in use by pid {use.process.pid}"))
        for lease in self._claims.leases():
            why = f"pid {lease.claimant.process.pid} computes it"
            found[lease.key] = why
            if lease.claimant.dataset_hash is not None:
                found.setdefault(
                    (Kind.DATASET, lease.claimant.dataset_hash), f"{why.removesuffix(' it')} a model from it"
                )
        return found

    async def protected(self, *, ignore_pins: bool) -> Protected:
        """Everything that must stay.

        Args:
            ignore_pins: whether what pinned entries were made from may go, too.

        Raises:
            RequestError: the database cannot be read.
        """
        entries = self.protected_nowait()
        sources = dict(entries)
        if not ignore_pins:
            sources.update(await self._store.read(select_pinned, self._clock.moment()))
        for (kind, key), why in sources.items():
            try:
                made_from = await self._store.read(select_made_from, kind, key)
            except ValueError:
                continue  # no key of ours: nothing was made from anything
            for source in made_from:
                entries.setdefault(source, f"{kind.value} {key[:64]} was made from it ({why})")
        return Protected(entries, self.work_dirs())

    def work_dirs(self) -> dict[bytes, str]:
        """Directories that somebody computes in."""
        return {
            lease.claimant.work_dir: f"pid {lease.claimant.process.pid} works in it"
            for lease in self._claims.leases()
            if lease.claimant.work_dir is not None
        }

    def _on_process_ended(self, process: Process) -> None:
        over = tuple(use.use_id for use in self._uses.values() if use.process == process)
        for use_id in over:
            del self._uses[use_id]
        if over:
            logger.info("process %d ended: %d uses are over", process.pid, len(over))
            self._drop(DropUses(over))

    def _drop(self, change: DropUses) -> None:
        try:
            self._writer.change_nowait(change, _log_refusal)
        except anyio.WouldBlock:
            self._writer.when_space(lambda: self._drop(change))
        except StorageFailed as error:
            _log_refusal(error)


def _log_refusal(outcome: object) -> None:
    if isinstance(outcome, RequestError):
        logger.warning("the end of a use was not written: %s", outcome.message)
