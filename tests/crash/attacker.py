"""A process that swaps directories for links and back, as fast as it can.

Run with the path of its word file and pairs of paths, the first of each with `/./` where the tree begins. A pair is a
directory that others work in and a link that points elsewhere; they change places, so that the directory goes out and
the link comes in, in one step and at any moment.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import sys
from pathlib import Path
from typing import Final

GO, REST, RESTING = b"g", b"r", b"z"
"""What the first byte of the word file says; the attacker itself writes the last."""
SPIN_MAX: Final = 300
"""Turns that it waits at most before it swaps again: some of the time the link is there for longer."""
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW

_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def can_exchange() -> bool:
    """Whether the C library has the call."""
    return _renameat2 is not None


def exchange(victim: bytes, link: bytes) -> bool:
    """Let two paths change places; whether they did.

    The way to the victim leads through no link: else it would be the attacker who takes away what lies elsewhere.
    """
    assert _renameat2 is not None
    top, _, below_top = victim.partition(b"/./")
    *names, name = below_top.split(b"/")
    parent = os.open(top, _DIRECTORY)
    try:
        for between in names:
            below = os.open(between, _DIRECTORY, dir_fd=parent)
            os.close(parent)
            parent = below
        return bool(_renameat2(parent, name, _AT_FDCWD, link, _RENAME_EXCHANGE) == 0)
    except OSError:
        return False
    finally:
        os.close(parent)


def attack(word: mmap.mmap, pairs: list[tuple[bytes, bytes]]) -> None:
    """Swap while the word is to go; at rest, everything is put back as far as it is still there."""
    swapped: list[int] = []
    parent = os.getppid()
    chance = random.Random(parent)
    while os.getppid() == parent:
        if word[:1] != GO:
            while swapped:
                exchange(*pairs[swapped.pop()])
            word[:1] = RESTING
            while word[:1] == RESTING and os.getppid() == parent:
                os.sched_yield()
            continue
        number = chance.randrange(len(pairs))
        # What was swapped last goes back first: its path may lead through another that was swapped before.
        if swapped and chance.random() < 0.5:
            exchange(*pairs[swapped.pop()])
        elif number not in swapped and exchange(*pairs[number]):
            swapped.append(number)
        for _ in range(chance.randrange(SPIN_MAX)):
            pass


if __name__ == "__main__":
    with Path(sys.argv[1]).open("r+b") as file, mmap.mmap(file.fileno(), 1) as shared:
        paths = [os.fsencode(path) for path in sys.argv[2:]]
        attack(shared, list(zip(paths[::2], paths[1::2], strict=True)))
