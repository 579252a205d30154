"""The checker of histories is right: against all orders tried out, orders made up, and a planted bug."""

from __future__ import annotations

import itertools
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import anyio
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from motoolsd.adapters.directory import open_directory
from motoolsd.core.settings import Settings
from motoolsd.core.slots import Slots
from motoolsd.store.migration import prepare_database
from motoolsd.store.reads import Values
from motoolsd.store.store import open_store
from motoolsd.wire.keys import Kind, slot_of
from tests.engine.bench import Bench, new_bench
from tests.engine.conftest import running
from tests.fakes import GatedStore
from tests.linearizability import NEVER, Operation, clear, find_violation, is_linearizable, read, write
from tests.samples import put_dataset

STEP_NS = 10


# What is a violation, and what is none.

ACCEPTED = {
    "nothing happened": [],
    "miss before anything": [read(None, 1, 2)],
    "read of an acknowledged write": [write("a", 1, 2), read("a", 3, 4)],
    "old value while the write is under way": [write("a", 1, 2), write("b", 3, 9), read("a", 4, 5)],
    "old, then new, while the write is under way": [write("a", 1, 9), read(None, 2, 3), read("a", 4, 5)],
    "two writes at once, seen in either order": [
        write("a", 1, 9),
        write("b", 2, 8),
        read("b", 3, 4),
        read("a", 5, 6),
        read("a", 10, 11),
    ],
    "a write that nobody saw": [write("a", 1, 9), write("b", 2, 8), read("b", 10, 11), read("b", 12, 13)],
    "write of unknown outcome seen at once": [write("a", 1, NEVER), read("a", 2, 3)],
    "write of unknown outcome seen much later": [
        write("a", 1, 2),
        write("b", 3, NEVER),
        read("a", 4, 5),
        write("c", 6, 7),
        read("c", 8, 9),
        read("b", 10, 11),
    ],
    "write of unknown outcome never seen": [write("a", 1, 2), write("b", 3, NEVER), read("a", 4, 5), read("a", 6, 7)],
    "clear": [write("a", 1, 2), clear(3, 4), read(None, 5, 6)],
    "nothing, again and again": [
        read(None, 1, 2),
        write("a", 3, 4),
        clear(5, 6),
        read(None, 7, 8),
        write("b", 9, 10),
        read("b", 11, 12),
        clear(13, 14),
        read(None, 15, 16),
        read(None, 17, 18),
    ],
    "two clears of unknown outcome, seen twice": [
        clear(1, NEVER),
        clear(2, NEVER),
        write("a", 3, 4),
        read(None, 5, 6),
        write("b", 7, 8),
        read(None, 9, 10),
    ],
    "calls that touch count as overlapping": [write("a", 1, 5), read(None, 5, 6)],
    "lookup that got no answer": [write("a", 1, 2), read("b", 3, NEVER), read("a", 4, 5)],
}

