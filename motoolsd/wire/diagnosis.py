"""What an examination of a cache directory finds, and what mending it came to.

Layer: wire. Imports nothing of motoolsd.
Invariant: JSON texts on a pipe, never on a socket: the examination must work where no daemon can run.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Verdict(StrEnum):
    """How something is."""

    OK = "ok"
    WARNING = "warning"
    """It works, but not as it should; or it will mend itself."""
    PROBLEM = "problem"


class Mend(StrEnum):
    """What `doctor --fix` can do about something, in the order in which it does."""

    PERMISSIONS = "permissions"
    """Take away what others may do."""
    LEFTOVERS = "leftovers"
    """Remove the socket, and files under construction, of a daemon that is dead."""
    STAMPS = "stamps"
    """Remove a file of stamps that cannot be mapped, so that the next daemon makes one."""
    START = "start"
    """Start the daemon: it ends what was half done before it accepts anybody."""
    VERIFY = "verify"
    """Have the daemon let entries miss that are damaged or whose files are missing."""


DIRECT_MENDS = frozenset({Mend.PERMISSIONS, Mend.LEFTOVERS, Mend.STAMPS})
"""Those that need no daemon."""


class HealthCheck(Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        name: what was looked at.
        status: `ok`, `warning` or `problem`.
        detail: what was found, in words.
        remedy: what to do next, commands in backquotes; empty where nothing is to be done.
        mend: how `--fix` mends it; None: it does not.
    """

    name: str
    status: Verdict
    detail: str
    remedy: str = ""
    mend: Mend | None = None


class Mended(Struct, frozen=True, kw_only=True):
    """What came of one mend: whether it was done, and what was done or why not."""

    mend: Mend
    is_done: bool
    detail: str


class SqliteHealth(Struct, frozen=True, kw_only=True):
    """The SQLite library, and whether the WAL-reset bug of its version matters.

    Attributes:
        version: of the library that this Python has.
        has_wal_reset_bug: whether two connections that write at once can damage a database.
        is_safe: whether motoolsd is safe from that; it is, because one connection writes.
        detail: the same in words.
    """

    version: str
    has_wal_reset_bug: bool
    is_safe: bool
    detail: str


class LockHolder(Struct, frozen=True, kw_only=True):
    """The process that holds the lock of the directory: its daemon. `pid` is 0 if it cannot be seen from here."""

    pid: int = 0
    is_stopped: bool = False
    """By a signal: it does nothing until it is told to go on."""


class Diagnosis(Struct, frozen=True, kw_only=True):
    """All that was looked at, and what was mended.

    Attributes:
        directory: of the cache; bytes of its path that are no UTF-8 are escapes.
        checks: what was looked at, each with how it is.
        sqlite: the library.
        versions: of motoolsd, Python and the packages that matter.
        holder: the daemon, as far as the lock tells; None: none.
        mends: what was mended before the checks were made.
    """

    directory: str
    checks: list[HealthCheck]
    sqlite: SqliteHealth
    versions: dict[str, str] = {}
    holder: LockHolder | None = None
    mends: list[Mended] = []

    @property
    def is_well(self) -> bool:
        """Whether there is no problem. A warning is none."""
        return all(check.status is not Verdict.PROBLEM for check in self.checks)
