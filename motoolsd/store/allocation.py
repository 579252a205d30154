"""SQLite's count of the memory that it uses, and how to do without it.

Layer: store. Imports nothing.
Invariant: SQLite is changed only where nothing of it is in use in this process, and it is the library that the module
sqlite3 works with; where that is not known to be so, nothing happens.
"""

from __future__ import annotations

import _sqlite3
import ctypes
from typing import Final

_OK: Final = 0
_CONFIG_MEMSTATUS: Final = 9
_SAMPLE_BYTES: Final = 64


def stop_counting() -> bool:
    """Have SQLite allocate memory without counting it: threads that read JSON wait for each other at the count.

    To be called once, before the first connection, while no other thread uses SQLite.

    Returns:
        Whether nothing is counted now. False: a connection is open, or the library cannot be reached; all works as
        before then, only slower.
    """
    try:
        # By the module's own file: the library that it is linked to is found first.
        library = ctypes.CDLL(_sqlite3.__file__)
        library.sqlite3_malloc.restype = ctypes.c_void_p
        library.sqlite3_free.argtypes = (ctypes.c_void_p,)
        library.sqlite3_free.restype = None
        library.sqlite3_memory_used.restype = ctypes.c_int64
        is_threadsafe = bool(library.sqlite3_threadsafe())
        calls = library.sqlite3_shutdown, library.sqlite3_config, library.sqlite3_initialize
    except (AttributeError, OSError):
        return False  # built into the interpreter, or with hidden names
    used_bytes = library.sqlite3_memory_used()
    if not _counts(library):
        return True
    if used_bytes or not is_threadsafe:
        return False
    shut_down, configure, initialize = calls
    # It can be configured only while it is not initialized, and importing sqlite3 did that.
    is_done = shut_down() == _OK and configure(_CONFIG_MEMSTATUS, 0) == _OK
    return bool(initialize() == _OK and is_done)


def _counts(library: ctypes.CDLL) -> bool:
    """Whether a piece of memory is seen; without this a second call would not know that connections are open."""
    sample = library.sqlite3_malloc(_SAMPLE_BYTES)
    try:
        return bool(library.sqlite3_memory_used())
    finally:
        library.sqlite3_free(sample)
