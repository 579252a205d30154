"""Many rows in one statement are the same rows."""

from __future__ import annotations

import sqlite3

import pytest

from motoolsd.store.puts import CHUNK_SIZES, RowsStatement


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 63, 64, 65, 149])
def test_any_number_of_rows_is_inserted_in_order(count: int) -> None:
    """Chunks leave no row out, and none twice."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a, b)")
    rows = [(number, str(number)) for number in range(count)]
    RowsStatement("INSERT INTO t VALUES", "(?, ?)").execute(connection, rows)
    assert connection.execute("SELECT a, b FROM t ORDER BY rowid").fetchall() == rows
    connection.close()


def test_statements_are_few() -> None:
    """A batch of 64 is one statement, not 64: that is what they are gathered for."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a)")
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    RowsStatement("INSERT INTO t VALUES", "(?)").execute(connection, [(number,) for number in range(max(CHUNK_SIZES))])
    assert len([statement for statement in seen if statement.startswith("INSERT")]) == 1
    connection.close()


def test_last_of_several_rows_with_one_key_stays() -> None:
    """An upsert of the same key twice in one statement ends with the later value."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a PRIMARY KEY, b)")
    upsert = RowsStatement("INSERT INTO t VALUES", "(?, ?)", " ON CONFLICT (a) DO UPDATE SET b = excluded.b")
    upsert.execute(connection, [("k", 1), ("k", 2), ("k", 3), ("other", 4)])
    assert connection.execute("SELECT a, b FROM t ORDER BY a").fetchall() == [("k", 3), ("other", 4)]
    connection.close()
