"""What users of the older, daemon-less package have: their code, their commands, their cache.db."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from motools.cache import (
    Cache,
    CacheBackend,
    CacheUtils,
    InMemoryCache,
    SQLiteCache,
    SyncCache,
    hash_content,
    hash_dict,
    make_eval_cache_key,
    make_model_cache_key,
)

OLD_SCHEMA = """
CREATE TABLE dataset_files (dataset_hash TEXT PRIMARY KEY, file_id TEXT NOT NULL);
CREATE TABLE trained_models (cache_key TEXT PRIMARY KEY, model_id TEXT NOT NULL);
CREATE TABLE eval_results (id INTEGER PRIMARY KEY AUTOINCREMENT, model_id TEXT NOT NULL, task_id TEXT NOT NULL,
  backend_type TEXT NOT NULL, log_file_path TEXT NOT NULL, inspect_kwargs_hash TEXT,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, UNIQUE(model_id, task_id, backend_type, inspect_kwargs_hash));
"""
CONFIG = {"model": "gpt-4o-mini", "hyperparameters": {"n_epochs": 3, "lr": 1e-4}, "tags": ["a", None, True]}
KWARGS = {"limit": 10}


def old_hash(value: dict[str, Any]) -> str:
    """The older package's hash, written out again: an expectation, not a call of the code under test."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def make_old_cache(directory: Path) -> None:
    """A cache.db as the older package left it, with an evaluation stored three times over a NULL kwargs hash."""
    directory.mkdir(parents=True)
    model_key = old_hash({"dataset": "h1", "config": CONFIG, "backend": "openai"})
    with closing(sqlite3.connect(directory / "cache.db")) as connection:
        connection.executescript(OLD_SCHEMA)
        connection.execute("INSERT INTO dataset_files VALUES ('h1', 'file-1')")
        connection.execute("INSERT INTO trained_models VALUES (?, 'ft-1')", (model_key,))
        insert = "INSERT INTO eval_results (model_id, task_id, backend_type, log_file_path, inspect_kwargs_hash)"
        for path in ("old.eval", "newer.eval", "newest.eval"):
            connection.execute(f"{insert} VALUES ('ft-1', 'task_1', 'inspect', ?, NULL)", (path,))
        connection.execute(f"{insert} VALUES ('ft-1', 'task_1', 'inspect', 'k.eval', ?)", (old_hash(KWARGS),))
        connection.commit()


def test_every_row_of_an_old_file_still_hits(shared_dir: Path) -> None:
    """A cache.db of the older package is taken over: datasets, models under their old keys, the newest evaluations."""
    make_old_cache(shared_dir)
    with SyncCache(shared_dir) as cache:
        assert cache.get_file_id("h1") == "file-1"
        assert cache.get_model_id("h1", CONFIG) == "ft-1"
        assert cache.get_eval_log_paths("ft-1", ["task_1"], "inspect") == {"task_1": "newest.eval"}
        assert cache.get_eval_log_paths("ft-1", ["task_1"], "inspect", KWARGS) == {"task_1": "k.eval"}
        assert [entry.log_file_path for entry in cache.list_evals()] == ["newest.eval", "k.eval"]


def test_an_old_file_is_copied_before_it_is_migrated(shared_dir: Path) -> None:
    """Beside a migrated cache.db lies what it was before, duplicates and all."""
    make_old_cache(shared_dir)
    with SyncCache(shared_dir) as cache:
        assert cache.get_stats().num_evals == 2
    (backup,) = shared_dir.glob("cache.db.*.bak")
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("SELECT count(*) FROM eval_results").fetchone() == (4,)
        assert connection.execute("PRAGMA user_version").fetchone() == (0,)


def test_statements_that_know_only_the_old_columns_work(shared_dir: Path) -> None:
    """Rows inserted and changed by hand with the old columns are answered once the daemon has noticed."""
    with SyncCache(shared_dir) as cache:
        cache.set_file_id("h1", "file-1")
        with closing(sqlite3.connect(shared_dir / "cache.db", timeout=10)) as connection:
            connection.execute("INSERT INTO dataset_files (dataset_hash, file_id) VALUES ('by-hand', 'file-2')")
            connection.execute("UPDATE dataset_files SET file_id = 'changed' WHERE dataset_hash = 'h1'")
            connection.commit()
        until(lambda: cache.get_file_id("h1") == "changed")
        assert cache.get_file_id("by-hand") == "file-2"
        assert all(entry.created_at for entry in cache.list_datasets())


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Ask again until it is so; the daemon promises two seconds, a busy machine takes longer."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never came to be"
        time.sleep(0.02)


