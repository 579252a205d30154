"""Whether what clients saw of each key can be explained by one order of operations, each at a moment inside its call.

A key is a register: reads, writes of values that are written once each, and clears (writes of nothing). Histories of
different keys are judged apart, because a history is linearizable exactly if each object's is (Herlihy and Wing,
"Linearizability", 1990); a clear of a table stands in each key's history, so that its being one step for all keys is
not judged here.

The search is exact: what it accepts has an order, what it rejects has none. It is the just-in-time linearization of
Lowe ("Testing for linearizability", 2017) after Wing and Gong ("Testing and verifying concurrent objects", 1993), as in
Knossos and Porcupine: walk through the calls' beginnings and ends, and at each end keep the states in which that
operation has taken effect. What is cut off cannot matter, and each cut says why.

Invariant: removing operations for a report never makes a violation of a history that has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec

NEVER: Final = 2**63 - 1
"""When an operation ended of which nobody knows whether it took effect, or ever will."""
CONFIGURATIONS_MAX: Final = 200_000
"""States looked at to explain one operation's end; a history beyond it is not judged."""

_US: Final = 1000

Configuration = tuple[str | None, int]
"""A value, and which of the operations under way have taken effect, as bits."""


class Operation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one call did to one key."""

    action: Literal["read", "write"]
    value: str | None
    """What was read or written; None: nothing is stored, or a clear."""
    invoked_ns: int
    responded_ns: int
    """On the clock of `invoked_ns`, the same for all processes; NEVER where the outcome is not known."""
    process: str = ""


class Violation(msgspec.Struct, frozen=True):
    """Operations of one key that no order explains."""

    key: str
    operations: tuple[Operation, ...]
    """As few as could be found, in the order in which they began."""

    def __str__(self) -> str:
        """A table; times are microseconds after the first operation began."""
        start_ns = self.operations[0].invoked_ns
        lines = [f"key {self.key!r}: no order of these operations explains what they returned (in us)"]
        for each in self.operations:
            responded = "unknown" if each.responded_ns == NEVER else f"{(each.responded_ns - start_ns) / _US:.1f}"
            what = "clear" if (each.action, each.value) == ("write", None) else f"{each.action} {each.value!r}"
            began = f"{(each.invoked_ns - start_ns) / _US:.1f}"
            lines.append(f"{began:>16} {responded:>16}  {each.process:<12} {what}")
        return "\n".join(lines)


class UndecidedError(Exception):
    """The history leaves more possibilities open than the search looks at."""


def read(value: str | None, invoked_ns: int, responded_ns: int, process: str = "") -> Operation:
    """A lookup, and what it returned."""
    return Operation("read", value, invoked_ns, responded_ns, process)


def write(value: str, invoked_ns: int, responded_ns: int, process: str = "") -> Operation:
    """A value that is stored by this operation only."""
    return Operation("write", value, invoked_ns, responded_ns, process)


def clear(invoked_ns: int, responded_ns: int, process: str = "") -> Operation:
    """The key's removal."""
    return Operation("write", None, invoked_ns, responded_ns, process)


def find_violation(histories: Mapping[str, Sequence[Operation]]) -> Violation | None:
    """The first key whose history is not linearizable; None if all are.

    Args:
        histories: the operations of each key, in any order. Each key holds nothing at first.

    Raises:
        ValueError: a value is written to one key twice, or an operation ends before it begins.
        UndecidedError: there are too many possibilities.
    """
    for key, operations in histories.items():
        if not is_linearizable(operations):
            return Violation(key, tuple(_fewest(operations)))
    return None


def is_linearizable(operations: Sequence[Operation]) -> bool:
    """Whether one key's history has an order that explains it; see `find_violation`."""
    _check(operations)
    prepared = list(_prepared(operations))
    events = [(each.invoked_ns, 0, index) for index, each in enumerate(prepared)]
    events += [(each.responded_ns, 1, index) for index, each in enumerate(prepared) if each.responded_ns != NEVER]
    # Calls that touch in one moment count as overlapping: beginnings come first.
    events.sort()
    search = _Search(each.value for each in prepared if each.action == "read")
    bits: dict[int, int] = {}
    for _, is_end, index in events:
        if not is_end:
            bits[index] = search.begin(prepared[index])
        elif not search.end(prepared[index], bits.pop(index)):
            return False
    return True


