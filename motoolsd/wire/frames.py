"""Frames: a 4-byte big-endian length, then that many bytes.

Layer: wire. Imports errors.
Invariant: a length is checked against the limit before anything is allocated for it.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from motoolsd.wire.errors import RemoteProtocolError

FRAME_SIZE_MAX: Final = 16 * 1024 * 1024
"""Bytes of payload in one frame. One value of 4 MiB with its configuration fits; pages are cut far below."""

HEADER: Final = Struct(">I")


class FrameBuffer:
    """Cuts a byte stream into frames, however the bytes arrive."""

    __slots__ = ("_buffer", "_chunks", "_offset", "_waiting_for", "_waiting_size")

    def __init__(self) -> None:
        """Start empty."""
        self._buffer = b""
        self._offset = 0
        # Chunks of a frame that is not whole yet are joined once, when it is: joining at every arrival would make
        # a large frame quadratic.
        self._chunks: list[bytes] = []
        self._waiting_size = 0
        self._waiting_for = 0

    def feed(self, data: bytes) -> None:
        """Take bytes as they came."""
        if self._chunks or self._offset < len(self._buffer):
            self._chunks.append(data)
            self._waiting_size += len(data)
        else:
            self._buffer = data
            self._offset = 0

    def next_frame(self) -> memoryview | None:
        """The next whole frame's payload, or None until more bytes come.

        Raises:
            RemoteProtocolError: the announced length is zero or over `FRAME_SIZE_MAX`.
        """
        if self._waiting_for and len(self._buffer) - self._offset + self._waiting_size < self._waiting_for:
            return None
        size = self._announced_size()
        if size is None:
            return None
        start = self._offset + HEADER.size
        if len(self._buffer) < start + size:
            self._join()
            start = self._offset + HEADER.size
            if len(self._buffer) < start + size:
                self._waiting_for = HEADER.size + size
                return None
        self._waiting_for = 0
        self._offset = start + size
        return memoryview(self._buffer)[start : start + size]

    def is_empty(self) -> bool:
        """Whether no byte of an unfinished frame is held: an end of the stream is clean here, and only here."""
        return not self._chunks and self._offset >= len(self._buffer)

    def _announced_size(self) -> int | None:
        if len(self._buffer) - self._offset < HEADER.size:
            self._join()
            if len(self._buffer) < HEADER.size:
                return None
        size: int = HEADER.unpack_from(self._buffer, self._offset)[0]
        if not 0 < size <= FRAME_SIZE_MAX:
            message = f"a frame of {size} bytes was announced; between 1 and {FRAME_SIZE_MAX} are allowed"
            raise RemoteProtocolError(message)
        return size

    def _join(self) -> None:
        if self._chunks:
            self._buffer = b"".join((self._buffer[self._offset :], *self._chunks))
            self._chunks.clear()
            self._waiting_size = 0
            self._offset = 0
        elif self._offset:
            self._buffer = self._buffer[self._offset :]
            self._offset = 0
