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

REQUEST_SIZE_MAX: Final = FRAME_SIZE_MAX - 64 * 1024
"""The same for a client's frames: what one request stored can be listed, in one frame with what the daemon adds."""

HEADER: Final = Struct(">I")
HEADER_SIZE: Final = HEADER.size


class FrameBuffer:
    """Cuts a byte stream into frames, however the bytes arrive."""

    __slots__ = ("_buffer", "_chunks", "_offset", "_size_max", "_waiting_for", "_waiting_size")

    def __init__(self, size_max: int = FRAME_SIZE_MAX) -> None:
        """Start empty.

        Args:
            size_max: bytes of payload that a frame may announce.
        """
        self._size_max = size_max
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
            RemoteProtocolError: the announced length is zero or over the limit.
        """
        buffer, offset = self._buffer, self._offset
        start = offset + HEADER_SIZE
        if start <= len(buffer):
            # What nearly always comes: bytes that hold whole frames.
            size: int = HEADER.unpack_from(buffer, offset)[0]
            if 0 < size <= self._size_max and (end := start + size) <= len(buffer):
                self._offset = end
                return memoryview(buffer)[start:end]
        elif offset == len(buffer) and not self._chunks:
            # Let go of what was taken: a connection that goes idle now would hold its largest frame for hours.
            self._buffer = b""
            self._offset = 0
            return None
        return self._next_scattered_frame()

    def _next_scattered_frame(self) -> memoryview | None:
        """The same for a frame that came in several pieces, or is not whole yet, or too large."""
        if self._waiting_for and len(self._buffer) - self._offset + self._waiting_size < self._waiting_for:
            return None
        self._join()
        size = self._announced_size()
        if size is None:
            return None
        end = HEADER_SIZE + size
        if len(self._buffer) < end:
            self._waiting_for = end
            return None
        self._waiting_for = 0
        self._offset = end
        return memoryview(self._buffer)[HEADER_SIZE:end]

    def is_empty(self) -> bool:
        """Whether no byte of an unfinished frame is held: an end of the stream is clean here, and only here."""
        return not self._chunks and self._offset >= len(self._buffer)

    def _announced_size(self) -> int | None:
        if len(self._buffer) < HEADER_SIZE:
            return None
        size: int = HEADER.unpack_from(self._buffer)[0]
        if not 0 < size <= self._size_max:
            message = f"a frame of {size} bytes was announced; between 1 and {self._size_max} are allowed"
            raise RemoteProtocolError(message)
        return size

    def _join(self) -> None:
        """Make what is held one piece that begins with a header."""
        if self._chunks or self._offset:
            self._buffer = b"".join((self._buffer[self._offset :], *self._chunks))
            self._chunks.clear()
            self._waiting_size = 0
            self._offset = 0
