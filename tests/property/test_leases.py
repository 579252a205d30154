"""The lease table takes any steps in any order, as a model does that keeps two lists and looks through all of them."""

from __future__ import annotations

from typing import ClassVar, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from motoolsd.core.errors import ClaimDeadlock
from motoolsd.core.leases import Answer, Change, Claimant, Key, Lease, LeaseTable, Process, Waiter
from motoolsd.wire.keys import Kind

N = TypeVar("N")
T = TypeVar("T")

NOW = "2026-01-31T23:59:59Z"
A, B, C, D = ((Kind.MODEL, name) for name in "abcd")
HERE = Process(pid=42, start_time=7, boot_id="boot")
ELSEWHERE = Process(pid=43, start_time=8, boot_id="boot")
INVISIBLE = Process(pid=0, start_time=0, boot_id="boot")


def claimant(claim: str, *, context: str, process: Process) -> Claimant:
    """Who asks."""
    return Claimant(claim.encode(), context.encode(), process)


class CheckedTable(LeaseTable):
    """A table that can be asked whether its indexes say what its leases and waiters say."""

    def check(self) -> None:
        """Compare every index with one made anew."""
        waiters = self._waiters.values()
        assert all(key == lease.key for key, lease in self._leases.items())
        assert self._by_claim == _grouped([(lease.claimant.claim_id, lease.key) for lease in self])
        assert self._by_process == _grouped([(process, lease.key) for lease in self for process in lease.processes])
        assert {key: set(queue) for key, queue in self._queues.items()} == _grouped(
            [(key, waiter.claimant.claim_id) for waiter in waiters for key in waiter.keys]
        )
        assert all(claim_id == waiter.claimant.claim_id for claim_id, waiter in self._waiters.items())
        assert self._waiting_contexts == {waiter.claimant.context: waiter.claimant.claim_id for waiter in waiters}
        assert dict(self._waiting_processes) == {
            process: len(claims)
            for process, claims in _grouped([(w.claimant.process, w.claimant.claim_id) for w in waiters]).items()
        }
        assert self._queues.keys() <= self._leases.keys(), "what is waited for is held"


def _grouped(pairs: list[tuple[N, T]]) -> dict[N, set[T]]:
    groups: dict[N, set[T]] = {}
    for name, member in pairs:
        groups.setdefault(name, set()).add(member)
    return groups


KEYS = st.sampled_from((A, B, C, D))
SOME_KEYS = st.lists(KEYS, min_size=1, max_size=3, unique=True)
SEATS = {"p": 0, "q": 0, "r": 1, "s": 1, "t": 2}
"""Context -> number of the process that it runs in."""
CONTEXT = st.sampled_from(list(SEATS))
CLAIM = st.sampled_from("12")
"""Each context has two claims at most: an outer and a nested one."""


