"""Why a lookup hits or misses, in one word.

Layer: wire. Imports nothing.
Invariant: the words are a contract with scripts that read them: one is added now and then, none is renamed.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The fixed vocabulary of `motools cache why`."""

    HIT = "hit"
    """It does not miss: there is an entry, and it counts."""
    NEVER_COMPUTED = "never_computed"
    """No entry has these inputs, none has inputs that are near, and nothing is remembered of the key."""
    DIFFERENT_INPUTS = "different_inputs"
    """No entry has these inputs, but others have inputs that are near."""
    EXPIRED = "expired"
    """There is an entry, and its time is over."""
    EVICTED = "evicted"
    """There was an entry, and a clean-up took it to keep within its limits."""
    CLEARED = "cleared"
    """There was an entry, and somebody removed it."""
    FILE_GONE = "file_gone"
    """There is an entry, and a file that belongs to it is not where it was."""
    DAMAGED = "damaged"
    """There is an entry, and it does not fit its checksum."""
    OTHER_VERSION = "other_version"
    """There is an entry, computed under a version that does not go with the one asked for."""
    INVALIDATED = "invalidated"
    """There is an entry, and somebody said that it is not to be used."""
    FAILED = "failed"
    """It was tried, and the computation failed."""
    REFUSED = "refused"
    """It was tried, and a model's provider would not do it."""
    PARTIAL = "partial"
    """It was tried, and ended before its end."""
    COMPUTING = "computing"
    """Somebody computes it at this moment."""
