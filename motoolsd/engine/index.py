"""All entries in memory, up to a limit.

Layer: engine. Imports core and wire.keys.
Invariant: what stands here is committed. Absence means a miss only while the index is complete.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from motoolsd.core.guards import Guard
from motoolsd.core.ports import Clock
from motoolsd.wire.keys import Kind

DISPOSED_AT_ONCE = 1_000
"""Entries freed between two looks at what else is to be done: a fraction of a millisecond."""
DISPOSAL_PAUSE_S = 0.001
"""Between two slices: lookups that ask SQLite in a thread need the interpreter's lock, too."""


class Index:
    """Values by kind and key; the least recently used go when it is full."""

    def __init__(self, entries_max: int) -> None:
        """Start empty and incomplete: nothing is known of the database yet."""
        self._tables: dict[Kind, dict[str, bytes]] = {kind: {} for kind in Kind}
        self._guards: dict[Kind, dict[str, Guard]] = {kind: {} for kind in Kind}
        self._entries_max = entries_max
        self.has_dropped = False
        """Whether something was left out for want of room: then absence never means a miss."""
        self.is_complete = False
        self.generation = 0
        """Changes when everything was forgotten: a load that began before is void."""
        self.forgotten = anyio.Event()
        """Set when everything was forgotten; whoever loads the index waits for it."""
        self._discarded: list[dict[str, bytes]] = []
        self._discarding = anyio.Event()

    def __len__(self) -> int:
        """Entries of all kinds."""
        return sum(map(len, self._tables.values()))

    @property
    def is_full(self) -> bool:
        """Whether another entry would push one out."""
        return len(self) >= self._entries_max

    @property
    def left_over(self) -> int:
        """Entries that were taken out and still take room."""
        return sum(map(len, self._discarded))

    def count(self, kind: Kind) -> int:
        """Entries of one kind; all there are, while the index is complete."""
        return len(self._tables[kind])

    def find(self, kind: Kind, keys: Sequence[str]) -> list[bytes | None]:
        """The values of keys; None where nothing is known, which is a miss only while the index is complete."""
        table = self._tables[kind]
        if self.has_dropped:
            for key in keys:
                if (value := table.pop(key, None)) is not None:
                    table[key] = value  # to the young end: a dict keeps the order of insertion
        return list(map(table.get, keys))

    def guards(self, kind: Kind, keys: Sequence[str]) -> dict[str, Guard]:
        """What the values of keys depend on, of those that depend on something."""
        guards = self._guards[kind]
        return {key: guard for key in keys if (guard := guards.get(key)) is not None} if guards else {}

    def store(self, kind: Kind, key: str, value: bytes, guard: Guard | None = None) -> None:
        """Put a committed value in. One that was stored again without a guard keeps its files, as its row does."""
        table = self._tables[kind]
        guards = self._guards[kind]
        if guard is not None:
            guards[key] = guard
        elif guards and (old := guards.pop(key, None)) is not None and table.get(key) == value and old.paths:
            guards[key] = Guard(old.paths)
        if key not in table and self.is_full:
            self._drop_oldest()
        table[key] = value

    def remove(self, kind: Kind, key: str) -> None:
        """Take a removed entry out."""
        self._tables[kind].pop(key, None)
        self._guards[kind].pop(key, None)

    def empty(self, kind: Kind) -> None:
        """Take all entries of a removed table out."""
        if self.has_dropped:
            # There is room again for what was left out.
            self.forget()
        self._discard(kind)

    def add_loaded(self, kind: Kind, key: str, value: bytes, guard: Guard | None = None) -> bool:
        """Put a value in that was read from SQLite, unless a newer one stands or there is no room; False if full."""
        table = self._tables[kind]
        if key in table:
            return True
        if self.is_full:
            return False
        table[key] = value
        if guard is not None:
            self._guards[kind][key] = guard
        return True

    def forget(self) -> None:
        """Know nothing any more: somebody else changed the database."""
        for kind in Kind:
            self._discard(kind)
        self.has_dropped = False
        self.is_complete = False
        self.generation += 1
        self.forgotten.set()

    def complete(self, generation: int) -> None:
        """Everything in the database stands here now, if nothing was forgotten or dropped since `generation`."""
        self.is_complete = generation == self.generation and not self.has_dropped

    def mark_incomplete(self) -> None:
        """Something could not be taken in: absence says nothing any more."""
        self.is_complete = False
        self.has_dropped = True

    async def run_disposal(self, clock: Clock) -> None:
        """Free what was taken out, in slices: a million entries at once would hold up lookups. Runs until cancelled."""
        while True:
            await self._discarding.wait()
            while self._discarded:
                table = self._discarded[-1]
                for _ in range(min(len(table), DISPOSED_AT_ONCE)):
                    table.popitem()
                if not table:
                    self._discarded.pop()
                await clock.sleep(DISPOSAL_PAUSE_S)
            self._discarding = anyio.Event()

    def _discard(self, kind: Kind) -> None:
        self._discarded.append(self._tables[kind])
        self._tables[kind] = {}
        self._guards[kind] = {}
        self._discarding.set()

    def _drop_oldest(self) -> None:
        self.mark_incomplete()
        kind = max(self._tables, key=self.count)
        if largest := self._tables[kind]:
            key = next(iter(largest))
            del largest[key]
            self._guards[kind].pop(key, None)
