"""The checksum of a row finds what SQLite's own check passes over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from motoolsd.core.checksums import row_checksum


@given(st.text(max_size=30), st.binary(min_size=1, max_size=60), st.data())
def test_every_flipped_bit_of_a_value_shows(key: str, value: bytes, data: st.DataObject) -> None:
    """CRC-32 misses no single bit."""
    bit = data.draw(st.integers(0, len(value) * 8 - 1))
    flipped = bytearray(value)
    flipped[bit // 8] ^= 1 << (bit % 8)
    assert row_checksum(key, value) != row_checksum(key, bytes(flipped))


def test_value_of_another_row_shows() -> None:
    """The key is part of it, and ends where the value begins."""
    assert row_checksum("a", b"value") != row_checksum("b", b"value")
    assert row_checksum("ab", b"c") != row_checksum("a", b"bc")


def test_checksum_does_not_change_between_versions() -> None:
    """It is stored: a different function would make every old row look damaged."""
    assert row_checksum("dataset", b"file-1") == 113118873
