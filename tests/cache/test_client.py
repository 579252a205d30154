"""What both clients have in common: options, fallback, pickling."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import pytest

from motools.cache import Cache, SyncCache
from motools.cache.client import Client
from motools.cache.errors import CacheDirectoryMissing, CacheRequestError, DaemonNotRunning, UncacheableConfigError
from tests.cache.scripted import scripted_daemon

BOTH = pytest.mark.parametrize("kind", [SyncCache, Cache])


@BOTH
def test_construction_touches_nothing(kind: type[Client], cache_dir: Path) -> None:
    """The directory's path and the database's are there at once, and nothing is made."""
    client = kind(str(cache_dir))
    assert client.cache_dir == cache_dir
    assert client.db_path == cache_dir / "cache.db"
    assert not cache_dir.exists()
    assert str(cache_dir) in repr(client)


@BOTH
@pytest.mark.parametrize(
    "options",
    [
        {"timeout_s": 0},
        {"timeout_s": -1.0},
        {"timeout_s": float("nan")},
        {"timeout_s": float("inf")},
        {"timeout_s": None},
        {"timeout_s": "30"},
        {"memory_entries": -1},
        {"memory_entries": 10.0},
        {"memory_entries": True},
        {"memory_entries": None},
        {"memory_entries": "10"},
        {"on_unavailable": "explode"},
        {"labels": {"run": 7}},
        {"labels": {1: "x"}},
        {"labels": {"": "x"}},
        {"version": 3},
        {"cache_dir": "a\0b"},
    ],
    ids=str,
)
def test_option_that_makes_no_sense_is_refused(kind: type[Client], options: dict[str, Any]) -> None:
    """At construction, where the mistake is, and naming the option."""
    with pytest.raises(CacheRequestError):
        kind(**{"cache_dir": ".motools", **options})


@BOTH
def test_pickled_client_is_its_address_and_options(kind: type[Client], short_dir: Path) -> None:
    """A copy in another process has the same directory and options, and connects for itself."""
    client = kind(
        short_dir,
        autostart=False,
        memory_entries=7,
        timeout_s=3,
        on_unavailable="miss",
        labels={"run": "7"},
        version="v1",
    )
    copy = pickle.loads(pickle.dumps(client))
    assert type(copy) is kind
    assert copy.__reduce__()[1] == client.__reduce__()[1]
    assert copy.__reduce__()[1][2]["memory_entries"] == 7
    assert copy.cache_dir == short_dir


@BOTH
def test_relative_directory_means_what_it_meant(
    kind: type[Client], short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that changes its working directory keeps its cache."""
    monkeypatch.chdir(short_dir)
    client = kind("here")
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(client)).cache_dir == short_dir / "here"


def unavailable(directory: Path) -> SyncCache:
    """A cache that cannot be had, and says miss."""
    return SyncCache(directory, autostart=False, on_unavailable="miss", timeout_s=1.0)


def test_without_daemon_lookups_miss_and_writes_are_dropped(cache_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With `on_unavailable="miss"` a job goes on as if nothing were cached, and the log says so."""
    with unavailable(cache_dir) as cache, caplog.at_level(logging.WARNING, "motools.cache"):
        assert cache.get_file_id("d") is None
        assert cache.get_model_id("d", {}) is None
        assert cache.get_eval_log_paths("m", ["t"], "inspect") is None
        hits = cache.get_evals("m", ["t", "u"], "inspect")
        assert (hits.found, hits.missing) == ({}, ["t", "u"])
        assert cache.get_many("dataset", ["d", "e", "d"]) == [None, None, None]
        cache.set_file_id("d", "file")
        cache.set_model_id("d", {}, "model")
        cache.set_eval_log_paths("m", {"t": "/log"}, "inspect")
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        *["a lookup missed"] * 5,
        *["dropped a write"] * 3,
    ]


def test_miss_that_was_made_up_is_not_remembered(cache_dir: Path) -> None:
    """Once a daemon is there, it is asked."""
    with unavailable(cache_dir) as cache:
        assert cache.get_file_id("d") is None
        with scripted_daemon(cache_dir):
            assert cache.get_file_id("d") == "value of d"


def test_without_daemon_what_cannot_be_a_miss_raises(cache_dir: Path) -> None:
    """Nothing was listed and nothing cleared: that is no answer to make up."""
    cache_dir.mkdir()
    with unavailable(cache_dir) as cache:
        for method in (cache.list_datasets, cache.get_stats, cache.clear_all):
            with pytest.raises(DaemonNotRunning):
                method()


def test_mistake_in_a_call_raises_whatever_was_asked_for(cache_dir: Path) -> None:
    """A configuration without a key is the job's own mistake, daemon or not."""
    with unavailable(cache_dir) as cache, pytest.raises(UncacheableConfigError):
        cache.get_model_id("d", {"lr": float("nan")})


def test_fallbacks_are_not_shared_between_calls(cache_dir: Path) -> None:
    """What a caller does to one result does not show in the next."""
    with unavailable(cache_dir) as cache:
        cache.get_evals("m", ["t"], "inspect").found["t"] = "/log"
        assert cache.get_evals("m", ["t"], "inspect").found == {}
        cache.get_many("dataset", ["d"]).append("mine")
        assert cache.get_many("dataset", ["d"]) == [None]


def test_labels_and_version_go_with_every_write(cache_dir: Path) -> None:
    """What was given at construction is stored beside each value."""
    with scripted_daemon(cache_dir) as daemon, SyncCache(cache_dir, labels={"run": "7"}, version="v1") as cache:
        cache.set_file_id("d", "file")
        put: Any = daemon.requests[-1]
    assert (put.labels, put.version) == ({"run": "7"}, "v1")


@BOTH
def test_relative_directory_without_a_working_directory_is_said(
    kind: type[Client], short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job whose directory was removed under it gets an error of the cache, naming the way out."""
    gone = short_dir / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(CacheDirectoryMissing, match="from the root"):
        kind(".motools")
