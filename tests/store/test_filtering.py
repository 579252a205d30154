"""Filters, conditions and orders in SQL, each held against a plain implementation over the same rows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from motoolsd.core.deadlines import Moment
from motoolsd.core.where import Condition, Operand, Operator, parse_where
from motoolsd.store.conditions import Term
from motoolsd.store.filtering import (
    Match,
    RowRange,
    Selection,
    compiled,
    is_indexed,
    merged,
    select_among_candidates,
    select_matching,
    select_row_range,
)
from motoolsd.store.hints import name_hint, text_hint
from motoolsd.store.rows import TABLES
from motoolsd.wire.filters import FIELDS, ORDER_KEY, FieldType, Filters, Order
from motoolsd.wire.keys import Kind, eval_key

NOW = Moment("boot", 1_000.0, 1_795_132_800.0)  # 2026-11-20T00:00:00Z
SINCE: Final = "2026-11-10 00:00:00"
Row = dict[str, Any]
NEVER: Final = {Operator.EXISTS: False, Operator.ABSENT: True}


def insert(raw: sqlite3.Connection, kind: Kind, rows: Sequence[Row]) -> None:
    """Make a table hold exactly these rows, numbered from 1."""
    raw.execute(f"DELETE FROM {TABLES[kind]}")
    for number, row in enumerate(rows, 1):
        cells = {"rowid": number, **row}
        places = ", ".join("?" * len(cells))
        raw.execute(f"INSERT INTO {TABLES[kind]} ({', '.join(cells)}) VALUES ({places})", tuple(cells.values()))
        # A trigger puts a time where there is none, as in rows of the older package.
        raw.execute(f"UPDATE {TABLES[kind]} SET created_at = ? WHERE rowid = ?", (row.get("created_at"), number))


def model(**cells: object) -> Row:
    """A model's row."""
    made = {"cache_key": "k", "model_id": "m", "created_at": "2026-11-15 00:00:00.000", **cells}
    return {name: json.dumps(cell) if isinstance(cell, dict | list) else cell for name, cell in made.items()}


def numbers(raw: sqlite3.Connection, *where: str, kind: Kind = Kind.MODEL, **filters: object) -> list[int]:
    """The numbers of the rows that fit."""
    conditions = tuple(parse_where(text, kind, NOW.wall_s) for text in where)
    found = select_matching(raw, Selection(kind, msgspec.convert(filters, Filters), conditions, NOW, None, 1_000))
    return [match.row_number for match in found]


# ------------------------------------------------------------------------------------------ plain implementations


def wall_s(stamp: str) -> float:
    """A time stamp in seconds."""
    return datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp()


def below(text: str | None, steps: Sequence[str | int]) -> tuple[bool, Any]:
    """Whether there is a value, and the value."""
    try:
        value = json.loads(text or "", parse_constant=int)
    except ValueError:
        return False, None
    for step in steps:
        is_there = (
            isinstance(value, dict) and step in value
            if isinstance(step, str)
            else isinstance(value, list) and step < len(value)
        )
        if not is_there:
            return False, None
        value = value[step]
    return True, value


ORDERED: Final[dict[Operator, Callable[[Any, Any], bool]]] = {
    Operator.LESS: lambda value, operand: value < operand,
    Operator.LESS_OR_EQUAL: lambda value, operand: value <= operand,
    Operator.GREATER: lambda value, operand: value > operand,
    Operator.GREATER_OR_EQUAL: lambda value, operand: value >= operand,
    Operator.EQUAL: lambda value, operand: value == operand,
    Operator.CONTAINS: lambda _value, _operand: False,
}


def compares(operator: Operator, value: object, operand: Operand) -> bool:
    """A number with a number, a text with a text."""
    if isinstance(value, str) and isinstance(operand, str):
        if operator is Operator.CONTAINS:
            return operand in value
        return ORDERED[operator](value.encode(), operand.encode())
    if isinstance(value, bool) or isinstance(operand, bool) or value is None or operand is None:
        return operator is Operator.EQUAL and value is operand
    if isinstance(value, int | float) and isinstance(operand, int | float):
        return ORDERED[operator](value, operand)
    return False


