"""The checksum of a row: what tells a flipped bit from a value.

Layer: core. Imports nothing.
Invariant: it covers key and value, so that neither can change, nor be exchanged with another row's, unseen.
SQLite's own integrity check passes over a changed byte inside a value; CRC-32 finds every single flipped bit.
"""

from __future__ import annotations

from zlib import crc32


def row_checksum(key: str, value: bytes) -> int:
    """CRC-32 over key, a NUL and value, as SQLite stores it."""
    return crc32(value, crc32(key.encode("utf-8", "surrogateescape") + b"\0"))
