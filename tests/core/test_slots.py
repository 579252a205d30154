"""A slot's number changes in the step in which a change becomes visible."""

from __future__ import annotations

import random
from array import array

from motoolsd.core.slots import ALL, Slots
from motoolsd.wire.keys import SLOT_COUNT


def test_moving_slot_is_not_current() -> None:
    """What is read while a commit may change it is not to be kept."""
    slots = Slots(base=5)
    slots.begin({3})
    assert slots.is_moving(3)
    assert not slots.is_current(3, 5)
    assert slots.is_current(4, 5)


def test_finish_bumps_what_was_moving() -> None:
    """After the change is visible, older numbers are out of date, and new ones hold."""
    slots = Slots(base=5)
    slots.begin({3})
    slots.finish({3})
    assert (slots.number(3), slots.number(4)) == (6, 5)
    assert slots.is_current(3, 6)


def test_slot_moves_until_the_last_of_its_changes_is_shown() -> None:
    """Two writes that wait may touch one slot; the first one's end does not make what was read safe."""
    slots = Slots(base=0)
    slots.begin({1, 2})
    slots.begin({1})
    slots.finish({1, 2})
    assert (slots.is_moving(1), slots.is_moving(2)) == (True, False)
    slots.finish({1})
    assert not slots.is_moving(1)
    assert (slots.number(1), slots.number(2)) == (2, 1)


def test_change_of_all_slots_moves_each() -> None:
    """While a table is being cleared every slot moves, those of other changes beyond its end."""
    slots = Slots(base=0)
    slots.begin({7})
    slots.begin(ALL)
    assert slots.is_moving(5)
    slots.finish(ALL)
    assert (slots.is_moving(5), slots.is_moving(7)) == (False, True)
    assert slots.number(5) == 1


def test_snapshot_does_not_follow() -> None:
    """Numbers that were copied before a read stay what they were."""
    slots = Slots(base=5)
    before = slots.snapshot()
    slots.bump(ALL)
    assert (before[0], slots.number(0), slots.number(SLOT_COUNT - 1)) == (5, 6, 6)


def test_largest_random_base_does_not_overflow() -> None:
    """62 random bits leave room for more bumps than there will be."""
    slots = Slots(base=2**62 - 1)
    slots.bump({0})
    assert slots.number(0) == 2**62


def test_numbers_are_kept_where_they_are_asked_to_be() -> None:
    """A client that has mapped them sees every change; what stood there before is gone with the start."""
    kept = memoryview(array("Q", [99]) * SLOT_COUNT)
    slots = Slots(base=5, numbers=kept)
    assert set(kept) == {5}
    slots.bump({3})
    slots.begin({4})
    slots.finish({4})
    assert kept[2:6].tolist() == [5, 6, 7, 5]
    assert [slots.number(slot) for slot in range(2, 6)] == [5, 6, 7, 5]


def test_beginning_a_change_does_not_change_the_number() -> None:
    """What is remembered holds until the change is acknowledged; it may still fail."""
    kept = memoryview(array("Q", bytes(8 * SLOT_COUNT)))
    slots = Slots(base=5, numbers=kept)
    slots.begin({3})
    slots.begin(ALL)
    assert set(kept) == {5}


def test_no_number_comes_twice_in_one_slot() -> None:
    """Equal must mean unchanged: an answer that was remembered long ago never becomes true again by chance."""
    randomness = random.Random(7)
    kept = memoryview(array("Q", bytes(8 * SLOT_COUNT)))
    slots = Slots(base=2**62 - 1, numbers=kept)
    seen = {slot: {kept[slot]} for slot in range(8)}
    for _ in range(500):
        changed = ALL if randomness.random() < 0.05 else set(randomness.sample(range(8), randomness.randint(0, 4)))
        slots.bump(changed)
        for slot in changed & seen.keys():
            assert kept[slot] not in seen[slot]
            seen[slot].add(kept[slot])


class CountingView:
    """Numbers that say how often they were written to. As much of a memoryview as Slots uses."""

    def __init__(self, numbers: memoryview[int]) -> None:
        """Nothing written yet."""
        self.numbers = numbers
        self.writes: list[object] = []

    def __setitem__(self, place: int | slice, value: object) -> None:
        """Write, and keep where."""
        self.writes.append(place)
        self.numbers[place] = value  # type: ignore[call-overload]


def test_all_slots_change_in_one_step() -> None:
    """One copy for all of them: 65,536 writes one by one would hold every lookup up."""
    counting = CountingView(memoryview(array("Q", bytes(8 * SLOT_COUNT))))
    slots = Slots(base=5, numbers=counting)  # type: ignore[arg-type]
    slots.bump(ALL)
    assert counting.writes == [slice(None)] * 2
    assert set(counting.numbers) == {6}
