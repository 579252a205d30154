"""A claim that waits, and the answer that wakes it.

Layer: engine. Imports core.
Invariant: a claim is answered once.
"""

from __future__ import annotations

import anyio

from motoolsd.core.errors import RequestError
from motoolsd.core.leases import Answer


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
