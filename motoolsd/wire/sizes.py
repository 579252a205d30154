"""Messages about room: what each category takes, and when that was counted.

Layer: wire. Imports fields and keys.
Invariant: as in messages: fields are only ever added, with a default. Sizes are bytes.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from motoolsd.wire.fields import Message

TOP_MAX = 1_000
"""Entries that a question for the largest ones may ask for."""


class Size(Struct, frozen=True, gc=False):
    """Room taken by regular files: the sum of their lengths, and of the blocks they occupy."""

    size_bytes: int = 0
    allocated_bytes: int = 0


class EntrySize(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What one entry's files take."""

    kind: str
    """A kind of entry, or `orphan`."""
    key: str
    value: bytes = b""
    size_bytes: int = 0
    allocated_bytes: int = 0


class GetStats(Message, tag="get_stats", frozen=True, kw_only=True):
    """Ask how many entries there are and how much room everything takes."""


class GetSizes(Message, tag="get_sizes", frozen=True, kw_only=True):
    """Ask how much room each category takes."""

    rescan: bool = False
    """Whether to count anew and wait for it: the reply is a stream of `Progress` then, with the sizes as its end."""
    top: Annotated[int, Meta(ge=0, le=TOP_MAX)] = 0
    """So many of the largest entries are named."""


class Sizes(Message, tag="sizes", frozen=True, kw_only=True):
    """Room taken by each category: `datasets`, `runs`, `evals`, `database`, `trash`, `staging`."""

    categories: dict[str, Size]
    as_of: str | None = None
    """When the files were counted last; None: not yet, what is there so far is shown."""
    is_scanning: bool = False
    orphans: Size = Size()
    """What no entry names, of the categories above."""
    num_orphans: int = 0
    num_dangling: int = 0
    """Entries whose files are gone."""
    top: tuple[EntrySize, ...] = ()


class Stats(Message, tag="stats", frozen=True, kw_only=True):
    """Counts of entries, and the room that all categories take together."""

    num_datasets: int
    num_models: int
    num_evals: int
    total_size_bytes: int
    as_of: str | None = None
