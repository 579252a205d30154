"""Databases and connections for the tests of the store."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from motoolsd.store.migration import prepare_database
from motoolsd.store.store import Store, open_store


@pytest.fixture
def database(tmp_path: Path) -> str:
    """A fresh cache.db of today's schema."""
    path = str(tmp_path / "cache.db")
    prepare_database(path)
    return path


@pytest.fixture
def raw(database: str) -> Iterator[sqlite3.Connection]:
    """A connection as the daemon's threads have one, for functions that run there."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.text_factory = bytes
        yield connection


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    """The open store."""
    async with open_store(database, synchronous="FULL") as opened:
        yield opened
