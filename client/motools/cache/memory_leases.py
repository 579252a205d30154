"""The leases of an InMemoryCache: what the daemon's table does, for the tasks of one process.

Layer: motools.cache. Imports errors, clock and motoolsd.wire.
Invariant: no task but those that wait awaits anything; a key that becomes free goes to the first who waits.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from math import inf

import anyio

from motools.cache.clock import monotonic_s, utc_text
from motools.cache.errors import ClaimDeadlock, StaleLease
from motoolsd.wire.entries import KeyState, LeaseRow
from motoolsd.wire.keys import Kind
from motoolsd.wire.leases import Claim, RecordFailure

Key = tuple[Kind, str]
ValueOf = Callable[[Key], "bytes | None"]


class _Lease:
    def __init__(self, request: Claim, token: int) -> None:
        self.claim_id = request.claim_id
        self.context = request.context
        self.token = token
        self.since = utc_text()


class _Waiter:
    def __init__(self, request: Claim) -> None:
        self.request = request
        self.keys = [(request.kind, key) for key in request.keys]
        self.answered = anyio.Event()
        self.answer: tuple[Key, KeyState] | None = None


class MemoryLeases:
    """Who computes what in one process."""

    def __init__(self, value_of: ValueOf) -> None:
        """Start empty; `value_of` knows which keys have a value."""
        self._value_of = value_of
        self._leases: dict[Key, _Lease] = {}
        self._waiters: list[_Waiter] = []
        self._failures: dict[Key, tuple[str, float]] = {}
        self._last_token = 0

    def claim(self, request: Claim) -> list[KeyState]:
        """How each key stands; those that are free are the claim's own now.

        Raises:
            ClaimDeadlock: this task holds one already.
        """
        keys = [(request.kind, key) for key in request.keys]
        own = [key for key in keys if self._is_own(key, request)]
        if own:
            raise ClaimDeadlock(f"claiming {own[0][1]} would never end: this task holds it already, in an outer block")
        return [self._state(key, request) for key in keys]

    async def wait(self, request: Claim) -> list[KeyState]:
        """The same, when there is something to give. Cancellation: leaves the queue."""
        states = self.claim(request)
        if any(state.holder is None for state in states):
            return states
        waiter = _Waiter(request)
        if all(self._leads_to(request.context, key, set()) for key in waiter.keys):
            names = ", ".join(request.keys[:5])
            raise ClaimDeadlock(f"claiming {names} would never end: whoever holds it waits for what this task holds")
        self._waiters.append(waiter)
        try:
            await waiter.answered.wait()
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        assert waiter.answer is not None, "that is what it waited for"
        answered, state = waiter.answer
        return [state if key == answered else self._state_of_other(key) for key in waiter.keys]

    def check(self, key: Key, token: int) -> None:
        """Let a value with a token through.

        Raises:
            StaleLease: its lease was lost.
        """
        lease = self._leases.get(key)
        if lease is None or lease.token != token:
            value = self._value_of(key)
            stands = None if value is None else value.decode("utf-8", "backslashreplace")
            raise StaleLease(f"the lease of {key[1]} is no longer yours, and the value was not stored", stands)

    def settle(self, key: Key, value: bytes) -> None:
        """A value stands: nobody computes it any more."""
        self._leases.pop(key, None)
        self._failures.pop(key, None)
        for waiter in [waiter for waiter in self._waiters if key in waiter.keys]:
            self._answer(waiter, key, KeyState(value=value))

    def release(self, claim_id: bytes) -> int:
        """A claim is over; how many leases it held."""
        return self.revoke([key for key, lease in self._leases.items() if lease.claim_id == claim_id])

    def revoke(self, keys: Iterable[Key]) -> int:
        """Take leases away; each key goes to the next who waits."""
        count = 0
        for key in keys:
            count += self._leases.pop(key, None) is not None
            self._hand_over(key)
        return count

    def matching(self, is_wanted: Callable[[Key], bool]) -> list[Key]:
        """The keys with a lease that are wanted."""
        return [key for key in self._leases if is_wanted(key)]

    def fail(self, request: RecordFailure) -> None:
        """Record a failure and give the lease up.

        Raises:
            StaleLease: it was lost before.
        """
        key = (request.kind, request.key)
        self.check(key, request.token)
        del self._leases[key]
        if request.retry_after_s is not None:
            self._failures[key] = (request.reason, monotonic_s() + request.retry_after_s)
        for waiter in [waiter for waiter in self._waiters if key in waiter.keys and not waiter.request.takes_over]:
            self._answer(waiter, key, KeyState(failure=request.reason))
        self._hand_over(key)

    def rows(self) -> list[LeaseRow]:
        """All leases, the oldest first."""
        return [self._row(key, lease) for key, lease in self._leases.items()]

    def _state(self, key: Key, request: Claim) -> KeyState:
        if (value := self._value_of(key)) is not None:
            return KeyState(value=value)
        reason, until_s = self._failures.get(key, ("", -inf))
        if not request.takes_over and monotonic_s() < until_s:
            return KeyState(failure=reason)
        lease = self._leases.get(key) or self._grant(key, request)
        if lease.claim_id == request.claim_id:
            return KeyState(token=lease.token)
        return KeyState(holder=self._row(key, lease))

    def _state_of_other(self, key: Key) -> KeyState:
        """How a key stands that a claim has waited for beside the one that was answered."""
        if (value := self._value_of(key)) is not None:
            return KeyState(value=value)
        return KeyState(holder=self._row(key, self._leases[key]))

    def _is_own(self, key: Key, request: Claim) -> bool:
        lease = self._leases.get(key)
        return lease is not None and lease.context == request.context and lease.claim_id != request.claim_id

    def _leads_to(self, context: bytes, key: Key, seen: set[Key]) -> bool:
        if key in seen:
            return True
        seen.add(key)
        holder = self._leases[key].context
        if holder == context:
            return True
        waiting = [waiter for waiter in self._waiters if waiter.request.context == holder]
        return bool(waiting) and all(self._leads_to(context, other, seen) for other in waiting[0].keys)

    def _grant(self, key: Key, request: Claim) -> _Lease:
        self._last_token += 1
        lease = self._leases[key] = _Lease(request, self._last_token)
        return lease

    def _hand_over(self, key: Key) -> None:
        for waiter in self._waiters:
            if key in waiter.keys:
                self._answer(waiter, key, KeyState(token=self._grant(key, waiter.request).token))
                return

    def _answer(self, waiter: _Waiter, key: Key, state: KeyState) -> None:
        self._waiters.remove(waiter)
        waiter.answer = (key, state)
        waiter.answered.set()

    def _row(self, key: Key, lease: _Lease) -> LeaseRow:
        return LeaseRow(
            kind=key[0],
            key=key[1],
            pid=os.getpid(),
            host=os.uname().nodename,
            command=" ".join(sys.argv),
            since=lease.since,
            token=lease.token,
            waiters=sum(key in waiter.keys for waiter in self._waiters),
        )
