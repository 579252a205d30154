"""What a write came to.

Layer: store. Imports core and wire.
Invariant: an outcome says all that memory has to learn from a write, so that nobody reads it again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from typing import ClassVar

import msgspec

from motoolsd.core.errors import RequestError
from motoolsd.core.guards import Guard
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import Stored, WriteReply

StoredEntry = tuple[Kind, str, bytes]
Key = tuple[Kind, str]


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What a committed write changed, for the index, and its reply."""

    reply: WriteReply = Stored()
    stored: list[StoredEntry] = []
    guards: Mapping[Key, Guard] = {}
    """What those of `stored` depend on that depend on something."""
    removed: list[Key] = []
    unfulfilled: list[Key] = []
    """Keys whose lease ended without a value."""
    emptied: tuple[Kind, ...] = ()
    is_large: bool = False
    """So many entries of other keys were removed that they are not named: what is in memory is to be read anew."""
    number: int = 0
    """A count, or the number of what was made: what the change says of itself."""


Outcome = Applied | RequestError


class Change(msgspec.Struct, frozen=True):
    """An internal write: it has no client, and so no reply to store. A subclass is its own content."""

    frees_room: ClassVar[bool] = False
    """Whether it is a part of what frees room, and may take of what is kept for that."""

    @property
    def keys(self) -> Collection[Key]:
        """The keys that it may change the value of."""
        return ()

    def apply(self, connection: sqlite3.Connection, now: str, /) -> Outcome:
        """Carry it out inside the open transaction. A refusal comes before the first change.

        Args:
            connection: the writer's.
            now: the time stamp of its rows.
        """
        raise NotImplementedError
