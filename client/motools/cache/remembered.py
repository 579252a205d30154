"""Answers that a client remembers, and the stamps that say whether they still hold.

Layer: motools.cache. Imports clock, entries and motoolsd.wire.
Invariant: a slot's number is read before the daemon is asked, and compared at each use: what is answered from here was
true at a moment of the call. Whatever cannot be compared is not remembered.

The idea: version numbers in shared memory instead of invalidation messages (optimistic readers, as in seqlocks).
"""

from __future__ import annotations

import mmap
import os
import stat
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple

from motools.cache.clock import monotonic_s
from motools.cache.entries import text_of
from motoolsd.wire.fields import COUNT_MAX, KEYS_PER_REQUEST_MAX
from motoolsd.wire.keys import STAMPS_SIZE_BYTES, Kind, slot_of
from motoolsd.wire.messages import Lookup, Used
from motoolsd.wire.names import STAMPS

ENTRIES_DEFAULT: Final = 100_000
ANSWERS_MAX: Final = 500
"""Answers from memory, file ids and others each, between two looks whether the path still leads to the mapped file."""
REPORT_INTERVAL_S: Final = 0.05
"""Between two reports of little: a job that asks a million times a second would spend half of its time on telling."""
REPORTED_KEYS_MAX: Final = KEYS_PER_REQUEST_MAX
"""Different keys of one kind in a report; the use of others is not told while no daemon takes a report."""
REPORTED_KEY_SIZE_MAX: Final = 1_024
"""Characters; the use of entries with longer keys is not reported."""

_NOTHING = memoryview(bytes(STAMPS_SIZE_BYTES)).cast("Q")
"""What is compared with where nothing is mapped. As long as the real ones: another thread may hold an entry still."""


class Remembered(NamedTuple):
    """One answer."""

    value: str | None
    """None: it is not cached."""
    slot: int
    number: int
    """The slot's, read before the daemon was asked."""


_Generation = dict[Kind, dict[str, Remembered]]


