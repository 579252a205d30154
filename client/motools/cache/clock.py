"""The client's clock.

Layer: motools.cache. Imports nothing.
Invariant: the only place in the package that reads a clock or pauses a thread.
"""

from time import monotonic as monotonic_s  # noqa: TID251 - this is the client's Clock
from time import sleep as pause  # noqa: TID251 - as above

__all__ = ["monotonic_s", "pause"]
