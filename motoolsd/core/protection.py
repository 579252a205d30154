"""What keeps entries and directories from being cleaned up.

Layer: core. Imports leases.
Invariant: pure.
"""

from __future__ import annotations

from msgspec import Struct

from motoolsd.core.leases import Key, Process


class InUse(Struct, frozen=True):
    """Entries that a process uses, until it says that it does not, or ends."""

    use_id: bytes
    entries: tuple[Key, ...]
    process: Process
