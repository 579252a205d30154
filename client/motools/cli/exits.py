"""What a command ends with.

Layer: motools.cli. Imports motools.cache.errors.
Invariant: each code has one meaning; scripts rely on it.
"""

from __future__ import annotations

from motools.cache.errors import (
    AmbiguousName,
    CacheDirectoryMissing,
    CacheRequestError,
    ClaimDeadlock,
    ClaimTimeout,
    ComputationFailed,
    ConnectionLost,
    DaemonBusy,
    DaemonNotRunning,
    EntryNotFound,
    EntryProtected,
    PeerRefused,
    PlanOutdated,
    StaleLease,
    StorageFailed,
)

DONE = 0
FAILED = 1
"""Also: asked whether to remove, and the answer was no."""
USAGE = 2
NOT_FOUND = 3
REFUSED = 4
NO_DAEMON = 69
TIMED_OUT = 75
INTERRUPTED = 130

_CODES: tuple[tuple[type[Exception], int], ...] = (
    (CacheDirectoryMissing, NOT_FOUND),
    (DaemonNotRunning, NO_DAEMON),
    (DaemonBusy, TIMED_OUT),
    (ConnectionLost, TIMED_OUT),
    (PeerRefused, REFUSED),
    (StorageFailed, FAILED),
    (ClaimTimeout, TIMED_OUT),
    (ComputationFailed, FAILED),
    (StaleLease, FAILED),
    (ClaimDeadlock, FAILED),
    (EntryNotFound, NOT_FOUND),
    (AmbiguousName, NOT_FOUND),
    (EntryProtected, REFUSED),
    (PlanOutdated, REFUSED),
    (CacheRequestError, USAGE),
)
"""The first that fits counts."""


def exit_code(error: Exception) -> int:
    """The code that tells scripts of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)
