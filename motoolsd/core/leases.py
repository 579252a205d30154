"""Leases: who computes which key, and who waits for it.

Layer: core. Imports wire.keys.
Invariant: pure: no clock, no I/O. A key has at most one lease, a claim waits at most once, and every token is larger
than all before it. What is waited for is held: a key that becomes free goes to the first who waits, or has no queue.
Leases after Gray and Cheriton (SOSP 1989) and, for caches, Nishtala et al. (NSDI 2013); fencing tokens after the
sequencers of Chubby (Burrows, OSDI 2006).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from msgspec import Struct, field

from motoolsd.core.errors import ClaimDeadlock
from motoolsd.wire.entries import LeaseRow
from motoolsd.wire.keys import Kind
from motoolsd.wire.names import INVISIBLE_PID

Key = tuple[Kind, str]
"""A kind, and the key of an entry of it."""

N = TypeVar("N")


class Process(Struct, frozen=True):
    """A process, told from a later one with the same pid."""

    pid: int
    start_time: int
    """Clock ticks since boot."""
    boot_id: str

    @property
    def is_visible(self) -> bool:
        """Whether its end can be noticed."""
        return self.pid != INVISIBLE_PID


class Claimant(Struct, frozen=True):
    """Who asks."""

    claim_id: bytes
    """Names this claim, so that asking again after a lost connection gets the same answer."""
    context: bytes
    """Names the thread or task: what waits there cannot go on with what it holds."""
    process: Process
    command: str = ""
    host: str = ""
    work_dir: bytes | None = None
    """Relative to the cache directory; no clean-up touches it while the claim lasts."""
    dataset_hash: str | None = None
    """What a model is computed from."""


class Lease(Struct):
    """The right to compute a key."""

    key: Key
    token: int
    claimant: Claimant
    since: str
    processes: set[Process] = field(default_factory=set)
    """Those whose end ends the lease, once all of them have ended. An invisible owner is none of them, and keeps it."""

    def row(self, waiters: int) -> LeaseRow:
        """The lease as it is told, with how many wait for it."""
        kind, key = self.key
        return LeaseRow(
            kind=kind,
            key=key,
            pid=self.claimant.process.pid,
            host=self.claimant.host,
            command=self.claimant.command,
            since=self.since,
            token=self.token,
            waiters=waiters,
        )


class Waiter(Struct, frozen=True):
    """A claim that waits until one of its keys is settled."""

    claimant: Claimant
    keys: tuple[Key, ...]
    takes_over: bool
    """Whether it wants the lease after a recorded failure, instead of the failure."""


class Answer(Struct, frozen=True):
    """What a waiter is told of one of its keys: exactly one of the three."""

    claim_id: bytes
    key: Key
    lease: Lease | None = None
    value: bytes | None = None
    failure: str | None = None


class Change(Struct, frozen=True):
    """What a step did."""

    answers: list[Answer] = field(default_factory=list)
    dropped: list[Lease] = field(default_factory=list)

    @property
    def granted(self) -> list[Lease]:
        """Leases that are new."""
        return [answer.lease for answer in self.answers if answer.lease is not None]


class LeaseTable:
    """All leases, and the queues before them."""

    def __init__(self, next_token: int = 1) -> None:
        """Start empty.

        Args:
            next_token: larger than every token that was ever given.
        """
        self._next_token = next_token
        self._leases: dict[Key, Lease] = {}
        self._by_claim: dict[bytes, set[Key]] = {}
        self._by_process: dict[Process, set[Key]] = {}
        self._waiters: dict[bytes, Waiter] = {}
        # In the order of arrival: a dict keeps it, and lets anybody leave from the middle.
        self._queues: dict[Key, dict[bytes, None]] = {}
        self._waiting_contexts: dict[bytes, bytes] = {}
        self._waiting_processes: Counter[Process] = Counter()

    def __len__(self) -> int:
        """Leases held."""
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        """All leases, the oldest first."""
        return iter(self._leases.values())

    @property
    def next_token(self) -> int:
        """The next token."""
        return self._next_token

    @property
    def waiting(self) -> int:
        """Claims that wait."""
        return len(self._waiters)

    @property
    def processes(self) -> frozenset[Process]:
        """Those whose end matters."""
        return frozenset(self._by_process)

    def lease(self, key: Key) -> Lease | None:
        """Who computes a key."""
        return self._leases.get(key)

    def held_under(self, claim_id: bytes) -> list[Lease]:
        """The leases of a claim."""
        return [self._leases[key] for key in self._by_claim.get(claim_id, ())]

    def waiters(self, key: Key) -> int:
        """How many wait for a key."""
        return len(self._queues.get(key, ()))

    def concerns(self, process: Process) -> bool:
        """Whether a process holds something or waits: then its end matters."""
        return process in self._by_process or process in self._waiting_processes

    def is_valid(self, key: Key, token: int) -> bool:
        """Whether a token is the one that counts."""
        lease = self._leases.get(key)
        return lease is not None and lease.token == token

    def restore(self, lease: Lease) -> None:
        """Take a lease over from before a restart."""
        assert lease.key not in self._leases, "one lease a key"
        self._next_token = max(self._next_token, lease.token + 1)
        self._enter(lease)

    def claim(self, claimant: Claimant, keys: Sequence[Key], since: str) -> list[Lease]:
        """Ask for keys that have no value.

        Returns:
            The lease of each key: new, this claim's already, or somebody else's.

        Raises:
            ClaimDeadlock: the claimant's own thread or task holds one of them under another claim.
        """
        own = [key for key in keys if self._is_own(claimant, key)]
        if own:
            raise ClaimDeadlock([key for _, key in own], is_own=True)
        return [self._leases.get(key) or self._grant(key, claimant, since) for key in keys]

    def wait(self, waiter: Waiter) -> None:
        """Queue a claim for keys that others hold, until one of them is settled.

        Raises:
            ClaimDeadlock: all of them wait, directly or not, for what the claimant holds.
        """
        claim_id = waiter.claimant.claim_id
        assert claim_id not in self._waiters, "a claim waits once"
        assert all(key in self._leases for key in waiter.keys), "what is waited for is held"
        if self._is_deadlock(waiter):
            raise ClaimDeadlock([key for _, key in waiter.keys], is_own=False)
        self._waiters[claim_id] = waiter
        self._waiting_contexts[waiter.claimant.context] = claim_id
        self._waiting_processes[waiter.claimant.process] += 1
        for key in waiter.keys:
            self._queues.setdefault(key, {})[claim_id] = None

    def leave(self, claim_id: bytes) -> None:
        """Take a claim out of its queues."""
        waiter = self._waiters.pop(claim_id, None)
        if waiter is None:
            return
        if self._waiting_contexts.get(waiter.claimant.context) == claim_id:
            del self._waiting_contexts[waiter.claimant.context]
        process = waiter.claimant.process
        self._waiting_processes[process] -= 1
        if not self._waiting_processes[process]:
            del self._waiting_processes[process]
        for key in waiter.keys:
            queue = self._queues[key]
            del queue[claim_id]
            if not queue:
                del self._queues[key]

    def settle(self, key: Key, value: bytes) -> Change:
        """A value stands now: whoever holds the key's lease loses it, whoever waits gets the value."""
        change = Change()
        self._drop(key, change)
        for claim_id in list(self._queues.get(key, ())):
            self.leave(claim_id)
            change.answers.append(Answer(claim_id, key, value=value))
        return change

    def fail(self, key: Key, reason: str, since: str) -> Change:
        """The computation failed: those that wait for a failure get it, the first of the others the lease."""
        change = Change()
        self._drop(key, change)
        for claim_id in list(self._queues.get(key, ())):
            if not self._waiters[claim_id].takes_over:
                self.leave(claim_id)
                change.answers.append(Answer(claim_id, key, failure=reason))
        self._hand_over(key, since, change)
        return change

    def release(self, claim_id: bytes, since: str) -> Change:
        """A claim is over: it waits no more, and its leases go to the next."""
        self.leave(claim_id)
        return self.revoke(list(self._by_claim.get(claim_id, ())), since)

    def revoke(self, keys: Iterable[Key], since: str) -> Change:
        """Take leases away; each key goes to the next who waits."""
        change = Change()
        for key in keys:
            self._drop(key, change)
            self._hand_over(key, since, change)
        return change

    def join(self, key: Key, process: Process) -> None:
        """Let a lease outlive its owner for as long as another process lives."""
        self._leases[key].processes.add(process)
        self._by_process.setdefault(process, set()).add(key)

    def process_ended(self, process: Process, since: str) -> Change:
        """A process is gone: it waits no more, and what no other process keeps goes to the next.

        What an invisible process holds it keeps: nobody can know that it is gone, or which of them.
        """
        if not process.is_visible:
            return Change()
        if process in self._waiting_processes:
            for claim_id, waiter in list(self._waiters.items()):
                if waiter.claimant.process == process:
                    self.leave(claim_id)
        free = []
        for key in self._by_process.pop(process, set()):
            lease = self._leases[key]
            lease.processes.discard(process)
            if not lease.processes and lease.claimant.process.is_visible:
                free.append(key)
        return self.revoke(free, since)

    def _is_own(self, claimant: Claimant, key: Key) -> bool:
        lease = self._leases.get(key)
        return (
            lease is not None
            and lease.claimant.context == claimant.context
            and lease.claimant.claim_id != claimant.claim_id
        )

    def _is_deadlock(self, waiter: Waiter) -> bool:
        """Whether everything that a claim would wait for, directly or not, waits in turn or is the claimant's."""
        # A claim goes on when any of its keys is settled, so one holder in reach that does not wait is enough.
        reached = list(waiter.keys)
        seen = set(reached)
        while reached:
            holder = self._leases[reached.pop()].claimant.context
            if holder == waiter.claimant.context:
                continue
            waits_as = self._waiting_contexts.get(holder)
            if waits_as is None:
                return False
            new = [key for key in self._waiters[waits_as].keys if key not in seen]
            seen.update(new)
            reached.extend(new)
        return True

    def _grant(self, key: Key, claimant: Claimant, since: str) -> Lease:
        processes = {claimant.process} if claimant.process.is_visible else set()
        lease = Lease(key, self._next_token, claimant, since, processes)
        self._next_token += 1
        self._enter(lease)
        return lease

    def _enter(self, lease: Lease) -> None:
        self._leases[lease.key] = lease
        self._by_claim.setdefault(lease.claimant.claim_id, set()).add(lease.key)
        for process in lease.processes:
            self._by_process.setdefault(process, set()).add(lease.key)

    def _drop(self, key: Key, change: Change) -> None:
        lease = self._leases.pop(key, None)
        if lease is None:
            return
        _discard(self._by_claim, lease.claimant.claim_id, key)
        for process in lease.processes:
            _discard(self._by_process, process, key)
        change.dropped.append(lease)

    def _hand_over(self, key: Key, since: str, change: Change) -> None:
        for claim_id in self._queues.get(key, ()):
            claimant = self._waiters[claim_id].claimant
            self.leave(claim_id)
            change.answers.append(Answer(claim_id, key, lease=self._grant(key, claimant, since)))
            return


def _discard(index: dict[N, set[Key]], name: N, key: Key) -> None:
    keys = index[name]
    keys.discard(key)
    if not keys:
        del index[name]