def holds(condition: Condition, row: Row) -> bool:
    """Whether a condition on JSON or on a plain field holds."""
    cell = row.get(condition.root)
    is_there, value = below(cell, condition.steps) if condition.field_type is None else (cell is not None, cell)
    if condition.field_type is FieldType.INSTANT and isinstance(value, str):
        value = wall_s(value)
    if condition.operator in NEVER:
        is_something = is_there and value is not None and value is not False
        return is_something is (condition.operator is Operator.EXISTS)
    if condition.operator is Operator.UNEQUAL:
        return is_there and not compares(Operator.EQUAL, value, condition.operand)
    return is_there and compares(condition.operator, value, condition.operand)


# ------------------------------------------------------------------------------------------------- properties

NAMES = st.sampled_from(["a", "b", "a.b", "é", 'q"', "\\", "", "[0]", "$", "a b", "x/y", "\n", "%", "0"])
TEXTS = st.sampled_from(["", "a", "b", "ab", "é", '"', "\\", "1", "true", "\U0001f600", "x/y", "'; DROP TABLE x; --"])
INTEGERS = st.sampled_from([0, 1, -1, 2, 10, -12, 10**6, 9_999_999, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)])
SCALARS = st.one_of(
    st.none(), st.booleans(), INTEGERS, st.sampled_from([0.0, 1.0, 10.0, 1e6, 1e7, 0.5, -1.5, 1e300]), TEXTS
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=8,
)
CONFIGS = st.one_of(
    JSON.map(json.dumps),
    JSON.map(lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))),
    st.sampled_from([None, "", "{", "nonsense", '{"a": NaN}']),
)
STEPS = st.lists(st.one_of(NAMES, st.integers(0, 2)), max_size=3).map(tuple)
SIGNS = st.sampled_from(list(Operator))


@st.composite
def json_conditions(draw: st.DrawFn) -> Condition:
    """Conditions as `parse_where` gives them."""
    operator, operand = draw(SIGNS), draw(SCALARS)
    if operator in NEVER:
        operand = None
    elif operator is Operator.CONTAINS:
        operand = draw(TEXTS)
    elif operator not in (Operator.EQUAL, Operator.UNEQUAL) and (operand is None or isinstance(operand, bool)):
        operand = 1
    return Condition("config", draw(STEPS), operator, operand)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, fresh: bytes) -> Iterator[sqlite3.Connection]:
    """One database for all examples of a property."""
    path = tmp_path_factory.mktemp("shared") / "cache.db"
    Path(path).write_bytes(fresh)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.text_factory = bytes
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        connection.execute("UPDATE motoolsd_facts SET value = ? WHERE name = 'since'", (SINCE,))
        yield connection


@given(st.lists(CONFIGS, min_size=1, max_size=6), st.lists(json_conditions(), min_size=1, max_size=2))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_conditions_on_json_hold_where_they_should(
    shared: sqlite3.Connection, configs: list[str | None], conditions: list[Condition]
) -> None:
    """As in the plain implementation, with and without sorting; a hint never says no to what fits."""
    rows = [model(cache_key=str(number), config=config) for number, config in enumerate(configs)]
    insert(shared, Kind.MODEL, rows)
    expected = [number for number, row in enumerate(rows, 1) if all(holds(condition, row) for condition in conditions)]
    selection = Selection(Kind.MODEL, Filters(), tuple(conditions), NOW, None, 100)
    assert [match.row_number for match in select_matching(shared, selection)] == expected
    sql, parameters = compiled(Kind.MODEL, Filters(), conditions, NOW)
    found = shared.execute(f"SELECT rowid FROM trained_models WHERE {sql} ORDER BY rowid", parameters).fetchall()
    assert [number for (number,) in found] == expected
    by_key = selection._replace(order=Order(field=ORDER_KEY))
    among = select_among_candidates(shared, by_key, RowRange(1, 10))
    assert [match.row_number for match in among or []] == expected
    hints = [hint for one in conditions for hint in (text_hint(one), name_hint(one)) if hint is not None]
    for hint in [Term(hint.sql, hint.parameters) for hint in hints]:
        passing = {
            number for (number,) in shared.execute(f"SELECT rowid FROM trained_models WHERE {hint.sql}", hint[1])
        }
        assert passing >= set(expected)


