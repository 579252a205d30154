"""Work on files in a worker thread, and what the disk refuses as a refusal of the request.

Layer: engine. Imports core.
Invariant: no error of the tree leaves as anything else than a RequestError: a disk that is full, or a process that is
out of descriptors, fails one request or one look, never the daemon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread

from motoolsd.core.errors import NoRoom, ReadOnlyDisk, StorageFailed
from motoolsd.core.ports import DiskFull, ReadOnly, TreeError

T = TypeVar("T")


async def run_on_disk(work: Callable[[], T], *, abandon_on_cancel: bool = False) -> T:
    """Call in a worker thread what works on the tree.

    Cancellation: the thread comes to its end first; with `abandon_on_cancel` it is left to itself.

    Raises:
        StorageFailed: the tree cannot be read or changed as asked.
    """
    try:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=abandon_on_cancel)
    except TreeError as error:
        raise refusal(error) from error


def refusal(error: TreeError) -> StorageFailed:
    """What a client is told of an error of the tree."""
    if isinstance(error, DiskFull):
        return NoRoom(str(error))
    if isinstance(error, ReadOnly):
        return ReadOnlyDisk(str(error))
    return StorageFailed(f"the disk refuses: {error}")
