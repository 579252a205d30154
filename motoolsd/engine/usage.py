"""Hits counted in memory, to be written in batches.

Layer: engine. Imports store.writes and wire.keys.
Invariant: a lookup never causes a write of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from motoolsd.store.writes import Usage
from motoolsd.wire.keys import Kind


class UsageCounts:
    """How often each entry was used since the last flush."""

    def __init__(self, entries_max: int) -> None:
        """Count at most `entries_max` different entries between two flushes; those above are not counted."""
        self._hits: dict[Kind, dict[str, int]] = {kind: {} for kind in Kind}
        self._entries_max = entries_max

    def count(self, kind: Kind, keys: Iterable[str], values: Iterable[bytes | None]) -> None:
        """Count the keys that had a value."""
        hits = self._hits[kind]
        for key, value in zip(keys, values, strict=True):
            if value is None:
                continue
            if key in hits:
                hits[key] += 1
            elif len(hits) < self._entries_max:
                hits[key] = 1

    def take(self) -> list[Usage]:
        """What was counted, as writes; counting starts anew."""
        taken = [Usage(kind, hits) for kind, hits in self._hits.items() if hits]
        self._hits = {kind: {} for kind in Kind}
        return taken