STAMPS = st.sampled_from(
    [
        *(None, "2026-11-10 00:00:00", "2026-11-12 00:00:00", "2026-11-12 00:00:00.000"),
        *("2026-11-12 00:00:00.001", "2026-11-11 23:59:59.999", "2026-11-19 12:00:00.500"),
    ]
)
INSTANTS = STAMPS.filter(lambda stamp: stamp is not None).map(lambda stamp: wall_s(stamp or ""))
SOME_TEXTS = st.lists(st.sampled_from(["a", "b", "a\0b", "é"]), max_size=2)
MODELS = st.fixed_dictionaries(
    {
        "model_id": st.sampled_from(["a", "b", "a\0b", "é"]),
        "dataset_hash": st.sampled_from([None, "a", "b", "a\0b"]),
        "backend_type": st.sampled_from([None, "a", "b"]),
        "version": st.sampled_from([None, "1", "2"]),
        "created_at": STAMPS,
        "last_used_at": STAMPS,
        "size_bytes": st.sampled_from([None, 0, 5, 6, 2**40]),
        "hits": st.integers(0, 3),
        "seconds": st.sampled_from([None, 0.5, 3.0]),
        "labels": st.sampled_from([None, '{"run":"1"}', '{"run":"2","é":"\\\\"}', "[]", "{", '{"run":1}']),
    }
)
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "keys": st.lists(st.sampled_from(["0", "1", "x0", "é"]), max_size=2),
        "model_ids": SOME_TEXTS,
        "datasets": SOME_TEXTS,
        "backends": SOME_TEXTS,
        "labels": st.dictionaries(st.sampled_from(["run", "é"]), st.sampled_from(["1", "2", "\\"]), max_size=2),
        "key_prefix": st.sampled_from(["x", "0", "é"]),
        "version": st.sampled_from(["1", "2"]),
        "created_after_s": INSTANTS,
        "created_before_s": INSTANTS,
        "used_after_s": INSTANTS,
        "used_before_s": INSTANTS,
        "older_than_s": INSTANTS.map(lambda instant: NOW.wall_s - instant),
        "unused_for_s": INSTANTS.map(lambda instant: NOW.wall_s - instant),
        "larger_than_bytes": st.sampled_from([0, 5]),
    },
)


def passes(filters: dict[str, Any], row: Row) -> bool:
    """Whether a model passes filters."""
    stored = wall_s(row["created_at"] or SINCE)
    used = max(stored, wall_s(row["last_used_at"]) if row["last_used_at"] else stored)
    size = row["size_bytes"]
    tests = {
        "keys": lambda wanted: row["cache_key"] in wanted,
        "model_ids": lambda wanted: row["model_id"] in wanted,
        "datasets": lambda wanted: row["dataset_hash"] in wanted,
        "backends": lambda wanted: row["backend_type"] in wanted,
        "labels": lambda wanted: all(below(row["labels"], (name,)) == (True, wanted[name]) for name in wanted),
        "key_prefix": row["cache_key"].startswith,
        "version": lambda wanted: row["version"] == wanted,
        "created_after_s": lambda wanted: stored >= wanted,
        "created_before_s": lambda wanted: stored < wanted,
        "used_after_s": lambda wanted: used >= wanted,
        "used_before_s": lambda wanted: used < wanted,
        "older_than_s": lambda wanted: stored <= NOW.wall_s - wanted,
        "unused_for_s": lambda wanted: used <= NOW.wall_s - wanted,
        "larger_than_bytes": lambda wanted: size is not None and size > wanted,
    }
    return all(tests[name](wanted) for name, wanted in filters.items())


