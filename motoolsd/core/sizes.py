"""Adding up the room that files take.

Layer: core. Imports wire.messages.
Invariant: regular files only, and each inode once, however many names it has.
"""

from __future__ import annotations

from typing import NamedTuple

from motoolsd.wire.sizes import Size

BLOCK_SIZE_BYTES = 512
"""The unit of st_blocks, whatever the file system's own block size."""


class FileFacts(NamedTuple):
    """What stat(2) says of one regular file."""

    device: int
    inode: int
    link_count: int
    size_bytes: int
    blocks: int


class SizeFold:
    """Sums files one by one; hard links are counted where they are met first."""

    def __init__(self) -> None:
        """Nothing counted yet."""
        self._seen: set[tuple[int, int]] = set()
        self._sums: dict[str, tuple[int, int]] = {}

    def open_category(self, category: str) -> None:
        """Make the category appear even if no file is added to it."""
        self._sums.setdefault(category, (0, 0))

    def add(self, category: str, facts: FileFacts) -> None:
        """Count one file into a category."""
        if facts.link_count > 1:
            identity = (facts.device, facts.inode)
            if identity in self._seen:
                return
            self._seen.add(identity)
        size, allocated = self._sums.get(category, (0, 0))
        self._sums[category] = (size + facts.size_bytes, allocated + facts.blocks * BLOCK_SIZE_BYTES)

    def totals(self) -> dict[str, Size]:
        """The sums by category."""
        return {name: Size(size_bytes=size, allocated_bytes=room) for name, (size, room) in self._sums.items()}
