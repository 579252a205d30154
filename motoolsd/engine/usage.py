"""Hits counted in memory, to be written in batches.

Layer: engine. Imports store.writes and wire.keys.
Invariant: a lookup never causes a write of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from motoolsd.store.writes import Usage
from motoolsd.wire.keys import Kind


class UsageCounts:
    """How often each entry was used since the last flush."""

    def __init__(self, entries_max: int) -> None:
        """Count at most `entries_max` different entries of a kind between two flushes; those above are not counted."""
        self._hits: dict[Kind, dict[str, int]] = {kind: {} for kind in Kind}
        self._entries_max = entries_max
        self.is_full = False
        """Whether some kind has so many entries that it should be written now."""

    def count(self, kind: Kind, keys: Iterable[str], values: Iterable[bytes | None]) -> None:
        """Count the keys that had a value."""
        hits = self._hits[kind]
        for key, value in zip(keys, values, strict=False):
            if value is None:
                continue
            if key in hits:
                hits[key] += 1
            elif len(hits) < self._entries_max:
                hits[key] = 1
                if len(hits) == self._entries_max:
                    self.is_full = True

    def add(self, kind: Kind, counts: Mapping[str, int]) -> None:
        """Count hits that somebody else has counted before, by key."""
        hits = self._hits[kind]
        for key, count in counts.items():
            if key in hits:
                hits[key] += count
            elif len(hits) < self._entries_max:
                hits[key] = count
        self.is_full = self.is_full or len(hits) >= self._entries_max

    def take(self, kind: Kind) -> Usage | None:
        """What was counted of a kind, as a write, or None; its counting starts anew."""
        hits = self._hits[kind]
        if not hits:
            return None
        self._hits[kind] = {}
        self.is_full = any(len(others) >= self._entries_max for others in self._hits.values())
        return Usage(kind, hits)
