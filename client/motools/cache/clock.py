"""The client's clock.

Layer: motools.cache. Imports nothing.
Invariant: the only place in the package that reads a clock or pauses a thread.
"""

from time import gmtime, strftime, time_ns  # noqa: TID251 - this is the client's Clock
from time import monotonic as monotonic_s  # noqa: TID251 - as above
from time import sleep as pause  # noqa: TID251 - as above

__all__ = ["monotonic_s", "pause", "utc_text", "wall_s"]


def wall_s() -> float:
    """Now, in seconds since 1970."""
    return time_ns() / 1e9


def utc_text(since_1970_s: float | None = None) -> str:
    """A time, or now, as RFC 3339 UTC with milliseconds: `2026-01-31T23:59:59.123Z`."""
    now_ms = time_ns() // 1_000_000 if since_1970_s is None else int(since_1970_s * 1000)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(now_ms // 1000))}.{now_ms % 1000:03d}Z"
