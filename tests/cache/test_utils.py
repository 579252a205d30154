"""CacheUtils: never makes anything, and takes a directory or any cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from motools.cache import Cache, CacheUtils, InMemoryCache, SyncCache
from motools.cache.errors import CacheDirectoryMissing, DaemonNotRunning
from tests.cache.scripted import scripted_daemon


def test_missing_directory_is_an_error_that_code_may_catch_as_before(cache_dir: Path) -> None:
    """`FileNotFoundError`, naming the directory; nothing is made."""
    with pytest.raises(FileNotFoundError, match=str(cache_dir)) as caught:
        CacheUtils(cache_dir)
    assert isinstance(caught.value, CacheDirectoryMissing)
    assert not cache_dir.exists()


def test_directory_without_a_database_is_no_cache(cache_dir: Path) -> None:
    """An empty directory stays empty."""
    cache_dir.mkdir()
    with pytest.raises(CacheDirectoryMissing, match="no cache in"):
        CacheUtils(str(cache_dir))
    assert list(cache_dir.iterdir()) == []


@pytest.mark.parametrize("kind", [str, Path, SyncCache, Cache])
def test_directory_may_be_given_as_path_or_as_a_client_of_it(kind: type, cache_dir: Path) -> None:
    """A client lends its address, not its connection."""
    with scripted_daemon(cache_dir):
        (cache_dir / "cache.db").touch()
        with CacheUtils(kind(cache_dir), autostart=False) as utils:
            assert utils.clear_datasets(["d"]) == 1
            assert utils.clear_models() == 2
            assert utils.clear_evals() == 3
            assert utils.clear_all() == {"datasets": 1, "models": 2, "evals": 3}


def test_closing_leaves_a_cache_of_the_callers_open() -> None:
    """Only what it opened itself is closed."""
    cache = InMemoryCache()
    with CacheUtils(cache):
        pass
    assert CacheUtils(cache).list_datasets() == []


@pytest.mark.parametrize("kind", [SyncCache, Cache])
def test_client_that_starts_no_daemon_lends_that_too(kind: type, cache_dir: Path) -> None:
    """Looking after a cache starts nothing that its client would not."""
    cache_dir.mkdir()
    (cache_dir / "cache.db").touch()
    with CacheUtils(kind(cache_dir, autostart=False)) as utils, pytest.raises(DaemonNotRunning):
        utils.list_datasets()
    assert [path.name for path in cache_dir.iterdir()] == ["cache.db"]