class _Search:
    """All that may be the case at one moment of one key's history."""

    def __init__(self, values_read: Iterable[str | None]) -> None:
        """Begin with nothing stored."""
        self._configurations: set[Configuration] = {(None, 0)}
        # Reads that have not begun yet, by value; a value that nobody ever reads has no count at all.
        self._to_be_read = Counter(values_read)
        self._writes: dict[int, str | None] = {}
        self._reads: dict[str | None, int] = {}
        self._never_read = 0
        self._endless_clears = 0
        self._free_bits: list[int] = []
        self._bits = 0

    def begin(self, operation: Operation) -> int:
        """Let an operation be under way; the bit by which it is known until its end."""
        bit, value = self._take_bit(), operation.value
        if operation.action == "write":
            self._writes[bit] = value
            if value not in self._to_be_read:
                self._never_read |= bit
            elif operation.responded_ns == NEVER:
                self._endless_clears |= bit
            return bit
        self._to_be_read[value] -= 1
        self._reads[value] = self._reads.get(value, 0) | bit
        # A read that can take effect does so at once: it changes nothing, and whatever may follow still may.
        self._configurations = {(v, done | bit if v == value else done) for v, done in self._configurations}
        return bit

    def end(self, operation: Operation, bit: int) -> bool:
        """Keep what has an operation done; whether anything is left."""
        kept = {(value, done) for value, done in self._configurations if done & bit}
        kept |= self._reach([each for each in self._configurations if not each[1] & bit], bit)
        self._configurations = {(value, done & ~bit) for value, done in kept}
        if operation.action == "write":
            del self._writes[bit]
            self._never_read &= ~bit
        else:
            self._reads[operation.value] &= ~bit
        self._free_bits.append(bit)
        return bool(self._configurations)

    def _take_bit(self) -> int:
        if self._free_bits:
            return self._free_bits.pop()
        self._bits += 1
        return 1 << (self._bits - 1)

    def _reach(self, open_ones: list[Configuration], bit: int) -> set[Configuration]:
        """What follows from some configurations when writes take effect until one operation has.

        No further: the others' own ends are time enough for them.
        """
        found: set[Configuration] = set()
        seen = set(open_ones)
        while open_ones:
            for after in self._successors(*open_ones.pop()):
                if after in seen:
                    continue
                seen.add(after)
                if after[1] & bit:
                    found.add(after)
                else:
                    open_ones.append(after)
            if len(seen) > CONFIGURATIONS_MAX:
                message = f"more than {CONFIGURATIONS_MAX} configurations: fewer operations at once, please"
                raise UndecidedError(message)
        return found

    def _successors(self, value: str | None, done: int) -> Iterator[Configuration]:
        """What follows when one write takes effect."""
        if value is not None and self._to_be_read[value] > 0:
            # Values are written once: overwritten now, this one could not be read later, and it was.
            return
        has_cleared = False
        for bit, written in self._writes.items():
            if done & bit:
                continue
            if bit & self._endless_clears:
                # These do the same and never end: which of them it was makes no difference.
                if has_cleared:
                    continue
                has_cleared = True
            # What nobody ever reads goes before this one unseen, and all that read this one follow it at once.
            yield written, done | bit | self._never_read | self._reads.get(written, 0)


def _check(operations: Sequence[Operation]) -> None:
    written = Counter(each.value for each in operations if each.action == "write" and each.value is not None)
    for value, count in written.items():
        if count > 1:
            message = f"{value!r} is written {count} times: which of them was read cannot be told"
            raise ValueError(message)
    for each in operations:
        if each.responded_ns < each.invoked_ns:
            message = f"{each} ends before it begins"
            raise ValueError(message)


def _prepared(operations: Sequence[Operation]) -> Iterator[Operation]:
    """The same history, with as little as possible left open."""
    first_read_ns: dict[str | None, int] = {}
    for each in operations:
        if each.action == "read" and each.responded_ns != NEVER:
            first_read_ns[each.value] = min(first_read_ns.get(each.value, NEVER), each.responded_ns)
    for each in operations:
        if each.responded_ns != NEVER:
            yield each
        elif each.action == "write" and each.value in first_read_ns:
            # What was read has taken effect by then; of a clear nobody knows which one was seen.
            ended_ns = NEVER if each.value is None else max(each.invoked_ns, first_read_ns[each.value])
            yield msgspec.structs.replace(each, responded_ns=ended_ns)
        # Else nobody saw it: an order with it is one without it, too.


# The report: what can be left out without making a linearizable history one that is not.


def _fewest(operations: Sequence[Operation]) -> list[Operation]:
    """As few operations as still contradict each other, in the order in which they began."""
    left = sorted(operations, key=lambda each: (each.invoked_ns, each.responded_ns))
    while True:
        before = len(left)
        # A write goes with all that read it: what came before it, in any order, still stood when the next one came.
        left = _without(left, _by_value(left))
        left = _without(left, [[each] for each in left if each.action == "read"])
        left = _without(left, [[each] for each in left if _is_unseen_clear(each, left)])
        if len(left) == before:
            return left


def _without(operations: list[Operation], parts: list[list[Operation]]) -> list[Operation]:
    """Leave out all parts that are not needed, many at once as long as that goes well."""
    size = max(1, len(parts) // 2)
    while True:
        position = 0
        while position < len(parts):
            dropped = {id(each) for part in parts[position : position + size] for each in part}
            rest = [each for each in operations if id(each) not in dropped]
            if is_linearizable(rest):
                position += size
            else:
                operations = rest
                del parts[position : position + size]
        if size == 1:
            return operations
        size //= 2


def _by_value(operations: list[Operation]) -> list[list[Operation]]:
    groups: dict[str | None, list[Operation]] = {}
    for each in operations:
        groups.setdefault(each.value, []).append(each)
    return list(groups.values())


def _is_unseen_clear(operation: Operation, operations: list[Operation]) -> bool:
    """Whether this is a clear that no read can have seen, in any order."""
    if (operation.action, operation.value) != ("write", None):
        return False
    overwritten_ns = min(
        (
            each.responded_ns
            for each in operations
            if each.action == "write" and each.value is not None and each.invoked_ns > operation.responded_ns
        ),
        default=NEVER,
    )
    misses = [each for each in operations if (each.action, each.value) == ("read", None)]
    return all(each.responded_ns < operation.invoked_ns or each.invoked_ns > overwritten_ns for each in misses)
