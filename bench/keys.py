"""Keys, values, and how often which is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
from numpy.random import Generator, default_rng

Distribution = Literal["uniform", "zipfian"]

ZIPF_EXPONENT: Final = 0.99
"""As in YCSB (Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", SoCC 2010)."""
MISSING_FIRST: Final = 1 << 61
"""From this number on, no entry is ever stored."""
NEW_FIRST: Final = 1 << 60
"""From this number on, writers store new entries."""
CHANGED_FIRST: Final = 1 << 59
"""From this number on stand the entries that mixed workloads overwrite: no other workload asks for them."""
CHANGED_COUNT: Final = 1_000


def key_of(number: int) -> str:
    """The dataset hash of an entry: 64 hexadecimal digits, as in real use."""
    return f"{number:064x}"


def value_of(number: int) -> str:
    """Its file id."""
    return f"file-{number:020d}"


def stored(entries: int, changed: int = CHANGED_COUNT) -> Iterator[tuple[str, str]]:
    """All keys and values that a store holds before it is asked: those that stay, and those that are overwritten."""
    for first, count in ((0, entries), (CHANGED_FIRST, changed)):
        for number in range(first, first + count):
            yield key_of(number), value_of(number)


def generator(seed: list[int] | None = None) -> Generator:
    """Where chance comes from; without a seed, another one each time.

    numpy loads this part when it is first asked for: here, and not in every forked worker.
    """
    return default_rng(seed)


def draw(rng: Generator, distribution: Distribution, *, entries: int, count: int) -> list[int]:
    """Numbers of entries, as they are asked for.

    Args:
        rng: where chance comes from.
        distribution: every entry alike, or a few of them mostly.
        entries: of how many.
        count: how many questions.
    """
    if distribution == "uniform":
        return [int(number) for number in rng.integers(entries, size=count)]
    weights = 1.0 / np.arange(1, entries + 1) ** ZIPF_EXPONENT
    return [int(number) for number in rng.choice(entries, size=count, p=weights / weights.sum())]
