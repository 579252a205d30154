"""Room is added up once for each file."""

from __future__ import annotations

from motoolsd.core.sizes import FileFacts, SizeFold
from motoolsd.wire.sizes import Size


def test_sizes_and_blocks_are_summed_by_category() -> None:
    """Apparent bytes from lengths, allocated bytes from blocks of 512."""
    fold = SizeFold()
    fold.add("runs", FileFacts(1, 10, 1, 100, 8))
    fold.add("runs", FileFacts(1, 11, 1, 50, 0))
    fold.add("evals", FileFacts(1, 12, 1, 1, 8))
    assert fold.totals() == {"runs": Size(150, 4096), "evals": Size(1, 4096)}


def test_hard_links_count_once() -> None:
    """A file with two names is counted where it is met first; the same inode on another device is another file."""
    fold = SizeFold()
    fold.add("datasets", FileFacts(1, 10, 2, 100, 8))
    fold.add("runs", FileFacts(1, 10, 2, 100, 8))
    fold.add("runs", FileFacts(2, 10, 2, 7, 8))
    assert fold.totals() == {"datasets": Size(100, 4096), "runs": Size(7, 4096)}


def test_empty_category_is_shown() -> None:
    """A category without files is 0, not missing."""
    fold = SizeFold()
    fold.open_category("evals")
    assert fold.totals() == {"evals": Size(0, 0)}
