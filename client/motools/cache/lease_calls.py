"""The table of calls about leases.

Layer: motools.cache. Imports arguments, calls, entries, errors and motoolsd.wire.
Invariant: as in `calls`.
"""

from __future__ import annotations

from motools.cache.arguments import check_seconds, optional_kind, text
from motools.cache.calls import Call
from motools.cache.entries import LeaseEntry, lease_entry
from motools.cache.errors import CacheProtocolError
from motoolsd.wire.entries import KeyState
from motoolsd.wire.keys import Kind
from motoolsd.wire.leases import (
    BreakLease,
    Claim,
    Claimed,
    JoinLease,
    LeasePage,
    ListLeases,
    RecordFailure,
    Release,
    Released,
)


def claim(request: Claim) -> Call[list[KeyState]]:
    """How each key stands; without a daemon, none: the caller computes uncached."""

    def decode(reply: Claimed) -> list[KeyState]:
        if len(reply.states) != len(request.keys):
            raise CacheProtocolError(f"the daemon gave {len(reply.states)} states for {len(request.keys)} keys")
        return reply.states

    return Call(request, Claimed, decode, [])


def release(claim_id: bytes) -> Call[int]:
    """Give a claim up; how many leases it held."""
    return Call(Release(claim_id=claim_id), Released, _count, 0)


def record_failure(kind: Kind, key: str, token: int, reason: str, retry_after_s: float | None) -> Call[int]:
    """Give a lease up because the computation failed."""
    if retry_after_s is not None:
        check_seconds(retry_after_s, "retry_after_s")
    why = text(reason, "reason")
    request = RecordFailure(kind=kind, key=key, token=token, reason=why, retry_after_s=retry_after_s)
    return Call(request, Released, _count, 0)


def join(claim_id: bytes) -> Call[int]:
    """Let the leases of a claim last for this process too."""
    return Call(JoinLease(claim_id=claim_id), Released, _count)


def break_lease(key: str, kind: str | None) -> Call[int]:
    """Take a lease away; how many there were."""
    return Call(BreakLease(key=text(key, "key"), kind=optional_kind(kind)), Released, _count)


def list_leases() -> Call[list[LeaseEntry]]:
    """All leases, the oldest first."""

    def decode(pages: list[LeasePage]) -> list[LeaseEntry]:
        return [lease_entry(row) for page in pages for row in page.items]

    return Call(ListLeases(), LeasePage, decode, is_stream=True)


def _count(reply: Released) -> int:
    return reply.count
