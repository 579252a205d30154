"""Frames come out as they went in, however the bytes arrive."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoolsd.wire.errors import RemoteProtocolError
from motoolsd.wire.frames import FRAME_SIZE_MAX, HEADER, FrameBuffer

payloads = st.lists(st.binary(min_size=1, max_size=300), max_size=8)
MIB = 1 << 20


def framed(*parts: bytes) -> bytes:
    """Payloads as frames on the wire."""
    return b"".join(HEADER.pack(len(part)) + part for part in parts)


def drained(buffer: FrameBuffer) -> list[bytes]:
    """All whole frames that are there."""
    found = []
    while (frame := buffer.next_frame()) is not None:
        found.append(bytes(frame))
    return found


def cut_and_drained(buffer: FrameBuffer, stream: bytes, looks: dict[int, bool]) -> list[bytes]:
    """What comes out of a stream that is cut at the keys of `looks`, the reader looking where they are true."""
    found: list[bytes] = []
    cuts = sorted(looks)
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        buffer.feed(stream[begin:end])
        if looks.get(end):
            found += drained(buffer)
    return found + drained(buffer)


class ForgetsTails(FrameBuffer):
    """A planted bug: bytes of an unfinished frame go when more bytes come."""

    def feed(self, data: bytes) -> None:
        """Forget, then take."""
        self.__init__()  # type: ignore[misc] # what a bug would do
        super().feed(data)


@given(payloads, st.data())
def test_any_split_gives_the_same_frames(parts: list[bytes], data: st.DataObject) -> None:
    """Wherever the stream is cut, and whenever the reader looks, the payloads are the same."""
    stream = framed(*parts)
    looks = data.draw(st.dictionaries(st.integers(0, len(stream)), st.booleans(), max_size=12))
    buffer = FrameBuffer()
    assert cut_and_drained(buffer, stream, looks) == parts
    assert buffer.is_empty()


def test_planted_bug_is_found() -> None:
    """The check above is no formality: a buffer that loses unfinished frames does not pass it."""
    with pytest.raises(RemoteProtocolError):
        cut_and_drained(ForgetsTails(), framed(b"one", b"two"), {5: True})


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
    looks = dict.fromkeys(range(MIB, FRAME_SIZE_MAX, MIB), True)
    assert cut_and_drained(FrameBuffer(), framed(payload), looks) == [payload]


def test_announced_length_allocates_nothing() -> None:
    """A peer that announces the largest frame and sends no more costs no memory."""
    buffer = FrameBuffer()
    tracemalloc.start()
    try:
        buffer.feed(HEADER.pack(FRAME_SIZE_MAX) + b"x")
        assert buffer.next_frame() is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MIB


def test_limit_of_a_buffer_is_its_own() -> None:
    """The daemon takes smaller frames than it sends."""
    buffer = FrameBuffer(size_max=3)
    buffer.feed(framed(b"abc", b"abcd"))
    frame = buffer.next_frame()
    assert frame is not None
    assert bytes(frame) == b"abc"
    with pytest.raises(RemoteProtocolError, match="4 bytes"):
        buffer.next_frame()


def test_taken_frames_are_let_go() -> None:
    """An idle connection does not hold the largest frame it ever brought."""
    buffer = FrameBuffer()
    tracemalloc.start()
    try:
        buffer.feed(framed(bytes(4 * MIB)))
        assert len(drained(buffer)) == 1
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < MIB


def test_unfinished_frame_is_not_empty() -> None:
    """An end of the stream inside a frame can be told from a clean one."""
    buffer = FrameBuffer()
    assert buffer.is_empty()
    buffer.feed(framed(b"whole") + HEADER.pack(9) + b"half")
    assert drained(buffer) == [b"whole"]
    assert not buffer.is_empty()
