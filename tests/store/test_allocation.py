"""SQLite without its count of memory, each time in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

USED = """
import _sqlite3, ctypes, sqlite3
from motoolsd.store.allocation import stop_counting

def used():
    library = ctypes.CDLL(_sqlite3.__file__)
    library.sqlite3_memory_used.restype = ctypes.c_int64
    return library.sqlite3_memory_used()

def opened():
    connection = sqlite3.connect(":memory:")
    assert connection.execute("SELECT json_extract('[1, 2]', '$[1]')").fetchone() == (2,)
    return connection
"""


@pytest.mark.parametrize(
    "script",
    [
        # Before the first connection, and again when it is off: with connections open that is not looked at anew.
        "assert stop_counting(); one = opened(); assert not used(); assert stop_counting(); one.execute('SELECT 1')",
        # A connection is open: it must live on, and goes on being counted.
        "one = opened(); assert not stop_counting(); assert used(); one.execute('SELECT 1')",
        # It was open and is not any more.
        "opened().close(); assert stop_counting(); one = opened(); assert not used()",
        # The library cannot be reached.
        "_sqlite3.__file__ = '/nowhere'; assert not stop_counting(); opened()",
        "del _sqlite3.__file__; assert not stop_counting(); opened()",
    ],
)
def test_count_is_turned_off_where_nothing_is_in_use(script: str) -> None:
    """And left alone everywhere else, quietly."""
    done = subprocess.run([sys.executable, "-c", USED + script], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
