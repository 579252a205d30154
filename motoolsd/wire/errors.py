"""The codes that a Failure carries, and the errors of a session.

Layer: wire. Imports nothing of motoolsd.
Invariant: each code maps to exactly one class of `motools.cache.errors`; a test holds both sides together.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """Why a request, or the start of a daemon, failed. The value is what stands on the wire."""

    BUSY = "busy"
    """The daemon cannot take the connection now; later it may."""
    PEER_REFUSED = "peer_refused"
    """The other side, or the directory, belongs to another user."""
    PROTOCOL_ERROR = "protocol_error"
    """The daemon met a defect of its own, or a request it cannot make sense of."""
    UNKNOWN_OPERATION = "unknown_operation"
    """The daemon is older than the operation."""
    VERSION_MISMATCH = "version_mismatch"
    """No protocol number in common."""
    INVALID_REQUEST = "invalid_request"
    """The caller's input breaks a rule; the message names it."""
    STORAGE_FAILED = "storage_failed"
    """The database could not be read or written: disk full, I/O error, locked by another program."""
    CORRUPT_DATABASE = "corrupt_database"
    """cache.db is damaged, or is no database of motools."""
    SCHEMA_TOO_NEW = "schema_too_new"
    """cache.db was written by a newer motoolsd."""
    UNSUPPORTED_FILESYSTEM = "unsupported_filesystem"
    """The directory lies where locks and shared memory do not hold."""
    DIRECTORY_MISSING = "directory_missing"
    """There is no cache in that directory."""
    NOT_RUNNING = "not_running"
    """The daemon could not start, or ended while starting."""
    STALE_LEASE = "stale_lease"
    """The lease was lost before the value came."""
    CLAIM_DEADLOCK = "claim_deadlock"
    """Waiting for the key would never end."""
    ENTRY_PROTECTED = "entry_protected"
    """A pin, a lease or a use keeps the entry."""
    PLAN_OUTDATED = "plan_outdated"
    """What the plan saw is not so any more."""
    AMBIGUOUS = "ambiguous"
    """A name means several entries."""
    NOT_FOUND = "not_found"
    """Nothing has that name: an entry, a plan, something in the trash."""


class ProtocolError(Exception):
    """A session was used against its rules."""


class LocalProtocolError(ProtocolError):
    """We broke the rules, or were asked to send what cannot be sent. Nothing was sent."""


class MessageTooLarge(LocalProtocolError):
    """It does not fit into a frame.

    Attributes:
        size_bytes: what it takes.
        size_max_bytes: what a frame takes.
    """

    def __init__(self, size_bytes: int, size_max_bytes: int) -> None:
        """Name both sizes."""
        super().__init__(f"a message of {size_bytes} bytes does not fit into a frame of {size_max_bytes}")
        self.size_bytes = size_bytes
        self.size_max_bytes = size_max_bytes


class RemoteProtocolError(ProtocolError):
    """The other side sent what is no frame or no message: the connection is of no more use."""
