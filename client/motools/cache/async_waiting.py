"""Waiting for what somebody else computes, and giving a claim up; for asyncio and trio.

Layer: motools.cache. Imports claims, files, lease_calls, publishing and recording.
Invariant: works over whatever answers its two kinds of questions, a daemon or a dictionary.
"""

from __future__ import annotations

import os
from typing import Protocol, TypeVar

import anyio

from motools.cache import lease_calls
from motools.cache.calls import Call
from motools.cache.claims import (
    GIVE_UP_TIMEOUT_S,
    NOTICE_AFTER_S,
    NOTICE_INTERVAL_S,
    Target,
    overdue,
    say_whom_it_waits_for,
)
from motools.cache.entries import DatasetEntry, LeaseEntry
from motools.cache.errors import UNAVAILABLE, CacheError
from motools.cache.publishing import DatasetPut
from motools.cache.recording import Owned, Provenance, Record
from motools.cache.unreleased import remember, say_not_released
from motoolsd.wire.entries import KeyState

T = TypeVar("T")


class Asker(Protocol):
    """What claims are made of: a `Cache`, or an `InMemoryCache`."""

    _provenance: Provenance
    _held: set[bytes]
    _in_use: set[bytes]

    @property
    def directory(self) -> str | None:
        """The cache's; None: it is in memory."""
        ...

    async def _ask(self, call: Call[T]) -> T:
        """Carry a call out, within the client's timeout."""
        ...

    async def _ask_for_hours(self, call: Call[T]) -> T:
        """Carry a call out that waits for somebody else's work, over restarts of the daemon."""
        ...

    async def _own(self, target: Target, value: object, run_dir: object, record: Record) -> Owned:
        """What an entry owns with a value, brought to disk."""
        ...

    async def _keep(self, put: DatasetPut) -> DatasetEntry:
        """Store a dataset with its content."""
        ...

    def _work_path(self, work_dir: str | os.PathLike[str] | None) -> bytes | None:
        """A directory to be worked in, relative to the cache directory."""
        ...


async def wait_for_claim(
    asker: Asker, call: Call[list[KeyState]], holder: LeaseEntry, timeout_s: float | None
) -> list[KeyState]:
    """Wait for an answer, and say after a while whom for.

    Raises:
        ClaimTimeout: the time is over.
        CacheError: the daemon cannot be had, or refuses.
    """
    failure: CacheError | None = None
    states: list[KeyState] | None = None
    with anyio.move_on_after(timeout_s):
        async with anyio.create_task_group() as group:
            group.start_soon(_say_now_and_then, holder)
            # Caught inside the group, which would wrap it.
            try:
                states = await asker._ask_for_hours(call)  # noqa: SLF001
            except CacheError as error:
                failure = error
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if states is None:
        raise overdue(holder, timeout_s)
    return states


async def _say_now_and_then(holder: LeaseEntry) -> None:
    await anyio.sleep(NOTICE_AFTER_S)
    while True:
        say_whom_it_waits_for(holder)
        await anyio.sleep(NOTICE_INTERVAL_S)


async def give_up(asker: Asker, claim_id: bytes, error: BaseException | None = None) -> None:
    """Release a claim, cancelled or not; as the blocking client's."""
    if isinstance(error, UNAVAILABLE):
        _remember(asker, claim_id)
        return
    try:
        with anyio.move_on_after(GIVE_UP_TIMEOUT_S, shield=True):
            await asker._ask(lease_calls.release(claim_id))  # noqa: SLF001
            return
    except CacheError:
        pass
    say_not_released()
    _remember(asker, claim_id)


def _remember(asker: Asker, claim_id: bytes) -> None:
    if (directory := asker.directory) is not None:
        remember(directory, claim_id)
