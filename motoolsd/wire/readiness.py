"""What a starting daemon tells its starter.

Layer: wire. Imports messages.
Invariant: one JSON text on a pipe, never on a socket.
"""

from __future__ import annotations

from msgspec import Struct

from motoolsd.wire.messages import Failure


class Readiness(Struct, frozen=True, omit_defaults=True):
    """What a starting daemon writes, as one JSON text, to the pipe that its starter gave it, before it closes it."""

    pid: int
    already_running: bool = False
    """Another daemon holds the lock: connect to that one."""
    failure: Failure | None = None
    """Why this daemon does not start; None when it accepts connections now."""
