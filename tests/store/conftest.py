"""Databases and connections for the tests of the store."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from motoolsd.store.migration import prepare_database
from motoolsd.store.store import Store, open_store


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a fresh cache.db of today's schema holds: making one waits for the disk, which a test need not."""
    path = tmp_path_factory.mktemp("fresh") / "cache.db"
    prepare_database(str(path))
    return path.read_bytes()


@pytest.fixture
def database(tmp_path: Path, fresh: bytes) -> str:
    """A fresh cache.db of today's schema."""
    path = tmp_path / "cache.db"
    path.write_bytes(fresh)
    return str(path)


@pytest.fixture
def raw(database: str) -> Iterator[sqlite3.Connection]:
    """A connection as the daemon's threads have one, for functions that run there."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.text_factory = bytes
        connection.execute("PRAGMA synchronous = OFF")  # no test here pulls the plug
        yield connection


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    """The open store."""
    async with open_store(database, synchronous="FULL") as opened:
        yield opened
