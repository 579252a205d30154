"""Exit codes, and errors in words.

Layer: motools.cli. Imports app and motools.cache.errors.
Invariant: no CacheError ends in a traceback.
"""

from __future__ import annotations

import os
import sys

from motools.cache.errors import (
    CacheDirectoryMissing,
    CacheError,
    ConnectionLost,
    DaemonBusy,
    DaemonNotRunning,
    PeerRefused,
)

DONE = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
REFUSED = 4
NO_DAEMON = 69
TIMED_OUT = 75
INTERRUPTED = 130

_CODES: tuple[tuple[type[CacheError], int], ...] = (
    (CacheDirectoryMissing, NOT_FOUND),
    (DaemonNotRunning, NO_DAEMON),
    (DaemonBusy, TIMED_OUT),
    (ConnectionLost, TIMED_OUT),
    (PeerRefused, REFUSED),
)


def exit_code(error: CacheError) -> int:
    """What an error makes the command end with."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def say(text: str) -> None:
    """A message for the person at the terminal."""
    print(text, file=sys.stderr)


def run() -> None:
    """Run the command line and end the process."""
    from motools.cli.app import app

    # File names that are no UTF-8 leave as the bytes that they are.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape")
    try:
        app()
    except CacheError as error:
        say(f"motools: error: {error}")
        sys.exit(exit_code(error))
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(DONE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
