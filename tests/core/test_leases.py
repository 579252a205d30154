"""One lease a key, rising tokens, and nobody waits for what nobody holds."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from motoolsd.core.errors import ClaimDeadlock
from motoolsd.core.leases import Answer, Change, Claimant, Key, Lease, LeaseTable, Process, Waiter
from motoolsd.wire.keys import Kind

NOW = "2026-01-31T23:59:59.123Z"
numbers = itertools.count(1)


def key(name: str) -> Key:
    """A dataset's key."""
    return Kind.DATASET, name


def claimant(*, pid: int | None = None, context: bytes | None = None) -> Claimant:
    """Somebody new; with a context of its own unless one is given."""
    number = next(numbers)
    process = Process(number + 1000 if pid is None else pid, 1, "boot")
    return Claimant(b"%016d" % number, context or b"context %d" % number, process)


def claim(table: LeaseTable, who: Claimant, *names: str) -> list[Lease]:
    """Claim datasets."""
    return table.claim(who, [key(name) for name in names], NOW)


def wait(table: LeaseTable, who: Claimant, *names: str, takes_over: bool = False) -> None:
    """Wait for datasets."""
    table.wait(Waiter(who, tuple(key(name) for name in names), takes_over))


def answered(change: Change) -> list[tuple[bytes, str]]:
    """Who was told, and what."""

    def kind(answer: Answer) -> str:
        return "lease" if answer.lease else "failure" if answer.failure else "value"

    return [(answer.claim_id, kind(answer)) for answer in change.answers]


def test_first_has_the_lease_and_the_second_sees_whose_it_is() -> None:
    """Under the same claim the answer stays the same."""
    table, one, two = LeaseTable(), claimant(), claimant()
    (lease,) = claim(table, one, "a")
    assert claim(table, two, "a") == claim(table, one, "a") == [lease]
    assert lease.claimant is one


def test_tokens_only_rise_over_restarts_too() -> None:
    """Larger than what was ever given, and than what is restored."""
    table = LeaseTable(next_token=7)
    (old,) = claim(table, claimant(), "a")
    again = LeaseTable()
    again.restore(old)
    (new,) = claim(again, claimant(), "b")
    assert (old.token, new.token) == (7, 8)


def test_key_goes_to_those_who_wait_in_their_order() -> None:
    """On release, on the end of the process, and when it is taken away."""
    table = LeaseTable()
    owner, *others = [claimant() for _ in range(4)]
    claim(table, owner, "a")
    for other in others:
        wait(table, other, "a")
    assert answered(table.release(owner.claim_id, NOW)) == [(others[0].claim_id, "lease")]
    assert answered(table.process_ended(others[0].process, NOW)) == [(others[1].claim_id, "lease")]
    assert answered(table.revoke([key("a")], NOW)) == [(others[2].claim_id, "lease")]
    assert table.release(others[2].claim_id, NOW).answers == []
    assert len(table) == 0


def test_value_reaches_all_who_wait() -> None:
    """And ends the lease."""
    table, owner, others = LeaseTable(), claimant(), [claimant() for _ in range(3)]
    (lease,) = claim(table, owner, "a")
    for other in others:
        wait(table, other, "a")
    change = table.settle(key("a"), b"value")
    assert answered(change) == [(other.claim_id, "value") for other in others]
    assert change.dropped == [lease]
    assert not table.is_valid(key("a"), lease.token)


def test_failure_reaches_those_who_want_it() -> None:
    """The first of the others has the lease, the rest waits on."""
    table, owner = LeaseTable(), claimant()
    claim(table, owner, "a")
    told, heir, later = claimant(), claimant(), claimant()
    wait(table, told, "a")
    wait(table, heir, "a", takes_over=True)
    wait(table, later, "a", takes_over=True)
    change = table.fail(key("a"), "oom", NOW)
    assert answered(change) == [(told.claim_id, "failure"), (heir.claim_id, "lease")]
    assert table.waiters(key("a")) == 1


def test_wait_for_several_ends_with_the_first() -> None:
    """It leaves the other queues."""
    table, one, two, waiting = LeaseTable(), claimant(), claimant(), claimant()
    claim(table, one, "a")
    claim(table, two, "b")
    wait(table, waiting, "a", "b")
    assert answered(table.settle(key("b"), b"value")) == [(waiting.claim_id, "value")]
    assert table.waiters(key("a")) == 0
    assert table.release(one.claim_id, NOW).answers == []


