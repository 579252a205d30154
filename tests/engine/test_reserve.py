"""The ballast goes when it is needed, and comes back."""

from __future__ import annotations

import logging

import pytest

from motoolsd.core.ports import DiskFull
from motoolsd.engine.reserve import Reserve

SIZE_BYTES = 1000


class FakeBallast:
    """A disk of which only the figures exist. Fulfils core.ports.Ballast."""

    def __init__(self, free_bytes: int) -> None:
        """No ballast yet."""
        self.held: int | None = None
        self.free = free_bytes
        self.fails = False

    def held_bytes(self) -> int | None:
        """As set."""
        return self.held

    def free_bytes(self) -> int:
        """As set."""
        return self.free

    def make(self, size_bytes: int) -> None:
        """Take it off the free room, or fail."""
        if self.fails:
            raise DiskFull(b"ballast", "no room is left on the disk")
        self.free += (self.held or 0) - size_bytes
        self.held = size_bytes

    def release(self, *, keep: float = 0.0) -> bool:
        """Give it back."""
        held, self.held = self.held, int((self.held or 0) * keep) or None
        self.free += (held or 0) - (self.held or 0)
        return held is not None


async def test_it_is_made_where_there_is_room(caplog: pytest.LogCaptureFixture) -> None:
    """And said once."""
    ballast = FakeBallast(free_bytes=5 * SIZE_BYTES)
    reserve = Reserve(ballast, SIZE_BYTES)
    with caplog.at_level(logging.INFO):
        await reserve.keep()
        await reserve.keep()
    assert ballast.held == SIZE_BYTES
    assert caplog.text.count("was made") == 1


async def test_it_comes_back_only_when_there_is_room_for_two(caplog: pytest.LogCaptureFixture) -> None:
    """What it was let go of for is done first; that it went is said once."""
    ballast = FakeBallast(free_bytes=5 * SIZE_BYTES)
    reserve = Reserve(ballast, SIZE_BYTES)
    await reserve.keep()
    assert reserve.release()
    assert not reserve.release()
    assert caplog.text.count("the ballast was let go of") == 1
    ballast.free = 2 * SIZE_BYTES - 1
    await reserve.keep()
    assert ballast.held is None
    ballast.free = 2 * SIZE_BYTES
    await reserve.keep()
    assert ballast.held == SIZE_BYTES


async def test_start_takes_a_part(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever starts a daemon on a full disk wants to clean up next."""
    ballast = FakeBallast(free_bytes=5 * SIZE_BYTES)
    reserve = Reserve(ballast, SIZE_BYTES)
    assert not reserve.release_to_start()
    await reserve.keep()
    assert reserve.release_to_start()
    assert ballast.held == SIZE_BYTES * 3 // 4
    assert "a part of the ballast" in caplog.text
    assert reserve.release()


async def test_that_it_cannot_be_made_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Not at every look; and again after it has worked."""
    ballast = FakeBallast(free_bytes=5 * SIZE_BYTES)
    reserve = Reserve(ballast, SIZE_BYTES)
    ballast.fails = True
    await reserve.keep()
    await reserve.keep()
    assert caplog.text.count("no ballast can be made") == 1
    ballast.fails = False
    await reserve.keep()
    ballast.fails = True
    reserve.release()
    await reserve.keep()
    assert caplog.text.count("no ballast can be made") == 2


async def test_without_the_setting_it_goes() -> None:
    """Zero turns it off, also where there was one."""
    ballast = FakeBallast(free_bytes=5 * SIZE_BYTES)
    await Reserve(ballast, SIZE_BYTES).keep()
    await Reserve(ballast, 0).keep()
    assert ballast.held is None
