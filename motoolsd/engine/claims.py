"""Compute once: claims of keys, from the first question to the value.

Layer: engine. Imports writer, store.leases and core.
Invariant: a lease is on disk before its owner hears of it. Between looking whether a key has a value and entering a
claim for it nothing awaits: a value that comes meanwhile is not missed. What a step of the table does is carried out
whole: every dropped lease leaves the disk, every answer finds its claim.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import Final

import anyio

from motoolsd.core.clearing import is_cleared
from motoolsd.core.errors import RequestError, StaleLease, StorageFailed
from motoolsd.core.leases import Answer, Change, Claimant, Key, Lease, LeaseTable, Process, Waiter
from motoolsd.core.ports import Clock, Processes
from motoolsd.engine.checks import check_claim
from motoolsd.engine.failures import RecordedFailures
from motoolsd.engine.usage import Tally
from motoolsd.engine.waiting import Waiting, found_states
from motoolsd.engine.writer import Writer
from motoolsd.store.history import Bury
from motoolsd.store.leases import LeaseChange
from motoolsd.store.outcomes import Applied
from motoolsd.wire.entries import KeyState, LeaseRow
from motoolsd.wire.keys import Kind
from motoolsd.wire.leases import BreakLease, Claim, Claimed, LeasePage, RecordFailure, Release, Released
from motoolsd.wire.messages import Clear, ClearAll, Found, Lookup
from motoolsd.wire.reasons import Reason

logger = logging.getLogger(__name__)

RETURN_TIMEOUT_S: Final = 30.0
"""How long a lease of a process that cannot be seen is kept for it after a restart of the daemon."""
RELEASED_MAX: Final = 65_536
"""Claims remembered as given up, so that a late request of theirs gets nothing."""
PAGE_ROWS: Final = 1000

Values = Callable[[Lookup, Tally], Awaitable[Found]]


class Claims:
    """The lease table at work."""

    def __init__(self, *, writer: Writer, processes: Processes, clock: Clock, values: Values, host: str) -> None:
        """Wire up; `start` comes before the first claim.

        Args:
            writer: for what must outlive the daemon.
            processes: who is alive.
            clock: time stamps, and how long a failure is remembered.
            values: the values of keys as they stand when it returns, with no change under way.
            host: this machine's name.
        """
        self._table = LeaseTable()
        self._writer = writer
        self._processes = processes
        self._clock = clock
        self._values = values
        self._host = host
        self._waiting: dict[bytes, Waiting] = {}
        self._released: dict[bytes, None] = {}
        self.failures = RecordedFailures(clock)
        self._peers: dict[bytes, object] = {}
        writer.on_shown = self._on_shown

    @property
    def held(self) -> int:
        """Leases."""
        return len(self._table)

    def leases(self) -> Iterable[Lease]:
        """All of them."""
        return self._table

    def start(self, leases: Sequence[Lease], last_token: int) -> None:
        """Take over what an earlier daemon left; those of processes that have ended end soon.

        Args:
            leases: as `store.leases` gives them.
            last_token: the largest that there ever was.
        """
        self._table = LeaseTable(last_token + 1)
        for lease in leases:
            self._table.restore(lease)
        for process in self._table.processes:
            self._processes.watch(process, self._on_process_ended)
        logger.info("%d leases taken over", len(self._table))

    async def run_expiry(self) -> None:
        """After a restart, end the leases of invisible processes that did not come back. Returns then."""
        await self._clock.sleep(RETURN_TIMEOUT_S)
        unseen = [lease for lease in self._table if not lease.claimant.process.is_visible]
        self.revoke(lease for lease in unseen if lease.claimant.claim_id not in self._peers)

    # What clients ask.

    async def claim(
        self, request: Claim, pid: int, peer: object, tally: Tally, on_wait: Callable[[bool], None]
    ) -> Claimed:
        """Give values, leases, or who has them; with `wait`, when there is something to give.

        Args:
            request: the claim.
            pid: of the process at the other end, as the kernel says.
            peer: the connection; when it ends, the claim waits no more.
            tally: where hits and misses are counted.
            on_wait: told True when the claim begins to wait, False when it goes on.

        Raises:
            ClaimDeadlock: it would wait for ever.
            RequestError: the claim was given up already, or cannot be stored.
        """
        claimant = self._claimant(request, pid)
        keys = [(request.kind, key) for key in dict.fromkeys(request.keys)]
        asked = Lookup(
            kind=request.kind, keys=[key for _, key in keys], version=request.version, is_strict=request.is_strict
        )
        if request.inputs:
            tally.explain(request.kind, dict(zip(request.keys, request.inputs, strict=True)))
        found = await self._values(asked, tally)
        # From here to the persisting nothing awaits.
        if request.claim_id in self._released:
            message = "this claim was given up already"
            raise RequestError(message)
        states = found_states(keys, found)
        missing = [key for key in keys if key not in states]
        if not request.takes_over:
            states.update(
                {key: KeyState(failure=why) for key in missing if (why := self.failures.reason(key)) is not None}
            )
        missing = [key for key in missing if key not in states]
        before = len(self._table)
        leases = self._table.claim(claimant, missing, self._now())
        own = [lease for lease in leases if lease.claimant.claim_id == request.claim_id]
        others = [lease for lease in leases if lease.claimant.claim_id != request.claim_id]
        self._enter_peer(claimant, peer, own)
        if own and len(self._table) > before:
            await self._save(own)
        states.update({lease.key: KeyState(token=lease.token) for lease in own})
        if request.wait and not states:
            states.update(await self._wait(request, claimant, [lease.key for lease in others], peer, on_wait))
        for lease in others:
            states.setdefault(lease.key, KeyState(holder=self._row(self._table.lease(lease.key) or lease)))
        return Claimed(states=[states[(request.kind, key)] for key in request.keys])

    async def _wait(
        self, request: Claim, claimant: Claimant, keys: list[Key], peer: object, on_wait: Callable[[bool], None]
    ) -> dict[Key, KeyState]:
        self._stop_waiting(request.claim_id)  # on a connection whose end was not noticed yet
        self._table.wait(Waiter(claimant, tuple(keys), request.takes_over))
        self._watch(claimant.process)
        waiting = self._waiting[request.claim_id] = Waiting(peer)
        on_wait(True)
        try:
            await waiting.answered.wait()
        finally:
            on_wait(False)
            if self._waiting.get(request.claim_id) is waiting:
                self._stop_waiting(request.claim_id)
            self._unwatch_idle(claimant.process)
        answer = waiting.answer
        if isinstance(answer, RequestError):
            raise answer
        if answer is None:
            message = "the claim was given up"
            raise RequestError(message)
        if answer.lease is not None:
            self._enter_peer(claimant, peer, [answer.lease])
            return {answer.key: KeyState(token=answer.lease.token)}
        return {answer.key: KeyState(value=answer.value, failure=answer.failure)}

    def _stop_waiting(self, claim_id: bytes) -> None:
        self._table.leave(claim_id)
        if (waiting := self._waiting.pop(claim_id, None)) is not None:
            waiting.give(None)

    async def release(self, request: Release) -> Released:
        """Give a claim up."""
        self._released[request.claim_id] = None
        if len(self._released) > RELEASED_MAX:
            del self._released[next(iter(self._released))]
        self._stop_waiting(request.claim_id)
        self._peers.pop(request.claim_id, None)
        return await self._give_up(self._table.release(request.claim_id, self._now()))

    async def fail(self, request: RecordFailure) -> Released:
        """Record a failure and give the lease up.

        Raises:
            StaleLease: the lease was lost before.
        """
        key = (request.kind, request.key)
        if not self._table.is_valid(key, request.token):
            if request.is_retry:
                return Released()
            raise StaleLease(request.key)
        if request.retry_after_s is not None:
            self.failures.record(key, request.reason, request.retry_after_s)
        await self._writer.change(Bury((key,), Reason.FAILED, request.reason))
        return await self._give_up(self._table.fail(key, request.reason, self._now()))

    def join(self, claim_id: bytes, pid: int, peer: object) -> Released:
        """Let a claim's leases last for another process, too; or for another connection of a process that is invisible.

        Raises:
            RequestError: it holds none, or the process cannot be seen.
        """
        process = self._processes.identify(pid)
        leases = self._table.held_under(claim_id)
        if (
            process is not None
            and any(process == lease.claimant.process for lease in leases)
            and not process.is_visible
        ):
            self._peers[claim_id] = peer
            return Released(count=len(leases))
        if process is None or not process.is_visible or not leases:
            message = "there is no lease to join, or the process cannot be seen from here"
            raise RequestError(message)
        for lease in leases:
            self._table.join(lease.key, process)
        self._watch(process)
        self._submit(LeaseChange(saved=tuple(leases)))
        return Released(count=len(leases))

    async def break_lease(self, request: BreakLease) -> Released:
        """Take a lease away."""
        kinds = list(Kind) if request.kind is None else [request.kind]
        keys = [(kind, request.key) for kind in kinds if self._table.lease((kind, request.key)) is not None]
        for key in keys:
            logger.warning("the lease of %s %s was broken by hand", *key)
        return await self._give_up(self._table.revoke(keys, self._now()))

    def holder(self, key: Key) -> LeaseRow | None:
        """Who computes a key."""
        return None if (lease := self._table.lease(key)) is None else self._row(lease)

    async def list_leases(self) -> AsyncGenerator[LeasePage, None]:
        """Pages of all leases, the last one marked."""
        rows = [self._row(lease) for lease in self._table]
        starts = range(0, max(1, len(rows)), PAGE_ROWS)
        for start in starts:
            yield LeasePage(items=rows[start : start + PAGE_ROWS], is_last=start == starts[-1])

    # What writes do to leases.

    def give_way(self, keys: Iterable[Key]) -> list[Lease]:
        """Remove the leases of keys from disk, before a plain put that wins over them; `restore_rows` if it fails."""
        leases = [lease for key in keys if (lease := self._table.lease(key)) is not None]
        if leases:
            self._submit(LeaseChange(dropped=tuple(lease.token for lease in leases)))
        return leases

    def restore_rows(self, leases: Sequence[Lease]) -> None:
        """The write that they gave way to has failed: they count again."""
        standing = tuple(lease for lease in leases if self._table.is_valid(lease.key, lease.token))
        if standing:
            self._submit(LeaseChange(saved=standing))

    def matching(self, request: Clear | ClearAll) -> list[Key]:
        """Keys with a lease that a clear takes."""
        return [lease.key for lease in self._table if is_cleared(request, lease.key)]

    def revoke(self, leases: Iterable[Lease]) -> None:
        """Take leases away whose keys were cleared."""
        keys = [lease.key for lease in leases if self._table.is_valid(lease.key, lease.token)]
        self._carry_out(self._table.revoke(keys, self._now()))

    def _on_shown(self, applied: Applied) -> None:
        for kind, key, value in applied.stored:
            self.failures.forget((kind, key))
            if self._table.lease((kind, key)) is not None:
                self._carry_out(self._table.settle((kind, key), value))
        if applied.unfulfilled:
            self.revoke(lease for key in applied.unfulfilled if (lease := self._table.lease(key)) is not None)

    # What happens to clients.

    def connection_lost(self, peer: object) -> None:
        """A connection ended: it waits no more. Its leases stay while its process lives, if that can be seen."""
        for waiting in [waiting for waiting in self._waiting.values() if waiting.peer is peer]:
            waiting.give(None)
        for claim_id in [claim_id for claim_id, other in self._peers.items() if other is peer]:
            del self._peers[claim_id]
            self._carry_out(self._table.release(claim_id, self._now()))

    def _on_process_ended(self, process: Process) -> None:
        change = self._table.process_ended(process, self._now())
        for lease in change.dropped:
            logger.info("process %d ended without a value for %s %s", process.pid, *lease.key)
        self._carry_out(change)

    # How a step is carried out.

    def _carry_out(self, change: Change, on_disk: Callable[[object], None] = lambda _: None) -> None:
        """Bring a step to those who wait, new leases after they are on disk; `on_disk` is told at the end."""
        for lease in change.dropped:
            for process in {*lease.processes, lease.claimant.process}:
                self._unwatch_idle(process)
        for lease in change.granted:
            self._watch(lease.claimant.process)
        for answer in change.answers:
            if answer.lease is None:
                self._tell(answer, None)
        if not change.dropped and not change.granted:
            on_disk(None)
            return

        def tell(outcome: object) -> None:
            for answer in change.answers:
                if answer.lease is not None:
                    self._tell(answer, outcome)
            on_disk(outcome)

        dropped = tuple(lease.token for lease in change.dropped)
        self._submit(LeaseChange(saved=tuple(change.granted), dropped=dropped), tell)

    async def _give_up(self, change: Change) -> Released:
        """Carry a step out, and wait for the disk: after a restart the lease must not be there again."""
        on_disk = anyio.Event()
        self._carry_out(change, lambda _: on_disk.set())
        await on_disk.wait()
        return Released(count=len(change.dropped))

    def _tell(self, answer: Answer, outcome: object) -> None:
        waiting = self._waiting.get(answer.claim_id)
        if isinstance(outcome, RequestError) and answer.lease is not None:
            # It cannot be stored, so nobody has it.
            if self._table.is_valid(answer.key, answer.lease.token):
                self._carry_out(self._table.revoke([answer.key], self._now()))
            if waiting is not None:
                waiting.give(outcome)
        elif waiting is not None:
            waiting.give(answer)
        elif answer.lease is not None and self._table.is_valid(answer.key, answer.lease.token):
            # Whoever waited left in the very moment in which the lease was on its way.
            self._carry_out(self._table.revoke([answer.key], self._now()))

    def _submit(self, change: LeaseChange, tell: Callable[[object], None] = lambda _: None) -> None:
        try:
            self._writer.submit_nowait(change, tell)
        except anyio.WouldBlock:
            self._writer.when_space(lambda: self._submit(change, tell))
        except StorageFailed as error:
            tell(error)

    async def _save(self, leases: Sequence[Lease]) -> None:
        """Bring new leases to disk.

        Raises:
            RequestError: they cannot be stored; nobody has them then.
        """
        saved = anyio.Event()
        outcomes: list[object] = []

        def tell(outcome: object) -> None:
            outcomes.append(outcome)
            saved.set()

        for lease in leases:
            self._watch(lease.claimant.process)
        self._submit(LeaseChange(saved=tuple(leases)), tell)
        await saved.wait()
        if isinstance(outcomes[0], RequestError):
            self.revoke(leases)
            raise outcomes[0]

    def _claimant(self, request: Claim, pid: int) -> Claimant:
        process = self._processes.identify(pid)
        if process is None:
            message = "the claiming process is gone"
            raise RequestError(message)
        check_claim(request)
        command = self._processes.command(pid)
        inputs = (request.work_dir, request.dataset_hash)
        return Claimant(request.claim_id, request.context, process, command, self._host, *inputs)

    def _enter_peer(self, claimant: Claimant, peer: object, own: Sequence[Lease]) -> None:
        """A process that cannot be seen has its leases as long as its connection."""
        if own and not claimant.process.is_visible:
            self._peers[claimant.claim_id] = peer

    def _watch(self, process: Process) -> None:
        self._processes.watch(process, self._on_process_ended)

    def _unwatch_idle(self, process: Process) -> None:
        if not self._table.concerns(process):
            self._processes.unwatch(process)

    def _row(self, lease: Lease) -> LeaseRow:
        return lease.row(self._table.waiters(lease.key))

    def _now(self) -> str:
        return f"{self._clock.utc_text().replace(' ', 'T')}Z"
