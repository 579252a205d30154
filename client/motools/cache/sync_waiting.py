"""Waiting for what somebody else computes, and giving a claim up; blocking.

Layer: motools.cache. Imports claims, connection, launch, lease_calls and recovery.
Invariant: a claim that waits uses a connection of its own, so that other threads go on. Whatever ends the wait, the
daemon is told, or notices by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from motools.cache import lease_calls
from motools.cache.calls import Call
from motools.cache.claims import GIVE_UP_TIMEOUT_S, NOTICE_AFTER_S, NOTICE_INTERVAL_S, say_whom_it_waits_for
from motools.cache.clock import monotonic_s, pause
from motools.cache.connection import BlockingConnection
from motools.cache.entries import LeaseEntry
from motools.cache.errors import UNAVAILABLE, CacheError, ClaimTimeout
from motools.cache.launch import connect
from motools.cache.recovery import Recovery
from motools.cache.unreleased import remember, say_not_released
from motoolsd.wire.entries import KeyState

if TYPE_CHECKING:
    from motools.cache.sync import SyncCache


def wait_for_claim(
    cache: SyncCache, call: Call[list[KeyState]], holder: LeaseEntry, timeout_s: float | None
) -> list[KeyState]:
    """Wait for an answer on a connection of its own, over restarts of the daemon.

    Raises:
        ClaimTimeout: the time is over.
        CacheError: the daemon cannot be had, or refuses.
    """
    started_s = monotonic_s()
    deadline_s = None if timeout_s is None else started_s + timeout_s
    notice_s = started_s + NOTICE_AFTER_S
    recovery: Recovery | None = None
    while True:
        connection: BlockingConnection | None = None
        try:
            connection = _open(cache, recovery)
            connection.ask(call.request_for(None))
            recovery = None
            while True:
                now_s = monotonic_s()
                until_s = notice_s if deadline_s is None else min(notice_s, deadline_s)
                if (reply := connection.answer(until_s - now_s)) is not None:
                    return call.result(reply)
                if deadline_s is not None and monotonic_s() >= deadline_s:
                    raise ClaimTimeout(
                        f"pid {holder.pid} still computes {holder.kind} {holder.key} after {timeout_s:g} s"
                    )
                say_whom_it_waits_for(holder)
                notice_s = monotonic_s() + NOTICE_INTERVAL_S
        except UNAVAILABLE as error:
            recovery = recovery or Recovery(cache._timeout_s, monotonic_s(), is_write=False)  # noqa: SLF001
            pause(recovery.after(error, monotonic_s()))
        finally:
            if connection is not None:
                connection.close()


def _open(cache: SyncCache, recovery: Recovery | None) -> BlockingConnection:
    left_s = cache._timeout_s if recovery is None else max(recovery.left_s(monotonic_s()), 0.001)  # noqa: SLF001
    connected = connect(cache._directory, timeout_s=left_s, autostart=cache._autostart, create=cache._creates)  # noqa: SLF001
    return BlockingConnection(connected, left_s)


def give_up(cache: SyncCache, claim_id: bytes, error: BaseException | None = None) -> None:
    """Release a claim; without a daemon, with the next connection, or when this process ends.

    Args:
        cache: that made the claim.
        claim_id: of the claim.
        error: why; where no daemon could be had, it is not asked for once more: the caller has waited for it already.
    """
    if isinstance(error, UNAVAILABLE):
        remember(cache._directory, claim_id)  # noqa: SLF001
        return
    try:
        cache._call(lease_calls.release(claim_id), timeout_s=min(cache._timeout_s, GIVE_UP_TIMEOUT_S))  # noqa: SLF001
    except CacheError:
        say_not_released()
        remember(cache._directory, claim_id)  # noqa: SLF001
