"""A claim that need not wait, one that waits, and the answer that wakes it.

Layer: engine. Imports core and wire.
Invariant: a claim is answered once.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from motoolsd.core.errors import RequestError
from motoolsd.core.leases import Answer, Key
from motoolsd.wire.entries import KeyState
from motoolsd.wire.messages import Found


def found_states(keys: Sequence[Key], found: Found) -> dict[Key, KeyState]:
    """Those of the claimed keys that have a value; the version of one that does not go with the asked one is named."""
    return {
        key: KeyState(value=value, version=found.versions.get(place))
        for place, (key, value) in enumerate(zip(keys, found.values, strict=True))
        if value is not None
    }


class Waiting:
    """A claim that waits for its answer."""

    def __init__(self, peer: object) -> None:
        """Remember whose connection it came on."""
        self.peer = peer
        self.answered = anyio.Event()
        self.answer: Answer | RequestError | None = None
        """None after `answered`: nobody is there any more."""

    def give(self, answer: Answer | RequestError | None) -> None:
        """Wake the claim; the first answer counts."""
        if not self.answered.is_set():
            self.answer = answer
            self.answered.set()
