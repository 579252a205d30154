"""Answering lookups.

Layer: engine. Imports index, presence, usage, writer, store and core.
Invariant: answered from memory; SQLite is asked only for what memory cannot know, and what it says is shown only while
no commit is changing the same slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from motoolsd.core.errors import RequestError, StorageFailed
from motoolsd.core.guards import Guard
from motoolsd.core.slots import Slots
from motoolsd.core.versions import are_compatible
from motoolsd.engine.index import Index
from motoolsd.engine.presence import Presence
from motoolsd.engine.usage import Tally
from motoolsd.engine.writer import Writer
from motoolsd.store.reads import Values
from motoolsd.store.store import Store
from motoolsd.wire.keys import slot_of
from motoolsd.wire.messages import Found, Lookup

READ_ATTEMPTS = 3
"""Reads of SQLite for one lookup, when commits keep changing its slot; then the last one stands: it began after the
lookup did, so it is as good an answer as any."""

SETTLE_ATTEMPTS = 1000
"""Looks at keys before a claim, while others write them."""


class Lookups:
    """Values by key."""

    def __init__(self, store: Store, index: Index, slots: Slots, writer: Writer, presence: Presence) -> None:
        """Wire up."""
        self._store = store
        self._index = index
        self._slots = slots
        self._writer = writer
        self._presence = presence
        self.served = 0
        """Lookups so far: whoever works in the background sees by it how busy we are."""

    def nowait(self, request: Lookup, tally: Tally) -> Found | None:
        """Answer from memory, or None if SQLite, the files of an entry or its version must be looked at."""
        self.served += 1
        values = self._index.find(request.kind, request.keys)
        if None in values and not self._index.is_complete:
            return None
        if (guards := self._index.guards(request.kind, request.keys)) and (
            request.version is not None or any(guard.is_uncertain for guard in guards.values())
        ):
            return None
        tally.count(request.kind, request.keys, values)
        return Found(values=values)

    async def find(self, request: Lookup, tally: Tally) -> Found:
        """Answer with SQLite's help, and after a look at what the values depend on.

        Raises:
            RequestError: a key is none of ours, or the database cannot be read.
        """
        for _ in range(READ_ATTEMPTS):
            values, guards = await self._find(request)
            uncertain = {key: guard for key, guard in guards.items() if guard.is_uncertain}
            if not uncertain or await self._presence.is_settled(request.kind, uncertain):
                break
        else:
            # Stored and lost again each time: whatever it is, it is not there now.
            found = zip(request.keys, values, strict=True)
            values, guards = [None if key in uncertain else value for key, value in found], {}
        values, versions = _of_version(request, values, guards, tally)
        return Found(values=values, versions=versions, lasts=all(guard.expires is None for guard in guards.values()))

    async def standing(self, request: Lookup, tally: Tally) -> Found:
        """The values of keys, as they stand at the moment of the return: no change of them is under way then.

        Raises:
            RequestError: a key is none of ours, the database cannot be read, or the keys change all the time.
        """
        kind, keys = request.kind, request.keys
        slots = [slot_of(kind, key) for key in keys]
        # The numbers at which everything that the values depend on was looked at.
        sound: list[int] | None = None
        for _ in range(SETTLE_ATTEMPTS):
            if any(map(self._slots.is_moving, slots)):
                await self._writer.wait_settled()
                continue
            numbers = [self._slots.number(slot) for slot in slots]
            values = self._index.find(kind, keys)
            guards: Mapping[str, Guard] = self._index.guards(kind, keys)
            if None in values and not self._index.is_complete:
                read = await self._read(request)
                if not all(map(self._slots.is_current, slots, numbers)):
                    continue
                values, guards = [read.found.get(key) for key in keys], read.guards
            uncertain = {key: guard for key, guard in guards.items() if guard.is_uncertain}
            if not uncertain or numbers == sound:
                values, versions = _of_version(request, values, guards, tally)
                return Found(values=values, versions=versions)
            sound = numbers if await self._presence.is_settled(kind, uncertain) else None
        message = "these keys are written all the time: try again"
        raise StorageFailed(message)

    async def _find(self, request: Lookup) -> tuple[list[bytes | None], Mapping[str, Guard]]:
        """The values of keys, from memory or SQLite, and what they depend on."""
        slots = [slot_of(request.kind, key) for key in request.keys]
        read = Values({}, {})
        for _ in range(READ_ATTEMPTS):
            values = self._index.find(request.kind, request.keys)
            if None not in values or self._index.is_complete:
                return values, self._index.guards(request.kind, request.keys)
            numbers = [self._slots.number(slot) for slot in slots]
            read = await self._read(request)
            if any(map(self._slots.is_moving, slots)):
                # The read may have seen a commit that nobody else can see yet: hold the answer until all can.
                await self._writer.wait_settled()
            if all(map(self._slots.is_current, slots, numbers)):
                for key, value in read.found.items():
                    self._index.store(request.kind, key, value, read.guards.get(key))
                break
        return [read.found.get(key) for key in request.keys], read.guards

    async def _read(self, request: Lookup) -> Values:
        # All of the keys, those that memory knows included: one read transaction sees a write of several whole.
        try:
            return await self._store.values(request.kind, request.keys)
        except ValueError as error:
            raise RequestError(str(error)) from error


def _of_version(
    request: Lookup, values: Sequence[bytes | None], guards: Mapping[str, Guard], tally: Tally
) -> tuple[list[bytes | None], dict[int, str]]:
    """The values as one sees them who asks under a version: those of another one are named, or miss. Counts all."""
    named: dict[int, str] = {}
    if request.version is not None:
        for place, (key, value) in enumerate(zip(request.keys, values, strict=True)):
            version = guard.version if value is not None and (guard := guards.get(key)) is not None else None
            if version is not None and not are_compatible(version, request.version):
                named[place] = version
    if not named or not request.is_strict:
        tally.count(request.kind, request.keys, values)
        return list(values), named
    for place, key in enumerate(request.keys):
        if place in named:
            tally.miss(request.kind, key, is_mismatch=True)
        else:
            tally.count(request.kind, (key,), (values[place],))
    return [None if place in named else value for place, value in enumerate(values)], named