class LeaseMachine(RuleBasedStateMachine):
    """The table and the model take the same steps, and must say the same."""

    table_type: ClassVar[type[CheckedTable]] = CheckedTable

    def __init__(self) -> None:
        """Start both empty."""
        super().__init__()
        self.table = self.table_type()
        self.held: list[Lease] = []
        self.waiting: list[Waiter] = []
        self.last_token = 0
        self.processes = [HERE, ELSEWHERE, INVISIBLE]

    @initialize(context=CONTEXT)
    def begin(self, context: str) -> None:
        """Let everybody but one hold something, so that there is something to wait for."""
        for other, key in zip(sorted(SEATS.keys() - {context}), (A, B, C, D), strict=True):
            self.claim(other, "1", [key])

    # What the model says.

    def claimant(self, context: str, claim: str) -> Claimant:
        """Who asks."""
        return claimant(context + claim, context=context, process=self.processes[SEATS[context]])

    def lease_of(self, key: Key) -> Lease | None:
        """Who holds a key."""
        return next((lease for lease in self.held if lease.key == key), None)

    def waits(self, context: str) -> bool:
        """Whether a context can do nothing, because it waits."""
        return any(waiter.claimant.context == context.encode() for waiter in self.waiting)

    def is_stuck(self, new: Waiter) -> bool:
        """Let everybody go on who can, as often as somebody can; is the new one left?"""
        stuck = {waiter.claimant.context: waiter.keys for waiter in [*self.waiting, new]}
        while free := [context for context, keys in stuck.items() if not self.holders(keys) <= stuck.keys()]:
            for context in free:
                del stuck[context]
        return new.claimant.context in stuck

    def holders(self, keys: tuple[Key, ...]) -> set[bytes]:
        """The contexts that hold these keys."""
        return {lease.claimant.context for lease in self.held if lease.key in keys}

    def enter(self, key: Key, who: Claimant, lease: Lease) -> None:
        """A lease was given: it is as it should be, and its token was never seen."""
        assert (lease.key, lease.claimant, lease.since) == (key, who, NOW)
        assert lease.token > self.last_token
        self.last_token = lease.token
        processes = {who.process} if who.process.is_visible else set()
        self.held.append(Lease(key, lease.token, who, NOW, processes))

    def compare(
        self, change: Change, freed: set[Key], *, value: bytes | None = None, failure: str | None = None
    ) -> None:
        """What a step must have done: drop these leases, and answer who waits for them in the order of arrival."""
        dropped = [lease.key for lease in change.dropped]
        assert len(dropped) == len(set(dropped))
        assert set(dropped) == freed & {lease.key for lease in self.held}
        assert [(a.lease, a.value, a.failure).count(None) for a in change.answers] == [2] * len(change.answers)
        answers = iter(change.answers)
        for key in dropped:
            self.held.remove(next(lease for lease in self.held if lease.key == key))
            for waiter in [waiter for waiter in self.waiting if key in waiter.keys]:
                if value is not None or (failure is not None and not waiter.takes_over):
                    self.waiting.remove(waiter)
                    assert next(answers, None) == Answer(waiter.claimant.claim_id, key, value=value, failure=failure)
            following = next((waiter for waiter in self.waiting if key in waiter.keys), None)
            if following is not None:
                self.waiting.remove(following)
                answer = next(answers, None)
                assert answer is not None
                assert answer.lease is not None
                assert (answer.claim_id, answer.key) == (following.claimant.claim_id, key)
                self.enter(key, following.claimant, answer.lease)
        assert next(answers, None) is None

    # Steps.

    @rule(context=CONTEXT, claim=CLAIM, keys=SOME_KEYS)
    def claim(self, context: str, claim: str, keys: list[Key]) -> None:
        """A context that does not wait asks, and does not wait for what it is not given."""
        if self.waits(context):
            return
        who = self.claimant(context, claim)
        found = [self.lease_of(key) for key in keys]
        holders = [lease.claimant for lease in found if lease is not None]
        if any(other.context == who.context and other.claim_id != who.claim_id for other in holders):
            with pytest.raises(ClaimDeadlock):
                self.table.claim(who, keys, NOW)
            return
        for key, before, lease in zip(keys, found, self.table.claim(who, keys, NOW), strict=True):
            if before is None:
                self.enter(key, who, lease)
            assert lease == self.lease_of(key)

    @precondition(lambda self: len(self.held) > 1)
    @rule(data=st.data(), context=CONTEXT, claim=CLAIM, takes_over=st.booleans())
    def wait(self, data: st.DataObject, context: str, claim: str, *, takes_over: bool) -> None:
        """A context waits for some of what others hold, or is told that it would be for ever."""
        others = [lease.key for lease in self.held if lease.claimant.context != context.encode()]
        if self.waits(context) or not others:
            return
        keys = data.draw(st.lists(st.sampled_from(others), min_size=1, max_size=3, unique=True))
        waiter = Waiter(self.claimant(context, claim), tuple(keys), takes_over)
        if self.is_stuck(waiter):
            with pytest.raises(ClaimDeadlock):
                self.table.wait(waiter)
        else:
            self.table.wait(waiter)
            self.waiting.append(waiter)

    @rule(context=CONTEXT, claim=CLAIM)
    def leave(self, context: str, claim: str) -> None:
        """A connection is lost: its claim waits no more."""
        claim_id = (context + claim).encode()
        self.table.leave(claim_id)
        self.waiting = [waiter for waiter in self.waiting if waiter.claimant.claim_id != claim_id]

    @rule(context=CONTEXT, claim=CLAIM)
    def release(self, context: str, claim: str) -> None:
        """A claim is given up."""
        claim_id = (context + claim).encode()
        self.waiting = [waiter for waiter in self.waiting if waiter.claimant.claim_id != claim_id]
        freed = {lease.key for lease in self.held if lease.claimant.claim_id == claim_id}
        self.compare(self.table.release(claim_id, NOW), freed)

    @rule(key=KEYS)
    def settle(self, key: Key) -> None:
        """A value comes, fulfilled or put past the lease."""
        self.compare(self.table.settle(key, b"v"), {key}, value=b"v")

    @rule(key=KEYS)
    def fail(self, key: Key) -> None:
        """A computation fails."""
        self.compare(self.table.fail(key, "why", NOW), {key}, failure="why")

    @rule(keys=SOME_KEYS)
    def revoke(self, keys: list[Key]) -> None:
        """Leases are broken by hand, or their keys are cleared."""
        self.compare(self.table.revoke(keys, NOW), set(keys))

    @rule(key=KEYS, seat=st.sampled_from((0, 1)))
    def join(self, key: Key, seat: int) -> None:
        """A visible process keeps a lease alive, too."""
        lease = self.lease_of(key)
        if lease is not None:
            self.table.join(key, self.processes[seat])
            lease.processes.add(self.processes[seat])

    @rule(seat=st.sampled_from((0, 1, 2)))
    def end_process(self, seat: int) -> None:
        """A process ends, and one with the same pid and the same contexts begins; an invisible one cannot end."""
        ended = self.processes[seat]
        freed = set()
        if ended.is_visible:
            self.processes[seat] = Process(ended.pid, ended.start_time + 10, ended.boot_id)
            self.waiting = [waiter for waiter in self.waiting if waiter.claimant.process != ended]
            for lease in [lease for lease in self.held if ended in lease.processes]:
                lease.processes.remove(ended)
                if not lease.processes and lease.claimant.process.is_visible:
                    freed.add(lease.key)
        self.compare(self.table.process_ended(ended, NOW), freed)
        assert not ended.is_visible or not self.table.concerns(ended)

    @rule(key=KEYS, gap=st.integers(1, 3))
    def restore(self, key: Key, gap: int) -> None:
        """A lease from before a restart comes in."""
        if self.lease_of(key) is None:
            who = claimant("old", context="context of old", process=HERE)
            self.last_token += gap
            self.held.append(Lease(key, self.last_token, who, NOW, {ELSEWHERE}))
            self.table.restore(Lease(key, self.last_token, who, NOW, {ELSEWHERE}))

    # What always holds.

    @invariant()
    def leases_are_those_of_the_model(self) -> None:
        """The same leases in the same order: at most one a key."""
        assert list(self.table) == self.held
        assert len(self.table) == len({lease.key for lease in self.held})
        assert self.table.next_token > self.last_token
        assert all(self.table.is_valid(lease.key, lease.token) for lease in self.held)

    @invariant()
    def waiters_are_those_of_the_model(self) -> None:
        """The same queues: no ghosts, nobody forgotten, no claim twice, and only before keys that are held."""
        claims = [waiter.claimant.claim_id for waiter in self.waiting]
        assert self.table.waiting == len(claims) == len(set(claims))
        for key in (A, B, C, D):
            queued = [waiter for waiter in self.waiting if key in waiter.keys]
            assert self.table.waiters(key) == len(queued)
            assert not queued or self.lease_of(key) is not None

    @invariant()
    def indexes_say_what_leases_and_waiters_say(self) -> None:
        """No index has more or less than it should."""
        self.table.check()

    def teardown(self) -> None:
        """Nobody waits for ever: if those who can go on release what they hold, all get their turn."""
        while free := [lease for lease in self.held if not self.waits(lease.claimant.context.decode())]:
            claim_id = free[0].claimant.claim_id
            freed = {lease.key for lease in self.held if lease.claimant.claim_id == claim_id}
            self.compare(self.table.release(claim_id, NOW), freed)
        assert (len(self.table), self.table.waiting) == (0, 0)
        self.table.check()