class Memory:
    """What one client remembers of one file of stamps.

    Bounded: entries live in two generations; when the young one is full it becomes the old one, and what was in the old
    one and not used since is forgotten. By that the least recently used go first, approximately.

    Concurrency: threads may look things up while one, at a time, remembers.

    Attributes:
        datasets: the young generation of file ids, by dataset hash.
        numbers: the mapped numbers.
        generation: changes when everything was forgotten: what was asked before is not to be remembered.
        used: hashes that were answered and not counted yet. Whoever answers from `datasets` appends to it while it
            has less than `ANSWERS_MAX`, and leaves what comes after that to `find`.
    """

    __slots__ = (
        "_counted",
        "_entries_max",
        "_identity",
        "_lookups",
        "_old",
        "_path",
        "_refused",
        "_reported_s",
        "_young",
        "_young_size",
        "datasets",
        "generation",
        "numbers",
        "used",
    )

    def __init__(self, directory: str, entries_max: int) -> None:
        """Remember nothing yet, and have nothing mapped.

        Args:
            directory: the cache directory.
            entries_max: answers of all kinds; 0: none at all.
        """
        self._path = os.path.join(directory, STAMPS)
        self._entries_max = entries_max
        self._identity: tuple[int, int] | None = None
        self.numbers: memoryview[int] = _NOTHING
        self._refused: tuple[int, int] | None = None
        self.used: list[str] = []
        self._lookups: list[Lookup] = []
        self._counted: dict[Kind, Counter[str]] = {}
        self._reported_s = 0.0
        self.generation = 0
        self._start_generation(_empty())

    def attach(self, identity: tuple[int, int] | None) -> bool:
        """Make sure that the stamps of the daemon that is asked next are mapped.

        Args:
            identity: device and inode of its file; None if it has none.

        Returns:
            Whether answers of that daemon can be remembered.
        """
        if identity == self._identity:
            return identity is not None
        if not self._entries_max or (identity is not None and identity == self._refused):
            return False
        self.detach()
        if identity is None:
            return False
        numbers = _map(self._path, identity)
        if numbers is None:
            self._refused = identity
            return False
        self.numbers, self._identity = numbers, identity
        return True

    def detach(self) -> None:
        """Forget everything, and the mapping too."""
        self._identity = None
        self.generation += 1
        self._start_generation(_empty())
        # The mapping itself goes when the last thread that reads it is done.
        self.numbers = _NOTHING

    def find(self, request: Lookup) -> list[str | None] | None:
        """The answers to a lookup, if all of them are remembered and still hold."""
        if self._identity is None:
            return None
        kind = request.kind
        young, numbers = self._young[kind], self.numbers
        values = []
        for key in request.keys:
            found = young.get(key)
            if found is None and (found := self._old[kind].get(key)) is not None:
                self._keep(kind, key, found)
            if found is None or numbers[found.slot] != found.number:
                return None
            values.append(found.value)
        if kind is Kind.DATASET:
            self.used += request.keys
        else:
            self._lookups.append(request)
        return values

    def numbers_of(self, request: Lookup) -> list[tuple[int, int]]:
        """The slot of each key and its number now: to be read before the daemon is asked."""
        numbers = self.numbers
        slots = [slot_of(request.kind, key) for key in request.keys]
        return [(slot, numbers[slot]) for slot in slots]

    def remember(self, request: Lookup, before: Sequence[tuple[int, int]], values: Sequence[bytes | None]) -> None:
        """Keep the answers to a lookup, with what `numbers_of` gave before it was asked."""
        for key, (slot, number), value in zip(request.keys, before, values, strict=True):
            text = None if value is None else text_of(value)
            self._keep(request.kind, key, Remembered(text, slot, number))

    @property
    def is_due(self) -> bool:
        """Whether so much was answered from here that it is time for `settle`."""
        return len(self.used) >= ANSWERS_MAX or len(self._lookups) >= ANSWERS_MAX

    def settle(self) -> bool:
        """Count what was answered from here.

        Returns:
            Whether the path still leads to the mapped file: if not, nothing here is to be believed.
        """
        self._count_used()
        return self.is_current()

    def is_current(self) -> bool:
        """Whether the path still leads to the mapped file."""
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    @property
    def is_report_due(self) -> bool:
        """Whether to tell the daemon what was counted: not at every chance while there is little to tell."""
        if monotonic_s() - self._reported_s >= REPORT_INTERVAL_S:
            return self.has_used
        return sum(map(len, self._counted.values())) >= REPORTED_KEYS_MAX // 2

    def take_used(self) -> list[Used]:
        """What was counted since the last report, to be reported; its counting starts anew."""
        self._count_used()
        self._reported_s = monotonic_s()
        notices = []
        for kind, counted in self._counted.items():
            known = (item for item in counted.items() if len(item[0]) <= REPORTED_KEY_SIZE_MAX)
            told = islice(known, REPORTED_KEYS_MAX)
            if hits := {key: min(count, COUNT_MAX) for key, count in told}:
                notices.append(Used(kind=kind, hits=hits))
        self._counted = {}
        return notices

    def drop_used(self) -> None:
        """Do not count what was answered since the last time."""
        self.used, self._lookups = [], []

    @property
    def has_used(self) -> bool:
        """Whether there is something to report."""
        return bool(self.used or self._lookups or self._counted)

    def _count_used(self) -> None:
        used, self.used = self.used, []
        lookups, self._lookups = self._lookups, []
        self._count(Kind.DATASET, used)
        for lookup in lookups:
            self._count(lookup.kind, lookup.keys)

    def _count(self, kind: Kind, keys: list[str]) -> None:
        if not keys:
            return
        counted = self._counted.setdefault(kind, Counter())
        if len(counted) < REPORTED_KEYS_MAX:
            # A list, and no mapping: that is counted in C.
            counted.update(keys)

    def _keep(self, kind: Kind, key: str, found: Remembered) -> None:
        if key not in self._young[kind]:
            if self._young_size >= max(1, self._entries_max // 2):
                self._start_generation(self._young if self._entries_max > 1 else _empty())
            self._young_size += 1
        self._young[kind][key] = found

    def _start_generation(self, old: _Generation) -> None:
        self._old = old
        self._young = _empty()
        self._young_size = 0
        self.datasets = self._young[Kind.DATASET]


def _empty() -> _Generation:
    return {kind: {} for kind in Kind}


def _map(path: str, identity: tuple[int, int]) -> memoryview[int] | None:
    """The numbers of a file, read-only; None if it cannot be mapped, or is not the one that is meant."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            is_right = (found.st_dev, found.st_ino) == identity and stat.S_ISREG(found.st_mode)
            if not is_right or found.st_size < STAMPS_SIZE_BYTES:
                return None
            mapped = mmap.mmap(descriptor, STAMPS_SIZE_BYTES, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        return None
    return memoryview(mapped).cast("Q")
