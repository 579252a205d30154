"""The log file, on a disk that may be full.

Layer: adapters. Imports nothing of motoolsd.
Invariant: a line is written at once, or dropped: logging never fails and keeps nothing back.
"""

from __future__ import annotations

import logging
import os


class LogFile(logging.Handler):
    """Writes each record to an open file. Where there is no room, it is dropped, and what was dropped is told later."""

    def __init__(self, descriptor: int) -> None:
        """Take over a descriptor that appends."""
        super().__init__()
        self._descriptor = descriptor
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

    def close(self) -> None:
        """Close the file; what is logged after that is dropped."""
        self.acquire()
        try:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
        finally:
            self.release()
        super().close()