STEPS = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.slow
def test_any_steps_in_any_order_do_what_the_model_does() -> None:
    """Whatever happens, in whatever order: one lease a key, first come first served, and nobody waits for ever."""
    run_state_machine_as_test(LeaseMachine, settings=STEPS)


class KeepsTheQueue(CheckedTable):
    """A planted bug: who waits for a lease is not given it."""

    def _hand_over(self, key: Key, since: str, change: Change) -> None:
        pass


class SeesNoDeadlock(CheckedTable):
    """A planted bug: a circle of claims is let in."""

    def _is_deadlock(self, waiter: Waiter) -> bool:
        return False


class SeesDeadlocksEverywhere(CheckedTable):
    """A planted bug: one key in a circle is taken for a circle."""

    def _is_deadlock(self, waiter: Waiter) -> bool:
        alone = [Waiter(waiter.claimant, (key,), waiter.takes_over) for key in waiter.keys]
        return any(map(super()._is_deadlock, alone))


class LeavesGhosts(CheckedTable):
    """A planted bug: who leaves stays in all queues but the first."""

    def leave(self, claim_id: bytes) -> None:
        """Forget to leave the others."""
        waiter = self._waiters.get(claim_id)
        super().leave(claim_id)
        if waiter is not None:
            for key in waiter.keys[1:]:
                self._queues.setdefault(key, {})[claim_id] = None


class ServesTheLast(CheckedTable):
    """A planted bug: the last in line is served first."""

    def _hand_over(self, key: Key, since: str, change: Change) -> None:
        self._queues.update({key: dict(reversed(queue.items())) for key, queue in self._queues.items()})
        super()._hand_over(key, since, change)


@pytest.mark.slow
@pytest.mark.parametrize(
    "broken", [KeepsTheQueue, SeesNoDeadlock, SeesDeadlocksEverywhere, LeavesGhosts, ServesTheLast]
)
def test_planted_bug_is_found(broken: type[CheckedTable]) -> None:
    """The steps above are no formality: a table with a bug does not get through them."""
    machine = type("BrokenMachine", (LeaseMachine,), {"table_type": broken})
    search = settings(STEPS, derandomize=True, database=None, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises((AssertionError, KeyError, ClaimDeadlock, pytest.fail.Exception)):
        run_state_machine_as_test(machine, settings=search)
