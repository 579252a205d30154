"""What a value depends on beside its row: files that must be there, a time that must not be over.

Layer: core. Imports deadlines.
Invariant: pure. Most values depend on nothing, and have no guard.
"""

from __future__ import annotations

from typing import NamedTuple

from motoolsd.core.deadlines import Moment

MISSING = "file gone"
EXPIRED = "expired"
DAMAGED = "damaged"
"""Why an entry misses though it has a row, as the row says it."""


class Guard(NamedTuple):
    """What is to be looked at before a value is given."""

    paths: tuple[bytes, ...] = ()
    """Owned files and directories, relative to the cache directory."""
    expires: Moment | None = None
    version: str | None = None
    """Of what computed it: for those who ask under a version of their own."""

    @property
    def is_uncertain(self) -> bool:
        """Whether it can end by itself: its files may be gone, or its time over."""
        return bool(self.paths) or self.expires is not None
