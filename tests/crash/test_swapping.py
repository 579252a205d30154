"""An attacker swaps directories for links while the tree is cleaned up: nothing outside of it is lost."""

from __future__ import annotations

import errno
import os
from collections import Counter
from itertools import count
from pathlib import Path

import pytest

from tests.adapters.places import nothing
from tests.crash import attacker
from tests.crash.arena import KINDS, Arena, naive, opened

LONG = os.environ.get("MOTOOLSD_TORTURE") == "1"
ROUNDS = 10_000 if LONG else 250
"""Of each kind in turn."""
NAIVE_ROUNDS_MAX = 3_000
"""Within so many, what is not careful loses a file; mostly within the first hundred."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not attacker.can_exchange(), reason="this C library cannot exchange two paths"),
]


@pytest.fixture
def arena(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Arena:
    """Not on disk: it is not the disk that is attacked."""
    monkeypatch.setattr(os, "fsync", nothing)
    return Arena(short_dir)


def test_nothing_outside_is_lost_whatever_is_swapped(arena: Arena) -> None:
    """Every file is there, with its inode and content, and no file has come."""
    told: Counter[str] = Counter()
    arena.build()
    with arena.attacked() as wake:
        for number in range(ROUNDS):
            arena.build()
            with opened(arena) as tree:
                KINDS[number % len(KINDS)](arena, tree, told, wake)
            if number % 50 == 0 or number == ROUNDS - 1:
                assert arena.all_outside() == arena.before, told
    assert arena.all_outside() == arena.before, told
    print(ROUNDS, "rounds:", *(f"\n  {times:6} {what}" for what, times in told.most_common()))  # noqa: T201
    # Else nothing was attacked, or everything was refused.
    for what in ("moved", "put back", "purged", "published"):
        assert told[what], told
    assert any(what.startswith("not ") for what in told), told


def test_attacker_is_one(arena: Arena) -> None:
    """What works by paths loses files outside: else the test above would prove nothing."""
    arena.build()
    with arena.attacked() as wake:
        for number in count():
            assert number < NAIVE_ROUNDS_MAX, "a naive clean-up lost nothing"
            arena.build()
            wake()
            failed = False
            try:
                naive(f"{arena.cache}/runs/job")
            except OSError as error:
                expected = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENOTEMPTY)
                failed = error.errno not in expected
            assert not failed, "the naive clean-up fails by itself"
            arena.rest()
            if arena.all_outside() != arena.before:
                break
    print("a naive clean-up lost files in round", number)  # noqa: T201
