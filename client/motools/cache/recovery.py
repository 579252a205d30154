"""What to do when a call fails on its way: retry, how soon, and with what to give up.

Layer: motools.cache. Imports errors and motoolsd.wire.
Invariant: no I/O and no clock; both transports decide by it, so that they cannot drift apart.
"""

from __future__ import annotations

import os

from motools.cache.errors import (
    CacheError,
    CacheUnavailable,
    ConnectionLost,
    DaemonBusy,
    DaemonNotRunning,
    PeerRefused,
    StorageFailed,
)
from motoolsd.wire.messages import RequestKey, Welcome
from motoolsd.wire.version import __version__, release

PAUSE_FIRST_S = 0.005
PAUSE_LAST_S = 0.25
"""Between attempts: doubled from the first to the last."""


RENEWALS_MAX = 10
STORAGE_RETRIES_MAX = 2
"""After failures of the disk that leave the outcome unknown."""


class Recovery:
    """One call's patience."""

    def __init__(self, timeout_s: float, started_s: float, *, is_write: bool) -> None:
        """Remember when the call began.

        Args:
            timeout_s: for the whole call, with reconnects and retries inside it.
            started_s: on a monotonic clock.
            is_write: whether an unknown outcome matters.
        """
        self._timeout_s = timeout_s
        self._deadline_s = started_s + timeout_s
        self._pause_s = PAUSE_FIRST_S
        self._is_write = is_write
        self._was_sent = False
        self._storage_failures = 0
        self._renewals = 0

    def left_s(self, now_s: float) -> float:
        """What is left of the time; never negative."""
        return max(0.0, self._deadline_s - now_s)

    def anew(self, now_s: float) -> Recovery:
        """The same patience from now on, but not without end: what a daemon dies of each time is not asked for ever."""
        if self._renewals >= RENEWALS_MAX:
            return self
        renewed = Recovery(self._timeout_s, now_s, is_write=self._is_write)
        renewed._renewals = self._renewals + 1
        renewed._storage_failures = self._storage_failures
        return renewed

    def after(self, error: CacheError, now_s: float) -> float:
        """Seconds to pause before the next attempt.

        Raises:
            CacheError: there is to be no next attempt: the error is final, or the time is over.
        """
        self._was_sent = self._was_sent or not getattr(error, "outcome_known", True)
        if not _is_passing(error):
            # What the daemon answered to a retry settles the outcome; what kept us from asking it does not.
            raise self._last(error) if isinstance(error, CacheUnavailable) else error
        left_s = self.left_s(now_s)
        # The retry that is applied, or refused, settles what became of the first; a disk that fails it again is ill.
        self._storage_failures += isinstance(error, StorageFailed)
        if left_s <= 0 or self._storage_failures > STORAGE_RETRIES_MAX:
            raise self._last(error)
        pause_s = min(self._pause_s, left_s)
        self._pause_s = min(self._pause_s * 2, PAUSE_LAST_S)
        return pause_s

    def _last(self, error: CacheError) -> CacheError:
        if not self._is_write or not self._was_sent or isinstance(error, StorageFailed):
            return error
        kind = type(error) if isinstance(error, CacheUnavailable) else ConnectionLost
        return kind(f"{error}; the write may have been applied, and repeating it is safe", False)


def no_answer(timeout_s: float, *, outcome_known: bool) -> DaemonBusy:
    """The error for a daemon that is there and does not answer."""
    message = f"the daemon did not answer within {timeout_s:.3g} s"
    return DaemonBusy(f"{message}: see `motools daemon status` and `motools daemon logs`", outcome_known)


def making_room() -> DaemonNotRunning:
    """The error between the end of an older daemon and the start of ours."""
    return DaemonNotRunning("the daemon of an older version makes room for a new one")


def _is_passing(error: CacheError) -> bool:
    if isinstance(error, StorageFailed):
        return not error.outcome_known
    return isinstance(error, CacheUnavailable) and not isinstance(error, PeerRefused) and not error.is_final


class RequestKeys:
    """Numbers this client's writes, so that a retry is applied once."""

    def __init__(self) -> None:
        """A client nobody else is."""
        self._client = os.urandom(16)
        self._next = 1
        self._open: set[int] = set()

    def new(self) -> RequestKey:
        """The key of a new write; `done` closes it."""
        number = self._next
        self._next += 1
        self._open.add(number)
        return RequestKey(self._client, number, min(self._open))

    def retry(self, key: RequestKey) -> RequestKey:
        """The same write, once more."""
        return RequestKey(key.client, key.number, min(self._open, default=key.number), True)

    def done(self, key: RequestKey) -> None:
        """The write has its answer, or nobody waits for it any more."""
        self._open.discard(key.number)


def is_outdated(welcome: Welcome) -> bool:
    """Whether that daemon is of an older release than we are. A newer one is never asked to make room."""
    return release(welcome.version) < release(__version__)
