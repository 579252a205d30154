"""Messages about leases: who computes a key, and who waits for it.

Layer: wire. Imports fields, keys and entries.
Invariant: as in messages: fields are only ever added, with a default. Who asks is known from the socket.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from motoolsd.wire.entries import KeyState, LeaseRow
from motoolsd.wire.fields import KEYS_PER_REQUEST_MAX, ClaimId, Json, Message, Page, Text, Value
from motoolsd.wire.keys import Kind


class Claim(Message, tag="claim", frozen=True, kw_only=True):
    """Ask for values, and for the leases of those that are missing. Who asks is known from the socket."""

    claim_id: ClaimId
    context: Annotated[bytes, Meta(min_length=1, max_length=64)]
    """Names the thread or task, among all of all processes: what waits there cannot go on with what it holds."""
    kind: Kind
    keys: Annotated[list[Text], Meta(min_length=1, max_length=KEYS_PER_REQUEST_MAX)]
    wait: bool = False
    """Whether to answer only when at least one key has a value, a lease or a failure; such a request may stay open for
    hours, and does not count among the outstanding ones."""
    takes_over: bool = False
    """Whether to have the lease after a failure was recorded, instead of the failure."""
    work_dir: Value | None = None
    """A directory below the cache's, relative to it, that no clean-up touches while the claim lasts."""
    dataset_hash: Text | None = None
    """The dataset that a model is trained from: protected, too."""
    version: Text | None = None
    is_strict: bool = False
    """As in `Lookup`: a value of another version may be computed anew."""
    inputs: Annotated[list[Json], Meta(max_length=KEYS_PER_REQUEST_MAX)] = msgspec.field(default_factory=list)
    """What the keys were made from, as `Missed` tells it; none, or one for each key."""


class Release(Message, tag="release", frozen=True, kw_only=True):
    """Give a claim up: it waits no more, and its leases go to the next. Harmless when repeated."""

    claim_id: ClaimId


class RecordFailure(Message, tag="fail", frozen=True, kw_only=True):
    """Give a lease up because the computation failed, and say why to those who wait."""

    kind: Kind
    key: Text
    token: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    reason: Text
    retry_after_s: Annotated[float, Meta(ge=0)] | None = None
    """For how long later claims get the failure too; None: only those that wait now."""
    is_retry: bool = False


class JoinLease(Message, tag="join", frozen=True, kw_only=True):
    """Let the leases of a claim last until the asking process has ended too."""

    claim_id: ClaimId


class BreakLease(Message, tag="break_lease", frozen=True, kw_only=True):
    """Take the lease of a key away from whoever holds it."""

    key: Text
    kind: Kind | None = None


class ListLeases(Message, tag="list_leases", frozen=True, kw_only=True):
    """Stream all leases, the oldest first."""


class Claimed(Message, tag="claimed", frozen=True, kw_only=True):
    """The state of each key of a Claim, in its order."""

    states: list[KeyState]


class Released(Message, tag="released", frozen=True, kw_only=True):
    """How many leases were given up, joined or broken."""

    count: int = 0


class LeasePage(Page, tag="lease_page", frozen=True, kw_only=True):
    """Some leases."""

    items: list[LeaseRow]
