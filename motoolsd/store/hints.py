"""What the text of a JSON column must hold for a condition to be true, without reading it as JSON.

Layer: store. Imports core.where and conditions.
Invariant: a hint never says no where the condition holds; a yes is to be verified. SQLite 3.40 takes some 100 ms to
read 100,000 configurations as JSON; to look for a text takes a tenth of that, if it begins with a letter that is rare
in them: GLOB leaps from one such letter to the next (strcspn), and tries at each. (Tried and slower than JSON:
comparing the number behind a name by text functions, or by patterns for how numbers begin that compare so.)
"""

from __future__ import annotations

from typing import Final

from motoolsd.core.where import Condition, Operator
from motoolsd.store.conditions import Term, column_of

WRITTEN_OUT_MAX: Final = 10**7
"""Whole numbers below it are written without an exponent by every encoder, Java's included; by hand they need not be,
and are not found then."""
DIGIT_MAX: Final = 9
"""One digit is found everywhere, and not worth the search."""
_ESCAPE: Final = "\\"
_COMMONEST: Final = '"e :t,a_oinsrl0123456789-dc./mupg{}[]hbfvykwxjqz'
"""Characters as often as JSON has them; all others are rare."""


def text_hint(condition: Condition) -> Term | None:
    """The text that a condition compares with must be found; None if there is no such thing.

    It is worth its time wherever the condition is.
    """
    operand, operator = condition.operand, condition.operator
    if condition.field_type is not None:
        return None
    column = column_of(condition.root)
    if isinstance(operand, str) and operand:
        if operator is Operator.EQUAL:
            return _holds(column, f'{operand}"', operand)
        return _holds(column, operand, operand) if operator is Operator.CONTAINS else None
    if operator is Operator.EQUAL and type(operand) is int and DIGIT_MAX < abs(operand) < WRITTEN_OUT_MAX:
        return _found(column, [_sought(str(operand))])
    return None


def name_hint(condition: Condition) -> Term | None:
    """The last name of a condition's path must be found; None if there is no such thing.

    It only helps where JSON is to be read later: most often all rows have the name.
    """
    names = [step for step in condition.steps if isinstance(step, str)]
    if condition.field_type is not None or condition.operator is Operator.ABSENT or not names:
        return None
    return _holds(column_of(condition.root), f'{names[-1]}"', names[-1])


def _holds(column: str, sought: str, meant: str) -> Term:
    """That the text is found, or something is escaped that it may be written with: then it stands there differently."""
    patterns = [_sought(sought)]
    if not meant.isprintable() or '"' in meant or _ESCAPE in meant:
        patterns.append(_ESCAPE)
    elif "/" in meant:
        patterns += [f"{_ESCAPE}/", f"{_ESCAPE}u"]
    elif not meant.isascii():
        patterns.append(f"{_ESCAPE}u")
    return _found(column, patterns)


def _sought(text: str) -> str:
    """A pattern for a text, or for the end of it, half of it at least, that begins with its rarest character."""
    start = max(range((len(text) + 1) // 2), key=lambda place: (_rarity(text[place : place + 1]), -place))
    return "".join(f"[{one}]" if one in "*?[" else one for one in text[start:])


def _rarity(character: str) -> int:
    """How rare a character is. Such that patterns have a meaning for, and wide ones, cannot be leapt to."""
    if not character.isascii() or character in "*?[":
        return -1
    place = _COMMONEST.find(character)
    return len(_COMMONEST) if place < 0 else place


def _found(column: str, patterns: list[str]) -> Term:
    """That one of the patterns is found in a column, whatever type it has."""
    terms = " OR ".join(f"CAST({column} AS TEXT) GLOB ?" for _ in patterns)
    return Term(f"({terms})", tuple(f"*{one}*" for one in patterns))
