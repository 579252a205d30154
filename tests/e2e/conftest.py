"""Real processes, a real socket: a directory whose daemon is stopped by pid when the test ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemons import end_daemon


@pytest.fixture
def shared_dir(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache directory to be made by the first client; its daemon is stopped afterwards."""
    # Should a test die, its daemon does not stay for a quarter of an hour.
    monkeypatch.setenv("MOTOOLS_IDLE_TIMEOUT", "20")
    yield cache_dir
    end_daemon(cache_dir)
