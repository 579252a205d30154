"""The log file, on a disk that may be full.

Layer: adapters. Imports wire.names.
Invariant: a line is written at once, or dropped: logging never fails and keeps nothing back. Two files take twice
`SIZE_MAX_BYTES` and one line, whatever is logged.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import Final

from motoolsd.wire.names import EARLIER_LOG, LOG

SIZE_MAX_BYTES: Final = 8 * 1024 * 1024
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_STANDARD: Final = (1, 2)


def open_log(directory: int) -> int:
    """A descriptor that appends to the log of a cache directory; made if it is not there.

    Raises:
        OSError: it cannot be.
    """
    return os.open(LOG, _FLAGS, 0o600, dir_fd=directory)


class LogFile(logging.Handler):
    """Writes each record to an open file. Where there is no room, it is dropped, and what was dropped is told later.

    A log that has become too large is set aside, in the place of the one before it, and begun anew.
    """

    def __init__(self, descriptor: int, directory: int | None = None, size_max_bytes: int = SIZE_MAX_BYTES) -> None:
        """Take over a descriptor.

        Args:
            descriptor: appends.
            directory: the cache directory's; None: the log is never set aside.
            size_max_bytes: of one file, but for its last line.
        """
        super().__init__()
        self._descriptor = descriptor
        # Our own: the last lines come when the daemon has closed its.
        self._directory = None if directory is None else os.dup(directory)
        self._size_max_bytes = size_max_bytes
        self._dropped = 0
        self._is_torn = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, or count it as dropped."""
        try:
            text = f"{self.format(record)}\n"
        except Exception:  # noqa: BLE001 - as every handler of logging does
            self.handleError(record)
            return
        if self._dropped:
            text = f"(no room for {self._dropped} lines before this one)\n{text}"
        try:
            self._write(text.encode("utf-8", "backslashreplace"))
        except OSError:
            self._dropped += 1
        else:
            self._dropped = 0

    def _write(self, line: bytes) -> None:
        if self._is_torn:
            line = b"\n" + line
        # What has room for a part of a line has none for the rest of it.
        self._is_torn = os.write(self._descriptor, line) < len(line)
        if self._directory is not None and os.fstat(self._descriptor).st_size >= self._size_max_bytes:
            # A log that cannot be set aside goes on to grow: lines count more.
            with suppress(OSError):
                self._begin_anew(self._directory)

    def _begin_anew(self, directory: int) -> None:
        """Set the log aside, unless its name leads elsewhere by now."""
        full = os.fstat(self._descriptor)
        if not os.path.samestat(full, os.stat(LOG, dir_fd=directory, follow_symlinks=False)):
            return
        os.rename(LOG, EARLIER_LOG, src_dir_fd=directory, dst_dir_fd=directory)
        renewed = open_log(directory)
        for standard in _STANDARD:
            # What is no record, such as the words of a crash, goes the same way.
            with suppress(OSError):
                if os.path.samestat(full, os.fstat(standard)):
                    os.dup2(renewed, standard)
        os.close(self._descriptor)
        self._descriptor = renewed

    def close(self) -> None:
        """Close the file; what is logged after that is dropped."""
        self.acquire()
        try:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
            if self._directory is not None:
                os.close(self._directory)
                self._directory = None
        finally:
            self.release()
        super().close()
