"""Telling the process that started us that we are ready, or why we are not.

Layer: adapters. Imports wire.messages.
Invariant: said exactly once; the pipe is closed afterwards, so that the starter's read ends.
"""

from __future__ import annotations

import os
from contextlib import suppress

import msgspec

from motoolsd.wire.messages import Failure
from motoolsd.wire.readiness import Readiness


class ReadinessPipe:
    """The writing end of the starter's pipe, or nothing where nobody waits."""

    def __init__(self, descriptor: int | None) -> None:
        """Take over the descriptor, and keep it from children."""
        self._descriptor = descriptor
        if descriptor is not None:
            os.set_inheritable(descriptor, False)

    def say_ready(self) -> None:
        """Connections are accepted from now on."""
        self._say(Readiness(pid=os.getpid()))

    def say_already_running(self) -> None:
        """Another daemon owns the directory."""
        self._say(Readiness(pid=os.getpid(), already_running=True))

    def say_failed(self, failure: Failure) -> None:
        """The daemon does not start."""
        self._say(Readiness(pid=os.getpid(), failure=failure))

    def _say(self, readiness: Readiness) -> None:
        if self._descriptor is None:
            return
        # The starter may have given up waiting; somebody else may still want the daemon.
        with suppress(OSError):
            os.write(self._descriptor, msgspec.json.encode(readiness))
        os.close(self._descriptor)
        self._descriptor = None
