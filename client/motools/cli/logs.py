"""The end of a log, and what is added to it.

Layer: motools.cli. Imports motools.cache.
Invariant: of a log of any size, little more is read than is printed.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import BinaryIO

from motools.cache.errors import CacheDirectoryMissing

BLOCK_SIZE_BYTES = 65_536
FOLLOW_PAUSE_S = 0.2


def open_log(path: Path) -> BinaryIO:
    """The log, for reading.

    Raises:
        CacheDirectoryMissing: there is none, or it cannot be read.
    """
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        text = (
            f"no log {path}: no daemon has run there. Start one with `motools daemon start`, or name the cache with -d"
        )
        raise CacheDirectoryMissing(text) from error
    except OSError as error:
        raise CacheDirectoryMissing(f"{path} cannot be read: {error.strerror}") from error


def read_last_lines(file: BinaryIO, count: int) -> bytes:
    """The last lines; afterwards the file stands at its end."""
    end = start = file.seek(0, os.SEEK_END)
    size_bytes, text = BLOCK_SIZE_BYTES, b""
    # One line more than asked for ends before the first of them. Twice as much at each try: a log that is read whole
    # in the end is read about twice, however long it is.
    while start and text.count(b"\n", 0, -1) < count:
        start = max(0, end - size_bytes)
        file.seek(start)
        text = file.read(end - start)
        size_bytes *= 2
    file.seek(end)
    lines = text.splitlines(keepends=True)
    return b"".join(lines[max(0, len(lines) - count) :])


def follow(path: Path, file: BinaryIO, pause: Callable[[float], None]) -> Generator[str, None, None]:
    """What is added to the log, for ever; a log that was cut off or replaced is read from its beginning.

    Args:
        path: where the log is.
        file: opened there, standing where to go on; closed when following ends.
        pause: waits some seconds.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    try:
        while True:
            added = file.read(BLOCK_SIZE_BYTES)
            if added:
                yield decoder.decode(added)
                continue
            # Before the pause, so that the last words of a log that is replaced meanwhile are read first.
            file = _reopen(path, file)
            if os.fstat(file.fileno()).st_size < file.tell():
                file.seek(0)
            pause(FOLLOW_PAUSE_S)
    finally:
        file.close()


def _reopen(path: Path, file: BinaryIO) -> BinaryIO:
    """The file that the path leads to now: the same one, or its successor."""
    try:
        current = path.open("rb")
    except OSError:
        # Gone for now; a new daemon makes a new one.
        return file
    if os.path.samestat(os.fstat(current.fileno()), os.fstat(file.fileno())):
        current.close()
        return file
    file.close()
    return current
