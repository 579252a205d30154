"""All entries in memory, up to a limit; absence is a miss only while nothing is missing."""

from __future__ import annotations

import anyio

from motoolsd.engine.index import DISPOSAL_PAUSE_S, DISPOSED_AT_ONCE, Index
from motoolsd.wire.keys import Kind
from tests.fakes import FakeClock


def full_index() -> Index:
    """An index of two entries with room for two, complete."""
    index = Index(2)
    index.store(Kind.DATASET, "a", b"1")
    index.store(Kind.DATASET, "b", b"2")
    index.complete(index.generation)
    return index


def test_kinds_are_apart() -> None:
    """The same key may be a dataset's and a model's."""
    index = Index(10)
    index.store(Kind.DATASET, "a", b"1")
    index.store(Kind.MODEL, "a", b"2")
    assert index.find(Kind.DATASET, ["a", "b"]) == [b"1", None]
    assert index.find(Kind.MODEL, ["a"]) == [b"2"]
    assert (len(index), index.count(Kind.MODEL)) == (2, 1)


def test_removed_and_emptied() -> None:
    """What was cleared is gone; clearing what is not there is nothing."""
    index = full_index()
    index.remove(Kind.DATASET, "a")
    index.remove(Kind.DATASET, "a")
    assert index.find(Kind.DATASET, ["a", "b"]) == [None, b"2"]
    index.empty(Kind.DATASET)
    assert len(index) == 0
    assert index.is_complete


def test_replacing_drops_nothing() -> None:
    """A full index takes a new value for a key that it holds."""
    index = full_index()
    index.store(Kind.DATASET, "a", b"new")
    assert index.is_complete
    assert index.find(Kind.DATASET, ["a", "b"]) == [b"new", b"2"]


def test_dropping_ends_completeness() -> None:
    """Once something had to go, absence says nothing any more."""
    index = full_index()
    index.store(Kind.MODEL, "c", b"3")
    assert len(index) == 2
    assert not index.is_complete
    index.complete(index.generation)
    assert not index.is_complete


def test_least_recently_used_goes_first() -> None:
    """Once entries are dropped, a lookup makes an entry young."""
    index = full_index()
    index.store(Kind.DATASET, "c", b"3")  # drops a: nothing was looked up before
    assert index.find(Kind.DATASET, ["b"]) == [b"2"]
    index.store(Kind.DATASET, "d", b"4")
    assert index.find(Kind.DATASET, ["b", "c", "d"]) == [b"2", None, b"4"]


def test_loading_never_replaces() -> None:
    """What a commit put in is newer than what a load read."""
    index = Index(2)
    index.store(Kind.DATASET, "a", b"new")
    assert index.add_loaded(Kind.DATASET, "a", b"old")
    assert index.add_loaded(Kind.DATASET, "b", b"2")
    assert not index.add_loaded(Kind.DATASET, "c", b"3")
    assert index.find(Kind.DATASET, ["a", "b", "c"]) == [b"new", b"2", None]


def test_forgetting_voids_a_load_under_way() -> None:
    """A load that began before cannot declare the index complete, and whoever waits to load again is told."""
    index = full_index()
    generation = index.generation
    index.forget()
    assert index.forgotten.is_set()
    assert len(index) == 0
    index.complete(generation)
    assert not index.is_complete
    index.complete(index.generation)
    assert index.is_complete


async def test_what_was_emptied_is_freed_in_slices() -> None:
    """A million entries freed at once would hold lookups up; between two slices the loop goes on."""
    index, clock = Index(10 * DISPOSED_AT_ONCE), FakeClock()
    for number in range(3 * DISPOSED_AT_ONCE):
        index.store(Kind.DATASET, str(number), b"1")
    index.empty(Kind.DATASET)
    assert len(index) == 0
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(index.run_disposal, clock)
            await anyio.wait_all_tasks_blocked()
            assert index.left_over == 2 * DISPOSED_AT_ONCE
            await clock.advance(10 * DISPOSAL_PAUSE_S)
            assert index.left_over == 0
            group.cancel_scope.cancel()


def test_emptying_what_had_no_room_for_all_loads_it_again() -> None:
    """There is room now for what had been left out."""
    index = full_index()
    index.store(Kind.MODEL, "c", b"3")
    index.empty(Kind.DATASET)
    assert index.forgotten.is_set()
    assert not index.is_complete
