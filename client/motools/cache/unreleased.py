"""Claims that could not be released, because no daemon was there: the next connection makes up for it.

Layer: motools.cache. Imports nothing.
Invariant: they are this process's own, a forked child has none, and no more than `UNRELEASED_MAX` of a directory are
kept. Without this their keys would stay leased to a process that lives on, and to its own threads they would be a
deadlock.
"""

from __future__ import annotations

from typing import Final

UNRELEASED_MAX: Final = 1024

_claims: dict[str, dict[bytes, None]] = {}


def remember(directory: str, claim_id: bytes) -> None:
    """A claim is to be released as soon as there is a daemon."""
    claims = _claims.setdefault(directory, {})
    claims[claim_id] = None
    if len(claims) > UNRELEASED_MAX:
        del claims[next(iter(claims))]


def say_not_released() -> None:
    """Somebody may wait for that lease."""
    import logging  # only when something is wrong

    text = "a lease could not be released yet: the next call does it, or the end of this process"
    logging.getLogger("motools.cache").warning(text)


def unreleased(directory: str) -> list[bytes]:
    """The claims that are to be released."""
    # Empty nearly always: a connection that is opened looks here.
    return list(_claims.get(directory, ()))


def settle(directory: str, claim_id: bytes) -> None:
    """The daemon has answered."""
    claims = _claims.get(directory, {})
    claims.pop(claim_id, None)
    if not claims:
        _claims.pop(directory, None)


def forget_all() -> None:
    """In a forked child: they are its parent's."""
    _claims.clear()
