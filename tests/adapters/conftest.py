"""An open cache directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from motoolsd.adapters.directory import CacheDirectory, open_directory


@pytest.fixture
def directory(cache_dir: Path) -> Iterator[CacheDirectory]:
    """A fresh cache directory, held open."""
    with open_directory(str(cache_dir)) as opened:
        yield opened