REJECTED = {
    "stale read after an acknowledged write": [write("a", 1, 2), write("b", 3, 4), read("a", 5, 6)],
    "miss after an acknowledged write": [write("a", 1, 2), read(None, 3, 4)],
    "new, then old, by two readers": [write("a", 1, 2), write("b", 3, 20), read("b", 4, 5), read("a", 6, 7)],
    "new, then nothing, by two readers": [write("a", 1, 20), read("a", 4, 5), read(None, 6, 7)],
    "lost write": [write("a", 1, 2), write("b", 3, 4), read("b", 5, 6), read("a", 7, 8)],
    "read from the future": [read("a", 1, 2), write("a", 3, 4)],
    "read from the future, of unknown outcome": [read("a", 1, 2), write("a", 3, NEVER)],
    "value that nobody wrote": [write("a", 1, 2), read("b", 3, 4)],
    "what was cleared is back": [write("a", 1, 2), clear(3, 4), read("a", 5, 6)],
    "clear, and a miss before it": [write("a", 1, 2), read(None, 3, 4), clear(5, 6)],
    "write of unknown outcome seen, then not": [
        write("a", 1, 2),
        write("b", 3, NEVER),
        read("b", 4, 5),
        read("a", 6, 7),
    ],
    "one clear of unknown outcome, seen twice": [
        clear(1, NEVER),
        write("a", 3, 4),
        read(None, 5, 6),
        write("b", 7, 8),
        read(None, 9, 10),
    ],
    "two values by turns": [
        write("a", 1, 20),
        write("b", 2, 20),
        read("a", 3, 4),
        read("b", 5, 6),
        read("a", 7, 8),
    ],
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_history_that_has_an_order_is_accepted(name: str) -> None:
    """None of these is a bug, however odd it looks."""
    assert find_violation({"key": ACCEPTED[name]}) is None


@pytest.mark.parametrize("name", REJECTED)
def test_history_without_an_order_is_rejected(name: str) -> None:
    """Each of these is a bug that a cache can have."""
    assert find_violation({"key": REJECTED[name]}) is not None


def test_report_names_the_key_and_as_few_operations_as_contradict_each_other() -> None:
    """Out of a thousand operations of ten keys, the three that matter are shown."""
    histories = {f"k{number}": real_history(Random(number), 100)[0] for number in range(10)}
    end_ns = max(each.responded_ns for each in histories["k7"] if each.responded_ns != NEVER) + 1
    planted = [
        write("old", end_ns, end_ns + 1000, "sync-1"),
        write("new", end_ns + 2000, end_ns + 3000, "async-2"),
        read("old", end_ns + 4000, end_ns + 5500, "sync-3"),
    ]
    histories["k7"] += planted
    violation = find_violation(histories)
    assert violation is not None
    assert violation.key == "k7"
    assert violation.operations == tuple(planted)
    assert str(violation).splitlines() == [
        "key 'k7': no order of these operations explains what they returned (in us)",
        "             0.0              1.0  sync-1       write 'old'",
        "             2.0              3.0  async-2      write 'new'",
        "             4.0              5.5  sync-3       read 'old'",
    ]


def test_report_keeps_the_clear_that_a_contradiction_needs() -> None:
    """Clears that nobody can have seen are left out, the one that matters is not."""
    needed = [write("a", 50, 51), clear(52, 53), read("a", 54, 55)]
    violation = find_violation({"key": [clear(1, 2), read(None, 3, 4), *needed, clear(60, 61), read(None, 62, 63)]})
    assert violation is not None
    assert violation.operations == tuple(needed)


def test_history_that_cannot_be_judged_is_refused() -> None:
    """A value that was written twice, and an operation that ends before it begins, are mistakes of the recorder."""
    with pytest.raises(ValueError, match="written 2 times"):
        is_linearizable([write("a", 1, 2), write("a", 3, 4)])
    with pytest.raises(ValueError, match="ends before it begins"):
        is_linearizable([write("a", 2, 1)])


# Against every order of a few operations.


def has_order(operations: Sequence[Operation]) -> bool:
    """What the checker says, by trying every order of every choice of what took effect."""
    known = [each for each in operations if each.responded_ns != NEVER]
    unknown = [each for each in operations if each.responded_ns == NEVER and each.action == "write"]
    choices = (chosen for count in range(len(unknown) + 1) for chosen in itertools.combinations(unknown, count))
    return any(explains(order) for chosen in choices for order in itertools.permutations([*known, *chosen]))


def explains(order: Sequence[Operation]) -> bool:
    """Whether one order keeps to the times, and each read returns what was written last."""
    stored = None
    begun_ns = 0
    for each in order:
        begun_ns = max(begun_ns, each.invoked_ns)
        if each.responded_ns < begun_ns or (each.action == "read" and each.value != stored):
            return False
        if each.action == "write":
            stored = each.value
    return True


@st.composite
def any_history(draw: st.DrawFn) -> list[Operation]:
    """Up to six operations that may contradict each other."""
    values = iter("abcdef")
    operations = []
    for _ in range(draw(st.integers(1, 6))):
        invoked_ns = draw(st.integers(0, 12))
        responded_ns = draw(st.one_of(st.integers(invoked_ns, 13), st.just(NEVER)))
        match draw(st.sampled_from(["write", "clear", "read", "read"])):
            case "write":
                operations.append(write(next(values), invoked_ns, responded_ns))
            case "clear":
                operations.append(clear(invoked_ns, responded_ns))
            case _:
                operations.append(read(draw(st.sampled_from([None, "a", "b", "c"])), invoked_ns, responded_ns))
    return operations


@pytest.mark.slow
@given(any_history())
def test_checker_agrees_with_trying_every_order(operations: list[Operation]) -> None:
    """It accepts what has an order and nothing else, and what it reports is part of the history and has none."""
    violation = find_violation({"key": operations})
    assert (violation is None) == has_order(operations)
    if violation is not None:
        assert not has_order(violation.operations)
        assert all(each in operations for each in violation.operations)


# Against orders made up first.


def real_history(randomness: Random, length: int, spread: int = 5) -> tuple[list[Operation], list[Operation]]:
    """Operations whose calls lie around the moments at which they take effect, one after another.

    Returns:
        The operations in the order in which their calls end, and in that of their effects.
    """
    stored: str | None = None
    order = []
    for number in range(length):
        effect_ns = (number + spread) * STEP_NS
        times = (effect_ns - randomness.randrange(spread * STEP_NS), effect_ns + randomness.randrange(spread * STEP_NS))
        is_unknown = randomness.random() < 0.1
        change = randomness.choices(["read", "write", "clear"], [6, 3, 1])[0]
        if change == "read":
            order.append(read(stored, *times))
            continue
        # Of unknown outcome, half took effect.
        happened = not is_unknown or randomness.random() < 0.5
        value = f"v{number}" if change == "write" else None
        order.append(Operation("write", value, times[0], NEVER if is_unknown else times[1]))
        if happened:
            stored = value
    return sorted(order, key=lambda each: each.responded_ns), order


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 8))
def test_real_order_is_accepted(seed: int, length: int, spread: int) -> None:
    """Whatever took effect one after another is accepted, with up to sixteen calls at once and unknown outcomes."""
    operations, _ = real_history(Random(seed), length, spread)
    assert find_violation({"key": operations}) is None


