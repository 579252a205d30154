"""Frames come out as they went in, however the bytes arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoolsd.wire.errors import RemoteProtocolError
from motoolsd.wire.frames import FRAME_SIZE_MAX, HEADER, FrameBuffer

payloads = st.lists(st.binary(min_size=1, max_size=300), max_size=8)


def framed(*parts: bytes) -> bytes:
    """Payloads as frames on the wire."""
    return b"".join(HEADER.pack(len(part)) + part for part in parts)


def drained(buffer: FrameBuffer) -> list[bytes]:
    """All whole frames that are there."""
    found = []
    while (frame := buffer.next_frame()) is not None:
        found.append(bytes(frame))
    return found


@given(payloads, st.data())
def test_any_split_gives_the_same_frames(parts: list[bytes], data: st.DataObject) -> None:
    """Wherever the stream is cut, and whenever the reader looks, the payloads are the same."""
    stream = framed(*parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    buffer = FrameBuffer()
    found: list[bytes] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if begin < end:
            buffer.feed(stream[begin:end])
        if data.draw(st.booleans()):
            found += drained(buffer)
    assert found + drained(buffer) == parts
    assert buffer.is_empty()


def test_byte_by_byte_gives_the_same_frames() -> None:
    """The slowest sender is understood."""
    buffer = FrameBuffer()
    found = []
    for number in framed(b"one", b"two" * 100):
        buffer.feed(bytes([number]))
        found += drained(buffer)
    assert found == [b"one", b"two" * 100]


@pytest.mark.parametrize("size", [0, FRAME_SIZE_MAX + 1, 2**32 - 1])
@pytest.mark.parametrize("split", [0, 2])
def test_length_out_of_bounds_is_refused_before_the_payload(size: int, split: int) -> None:
    """Four bytes are enough to refuse a frame: nothing is waited for or allocated."""
    header = HEADER.pack(size)
    buffer = FrameBuffer()
    for part in filter(None, (header[:split], header[split:])):
        buffer.feed(part)
    with pytest.raises(RemoteProtocolError, match=str(size)):
        buffer.next_frame()


def test_largest_frame_is_taken() -> None:
    """The limit itself is allowed, and arrives whole out of many pieces."""
    payload = b"x" * FRAME_SIZE_MAX
    stream = framed(payload)
    buffer = FrameBuffer()
    found: list[bytes] = []
    for begin in range(0, len(stream), 1 << 20):
        buffer.feed(stream[begin : begin + (1 << 20)])
        found += drained(buffer)
    assert found == [payload]


def test_unfinished_frame_is_not_empty() -> None:
    """An end of the stream inside a frame can be told from a clean one."""
    buffer = FrameBuffer()
    assert buffer.is_empty()
    buffer.feed(framed(b"whole") + HEADER.pack(9) + b"half")
    assert drained(buffer) == [b"whole"]
    assert not buffer.is_empty()