@given(st.lists(MODELS, max_size=8), FILTERS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_filters_let_pass_what_they_should(
    shared: sqlite3.Connection, rows: list[Row], filters: dict[str, Any]
) -> None:
    """As in the plain implementation; rows of the older package count from the migration."""
    rows = [{**row, "cache_key": f"x{number}" if number % 2 else str(number)} for number, row in enumerate(rows)]
    insert(shared, Kind.MODEL, rows)
    expected = [number for number, row in enumerate(rows, 1) if passes(filters, row)]
    assert numbers(shared, **filters) == expected


FIELD_CONDITIONS = st.one_of(
    st.builds(
        lambda field, operator, operand: Condition(field, (), operator, operand, FIELDS[Kind.MODEL][field]),
        st.sampled_from(["created_at", "last_used_at"]),
        SIGNS.filter(lambda operator: operator is not Operator.CONTAINS),
        INSTANTS,
    ),
    st.builds(
        lambda field, operator, operand: Condition(field, (), operator, operand, FIELDS[Kind.MODEL][field]),
        st.sampled_from(["size_bytes", "hits", "seconds"]),
        SIGNS.filter(lambda operator: operator is not Operator.CONTAINS),
        st.sampled_from([0, 1, 3.0, 5, 0.5]),
    ),
    st.builds(
        lambda field, operator, operand: Condition(field, (), operator, operand, FieldType.TEXT),
        st.sampled_from(["model_id", "dataset_hash", "backend_type", "version"]),
        SIGNS,
        st.sampled_from(["a", "b", "1", "é", ""]),
    ),
)


@given(st.lists(MODELS, max_size=6), FIELD_CONDITIONS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_conditions_on_fields_hold_where_they_should(
    shared: sqlite3.Connection, rows: list[Row], condition: Condition
) -> None:
    """As in the plain implementation; what is NULL is missing."""
    rows = [{**row, "cache_key": str(number)} for number, row in enumerate(rows)]
    insert(shared, Kind.MODEL, rows)
    found = select_matching(shared, Selection(Kind.MODEL, Filters(), (condition,), NOW, None, 100))
    assert [match.row_number for match in found] == [n for n, row in enumerate(rows, 1) if holds(condition, row)]


ORDERS = (
    st.builds(Order, field=st.sampled_from([ORDER_KEY, *FIELDS[Kind.MODEL]]), is_descending=st.booleans()) | st.none()
)


@given(st.lists(MODELS, max_size=10), ORDERS, st.integers(1, 4), st.integers(1, 5))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_pages_and_parts_make_up_the_whole(
    shared: sqlite3.Connection, rows: list[Row], order: Order | None, limit: int, split: int
) -> None:
    """Whatever the order: page after page, and part beside part, all rows come once, those without a value last."""
    insert(shared, Kind.MODEL, [{**row, "cache_key": str(number)} for number, row in enumerate(rows)])
    selection = Selection(Kind.MODEL, Filters(), (), NOW, order, 100)
    whole = select_matching(shared, selection)
    assert sorted(match.row_number for match in whole) == list(range(1, len(rows) + 1))
    values = [match.cells for match in whole if match.cells != (None,)]
    assert values == sorted(values, reverse=order is not None and order.is_descending)
    assert [match.cells for match in whole[len(values) :]] == [(None,)] * (len(whole) - len(values))
    pages: list[Match] = []
    while page := select_matching(shared, selection._replace(limit=limit, after=pages[-1] if pages else None)):
        pages += page
        assert len(pages) <= len(whole)
    assert pages == whole
    parts = [select_matching(shared, selection, part) for part in (RowRange(-9, split), RowRange(split + 1, 99))]
    assert merged(reversed(parts), order, limit) == whole[:limit]
    if order is not None:
        for place, match in enumerate(whole):
            assert select_matching(shared, selection._replace(before=match)) == whole[:place]


# ------------------------------------------------------------------------------------------------- single cases


def test_evals_are_found_by_key_prefix_and_dataset(raw: sqlite3.Connection) -> None:
    """Keys with quotes and NULs in them included; the dataset's evaluations are those of models trained from it."""
    names = ['m"', "m\0x", "m", "é"]
    rows = [
        {"model_id": name, "task_id": "t", "backend_type": "b", "log_file_path": "/l", "inspect_kwargs_hash": hashed}
        for name, hashed in zip(names, [None, "", "h", "h"], strict=True)
    ]
    insert(raw, Kind.EVAL, rows)
    insert(raw, Kind.MODEL, [model(model_id="m", dataset_hash="d"), model(cache_key="l", model_id="é")])
    for number, (name, hashed) in enumerate(zip(names, [None, None, "h", "h"], strict=True), 1):
        key = eval_key(name, "t", "b", hashed)
        assert numbers(raw, kind=Kind.EVAL, keys=[key, "no key"]) == [number]
        assert numbers(raw, kind=Kind.EVAL, key_prefix=key) == [number]
    assert numbers(raw, kind=Kind.EVAL, key_prefix='["m') == [1, 2, 3]
    assert numbers(raw, kind=Kind.EVAL, datasets=["d"]) == [3]
    assert numbers(raw, kind=Kind.EVAL, task_ids=["t"], model_ids=["é", "m"]) == [3, 4]
    assert numbers(raw, "kwargs_hash", kind=Kind.EVAL) == [3, 4]


@pytest.mark.parametrize(
    ("cells", "is_pinned"),
    [
        ({}, False),
        ({"pinned": 1}, True),
        ({"pinned": 1, "pinned_until": NOW.after(1).packed()}, True),
        ({"pinned": 1, "pinned_until": NOW.packed()}, False),
        ({"pinned": 1, "pinned_until": Moment("other", 0, NOW.wall_s + 1).packed()}, True),
        ({"pinned": 1, "pinned_until": Moment("other", 9e9, NOW.wall_s).packed()}, False),
        ({"pinned": 1, "pinned_until": "by hand"}, True),
    ],
)
def test_pins_count_until_they_end(raw: sqlite3.Connection, cells: Row, *, is_pinned: bool) -> None:
    """By the clock of this boot, or the wall clock after another one."""
    insert(raw, Kind.MODEL, [model(**cells)])
    for text in ("pinned", "pinned=true", "pinned!=false"):
        assert bool(numbers(raw, text)) is is_pinned
    for text in ("!pinned", "pinned=false", "pinned!=true"):
        assert bool(numbers(raw, text)) is not is_pinned


@pytest.mark.parametrize("name", ["a.b", "é", 'q"', "\\", "", "[0]", "$", "a b", "x/y", "\n", "%", "0", "'"])
def test_names_are_found_however_odd_they_are(raw: sqlite3.Connection, name: str) -> None:
    """Escaped in the column or not, at the end of a path and in the middle."""
    configs = [{name: {"x": [{name: 1}]}}, {"other": {"x": [{name: 1}]}}, {name: 1}]
    texts = [json.dumps(config, ensure_ascii=is_ascii) for is_ascii in (True, False) for config in configs]
    insert(raw, Kind.MODEL, [model(cache_key=str(n), config=text) for n, text in enumerate(texts)])
    quoted = json.dumps(name)
    assert numbers(raw, f"config.{quoted}.x[0].{quoted}=1") == [1, 4]
    assert numbers(raw, f"config.{quoted}=1") == [3, 6]
    assert numbers(raw, f"!config.{quoted}") == [2, 5]


@pytest.mark.parametrize("stamp", ["2026-11-12 00:00:00", "2026-11-12 00:00:00.000"])
def test_full_seconds_are_one_instant_however_they_are_written(raw: sqlite3.Connection, stamp: str) -> None:
    """With or without thousandths."""
    insert(raw, Kind.MODEL, [model(created_at=stamp)])
    for sign, is_so in {"=": 1, "!=": 0, "<": 0, "<=": 1, ">": 0, ">=": 1}.items():
        assert len(numbers(raw, f"created_at {sign} 2026-11-12T00:00:00Z")) == is_so, sign
        assert len(numbers(raw, f"created_at {sign} 2026-11-12T00:00:00.0005Z")) == (sign in ("!=", "<", "<=")), sign
        assert len(numbers(raw, f"created_at {sign} 2026-11-11T23:59:59.9995Z")) == (sign in ("!=", ">", ">=")), sign


def test_deadlines_are_compared_by_the_wall_clock(raw: sqlite3.Connection) -> None:
    """What is no deadline is none."""
    rows = [model(cache_key=str(n), expires_at=end) for n, end in enumerate([None, NOW.after(5).packed(), "by hand"])]
    insert(raw, Kind.MODEL, rows)
    assert numbers(raw, "expires_at>2026-11-20T00:00:04Z") == [2]
    assert numbers(raw, "expires_at<2026-11-20T00:00:05Z") == []
    assert numbers(raw, "!expires_at") == [1, 3]


def test_text_with_a_nul_matches_nothing_but_unequal(raw: sqlite3.Connection) -> None:
    """SQLite cuts it there: what is left must not be taken for the whole."""
    insert(raw, Kind.MODEL, [model(config={"x": "a\0b", "é": "a\0b", "l": "a"})])
    for text in ("config.x=a", 'config."é"=a', "config.x~a"):
        assert numbers(raw, text) == []
    assert numbers(raw, "config.x!=a", 'config."é"!=a', "config.l=a") == [1]


def test_rows_of_other_types_do_no_harm(raw: sqlite3.Connection) -> None:
    """Whatever somebody wrote there by hand, every filter and every order gives an answer."""
    odd = {"config": b"\xff", "labels": b"\x00", "size_bytes": "big", "created_at": b"\xfe", "version": b"1"}
    insert(raw, Kind.MODEL, [model(cache_key=b"\xff", **odd), model(config={"x": 1}, size_bytes=3)])
    assert numbers(raw, "config.x=1", "size_bytes>1") == [2]
    assert numbers(raw, larger_than_bytes=1) == [2]
    assert numbers(raw, "!config.x") == [1]
    for field in (ORDER_KEY, *FIELDS[Kind.MODEL]):
        for is_descending in (False, True):
            order = Order(field=field, is_descending=is_descending)
            selection = Selection(Kind.MODEL, Filters(), (), NOW, order, 1)
            (first,) = select_matching(raw, selection)
            (second,) = select_matching(raw, selection._replace(after=first))
            assert select_matching(raw, selection._replace(after=second)) == []


def test_row_range_is_that_of_the_table(raw: sqlite3.Connection) -> None:
    """None if it is empty."""
    assert select_row_range(raw, Kind.MODEL) is None
    insert(raw, Kind.MODEL, [model(), model(cache_key="l", rowid=-5)])
    assert select_row_range(raw, Kind.MODEL) == RowRange(-5, 1)


def test_filters_with_an_index_use_it(raw: sqlite3.Connection) -> None:
    """What `is_indexed` says holds: no whole table is read."""
    for kind in Kind:
        for filters in (Filters(keys=['["a","b","c",null]']), Filters(datasets=["d"]), Filters(model_ids=["m"])):
            if kind is Kind.DATASET and filters.model_ids is not None:
                continue
            assert is_indexed(filters)
            sql, parameters = compiled(kind, filters, (), NOW)
            plan = raw.execute(
                f"EXPLAIN QUERY PLAN SELECT rowid FROM {TABLES[kind]} WHERE {sql}", parameters
            ).fetchall()
            assert not any(step[3].startswith(b"SCAN " + TABLES[kind].encode()) for step in plan), plan
    assert not is_indexed(Filters(labels={"a": "b"}, key_prefix="x"))
