"""What the fields of messages may hold, and the limits that keep one message small.

Layer: wire. Imports nothing.
Invariant: whatever decodes into these types is bounded.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

TEXT_SIZE_MAX = 4 * 1024 * 1024
"""Characters or bytes in one id, key, path or configuration."""

KEYS_PER_REQUEST_MAX = 10_000
FILES_PER_ENTRY_MAX = 1_000
COUNT_MAX = 2**31 - 1

Text = Annotated[str, Meta(min_length=1, max_length=TEXT_SIZE_MAX)]
Value = Annotated[bytes, Meta(min_length=1, max_length=TEXT_SIZE_MAX)]
Json = Annotated[bytes, Meta(min_length=1, max_length=TEXT_SIZE_MAX)]
Keys = Annotated[list[Text], Meta(max_length=KEYS_PER_REQUEST_MAX)]
Files = Annotated[list[Value], Meta(max_length=FILES_PER_ENTRY_MAX)]
"""Paths below the cache directory, relative to it."""
Seconds = Annotated[float, Meta(ge=0, le=1e10)]
Count = Annotated[int, Meta(ge=1, le=COUNT_MAX)]
Token = Annotated[int, Meta(ge=0, le=2**63 - 1)]
OriginId = Annotated[bytes, Meta(min_length=16, max_length=16)]
"""Names a process that stores entries; made of all that is known of it."""
ClaimId = Annotated[bytes, Meta(min_length=16, max_length=16)]
"""Random: names one claim, so that asking again after a lost connection gives the same answer."""


class Outcome(StrEnum):
    """What came of a computation."""

    SUCCESS = "success"
    FAILED = "failed"
    REFUSED = "refused"
    """A model's provider would not do it."""
    PARTIAL = "partial"
    """It ended before its end."""


class Message(Struct, tag_field="op", frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What every body is: a map with its operation's name under `op`."""


class Page(Message, frozen=True, kw_only=True):
    """A part of a stream; `is_last` ends it."""

    is_last: bool = False
