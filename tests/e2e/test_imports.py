"""What importing the client loads: a job that only looks something up pays for nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

TIMEOUT_S = 30.0
HEAVY = {"aiosqlite", "anyio", "asyncio", "rich", "sqlite3", "trio", "typer", "uvloop"}
STARTS_ONLY = {"logging", "subprocess"}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after a statement."""
    script = f"{statement}\nimport sys, json\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, check=True, text=True, timeout=TIMEOUT_S)
    return set(json.loads(result.stdout))


@pytest.mark.parametrize(
    "statement",
    [
        "import motools.cache",
        "from motools.cache import SyncCache, CacheUtils",
        "from motools.cache import hash_content, hash_dict, make_model_cache_key, make_eval_cache_key",
        "from motools.cache import CacheBackend, CacheError",
        "import motools.cache.base, motools.cache.keys, motools.cache.utils, motools.cache.sync_claims",
    ],
)
def test_blocking_side_loads_no_event_loop_no_database_and_no_terminal_library(statement: str) -> None:
    """The async face is loaded when it is first named, logging and subprocess when they are needed."""
    assert loaded_by(statement) & (HEAVY | STARTS_ONLY) == set()


def test_async_face_is_there_when_it_is_named() -> None:
    """`Cache` brings its event loop's library along, and no database."""
    loaded = loaded_by("from motools.cache import Cache")
    assert "anyio" in loaded
    assert loaded & {"aiosqlite", "sqlite3", "typer", "rich"} == set()


def test_all_names_can_be_had_and_listed() -> None:
    """`from motools.cache import *` gives each promised name; an unknown one is an AttributeError."""
    import motools.cache

    for name in motools.cache.__all__:
        assert getattr(motools.cache, name) is not None
        assert name in dir(motools.cache)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = motools.cache.no_such_name
