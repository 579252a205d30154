"""Why a request, or the start of the daemon, is refused.

Layer: core. Imports wire.
Invariant: each class has one ErrorCode; text and attributes are all that reaches a client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.messages import Failure


class RequestError(Exception):
    """A request that fails for a reason its caller can be told. Subclasses name the reason."""

    code: ClassVar[ErrorCode] = ErrorCode.INVALID_REQUEST

    def __init__(self, message: str, **detail: str | int | bool | None) -> None:
        """Keep the text and the attributes that travel with it."""
        super().__init__(message)
        self.message = message
        self.detail = detail

    def to_failure(self) -> Failure:
        """The reply that says so. A path in it that is no UTF-8 is written with escapes."""
        detail = {name: _sendable(value) if isinstance(value, str) else value for name, value in self.detail.items()}
        return Failure(code=self.code.value, message=_sendable(self.message), detail=detail)


def _sendable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class StorageFailed(RequestError):
    """The database could not be read or written; with `outcome_known=False` the write may have been applied."""

    code = ErrorCode.STORAGE_FAILED

    def __init__(self, message: str, *, outcome_known: bool = True) -> None:
        """Keep whether it is known that nothing was applied."""
        super().__init__(message, outcome_known=outcome_known)
        self.outcome_known = outcome_known


def _state(*, outcome_known: bool) -> str:
    if outcome_known:
        return "nothing of this was stored"
    return "whether this was stored is unknown, and retrying it is safe"


class NoRoom(StorageFailed):
    """No room is left on the disk, or no inode; what was stored before remains."""

    def __init__(self, cause: str, *, outcome_known: bool = True) -> None:
        """Name the cause, and what makes room."""
        state = _state(outcome_known=outcome_known)
        super().__init__(
            f"the disk is full ({cause}): {state}, and what was stored before remains. Make room with "
            "`motools cache prune` or `motools cache trash empty`, then try again",
            outcome_known=outcome_known,
        )


class ReadOnlyDisk(StorageFailed):
    """The file system is mounted read-only, or was made so by the kernel after an error."""

    def __init__(self, cause: str, *, outcome_known: bool = True) -> None:
        """Name the cause, and what to do."""
        state = _state(outcome_known=outcome_known)
        super().__init__(
            f"the file system of the cache directory is read-only ({cause}): {state}, and what was stored before can "
            "be read. See the kernel log (dmesg) for the reason, and make it writable again",
            outcome_known=outcome_known,
        )


class CorruptDatabase(RequestError):
    """cache.db is damaged or is no database of motools. It is never repaired, replaced or removed by itself."""

    code = ErrorCode.CORRUPT_DATABASE


class SchemaTooNew(RequestError):
    """cache.db was written by a newer version."""

    code = ErrorCode.SCHEMA_TOO_NEW


class UnsupportedFilesystem(RequestError):
    """The cache directory lies where locks and shared memory do not hold."""

    code = ErrorCode.UNSUPPORTED_FILESYSTEM


class PeerRefused(RequestError):
    """The directory belongs to another user."""

    code = ErrorCode.PEER_REFUSED


class DirectoryMissing(RequestError):
    """There is no such directory, or it cannot be entered."""

    code = ErrorCode.DIRECTORY_MISSING


class StartFailed(RequestError):
    """The daemon cannot start for a reason that no other class names."""

    code = ErrorCode.NOT_RUNNING


class AlreadyRunning(StartFailed):
    """Another daemon owns the directory."""

    def __init__(self, directory: str, owner: str) -> None:
        """Name the directory and, as far as known, its owner."""
        super().__init__(f"{directory} is served by another daemon already ({owner})")
        self.owner = owner


class StaleLease(RequestError):
    """The lease was lost meanwhile: another value may stand, or somebody else computes."""

    code = ErrorCode.STALE_LEASE

    def __init__(self, key: str, value: str | None = None) -> None:
        """Name the key, and the value that stands, if there is one."""
        stands = "no value stands" if value is None else f"the value that stands is {value!r}"
        super().__init__(f"the lease of {key} is no longer yours; {stands}, and yours was not stored", value=value)


class EntryProtected(RequestError):
    """A pin, a lease or a use keeps it."""

    code = ErrorCode.ENTRY_PROTECTED


class EntryNotFound(RequestError):
    """Nothing has that name: an entry, a plan, something in the trash."""

    code = ErrorCode.NOT_FOUND


class AmbiguousName(RequestError):
    """A name means several entries; the message names some."""

    code = ErrorCode.AMBIGUOUS


class PlanOutdated(RequestError):
    """What the plan saw is not so any more."""

    code = ErrorCode.PLAN_OUTDATED

    def __init__(self, plan_id: str, changed: Sequence[str]) -> None:
        """Name some of what changed."""
        named = "; ".join(changed[:5])
        more = f"; and {len(changed) - 5} more" if len(changed) > 5 else ""  # noqa: PLR2004 - as the line above
        super().__init__(f"plan {plan_id} is out of date, and nothing was removed: {named}{more}. Make a new one")


class ClaimDeadlock(RequestError):
    """Waiting would never end."""

    code = ErrorCode.CLAIM_DEADLOCK

    def __init__(self, keys: Sequence[str], *, is_own: bool) -> None:
        """Name the keys."""
        named = ", ".join(keys[:5])
        reason = (
            "this thread or task holds it already, in an outer block"
            if is_own
            else "whoever holds it waits for what this thread or task holds"
        )
        remedy = "Claim all keys in one call, or leave the outer block first"
        super().__init__(f"claiming {named} would never end: {reason}. {remedy}")
