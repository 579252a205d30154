"""CacheUtils: never makes anything, and takes a directory or any cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from motools.cache import Cache, CacheUtils, InMemoryCache, SyncCache
from motools.cache.errors import CacheDirectoryMissing, CacheRequestError, DaemonNotRunning
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


def filled() -> InMemoryCache:
    """A backend without a daemon, and something in it."""
    backend = InMemoryCache()
    CacheUtils(backend).put_dataset(b"content", "file")
    return backend


@pytest.mark.parametrize(
    "ask",
    [
        lambda utils: utils.list_datasets(version="1"),
        lambda utils: utils.list_models("m", sort="key"),
        lambda utils: utils.list_evals(limit=1),
        lambda utils: utils.list_entries("dataset"),
        lambda utils: utils.clear_datasets(version="1"),
        lambda utils: utils.clear_datasets(keys=[]),
        lambda utils: utils.clear_datasets(downstream=True),
        lambda utils: utils.clear_datasets(delete_files=True, version="1"),
        lambda utils: utils.prune(older_than=0),
        lambda utils: utils.invalidate(reason="bug", kinds=["dataset"]),
        lambda utils: utils.explain_dataset("d"),
        lambda utils: utils.get_usage(),
    ],
)
def test_backend_without_a_daemon_never_leaves_a_filter_out(ask: Callable[[CacheUtils], object]) -> None:
    """It refuses instead, and nothing is removed."""
    backend = filled()
    with pytest.raises(CacheRequestError, match="InMemoryCache has no daemon to ask"):
        ask(CacheUtils(backend))
    assert len(CacheUtils(backend).list_datasets()) == 1


def test_filters_that_are_none_ask_any_backend() -> None:
    """They filter nothing."""
    utils = CacheUtils(filled())
    assert len(utils.list_datasets(version=None, labels=None)) == 1
    assert utils.list_models(None, version=None) == []
    assert utils.list_evals(version=None) == []
    assert utils.clear_datasets(version=None) == 1


@pytest.mark.parametrize("kind", [SyncCache, Cache])
def test_client_that_starts_no_daemon_lends_that_too(kind: type, cache_dir: Path) -> None:
    """Looking after a cache starts nothing that its client would not."""
    cache_dir.mkdir()
    (cache_dir / "cache.db").touch()
    with CacheUtils(kind(cache_dir, autostart=False)) as utils, pytest.raises(DaemonNotRunning):
        utils.list_datasets()
    assert [path.name for path in cache_dir.iterdir()] == ["cache.db"]