@given(st.integers(0, 2**32), st.integers(10, 60), st.integers(1, 4))
def test_read_of_an_older_value_is_rejected(seed: int, length: int, spread: int) -> None:
    """One read made stale: of what it returns, a later write was acknowledged before the read began."""
    randomness = Random(seed)
    operations, _ = real_history(randomness, length, spread)
    known = [each for each in operations if each.action == "write" and each.responded_ns != NEVER]
    stale = [
        (older, fresh)
        for older, newer in itertools.permutations(known, 2)
        for fresh in operations
        if older.value is not None and older.responded_ns < newer.invoked_ns
        if fresh.action == "read" and newer.responded_ns < fresh.invoked_ns
    ]
    assume(stale)
    older, fresh = randomness.choice(stale)
    mutated = [each for each in operations if each is not fresh]
    mutated.append(read(older.value, fresh.invoked_ns, fresh.responded_ns))
    assert find_violation({"key": mutated}) is not None


@pytest.mark.slow
def test_100_000_operations_are_judged() -> None:
    """On 64 keys with ten calls at once, in one go."""
    histories = {f"k{number}": real_history(Random(number), 1600)[0] for number in range(64)}
    assert find_violation(histories) is None


# Against the daemon's hole that moving slots close.


@dataclass
class Recorded:
    """A history of one key, on a clock that ticks at each look."""

    bench: Bench
    operations: list[Operation] = field(default_factory=list)
    _clock: itertools.count[int] = field(default_factory=itertools.count)

    async def put(self, value: str) -> None:
        """Store a value."""
        invoked_ns = next(self._clock)
        await self.bench.write(put_dataset("d", value.encode()))
        self.operations.append(write(value, invoked_ns, next(self._clock), "writer"))

    async def get(self, process: str) -> None:
        """Ask the engine, as a client does that remembers nothing."""
        invoked_ns = next(self._clock)
        value = await self.bench.look_up("d")
        text = None if value is None else value.decode()
        self.operations.append(read(text, invoked_ns, next(self._clock), process))

    def get_remembered(self, value: str, number: int) -> bool:
        """Answer as a client does that remembers a value and its slot's number; whether it can."""
        invoked_ns = next(self._clock)
        if self.bench.slots.number(slot_of(Kind.DATASET, "d")) != number:
            return False
        self.operations.append(read(value, invoked_ns, next(self._clock), "warm"))
        return True


@asynccontextmanager
async def small_engine(database: Path) -> AsyncIterator[Bench]:
    """An engine that holds one entry in memory, over a real database."""
    prepare_database(str(database))
    with open_directory(str(database.parent)) as directory:
        async with open_store(str(database), synchronous="NORMAL") as real:
            bench = new_bench(GatedStore.around(real), directory, Settings(index_entries_max=1))
            async with running(bench):
                yield bench


async def read_during_a_commit(bench: Bench, *, is_held: bool = True) -> list[Operation]:
    """What two readers see while a new value is on disk, but not published yet: one asks, one remembers.

    The answer of the one that asks is held until then; if it is not held, it is waited for.
    """
    recorded = Recorded(bench)
    await recorded.put("old")
    await recorded.get("warm")
    number = bench.slots.number(slot_of(Kind.DATASET, "d"))
    await bench.write(put_dataset("other"))
    assert bench.index.find(Kind.DATASET, ["d"]) == [None], "there is room for one entry"
    bench.store.shown_gate, bench.store.committed = threading.Event(), anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(recorded.put, "new")
        await bench.store.committed.wait()
        if is_held:
            group.start_soon(recorded.get, "asking")
            for _ in range(20):  # SQLite answers from a thread: as long as a lookup could take, and longer
                assert await bench.store.values(Kind.DATASET, ["d"]) == Values({"d": b"new"}, {})
                await anyio.wait_all_tasks_blocked()
        else:
            await recorded.get("asking")
        assert recorded.get_remembered("old", number), "nothing was published"
        bench.open_gates()
    assert not recorded.get_remembered("old", number), "the number changed with the answer to the write"
    await recorded.get("asking")
    return recorded.operations


async def test_no_reader_is_ahead_of_others_while_a_commit_is_under_way(tmp_path: Path) -> None:
    """An answer that SQLite gave between COMMIT and publishing is held: the history has an order."""
    async with small_engine(tmp_path / "cache.db") as bench:
        operations = await read_during_a_commit(bench)
    assert [each.value for each in operations] == ["old", "old", "old", "new", "new", "new"]
    assert find_violation({"d": operations}) is None


async def test_hole_that_moving_slots_close_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them one reader sees the new value, and another, later, the old one: the history has no order."""
    monkeypatch.setattr(Slots, "is_moving", lambda _self, _slot: False)
    async with small_engine(tmp_path / "cache.db") as bench:
        operations = await read_during_a_commit(bench, is_held=False)
    violation = find_violation({"d": operations})
    assert violation is not None
    assert [(each.process, each.action, each.value) for each in violation.operations] == [
        ("writer", "write", "old"),
        ("writer", "write", "new"),
        ("asking", "read", "new"),
        ("warm", "read", "old"),
    ]