async def use_as_before(cache: CacheBackend) -> None:
    """What code written for the older package does."""
    assert await cache.get_file_id("h") is None
    await cache.set_file_id("h", "file")
    assert await cache.get_file_id("h") == "file"
    assert await cache.get_model_id("h", CONFIG) is None
    await cache.set_model_id("h", CONFIG, "ft-abc123")
    assert await cache.get_model_id("h", CONFIG, "openai") == "ft-abc123"
    await cache.set_model_id("h", CONFIG, "ft-other", backend_type="dummy")
    assert await cache.get_model_id("h", CONFIG, backend_type="dummy") == "ft-other"
    paths = {"task_1": "evals/one.eval", "task_2": "evals/two.eval"}
    await cache.set_eval_log_paths(
        model_id="ft-abc123", task_log_paths=paths, backend_type="inspect", inspect_kwargs=KWARGS
    )
    assert await cache.get_eval_log_paths("ft-abc123", ["task_1", "task_2"], "inspect", KWARGS) == paths
    assert await cache.get_eval_log_paths("ft-abc123", ["task_1", "task_3"], "inspect", KWARGS) is None
    assert await cache.get_eval_log_paths("ft-abc123", ["task_1"], "inspect") is None


def test_old_code_runs_unchanged_over_the_daemon(shared_dir: Path) -> None:
    """One Cache, made from a string, shared by several event loops, as older scripts do."""
    assert SQLiteCache is Cache
    cache = Cache(str(shared_dir))
    assert cache.cache_dir == shared_dir
    assert cache.db_path == shared_dir / "cache.db"
    assert isinstance(cache, CacheBackend)
    asyncio.run(use_as_before(cache))
    assert asyncio.run(cache.get_file_id("h")) == "file"


def test_old_code_runs_unchanged_in_memory() -> None:
    """InMemoryCache is the same protocol without a daemon."""
    asyncio.run(use_as_before(InMemoryCache()))


def test_key_functions_give_the_old_results() -> None:
    """Keys made by the older package are the keys made now."""
    assert hash_content("abc") == hashlib.sha256(b"abc").hexdigest()
    assert hash_dict(CONFIG) == old_hash(CONFIG)
    assert make_model_cache_key("h", CONFIG, "openai") == old_hash(
        {"dataset": "h", "config": CONFIG, "backend": "openai"}
    )
    assert make_eval_cache_key("m", "t", "inspect", KWARGS) == ("m", "t", "inspect", old_hash(KWARGS))
    assert make_eval_cache_key("m", "t", "inspect", {}) == ("m", "t", "inspect", None)


def test_management_api_of_the_older_page(shared_dir: Path) -> None:
    """The programmatic API of the older package's page, line by line."""
    asyncio.run(use_as_before(Cache(shared_dir)))
    utils = CacheUtils(str(shared_dir))
    assert [entry.dataset_hash for entry in utils.list_datasets()] == ["h"]
    models = utils.list_models()
    assert [(m.model_id, m.config, m.dataset_hash, m.backend_type) for m in models] == [
        ("ft-abc123", CONFIG, "h", "openai"),
        ("ft-other", CONFIG, "h", "dummy"),
    ]
    evals = utils.list_evals(model_id="ft-abc123")
    assert [entry.task_id for entry in evals] == ["task_1", "task_2"]
    assert evals[0].inspect_kwargs_hash == old_hash(KWARGS)
    stats = utils.get_stats()
    assert (stats.num_datasets, stats.num_models, stats.num_evals) == (1, 2, 2)
    assert utils.get_size_breakdown()["database"] > 0
    assert stats.total_size_bytes > 0
    assert utils.clear_datasets(["hash1", "h"]) == 1
    assert utils.clear_evals(model_ids=["ft-abc123"], task_ids=["task_1"]) == 1
    assert utils.clear_models([]) == 0
    assert utils.clear_models() == 2
    assert utils.clear_all() == {"datasets": 0, "models": 0, "evals": 1}


@pytest.mark.parametrize("kind", ["datasets", "models", "evals"])
def test_commands_of_the_older_page(shared_dir: Path, kind: str) -> None:
    """`list`, `stats`, `size --breakdown` and `clear` as the older package's page writes them."""
    asyncio.run(use_as_before(Cache(shared_dir)))

    def motools(*arguments: str) -> str:
        command = [sys.executable, "-m", "motools.cli", "cache", *arguments, "--cache-dir", str(shared_dir)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert {"datasets": "file", "models": "ft-abc123", "evals": "task_2"}[kind] in motools("list", kind)
    assert "ft-abc123" in motools("list", "evals", "--model-id", "ft-abc123")
    assert "task_2" not in motools("list", "evals", "--task-id", "task_1")
    assert motools("stats")
    assert "database" in motools("size", "--breakdown")
    motools("clear", kind, "--yes")
    motools("clear", "all", "--yes")
    assert CacheUtils(shared_dir).list_models() == []
