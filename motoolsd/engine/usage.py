"""What lookups came to, counted in memory for each audience, to be written in batches.

Layer: engine. Imports store.statistics and wire.keys.
Invariant: a lookup never causes a write of its own; what is counted between two flushes is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from motoolsd.core.ports import Clock
from motoolsd.store.statistics import HOUR_S, MissedKey, UseReport
from motoolsd.wire.keys import Kind

MISSES_KEPT: Final = 1_000
"""Misses whose keys are kept between two flushes; those above are only counted."""
INPUTS_KEPT: Final = 200
"""Of one audience."""


class Audience(NamedTuple):
    """Whom lookups are counted for."""

    job: str = ""
    labels: str = "{}"
    """Canonical JSON."""


class _Miss:
    """A key that was missed since the last flush. No tuple: it is counted at every miss."""

    __slots__ = ("is_mismatch", "missed_at", "times")

    def __init__(self, missed_at: str, *, is_mismatch: bool) -> None:
        """Once."""
        self.missed_at = missed_at
        self.is_mismatch = is_mismatch
        self.times = 1


class Tally:
    """What the lookups of one audience came to since the last flush."""

    __slots__ = ("__weakref__", "_counts", "audience", "hits", "inputs", "is_listed", "misses", "unnamed")

    def __init__(self, counts: UsageCounts, audience: Audience) -> None:
        """Nothing yet."""
        self._counts = counts
        self.audience = audience
        self.is_listed = False
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.hits: dict[Kind, dict[str, int]] = {kind: {} for kind in Kind}
        self.misses: dict[Kind, dict[str, _Miss]] = {kind: {} for kind in Kind}
        self.unnamed: dict[Kind, int] = {}
        self.inputs: dict[tuple[Kind, str], bytes] = {}

    def count(self, kind: Kind, keys: Iterable[str], values: Iterable[bytes | None]) -> None:
        """Count the keys that had a value as hits, the others as misses."""
        if not self.is_listed:
            self._counts.enlist(self)
        hits, misses = self.hits[kind], self.misses[kind]
        for key, value in zip(keys, values, strict=False):
            if value is not None:
                if key in hits:
                    hits[key] += 1
                elif self._counts.has_room():
                    hits[key] = 1
            elif key in misses:
                misses[key].times += 1
            else:
                self._miss_first(kind, key, is_mismatch=False)

    def miss(self, kind: Kind, key: str, *, is_mismatch: bool = False) -> None:
        """Count a miss."""
        if not self.is_listed:
            self._counts.enlist(self)
        if (earlier := self.misses[kind].get(key)) is not None:
            earlier.times += 1
        else:
            self._miss_first(kind, key, is_mismatch=is_mismatch)

    def _miss_first(self, kind: Kind, key: str, *, is_mismatch: bool) -> None:
        if self._counts.keeps_miss():
            self.misses[kind][key] = _Miss(self._counts.now_text(), is_mismatch=is_mismatch)
        else:
            self.unnamed[kind] = self.unnamed.get(kind, 0) + 1

    def add(self, kind: Kind, counts: Mapping[str, int]) -> None:
        """Count hits that somebody else has counted before, by key."""
        if not self.is_listed:
            self._counts.enlist(self)
        hits = self.hits[kind]
        for key, count in counts.items():
            if key in hits:
                hits[key] += count
            elif self._counts.has_room():
                hits[key] = count

    def explain(self, kind: Kind, inputs: Mapping[str, bytes]) -> None:
        """Keep what keys that missed were made from."""
        for key, made_from in inputs.items():
            if len(self.inputs) < INPUTS_KEPT:
                self.inputs[kind, key] = made_from
        if self.inputs and not self.is_listed:
            self._counts.enlist(self)

    def report(self, hour: int) -> UseReport:
        """All of it, as a write."""
        misses = [
            MissedKey(kind, key, miss.missed_at, miss.is_mismatch, miss.times, self.inputs.pop((kind, key), None))
            for kind, missed in self.misses.items()
            for key, miss in missed.items()
        ]
        return UseReport(
            hour=hour,
            job=self.audience.job,
            labels=self.audience.labels,
            hits={kind: hits for kind, hits in self.hits.items() if hits},
            misses=tuple(misses),
            unnamed=dict(self.unnamed),
            inputs=dict(self.inputs),
        )


class UsageCounts:
    """All tallies."""

    def __init__(self, entries_max: int, clock: Clock) -> None:
        """Count at most `entries_max` different entries between two flushes; those above are not counted."""
        self._entries_max = entries_max
        self._clock = clock
        self._entries = 0
        self._misses = 0
        self._listed: list[Tally] = []
        self._tallies: WeakValueDictionary[Audience, Tally] = WeakValueDictionary()
        self.is_full = False
        """Whether so many entries were used that they should be written now."""

    @property
    def silent(self) -> Tally:
        """One that nobody reads."""
        tally = Tally(self, Audience())
        tally.is_listed = True
        return tally

    def has_room(self) -> bool:
        """Count one more entry, if there is room for it."""
        self._entries += 1
        self.is_full = self._entries >= self._entries_max
        return self._entries <= self._entries_max

    def keeps_miss(self) -> bool:
        """Count one more miss; whether its key may be kept."""
        self._misses += 1
        return self._misses <= MISSES_KEPT

    def now_text(self) -> str:
        """The time stamp of what is counted now."""
        return self._clock.utc_text()

    def tally(self, audience: Audience) -> Tally:
        """Where a connection's lookups are counted: with those of others that ask for the same."""
        if (tally := self._tallies.get(audience)) is None:
            tally = self._tallies[audience] = Tally(self, audience)
        return tally

    def enlist(self, tally: Tally) -> None:
        """It has something to tell."""
        tally.is_listed = True
        self._listed.append(tally)

    def take(self) -> UseReport | None:
        """What one of them has to tell, or None; its counting starts anew."""
        if not self._listed:
            return None
        # The first that had something to tell: what was missed first stands there first.
        tally = self._listed.pop(0)
        report = tally.report(int(self._clock.moment().wall_s) // HOUR_S)
        tally.clear()
        tally.is_listed = False
        if not self._listed:
            self._entries = self._misses = 0
            self.is_full = False
        return report
