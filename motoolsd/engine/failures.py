"""Failures of computations, for as long as their owners asked to have them remembered.

Layer: engine. Imports core.
Invariant: never a value: a failure ends by its time, by a value, or with the daemon.
"""

from __future__ import annotations

from typing import Final

from motoolsd.core.leases import Key
from motoolsd.core.ports import Clock

FAILURES_MAX: Final = 65_536
"""Of more, the oldest go."""


class RecordedFailures:
    """Why keys could not be computed."""

    def __init__(self, clock: Clock) -> None:
        """Remember nothing yet."""
        self._clock = clock
        self._failures: dict[Key, tuple[str, float]] = {}

    def record(self, key: Key, reason: str, retry_after_s: float) -> None:
        """Remember a failure for a while."""
        self._failures.pop(key, None)
        self._failures[key] = (reason, self._clock.monotonic_s() + retry_after_s)
        if len(self._failures) > FAILURES_MAX:
            del self._failures[next(iter(self._failures))]

    def reason(self, key: Key) -> str | None:
        """Why a key is not to be tried yet; None if it may be."""
        if key not in self._failures:
            return None
        reason, until_s = self._failures[key]
        if self._clock.monotonic_s() >= until_s:
            del self._failures[key]
            return None
        return reason

    def forget(self, key: Key) -> None:
        """The key has a value."""
        self._failures.pop(key, None)
