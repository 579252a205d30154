"""Deadlines that outlive a boot.

Layer: core. Imports nothing of motoolsd.
Invariant: pure. Within one boot the clock that nobody can set counts, after a boot the wall clock: CLOCK_BOOTTIME
begins anew then.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec

CLOCK_JUMP_MAX_S: Final = 3_600.0
"""A wall clock that moved further than this against the other is not believed."""
_WALL_MAX_S: Final = 253_402_300_799.0
"""The end of the year 9999, and of the calendar."""


class Moment(msgspec.Struct, frozen=True, array_like=True):
    """A point in time, as three clocks say it."""

    boot_id: str
    boottime_s: float
    """CLOCK_BOOTTIME: seconds since boot, sleep included."""
    wall_s: float
    """Seconds since the epoch."""

    def after(self, seconds: float) -> Moment:
        """So much later, if the machine stays up."""
        return Moment(self.boot_id, self.boottime_s + seconds, self.wall_s + seconds)

    def is_over(self, now: Moment) -> bool:
        """Whether it lies behind `now`."""
        if self.boot_id == now.boot_id:
            return self.boottime_s <= now.boottime_s
        return self.wall_s <= now.wall_s

    def has_jumped(self, now: Moment) -> bool:
        """Whether the wall clock was set between this and `now`, moments of one boot."""
        return abs((now.wall_s - self.wall_s) - (now.boottime_s - self.boottime_s)) > CLOCK_JUMP_MAX_S

    @property
    def text(self) -> str:
        """The wall clock's time, RFC 3339 UTC to the second."""
        return datetime.fromtimestamp(self.wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def packed(self) -> str:
        """As it is stored."""
        return msgspec.json.encode(self).decode()


_decoder = msgspec.json.Decoder(Moment)


def unpacked(stored: bytes | str | None) -> Moment | None:
    """A stored deadline; None where there is none, or where somebody wrote something else by hand."""
    if stored is None:
        return None
    try:
        found = _decoder.decode(stored)
    except (msgspec.MsgspecError, UnicodeError, TypeError):
        return None
    return found if 0 <= found.wall_s <= _WALL_MAX_S else None  # what is listed must have a text