def test_whoever_leaves_is_passed_by() -> None:
    """No ghost has the lease."""
    table, owner, gone, heir = LeaseTable(), claimant(), claimant(), claimant()
    claim(table, owner, "a")
    wait(table, gone, "a")
    wait(table, heir, "a")
    table.leave(gone.claim_id)
    table.leave(gone.claim_id)
    assert answered(table.release(owner.claim_id, NOW)) == [(heir.claim_id, "lease")]


def test_dead_process_waits_no_more() -> None:
    """Its end matters while it waits, and not after."""
    table, owner, dead = LeaseTable(), claimant(), claimant()
    claim(table, owner, "a")
    wait(table, dead, "a")
    assert table.concerns(dead.process)
    table.process_ended(dead.process, NOW)
    assert not table.concerns(dead.process)
    assert table.waiting == 0


def test_own_key_is_a_deadlock() -> None:
    """In an outer block of the same thread or task."""
    table = LeaseTable()
    claim(table, claimant(context=b"task"), "a")
    with pytest.raises(ClaimDeadlock, match="outer block"):
        claim(table, claimant(context=b"task"), "a")


@pytest.mark.parametrize("length", [2, 3, 5])
def test_circle_is_a_deadlock(length: int) -> None:
    """However long; the one that would close it is told, and the others wait on."""
    table = LeaseTable()
    contexts = [b"task %d" % number for number in range(length)]
    for number, context in enumerate(contexts):
        claim(table, claimant(context=context), f"k{number}")
    for number, context in enumerate(contexts[:-1]):
        wait(table, claimant(context=context), f"k{number + 1}")
    with pytest.raises(ClaimDeadlock, match="never end"):
        wait(table, claimant(context=contexts[-1]), "k0")
    assert table.waiting == length - 1


def test_chain_is_no_deadlock() -> None:
    """Its last link goes on; and a wait for several has a way out by any of them."""
    table, free = LeaseTable(), claimant()
    claim(table, claimant(context=b"one"), "a")
    claim(table, claimant(context=b"two"), "b")
    claim(table, free, "c")
    wait(table, claimant(context=b"one"), "b")
    wait(table, claimant(context=b"two"), "a", "c")
    assert table.waiting == 2


def test_joined_process_keeps_the_lease() -> None:
    """Until both have ended."""
    table, owner, command = LeaseTable(), claimant(), Process(4711, 1, "boot")
    claim(table, owner, "a")
    table.join(key("a"), command)
    assert table.process_ended(owner.process, NOW).dropped == []
    assert len(table.process_ended(command, NOW).dropped) == 1


def test_invisible_process_never_ends() -> None:
    """What cannot be seen is not missed."""
    table, owner = LeaseTable(), claimant(pid=0)
    claim(table, owner, "a")
    assert table.processes == frozenset()
    assert table.process_ended(owner.process, NOW).dropped == []


NAMES = st.sampled_from(["a", "b", "c"])
PLACES = st.integers(0, 5)


