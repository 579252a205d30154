"""Conditions of `core.where` as SQL.

Layer: store. Imports core.where, core.deadlines and rows.
Invariant: whatever somebody asks for travels as a parameter, paths included; whatever somebody wrote into a row by
hand, a condition holds or does not, and never fails.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from math import ceil, floor
from typing import Final, NamedTuple

from motoolsd.core.deadlines import Moment
from motoolsd.core.where import Condition, Operand, Operator
from motoolsd.wire.filters import FieldType
from motoolsd.wire.keys import Kind

Parameter = str | int | float | bytes | None


class Term(NamedTuple):
    """A piece of SQL and what is bound to its places."""

    sql: str
    parameters: tuple[Parameter, ...] = ()


_COLUMN: Final = {
    "config": "config",
    "kwargs": "inspect_kwargs",
    "metadata": "metadata",
    "labels": "labels",
    # An empty hash counts as NULL, as it does in the unique index and in every statement.
    "kwargs_hash": "nullif(inspect_kwargs_hash, '')",
    "expires_at": "CASE WHEN json_valid(expires_at) THEN json_extract(expires_at, '$[2]') END",
}
_NUMBERS: Final = "('integer', 'real')"
PLAIN_NAME: Final = re.compile(r"""[ !#-\[\]-~]+""")
"""Printable ASCII without quotes and backslashes: SQLite compares names of a path with names as they are written in the
JSON text, escapes and all, and knows no escapes in paths."""


def column_of(field: str) -> str:
    """The column, or what stands for it, of a plain field or a root."""
    return _COLUMN.get(field, field)


def condition_term(condition: Condition, now: Moment, *, trusts_json: bool = False) -> Term:
    """A condition on a row of its kind's table.

    Args:
        condition: from `parse_where`.
        now: for pins that end.
        trusts_json: leave out the check that columns hold JSON: a third faster, and SQLite fails with "malformed JSON"
            at a row where one does not.
    """
    match condition.field_type:
        case None:
            return _json_term(condition, trusts_json=trusts_json)
        case FieldType.INSTANT if condition.root != "expires_at":
            return _instant_term(condition)
        case FieldType.FLAG:
            return _flag_term(condition, now)
        case _:
            return _plain_term(condition)


# ------------------------------------------------------------------------------------------------- plain fields


def _plain_term(condition: Condition) -> Term:
    column, operator = column_of(condition.root), condition.operator
    if operator in (Operator.EXISTS, Operator.ABSENT):
        return _there(column, operator)
    if operator is Operator.CONTAINS:
        return Term(f"instr({column}, ?) > 0", (condition.operand,))
    compared = f"{column} {operator.value} ?"
    if condition.field_type is not FieldType.TEXT:
        # A text that somebody wrote there would be more than every number.
        compared = f"({compared} AND typeof({column}) IN {_NUMBERS})"
    return Term(compared, (condition.operand,))


def _there(column: str, operator: Operator) -> Term:
    return Term(f"({column}) IS {'NOT ' if operator is Operator.EXISTS else ''}NULL")


def _flag_term(condition: Condition, now: Moment) -> Term:
    """The only flag is `pinned`; a pin may have ended."""
    is_over = (
        "CASE WHEN json_valid(pinned_until) THEN CASE WHEN json_extract(pinned_until, '$[0]') = ?"
        " THEN json_extract(pinned_until, '$[1]') <= ? ELSE json_extract(pinned_until, '$[2]') <= ? END END"
    )
    pinned = f"(pinned != 0 AND NOT coalesce({is_over}, 0))"
    is_wanted = condition.operator is Operator.EXISTS or (
        condition.operator in (Operator.EQUAL, Operator.UNEQUAL)
        and condition.operand is (condition.operator is Operator.EQUAL)
    )
    return Term(pinned if is_wanted else f"NOT {pinned}", (now.boot_id, now.boottime_s, now.wall_s))


def _instant_term(condition: Condition) -> Term:
    column, operator = column_of(condition.root), condition.operator
    if operator in (Operator.EXISTS, Operator.ABSENT):
        return _there(column, operator)
    assert isinstance(condition.operand, int | float), "an instant is a number"
    return instant_term(column, operator, condition.operand)


def instant_term(column: str, operator: Operator, wall_s: float) -> Term:
    """A comparison of a time stamp, which stands there as a text to the second or to the millisecond.

    Args:
        column: the time stamp.
        operator: any that compares.
        wall_s: seconds since the epoch.
    """
    # Through whole microseconds: 1.001 * 1000 is less than 1001.
    thousandths = round(wall_s * 1e6) / 1_000
    lowest, highest = _stamp(ceil(thousandths), is_lowest=True), _stamp(floor(thousandths), is_lowest=False)
    match operator:
        case Operator.GREATER_OR_EQUAL | Operator.LESS:
            return Term(f"{column} {operator.value} ?", (lowest,))
        case Operator.LESS_OR_EQUAL | Operator.GREATER:
            return Term(f"{column} {operator.value} ?", (highest,))
        case _:
            within = f"{column} BETWEEN ? AND ?"
            return Term(within if operator is Operator.EQUAL else f"NOT {within}", (lowest, highest))


def _stamp(thousandths: int, *, is_lowest: bool) -> str:
    """The first or the last of the texts that mean this millisecond: a full second may stand there without `.000`."""
    seconds, rest = divmod(thousandths, 1_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return text if is_lowest and not rest else f"{text}.{rest:03}"


# ---------------------------------------------------------------------------------------------------------- JSON


class _Place(NamedTuple):
    """Where a value stands in a column: what gives its type, the value, and whether a NUL is in it."""

    type: Term
    value: Term
    has_nul: Term


def _json_term(condition: Condition, *, trusts_json: bool) -> Term:
    column = column_of(condition.root)
    if all(isinstance(step, int) or PLAIN_NAME.fullmatch(step) for step in condition.steps):
        path = "$" + "".join(f"[{step}]" if isinstance(step, int) else f'."{step}"' for step in condition.steps)
        place = _Place(
            Term(f"json_type({column}, ?)", (path,)),
            Term(f"json_extract({column}, ?)", (path,)),
            # json_extract cuts a text at it, and the rest would match.
            Term(f"instr({column} -> ?, '\\u0000')", (path,)),
        )
        term = _value_term(place, condition.operator, condition.operand)
    else:
        source = _descent(column, condition.steps)
        last = f"step{len(condition.steps)}"
        place = _Place(Term(f"{last}.type"), Term(f"{last}.value"), Term(f"instr({column}, '\\u0000')"))
        is_absent = condition.operator is Operator.ABSENT
        inner = _value_term(place, Operator.EXISTS if is_absent else condition.operator, condition.operand)
        negation = "NOT " if is_absent else ""
        sql = f"{negation}EXISTS (SELECT 1 FROM {source.sql} AND {inner.sql})"
        term = Term(sql, source.parameters + inner.parameters)
    if trusts_json:
        return term
    otherwise = int(condition.operator is Operator.ABSENT)
    return Term(f"CASE WHEN json_valid({column}) THEN {term.sql} ELSE {otherwise} END", term.parameters)


def _descent(column: str, steps: tuple[str | int, ...]) -> Term:
    """Down to a value step by step, names compared as what they mean and not as they are written."""
    sources, matches = [], []
    above = column
    for number, _ in enumerate(steps, 1):
        sources.append(f"json_each({above}) AS step{number}")
        matches.append(f"step{number}.key = ?")
        # What is no object and no list has nothing below it, though it may be a text that reads like one.
        above = f"CASE WHEN step{number}.type IN ('object', 'array') THEN step{number}.value ELSE '[]' END"
    return Term(f"{', '.join(sources)} WHERE {' AND '.join(matches)}", steps)


def _value_term(place: _Place, operator: Operator, operand: Operand) -> Term:
    kind = place.type
    match operator:
        case Operator.EXISTS:
            return Term(f"coalesce({kind.sql} NOT IN ('null', 'false'), 0)", kind.parameters)
        case Operator.ABSENT:
            return Term(f"coalesce({kind.sql} IN ('null', 'false'), 1)", kind.parameters)
        case Operator.UNEQUAL:
            equal = _value_term(place, Operator.EQUAL, operand)
            sql = f"({kind.sql} IS NOT NULL AND NOT coalesce({equal.sql}, 0))"
            return Term(sql, kind.parameters + equal.parameters)
    if operand is None or isinstance(operand, bool):
        written = {None: "null", True: "true", False: "false"}[operand]
        return Term(f"{kind.sql} = '{written}'", kind.parameters)
    return _compared(place, operator, operand)


def _compared(place: _Place, operator: Operator, operand: str | float) -> Term:
    """The comparison first: the type is then only looked at where it holds."""
    kind, value, has_nul = place
    if not isinstance(operand, str):
        sql = f"({value.sql} {operator.value} ? AND {kind.sql} IN {_NUMBERS})"
        return Term(sql, (*value.parameters, operand, *kind.parameters))
    compares = f"instr({value.sql}, ?) > 0" if operator is Operator.CONTAINS else f"{value.sql} {operator.value} ?"
    sql = f"({compares} AND {kind.sql} = 'text' AND NOT {has_nul.sql})"
    return Term(sql, (*value.parameters, operand, *kind.parameters, *has_nul.parameters))


KEY_TERMS: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.DATASET: ("CAST(dataset_hash AS TEXT)",),
    Kind.MODEL: ("CAST(cache_key AS TEXT)",),
    Kind.EVAL: (
        "CAST(model_id AS TEXT)",
        "CAST(task_id AS TEXT)",
        "CAST(backend_type AS TEXT)",
        "CAST(ifnull(inspect_kwargs_hash, '') AS TEXT)",
    ),
}
"""The parts of a key; of text, and never NULL."""
