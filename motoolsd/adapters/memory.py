"""Memory that was freed, and given back to the kernel.

The C library keeps what was freed for the next time: after a hundred clients that had asked for more than they read,
a hundred megabytes, for as long as the daemon runs.

Layer: adapters. Imports nothing of motoolsd.
Invariant: where the C library is not glibc, nothing happens.
"""

from __future__ import annotations

import ctypes
from typing import Final

KEPT_BYTES: Final = 8 * 1024 * 1024
"""So much may stay free inside the process: giving back costs time, and a page fault for each page used again."""


class _Mallinfo2(ctypes.Structure):
    """As in malloc.h of glibc 2.33."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def give_back() -> bool:
    """Give free memory back if there is much of it. Blocks for some milliseconds; any thread may call it.

    Returns:
        Whether there was, and some was given back.
    """
    try:
        library = ctypes.CDLL(None)
        library.mallinfo2.restype = _Mallinfo2
        trim = library.malloc_trim
    except (AttributeError, OSError):
        return False
    if library.mallinfo2().fordblks <= KEPT_BYTES:
        return False
    return bool(trim(ctypes.c_size_t(KEPT_BYTES // 4)))
