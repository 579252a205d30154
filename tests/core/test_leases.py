"""Who gets a lease, who waits for it, and that nobody waits for ever."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import pytest

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


def claimant(claim: str, *, context: str = "", process: Process = HERE) -> Claimant:
    """Who asks; every claim has a context of its own unless it is named."""
    return Claimant(claim.encode(), (context or f"context of {claim}").encode(), process)


def hold(table: LeaseTable, who: Claimant, *keys: Key) -> list[int]:
    """Claim keys that are free; their tokens."""
    leases = table.claim(who, keys, NOW)
    assert all(lease.claimant == who for lease in leases)
    return [lease.token for lease in leases]


def queue(table: LeaseTable, who: Claimant, *keys: Key, takes_over: bool = False) -> None:
    """Claim keys that others hold, and wait."""
    table.claim(who, keys, NOW)
    table.wait(Waiter(who, keys, takes_over))


def leased(change: Change) -> list[tuple[bytes, Key]]:
    """Which claims a step gave which key."""
    return [(answer.claim_id, answer.key) for answer in change.answers if answer.lease is not None]


def test_tokens_only_rise() -> None:
    """A lease that comes later has the larger token, of whatever key, after whatever end."""
    table = LeaseTable(next_token=5)
    tokens = hold(table, claimant("1"), A, B)
    table.release(b"1", NOW)
    tokens += hold(table, claimant("2"), A)
    table.settle(A, b"v")
    tokens += hold(table, claimant("3"), A)
    assert tokens == [5, 6, 7, 8]


def test_tokens_rise_above_restored_ones() -> None:
    """What was given before a restart is never given again, also if the restored leases come in any order."""
    table = LeaseTable(next_token=3)
    table.restore(Lease(A, 9, claimant("1"), NOW, {HERE}))
    table.restore(Lease(B, 4, claimant("1"), NOW, {HERE}))
    assert hold(table, claimant("2"), C) == [10]


def test_second_claimant_sees_the_holder() -> None:
    """Who comes second is told who computes, and gets what is free."""
    table = LeaseTable()
    hold(table, claimant("1"), A)
    leases = table.claim(claimant("2"), [A, B], NOW)
    assert [lease.claimant.claim_id for lease in leases] == [b"1", b"2"]


def test_asking_again_gives_the_same_lease() -> None:
    """A claim that is repeated after a lost connection has what it had: no second token."""
    table = LeaseTable()
    tokens = hold(table, claimant("1"), A, B)
    assert hold(table, claimant("1"), A, B) == tokens
    assert table.next_token == max(tokens) + 1


def test_release_hands_over_in_order_of_arrival() -> None:
    """First come, first served."""
    table = LeaseTable()
    hold(table, claimant("1"), A)
    queue(table, claimant("2"), A)
    queue(table, claimant("3"), A)
    assert leased(table.release(b"1", NOW)) == [(b"2", A)]
    assert leased(table.release(b"2", NOW)) == [(b"3", A)]
    assert leased(table.release(b"3", NOW)) == []


def test_end_of_a_process_hands_over_in_order_of_arrival() -> None:
    """What a dead process held goes to the first who waits and lives."""
    table = LeaseTable()
    hold(table, claimant("1"), A)
    queue(table, claimant("2"), A)
    queue(table, claimant("3", process=ELSEWHERE), A)
    queue(table, claimant("4", process=ELSEWHERE), A)
    assert leased(table.process_ended(HERE, NOW)) == [(b"3", A)]
    assert not table.concerns(HERE)


def test_revoke_hands_over_in_order_of_arrival() -> None:
    """A lease that is broken by hand goes to the first who waits, and its token counts no more."""
    table = LeaseTable()
    [token] = hold(table, claimant("1"), A)
    queue(table, claimant("2"), A)
    queue(table, claimant("3"), A)
    assert leased(table.revoke([A], NOW)) == [(b"2", A)]
    assert not table.is_valid(A, token)


def test_value_answers_all_who_wait() -> None:
    """One computation serves everybody, and its lease is over."""
    table = LeaseTable()
    hold(table, claimant("1"), A)
    queue(table, claimant("2"), A)
    queue(table, claimant("3"), A, takes_over=True)
    change = table.settle(A, b"v")
    assert change.answers == [Answer(b"2", A, value=b"v"), Answer(b"3", A, value=b"v")]
    assert [lease.claimant.claim_id for lease in change.dropped] == [b"1"]
    assert (table.lease(A), table.waiting) == (None, 0)


def test_failure_answers_those_who_do_not_take_over() -> None:
    """Who waits for the outcome gets the failure; the first who wants to try gets the lease, the next waits on."""
    table = LeaseTable()
    hold(table, claimant("1"), A)
    queue(table, claimant("2"), A)
    queue(table, claimant("3"), A, takes_over=True)
    queue(table, claimant("4"), A)
    queue(table, claimant("5"), A, takes_over=True)
    change = table.fail(A, "out of memory", NOW)
    failed = [(answer.claim_id, answer.failure) for answer in change.answers if answer.failure is not None]
    assert failed == [(b"2", "out of memory"), (b"4", "out of memory")]
    assert leased(change) == [(b"3", A)]
    assert table.waiters(A) == 1


def test_who_left_is_in_no_queue() -> None:
    """A claim that was given up gets nothing, of no key that it waited for."""
    table = LeaseTable()
    hold(table, claimant("1"), A, B)
    queue(table, claimant("2"), A, B)
    table.leave(b"2")
    assert (table.waiters(A), table.waiters(B), table.waiting) == (0, 0, 0)
    assert table.release(b"1", NOW).answers == []


def test_waiting_for_several_keys_ends_at_the_first() -> None:
    """The first key that is settled answers the claim; it waits for the others no more."""
    table = LeaseTable()
    hold(table, claimant("1"), A)
    hold(table, claimant("2"), B)
    queue(table, claimant("3"), A, B)
    assert table.settle(B, b"v").answers == [Answer(b"3", B, value=b"v")]
    assert table.waiters(A) == 0


def test_own_context_is_a_deadlock() -> None:
    """Who holds a key in an outer block is told at once, and gets nothing of the rest."""
    table = LeaseTable()
    hold(table, claimant("1", context="task"), A)
    with pytest.raises(ClaimDeadlock, match="in an outer block"):
        table.claim(claimant("2", context="task"), [B, A], NOW)
    assert table.lease(B) is None


def test_two_contexts_crosswise_are_a_deadlock() -> None:
    """Each holds what the other wants: the second is refused, the first waits on."""
    table = LeaseTable()
    hold(table, claimant("1", context="x"), A)
    hold(table, claimant("2", context="y"), B)
    queue(table, claimant("3", context="x"), B)
    with pytest.raises(ClaimDeadlock, match="waits for what this thread or task holds"):
        queue(table, claimant("4", context="y"), A)
    assert (table.waiters(A), table.waiters(B)) == (0, 1)


def test_chain_of_three_is_a_deadlock() -> None:
    """A circle through others is found as well."""
    table = LeaseTable()
    for name, key in zip("xyz", (A, B, C), strict=True):
        hold(table, claimant(name, context=name), key)
    queue(table, claimant("1", context="x"), B)
    queue(table, claimant("2", context="y"), C)
    with pytest.raises(ClaimDeadlock):
        queue(table, claimant("3", context="z"), A)


def test_holder_that_does_not_wait_is_no_deadlock() -> None:
    """Holding something while waiting is allowed as long as the holder of the other key goes on."""
    table = LeaseTable()
    hold(table, claimant("1", context="x"), A)
    hold(table, claimant("2", context="y"), B)
    queue(table, claimant("3", context="x"), B)
    table.leave(b"3")
    queue(table, claimant("4", context="y"), A)
    assert table.waiters(A) == 1


def test_one_key_outside_the_circle_is_no_deadlock() -> None:
    """A claim for several keys goes on when any of them is settled."""
    table = LeaseTable()
    hold(table, claimant("1", context="x"), A)
    hold(table, claimant("2", context="y"), B)
    hold(table, claimant("3", context="z"), C)
    queue(table, claimant("4", context="x"), B)
    queue(table, claimant("5", context="y"), A, C)
    assert table.waiting == 2


def test_other_waiter_with_a_way_out_is_no_deadlock() -> None:
    """A circle holds nobody if one in it waits for something else, too."""
    table = LeaseTable()
    hold(table, claimant("1", context="x"), A)
    hold(table, claimant("2", context="y"), B)
    hold(table, claimant("3", context="z"), C)
    queue(table, claimant("4", context="x"), B, C)
    queue(table, claimant("5", context="y"), A)
    assert table.waiting == 2


def test_long_chain_of_waiting_contexts_is_followed_to_its_end() -> None:
    """Four hundred tasks, each waiting for the next, are no deadlock; with the first and the last tied they are one."""
    table = LeaseTable()
    keys = [(Kind.MODEL, str(number)) for number in range(400)]
    for key in keys:
        hold(table, claimant(f"of {key[1]}", context=key[1]), key)
    for holder, wanted in reversed(list(pairwise(keys))):
        queue(table, claimant(f"for {wanted[1]}", context=holder[1]), wanted)
    assert table.waiting == 399
    with pytest.raises(ClaimDeadlock):
        queue(table, claimant("last", context=keys[-1][1]), keys[0])


def test_context_that_waits_anew_still_waits_when_its_older_claim_leaves() -> None:
    """The end of a claim whose connection was lost does not hide that its task waits under another one."""
    table = LeaseTable()
    hold(table, claimant("1", context="x"), A)
    hold(table, claimant("2", context="y"), B)
    queue(table, claimant("lost", context="x"), B)
    queue(table, claimant("anew", context="x"), B)
    table.leave(b"lost")
    with pytest.raises(ClaimDeadlock):
        queue(table, claimant("4", context="y"), A)


def test_joined_lease_lasts_until_both_processes_ended() -> None:
    """A parent that ends leaves the lease to the child that joined it."""
    table = LeaseTable()
    [token] = hold(table, claimant("1"), A)
    table.join(A, ELSEWHERE)
    assert table.process_ended(HERE, NOW) == Change()
    assert table.is_valid(A, token)
    assert [lease.token for lease in table.process_ended(ELSEWHERE, NOW).dropped] == [token]


def test_invisible_process_never_ends() -> None:
    """Processes of other PID namespaces all look alike: what they hold and wait for ends with none of them."""
    table = LeaseTable()
    hold(table, claimant("1", process=INVISIBLE), A)
    queue(table, claimant("2", process=INVISIBLE), A)
    assert table.process_ended(INVISIBLE, NOW) == Change()
    assert (table.lease(A) is None, table.waiters(A)) == (False, 1)


def test_lease_of_an_invisible_process_does_not_end_with_one_that_joined() -> None:
    """The owner may well live on: the end of its child says nothing about it."""
    table = LeaseTable()
    [token] = hold(table, claimant("1", process=INVISIBLE), A)
    table.join(A, HERE)
    assert table.process_ended(HERE, NOW) == Change()
    assert table.is_valid(A, token)
