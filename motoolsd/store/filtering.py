"""Which rows pass filters and conditions, and in which order.

Layer: store. Imports candidates, conditions, hints and rows.
Invariant: whatever somebody asks for is bound, never a part of a statement. Rows keep one order: by what they are
sorted by, those without it last, and those that are equal by row number.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from motoolsd.core.deadlines import Moment
from motoolsd.core.where import Condition, Operator
from motoolsd.store.conditions import KEY_TERMS, Parameter, Term, column_of, condition_term, instant_term
from motoolsd.store.hints import name_hint, text_hint
from motoolsd.store.rows import KEY_COLUMNS, STORED_AT, TABLES, USED_AT, Cell, one_of
from motoolsd.wire.filters import FIELDS, ORDER_KEY, FieldType, Filters, Order
from motoolsd.wire.keys import Kind, parse_eval_key

_IS_NUMBER: Final = "('integer', 'real')"
_MALFORMED: Final = "malformed JSON"
CANDIDATES_PER_ROW: Final = 4
"""How many rows that look as if they fitted are read for one that is asked for."""


class Match(NamedTuple):
    """A row that fits."""

    row_number: int
    cells: tuple[Cell, ...] = ()
    """What it is sorted by; of one type throughout an order, or NULL if it is a single one."""


class Selection(NamedTuple):
    """What is asked for."""

    kind: Kind
    filters: Filters
    conditions: tuple[Condition, ...]
    now: Moment
    order: Order | None
    """None: as they were first stored."""
    limit: int
    after: Match | None = None
    """Only what comes behind it: the last of the page before, which need not be there any more."""
    before: Match | None = None
    """Only what comes in front of it, among entries in an order: as many as are wanted were found up to it."""


class RowRange(NamedTuple):
    """Row numbers from the first to the last, both among them."""

    first: int
    last: int


def compiled(kind: Kind, filters: Filters, conditions: Sequence[Condition], now: Moment) -> tuple[str, list[Parameter]]:
    """The condition that a row fits, for a WHERE clause over the kind's table alone, and what is bound to its places.

    Args:
        kind: of the entries; the filters fit it (`check_filters`).
        filters: their `where` is not looked at.
        conditions: what their `where` says.
        now: for ages, and pins that end.
    """
    fits = joined([*_cheap(kind, filters, conditions, now), *_exact(filters, conditions, now, trusts_json=False)])
    return fits.sql, list(fits.parameters)


def joined(terms: Iterable[Term]) -> Term:
    """A condition that holds where all of them do."""
    terms = list(terms)
    sql = " AND ".join(term.sql for term in terms) or "1"
    return Term(sql, tuple(one for term in terms for one in term.parameters))


def _costly(filters: Filters, conditions: Sequence[Condition]) -> list[Condition]:
    """What is only known by reading JSON."""
    labels = [Condition("labels", (name,), Operator.EQUAL, value) for name, value in filters.labels.items()]
    return [*labels, *(condition for condition in conditions if condition.field_type is None)]


def _exact(filters: Filters, conditions: Sequence[Condition], now: Moment, *, trusts_json: bool) -> Iterable[Term]:
    for condition in _costly(filters, conditions):
        yield condition_term(condition, now, trusts_json=trusts_json)


def _cheap(kind: Kind, filters: Filters, conditions: Sequence[Condition], now: Moment) -> Iterable[Term]:
    """Everything else, and what the text of JSON tells: whatever fits passes all of it."""
    yield from _named(kind, filters)
    yield from _timed(filters, now)
    yield from (condition_term(condition, now) for condition in conditions if condition.field_type is not None)
    yield from _present(text_hint(condition) for condition in _costly(filters, conditions))


def _present(terms: Iterable[Term | None]) -> Iterable[Term]:
    return (term for term in terms if term is not None)


def _named(kind: Kind, filters: Filters) -> Iterable[Term]:
    """Filters by names; those with an index first."""
    if filters.keys is not None:
        yield _keys_term(kind, filters.keys)
    for column, wanted in (
        ("model_id", filters.model_ids),
        ("task_id", filters.task_ids),
        ("backend_type", filters.backends),
    ):
        if wanted is not None:
            yield _one_of(column, wanted)
    if filters.datasets is not None:
        found = _one_of("dataset_hash", filters.datasets)
        models = f"model_id IN (SELECT model_id FROM trained_models WHERE {found.sql})"
        yield found if kind is not Kind.EVAL else Term(models, found.parameters)
    if filters.key_prefix is not None:
        yield _prefix_term(kind, filters.key_prefix.encode())
    if filters.version is not None:
        yield Term("version = ?", (filters.version,))
    if filters.larger_than_bytes is not None:
        yield Term("(size_bytes > ? AND typeof(size_bytes) = 'integer')", (filters.larger_than_bytes,))


def _one_of(column: str, wanted: Sequence[str]) -> Term:
    sql, parameter = one_of(column, wanted)
    return Term(sql, (parameter,))


def _keys_term(kind: Kind, keys: Sequence[str]) -> Term:
    if kind is not Kind.EVAL:
        return _one_of(KEY_COLUMNS[kind][0], keys)
    identities = []
    for key in keys:
        try:
            identities.append(parse_eval_key(key))
        except ValueError:
            continue  # nothing has such a key
    models = _one_of("model_id", sorted({identity.model_id for identity in identities}))
    # In hexadecimal: four texts become one that says where each ends, whatever they hold.
    hexed = [
        ".".join(
            part.encode().hex().upper() for part in (one.model_id, one.task_id, one.backend_type, one.kwargs_hash or "")
        )
        for one in identities
    ]
    whole = " || '.' || ".join(f"hex({part})" for part in KEY_TERMS[kind])
    sql = f"({models.sql} AND {whole} IN (SELECT value FROM json_each(?)))"
    return Term(sql, (*models.parameters, msgspec.json.encode(hexed).decode()))


def _prefix_term(kind: Kind, prefix: bytes) -> Term:
    key = KEY_TERMS[kind][0]
    if kind is Kind.EVAL:
        *parts, kwargs_hash = KEY_TERMS[kind]
        key = f"json_array({', '.join(parts)}, nullif({kwargs_hash}, ''))"
    # As bytes: substr of a text ends at a NUL.
    return Term(f"substr(CAST({key} AS BLOB), 1, ?) = ?", (len(prefix), prefix))


def _timed(filters: Filters, now: Moment) -> Iterable[Term]:
    """Filters by time."""
    for column, operator, wall_s in (
        (STORED_AT, Operator.GREATER_OR_EQUAL, filters.created_after_s),
        (STORED_AT, Operator.LESS, filters.created_before_s),
        (USED_AT, Operator.GREATER_OR_EQUAL, filters.used_after_s),
        (USED_AT, Operator.LESS, filters.used_before_s),
        (STORED_AT, Operator.LESS_OR_EQUAL, _ago(filters.older_than_s, now)),
        (USED_AT, Operator.LESS_OR_EQUAL, _ago(filters.unused_for_s, now)),
    ):
        if wall_s is not None:
            yield instant_term(column, operator, wall_s)


def _ago(age_s: float | None, now: Moment) -> float | None:
    return None if age_s is None else max(now.wall_s - age_s, 0.0)


def is_indexed(filters: Filters) -> bool:
    """Whether an index leads to the rows, and searching the table in parts would cost more."""
    return any(wanted is not None for wanted in (filters.keys, filters.model_ids, filters.datasets))


# --------------------------------------------------------------------------------------------------------- order


def order_terms(kind: Kind, order: Order | None) -> tuple[str, ...]:
    """What rows are sorted by before their row numbers: each a text, or each a number; a single one may be NULL."""
    if order is None:
        return ()
    if order.field == ORDER_KEY:
        return KEY_TERMS[kind]
    match order.field:
        case "created_at":
            return (f"CAST({STORED_AT} AS TEXT)",)
        case "last_used_at":
            return (f"CAST({USED_AT} AS TEXT)",)
        case "pinned":
            return ("pinned != 0",)
    column = column_of(order.field)
    if FIELDS[kind][order.field] is FieldType.TEXT:
        return (f"CAST({column} AS TEXT)",)
    return (f"CASE WHEN typeof({column}) IN {_IS_NUMBER} THEN {column} END",)


def order_clause(kind: Kind, order: Order | None) -> str:
    """What stands behind ORDER BY; the order was checked (`check_order`)."""
    down = " DESC" if order is not None and order.is_descending else ""
    return "".join(f"{term}{down} NULLS LAST, " for term in order_terms(kind, order)) + "rowid"


def _behind(kind: Kind, order: Order | None, after: Match) -> Term:
    """The condition that a row comes behind another one, which need not be there any more."""
    terms = order_terms(kind, order)
    if not terms:
        return Term("rowid > ?", (after.row_number,))
    if after.cells == (None,):
        return Term(f"({terms[0]} IS NULL AND rowid > ?)", (after.row_number,))
    cells, row = _places(after), f"({', '.join(terms)})"
    sign = "<" if order is not None and order.is_descending else ">"
    sql = f"({row} {sign} {cells} OR ({row} = {cells} AND rowid > ?) OR {terms[0]} IS NULL)"
    return Term(sql, (*after.cells, *after.cells, after.row_number))


def _before(kind: Kind, order: Order, last: Match) -> Term:
    """The condition that a row comes in front of another one."""
    terms = order_terms(kind, order)
    if last.cells == (None,):
        return Term(f"({terms[0]} IS NOT NULL OR rowid < ?)", (last.row_number,))
    cells, row = _places(last), f"({', '.join(terms)})"
    sign = ">" if order.is_descending else "<"
    # What is sorted by is worked out once for most rows: they come behind.
    sql = f"({row} {sign}= {cells} AND ({row} != {cells} OR rowid < ?))"
    return Term(sql, (*last.cells, *last.cells, last.row_number))


def _places(match: Match) -> str:
    """The places for what a row is sorted by; a text as one, which is bound as the bytes that it is."""
    return f"({', '.join('CAST(? AS TEXT)' if isinstance(cell, bytes) else '?' for cell in match.cells)})"


# ---------------------------------------------------------------------------------------------------------- rows


def select_row_range(connection: sqlite3.Connection, kind: Kind) -> RowRange | None:
    """The first and the last row number; None if there are no rows."""
    # Two statements: min and max in one read the whole table.
    (first,) = connection.execute(f"SELECT min(rowid) FROM {TABLES[kind]}").fetchone()
    (last,) = connection.execute(f"SELECT max(rowid) FROM {TABLES[kind]}").fetchone()
    return None if first is None or last is None else RowRange(first, last)


def select_matching(
    connection: sqlite3.Connection, selection: Selection, within: RowRange | None = None
) -> list[Match]:
    """The first rows that fit, in their order, no more than the limit; of a part of the table if one is given."""
    kind, filters, conditions, now, *_ = selection
    cheap = list(_cheap(kind, filters, conditions, now))
    try:
        exact = _exact(filters, conditions, now, trusts_json=True)
        return _select(connection, selection, joined([*cheap, *exact]), within)
    except sqlite3.OperationalError as error:
        if _MALFORMED not in str(error):
            raise
    # Somebody wrote something else into a row by hand. It matches nothing.
    exact = _exact(filters, conditions, now, trusts_json=False)
    return _select(connection, selection, joined([*cheap, *exact]), within)


def has_candidates(selection: Selection) -> bool:
    """Whether `select_among_candidates` may be faster than `select_matching`."""
    return bool(_costly(selection.filters, selection.conditions))


def select_among_candidates(
    connection: sqlite3.Connection, selection: Selection, within: RowRange
) -> list[Match] | None:
    """As `select_matching`; None if it is not known without reading all rows as JSON.

    Rows that look as if they fitted are sorted first, and only the first of them are read as JSON: quick where many
    fit, or none has the name.
    """
    kind, filters, conditions, now, *_ = selection
    costly = _costly(filters, conditions)
    cheap = [*_cheap(kind, filters, conditions, now), *_present(map(name_hint, costly))]
    limit = selection.limit * CANDIDATES_PER_ROW
    candidates = _select(connection, selection._replace(limit=limit), joined(cheap), within)
    exact = joined(_exact(filters, conditions, now, trusts_json=False))
    found = _verified(connection, kind, candidates, exact)
    is_known = len(found) >= selection.limit or len(candidates) < limit
    return found[: selection.limit] if is_known else None


def _select(connection: sqlite3.Connection, selection: Selection, fits: Term, within: RowRange | None) -> list[Match]:
    kind, order = selection.kind, selection.order
    terms = [fits]
    if selection.after is not None:
        terms.insert(0, _behind(kind, order, selection.after))
    if order is not None and selection.before is not None:
        terms.insert(0, _before(kind, order, selection.before))
    if within is not None:
        terms.insert(0, Term("rowid BETWEEN ? AND ?", within))
    where = joined(terms)
    columns = ", ".join(("rowid", *order_terms(kind, order)))
    rows = connection.execute(
        f"SELECT {columns} FROM {TABLES[kind]} WHERE {where.sql} ORDER BY {order_clause(kind, order)} LIMIT ?",
        (*where.parameters, selection.limit),
    )
    return [Match(row_number, tuple(cells)) for row_number, *cells in rows]


def _verified(connection: sqlite3.Connection, kind: Kind, candidates: Sequence[Match], exact: Term) -> list[Match]:
    numbers = msgspec.json.encode([match.row_number for match in candidates]).decode()
    rows = connection.execute(
        f"SELECT rowid FROM {TABLES[kind]} WHERE rowid IN (SELECT value FROM json_each(?)) AND {exact.sql}",
        (numbers, *exact.parameters),
    )
    fitting = {row_number for (row_number,) in rows}
    return [match for match in candidates if match.row_number in fitting]


def merged(parts: Iterable[Sequence[Match]], order: Order | None, limit: int) -> list[Match]:
    """Parts of a table's rows, each in its order, as one in the same order."""
    found = sorted((match for part in parts for match in part), key=lambda match: match.row_number)
    if order is None:
        return found[:limit]
    with_value = [match for match in found if match.cells != (None,)]
    with_value.sort(key=lambda match: match.cells, reverse=order.is_descending)
    return [*with_value, *(match for match in found if match.cells == (None,))][:limit]