class Machine(RuleBasedStateMachine):
    """Jobs that claim, wait, fail, die and leave, against what must always hold."""

    def __init__(self, table: LeaseTable | None = None) -> None:
        """Six threads in three processes."""
        super().__init__()
        self.table = LeaseTable() if table is None else table  # an empty one is false
        self.highest = 0
        self.waiting: dict[bytes, tuple[Claimant, frozenset[Key]]] = {}

    def somebody(self, place: int) -> Claimant:
        """A new claim of a thread."""
        return claimant(pid=place // 2 + 1, context=b"thread %d" % place)

    def is_blocked(self, who: Claimant) -> bool:
        """A thread does one thing at a time."""
        return any(other.context == who.context for other, _ in self.waiting.values())

    def take(self, change: Change) -> None:
        """Every answer is one of a waiter, for a key of its, and there is one."""
        for answer in change.answers:
            _, keys = self.waiting.pop(answer.claim_id)
            assert answer.key in keys
            assert sum(part is not None for part in (answer.lease, answer.value, answer.failure)) == 1
        for lease in change.granted:
            assert lease.token > self.highest
            self.highest = lease.token

    @rule(place=PLACES, name=NAMES, takes_over=st.booleans(), more=st.lists(NAMES, max_size=2))
    def claims(self, place: int, name: str, takes_over: bool, more: list[str]) -> None:  # noqa: FBT001
        """Somebody claims, and waits for what others hold."""
        who = self.somebody(place)
        if self.is_blocked(who):
            return
        keys = [key(each) for each in dict.fromkeys([name, *more])]
        try:
            leases = self.table.claim(who, keys, NOW)
        except ClaimDeadlock:
            assert any(self.holder_of(each) == who.context for each in keys)
            return
        for lease in leases:
            if lease.claimant is who:
                assert lease.token > self.highest
                self.highest = lease.token
        others = tuple(lease.key for lease in leases if lease.claimant is not who)
        if len(others) < len(keys):
            return
        try:
            self.table.wait(Waiter(who, others, takes_over))
        except ClaimDeadlock:
            assert any(lease.claimant.context == who.context for lease in self.table)
            return
        self.waiting[who.claim_id] = who, frozenset(others)

    def holder_of(self, each: Key) -> bytes | None:
        """The context that holds a key."""
        lease = self.table.lease(each)
        return None if lease is None else lease.claimant.context

    @rule(name=NAMES)
    def settles(self, name: str) -> None:
        """A value comes."""
        self.take(self.table.settle(key(name), b"value"))
        assert self.table.waiters(key(name)) == 0

    @rule(name=NAMES)
    def fails(self, name: str) -> None:
        """An owner records a failure."""
        if self.table.lease(key(name)) is not None:
            self.take(self.table.fail(key(name), "oom", NOW))

    @rule(name=NAMES)
    def breaks(self, name: str) -> None:
        """A lease is taken away."""
        self.take(self.table.revoke([key(name)], NOW))

    @rule(pid=st.integers(1, 3))
    def dies(self, pid: int) -> None:
        """A process ends."""
        process = Process(pid, 1, "boot")
        self.waiting = {name: found for name, found in self.waiting.items() if found[0].process != process}
        self.take(self.table.process_ended(process, NOW))
        assert not self.table.concerns(process)

    @rule(data=st.data())
    def gives_up(self, data: st.DataObject) -> None:
        """A claim ends, whether it holds something or waits."""
        known = [lease.claimant.claim_id for lease in self.table] + list(self.waiting)
        if known:
            claim_id = data.draw(st.sampled_from(known))
            self.waiting.pop(claim_id, None)
            self.take(self.table.release(claim_id, NOW))

    @invariant()
    def what_is_waited_for_is_held(self) -> None:
        """And nobody is in a queue who does not wait."""
        assert self.table.waiting == len(self.waiting)
        for name in "abc":
            queued = sum(key(name) in keys for _, keys in self.waiting.values())
            assert self.table.waiters(key(name)) == queued
            assert not queued or self.table.lease(key(name)) is not None

    @invariant()
    def somebody_can_go_on(self) -> None:
        """Of those that hold something, not all wait: that would be a deadlock nobody was told of."""
        holders = {lease.claimant.context for lease in self.table}
        blocked = {who.context for who, _ in self.waiting.values()}
        assert not holders or holders - blocked

    def teardown(self) -> None:
        """When all that hold something give up, again and again, nobody is left waiting."""
        for _ in range(100):
            if not len(self.table):
                break
            for lease in list(self.table):
                self.take(self.table.release(lease.claimant.claim_id, NOW))
        assert (len(self.table), self.table.waiting) == (0, 0)


CALM = settings(max_examples=60, stateful_step_count=40, deadline=None)
Machine.TestCase.settings = CALM
TestMachine = Machine.TestCase


class Forgetful(LeaseTable):
    """Forgets to hand a key over."""

    def _hand_over(self, *_: object) -> None:
        """Nothing."""


def test_planted_bug_is_found() -> None:
    """The machine above is no formality."""

    class Broken(Machine):
        def __init__(self) -> None:
            super().__init__(Forgetful())

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Broken, settings=settings(CALM, report_multiple_bugs=False))
