"""What every peer is: a store that is served, and a way to ask it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Session:
    """One process's use of a peer: the client's own methods, with nothing between them and the clock."""

    get: Callable[[str], str | None]
    put: Callable[[str, str], object]
    """Durable when it returns, as far as the peer's `durability` says."""
    close: Callable[[], object]
    get_many: Callable[[list[str]], list[str | None]] | None = None
    """With one question to the store, where the client can."""
    compute_once: Callable[[str, Callable[[], str]], str] | None = None
    """The value of a key, computed by one process of all that ask, where the client can."""


@dataclass(frozen=True, kw_only=True)
class AsyncSession:
    """The same for tasks of one event loop."""

    get: Callable[[str], Awaitable[str | None]]
    put: Callable[[str, str], Awaitable[object]]
    close: Callable[[], Awaitable[object]]
    get_many: Callable[[list[str]], Awaitable[list[str | None]]] | None = None


class Store(Protocol):
    """What peers share: a server or files, with the entries in it."""

    def available(self) -> str | None:
        """Why it cannot be served here; None if it can."""
        ...

    def serve(self, entries: int) -> AbstractContextManager[None]:
        """Set it up with `keys.stored(entries)`, and take it down again."""
        ...


class Peer(Protocol):
    """A way to share answers between processes."""

    @property
    def name(self) -> str:
        """As it stands in the report."""
        ...

    @property
    def durability(self) -> str:
        """What a write has reached when it is answered."""
        ...

    @property
    def remembers(self) -> bool:
        """Whether a session keeps answers, so that it is to be measured warm."""
        ...

    @property
    def store(self) -> Store:
        """What it asks."""
        ...

    def available(self) -> str | None:
        """Why it cannot be measured here; None if it can."""
        ...

    def connect(self) -> Session | AsyncSession:
        """Begin to use it, in a process of its own."""
        ...


def missing_modules(*names: str) -> str | None:
    """Which of the modules are not installed, as a reason; None if all are."""
    missing = [name for name in names if find_spec(name) is None]
    return f"not installed: {', '.join(missing)} (the extra `bench` brings it)" if missing else None
