"""What inputs look like from afar: 256 bits, of which the more differ the more fields do.

Layer: core. Imports inputs.
Invariant: pure, and stable: signatures are stored, so that the same inputs have the same one in every version and on
every machine. To change that, forget the stored ones by a migration.

An odd sketch (Mitzenmacher, Pagh, Pham, "Efficient Estimation for High Similarities Using Odd Sketches", WWW 2014):
each element of a set flips bits instead of setting them. What two sets have in common cancels out, so that the distance
tells how much they differ whatever their size; a Bloom filter of 256 bits would be full after some hundred fields.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Final

from motoolsd.core.inputs import Inputs, JsonValue

SIGNATURE_SIZE_BYTES: Final = 32
LEAVES_MAX: Final = 10_000
"""Of larger inputs only so many count."""
NEAREST_MAX: Final = 1_024
"""Signatures that `nearest` gives where many are equally near."""


def signature(inputs: Inputs) -> bytes:
    """The signature of inputs: of all their leaves, once with the value and once without.

    Each element flips two bits: two inputs with one leaf of another value differ in four bits, unless some meet; so
    do two of which one has a leaf more.
    """
    bits = 0
    count = 0
    below: list[tuple[bytes, JsonValue]] = [(_digest(name.encode()), value) for name, value in inputs.fields.items()]
    while below and count < LEAVES_MAX:
        path, value = below.pop()
        if isinstance(value, dict) and value:
            named = islice(value.items(), LEAVES_MAX)
            below += [(_digest(path + b"." + name.encode("utf-8", "surrogatepass")), item) for name, item in named]
        elif isinstance(value, list) and value:
            numbered = enumerate(islice(value, LEAVES_MAX))
            below += [(_digest(b"%b[%d" % (path, number)), item) for number, item in numbered]
        else:
            # The quote keeps the text "1" apart from the number.
            text = f'"{value}' if isinstance(value, str) else repr(value)
            full = _digest(path + b"=" + text.encode("utf-8", "surrogatepass"))
            bits ^= 1 << path[0] ^ 1 << path[1] ^ 1 << full[0] ^ 1 << full[1]
            count += 1
    return bits.to_bytes(SIGNATURE_SIZE_BYTES)


def nearest(signatures: Sequence[bytes], asked: bytes, limit: int) -> list[bytes]:
    """The nearest of many signatures, to be looked through part by part: `nearest([*nearest(a), *b])`.

    Args:
        signatures: of `SIGNATURE_SIZE_BYTES` each.
        asked: the signature to be near to.
        limit: how many to give, 1 or more.

    Returns:
        Each once, the nearest first. Those that are as near as the last one are among them, but at most `NEAREST_MAX`.
    """
    # A loop of the interpreter's for each step would take twice as long.
    different = map(int.from_bytes(asked).__xor__, map(int.from_bytes, signatures))
    distances = list(map(int.bit_count, different))
    farthest = max(sorted(distances)[:limit], default=0)
    near = {(distance, one) for distance, one in zip(distances, signatures, strict=True) if distance <= farthest}
    return [one for _, one in sorted(near)[:NEAREST_MAX]]


def rank(candidates: Iterable[tuple[int, bytes]], asked: bytes, limit: int) -> list[int]:
    """The row numbers of the nearest; of equally near ones the highest, which is the newest, first.

    Args:
        candidates: row number and signature of each.
        asked: the signature to be near to.
        limit: how many to give.
    """
    wanted = int.from_bytes(asked)
    near = [((int.from_bytes(found) ^ wanted).bit_count(), -row_number) for row_number, found in candidates]
    return [-row_number for _, row_number in heapq.nsmallest(limit, near)]


def _digest(element: bytes) -> bytes:
    return blake2b(element, digest_size=8).digest()
