"""Everything that can go wrong, as classes whose docstring is the condition.

Layer: motools.cache. Imports motoolsd.wire.
Invariant: each `ErrorCode` of the wire is the code of exactly one class; no bare sqlite3 error or OSError reaches a
user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.messages import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from motools.cache.explanations import EntryName


class CacheError(Exception):
    """Something about the cache failed; the text says what to do next."""

    code: ClassVar[ErrorCode | None] = None
    """What a daemon calls it on the wire; None for what only a client can notice."""

    is_final: bool = False
    """Trying again within the same call would only say the same."""


class CacheUnavailable(CacheError):
    """The daemon could not be had in the time that there was.

    Attributes:
        outcome_known: False if a write may have been applied all the same; repeating it is safe then.
    """

    def __init__(self, message: str, outcome_known: bool = True) -> None:  # noqa: FBT001, FBT002 - pickled by position
        """Keep what is known of the outcome."""
        super().__init__(message, outcome_known)
        self.message = message
        self.outcome_known = outcome_known

    def __str__(self) -> str:
        """The text alone."""
        return self.message


class DaemonNotRunning(CacheUnavailable):
    """No daemon serves the directory, and none could be started."""

    code = ErrorCode.NOT_RUNNING


class DaemonBusy(CacheUnavailable):
    """A daemon is there and did not answer in time."""

    code = ErrorCode.BUSY


class PeerRefused(CacheUnavailable):
    """The directory, or the process behind its socket, belongs to another user."""

    code = ErrorCode.PEER_REFUSED


class ConnectionLost(CacheUnavailable):
    """The connection ended before the reply, and there was no time for another try."""


class CacheProtocolError(CacheError):
    """The daemon said what this client cannot make sense of, or met a defect of its own."""

    code = ErrorCode.PROTOCOL_ERROR


class VersionMismatch(CacheProtocolError):
    """Client and daemon have no protocol in common."""

    code = ErrorCode.VERSION_MISMATCH


class UnknownOperation(CacheProtocolError):
    """The daemon is older than what was asked of it: `motools daemon restart` starts this version's."""

    code = ErrorCode.UNKNOWN_OPERATION


class CacheRequestError(CacheError):
    """The request breaks a rule; the text names it."""

    code = ErrorCode.INVALID_REQUEST


class UncacheableConfigError(CacheRequestError, TypeError):
    """A configuration holds what JSON cannot hold exactly, so that it has no key.

    Attributes:
        path: where, as in `config.hyperparameters.lr` or `config.layers[2]`.
        reason: what is wrong there.
    """

    def __init__(self, path: str, reason: str) -> None:
        """Name the place."""
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        """Place, reason and remedy."""
        return f"{self.path} {self.reason}; use text, finite numbers, true, false, None, lists and mappings of them"


class StorageFailed(CacheRequestError):
    """Disk or database could not be read or written. With `outcome_known=False` the write may have been applied."""

    code = ErrorCode.STORAGE_FAILED

    def __init__(self, message: str, outcome_known: bool = True) -> None:  # noqa: FBT001, FBT002 - pickled by position
        """Keep what is known of the outcome."""
        super().__init__(message, outcome_known)
        self.message = message
        self.outcome_known = outcome_known

    def __str__(self) -> str:
        """The text alone."""
        return self.message


class StaleLease(CacheRequestError):
    """The lease was lost before the value came: another process computed, or the entry was set or cleared meanwhile.

    Attributes:
        value: the value that stands; None if there is none. The refused one was not stored.
    """

    code = ErrorCode.STALE_LEASE

    def __init__(self, message: str, value: str | None = None) -> None:
        """Keep the value that stands."""
        super().__init__(message, value)
        self.message = message
        self.value = value

    def __str__(self) -> str:
        """The text alone."""
        return self.message


class ClaimDeadlock(CacheRequestError):
    """Waiting for the lease would never end; the text names the keys."""

    code = ErrorCode.CLAIM_DEADLOCK


class EntryProtected(CacheRequestError):
    """A pin, a lease or a use keeps the entry; the text says which."""

    code = ErrorCode.ENTRY_PROTECTED


class PlanOutdated(CacheRequestError):
    """What the plan saw is not so any more, and nothing was removed; the text names what has changed."""

    code = ErrorCode.PLAN_OUTDATED


class EntryNotFound(CacheRequestError, LookupError):
    """Nothing has that name: an entry, a plan, something in the trash."""

    code = ErrorCode.NOT_FOUND


class AmbiguousName(CacheRequestError):
    """A name, or the beginning of one, means several entries.

    Attributes:
        candidates: the first of them; of a lineage and a comparison, only the message names them.
    """

    code = ErrorCode.AMBIGUOUS

    def __init__(self, name: str, candidates: Sequence[EntryName] = ()) -> None:
        """Keep them; without candidates, the name is the message."""
        super().__init__(name, candidates)
        self.name = name
        self.candidates = candidates

    def __str__(self) -> str:
        """The name, and what it may mean."""
        if not self.candidates:
            return self.name
        named = ", ".join(f"{one.kind} {one.key}" for one in self.candidates[:5])
        more = " ..." if len(self.candidates) > 5 else ""  # noqa: PLR2004 - as many as are named
        return f"{self.name} means several entries: {named}{more}; give more of the name, or its kind"


class ComputationFailed(CacheRequestError):
    """Whoever computed the value recorded a failure; the text is their reason."""


class ClaimTimeout(CacheError, TimeoutError):
    """Somebody else still computes after the time that was given."""

    def __str__(self) -> str:
        """The text alone, not as an OSError prints itself."""
        return str(self.args[0]) if self.args else ""


class CacheDirectoryMissing(CacheError, FileNotFoundError):
    """There is no cache in that directory."""

    code = ErrorCode.DIRECTORY_MISSING

    def __str__(self) -> str:
        """The text alone, not as an OSError prints itself."""
        return str(self.args[0]) if self.args else ""


class CorruptDatabase(CacheError):
    """cache.db is damaged, or no database of motools; nothing was changed."""

    code = ErrorCode.CORRUPT_DATABASE


class SchemaTooNew(CacheError):
    """cache.db was written by a newer motoolsd; nothing was changed."""

    code = ErrorCode.SCHEMA_TOO_NEW


class UnsupportedFilesystem(CacheError):
    """The directory lies on a network or FUSE file system."""

    code = ErrorCode.UNSUPPORTED_FILESYSTEM


def _subclasses(parent: type[CacheError]) -> list[type[CacheError]]:
    return [parent, *(found for child in parent.__subclasses__() for found in _subclasses(child))]


CLASS_OF_CODE: dict[str, type[CacheError]] = {
    found.code.value: found for found in _subclasses(CacheError) if "code" in vars(found) and found.code is not None
}


def error_from(failure: Failure) -> CacheError:
    """The error that a daemon's failure means; a code of a newer daemon is a CacheProtocolError."""
    kind = CLASS_OF_CODE.get(failure.code, CacheProtocolError)
    if issubclass(kind, StorageFailed):
        return kind(failure.message, bool(failure.detail.get("outcome_known", True)))
    if issubclass(kind, StaleLease):
        value = failure.detail.get("value")
        return kind(failure.message, value if isinstance(value, str) else None)
    return kind(failure.message)


UNAVAILABLE = (
    CacheUnavailable,
    CacheProtocolError,
    StorageFailed,
    CacheDirectoryMissing,
    CorruptDatabase,
    SchemaTooNew,
    UnsupportedFilesystem,
)
"""What is nobody's mistake in the call itself: with `on_unavailable="miss"` these become misses."""
