"""The language of conditions on entries: `config.hyperparameters.epochs>3`, `!metadata.cost`, `labels.run~night`.

Layer: core. Imports errors and wire.
Invariant: pure. Any text gives a condition or `WhereError`, in time that grows with its length; nothing of it is ever
a part of a statement. (Looked at first: lark and pyparsing. Each costs the daemon an import of some 50 ms for a grammar
of one line.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from enum import StrEnum
from math import isfinite
from typing import Final, NamedTuple, NoReturn, TypeAlias

from motoolsd.core.errors import RequestError
from motoolsd.wire.filters import CONDITION_SIZE_MAX, FIELDS, FieldType, parse_instant
from motoolsd.wire.keys import Kind
from motoolsd.wire.quantities import parse_duration, parse_size

STEPS_MAX: Final = 32
"""Names and numbers of one path."""
ROOTS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.DATASET: ("metadata", "labels"),
    Kind.MODEL: ("config", "metadata", "labels"),
    Kind.EVAL: ("kwargs", "metadata", "labels"),
}
"""What holds JSON, and has names and list items below it."""

Operand: TypeAlias = str | int | float | bool | None


class Operator(StrEnum):
    """How a condition compares."""

    EQUAL = "="
    UNEQUAL = "!="
    """There, and not equal."""
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    CONTAINS = "~"
    EXISTS = "exists"
    """There, and neither null nor false."""
    ABSENT = "absent"
    """The opposite."""


class Condition(NamedTuple):
    """A condition that has been read."""

    root: str
    """One of `ROOTS`, or a plain field."""
    steps: tuple[str | int, ...]
    """Names and list items below the root; empty for a plain field."""
    operator: Operator
    operand: Operand = None
    """Sizes in bytes, durations in seconds, instants in seconds since the epoch. Whole numbers fit 64 bits."""
    field_type: FieldType | None = None
    """None: JSON, where a value's own type counts."""


class WhereError(RequestError):
    """A condition that cannot be read, or that no entry could fulfil."""

    def __init__(self, text: str, position: int, expected: str, nearest: str | None = None) -> None:
        """Keep where it went wrong (characters from 0), what was expected, and what may have been meant."""
        guess = "" if nearest is None else f". Did you mean {nearest}?"
        super().__init__(
            f"cannot read the condition {text[:200]!r} at character {position + 1}: {expected}{guess}",
            position=position,
            expected=expected,
            nearest=nearest,
        )
        self.position = position
        self.expected = expected
        self.nearest = nearest


_SPACE: Final = re.compile(r"\s*")
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_NAME: Final = re.compile(r"""[^\s.\[\]{}(),;"'`\\=!<>~]+""")
_ITEM: Final = re.compile(r"\[(\d{1,9})\]", re.ASCII)
_OPERATOR: Final = re.compile(r"==|!=|<=|>=|[=<>~]")
_WORD: Final = re.compile(r"""[^\s"'=<>!~\[\]{}][^\s"]*""")
_JSON_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_LITERALS: Final[Mapping[str, bool | None]] = {"true": True, "false": False, "null": None}
_ALMOST_LITERALS: Final = frozenset({"true", "false", "null", "none"})
_ORDERING: Final = frozenset(
    {Operator.LESS, Operator.LESS_OR_EQUAL, Operator.GREATER, Operator.GREATER_OR_EQUAL},
)
_EXACT: Final = frozenset({Operator.EQUAL, Operator.UNEQUAL})


def parse_where(text: str, kind: Kind, now_s: float) -> Condition:
    """Read a condition: `PATH OP VALUE`, `PATH` (there, and neither null nor false) or `!PATH`.

    Args:
        text: PATH is a plain field of the kind, or begins with one of its `ROOTS`, followed by dotted names and `[n]`;
            names with odd characters stand in double quotes. OP is one of = == != < <= > >= and ~ (contains a text).
            VALUE is a JSON literal, or a bare word, which is a text; fields that are sizes, durations or instants take
            `1.5GB`, `2h`, and `2026-11-20` or `30d`.
        kind: of the entries.
        now_s: wall clock, seconds since the epoch, for ages.

    Raises:
        WhereError: it cannot be read, with the position and what was expected there.
    """
    if len(text) > CONDITION_SIZE_MAX:
        raise WhereError(text, CONDITION_SIZE_MAX, f"a condition has at most {CONDITION_SIZE_MAX} characters")
    return _Reader(text, kind, now_s).condition()


class _Reader:
    """Reads one condition from left to right."""

    def __init__(self, text: str, kind: Kind, now_s: float) -> None:
        self._text = text
        self._kind = kind
        self._now_s = now_s
        self._position = 0

    def condition(self) -> Condition:
        self._take(_SPACE)
        is_absent = self._text.startswith("!", self._position)
        self._position += is_absent
        self._take(_SPACE)
        root, steps, field_type = self._path()
        self._take(_SPACE)
        if self._position == len(self._text):
            return Condition(root, steps, Operator.ABSENT if is_absent else Operator.EXISTS, None, field_type)
        if is_absent:
            self._refuse("nothing may follow after !PATH; to compare, write PATH != VALUE")
        start = self._position
        found = self._take(_OPERATOR)
        if found is None:
            self._refuse("expected one of = != < <= > >= ~, or nothing more")
        operator = Operator.EQUAL if found == "==" else Operator(found)
        self._take(_SPACE)
        operand = self._operand(operator, start, field_type, is_text=field_type is FieldType.TEXT or root == "labels")
        return Condition(root, steps, operator, operand, field_type)

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self._text, self._position)
        if found is None:
            return None
        self._position = found.end()
        return found[0]

    def _refuse(self, expected: str, at: int | None = None, nearest: str | None = None) -> NoReturn:
        raise WhereError(self._text, self._position if at is None else at, expected, nearest)

    def _path(self) -> tuple[str, tuple[str | int, ...], FieldType | None]:
        start = self._position
        root = self._take(_NAME)
        roots, fields = ROOTS[self._kind], FIELDS[self._kind]
        if root is None:
            self._refuse(f"expected a field, one of {', '.join((*roots, *fields))}")
        if root not in roots and root not in fields:
            near = get_close_matches(root[:64], (*roots, *fields), n=1)
            known = f"{self._kind.plural} have no such field; there are {', '.join((*roots, *fields))}"
            self._refuse(known, start, near[0] if near else None)
        steps = self._steps()
        if root in fields and steps:
            self._refuse(f"{root} has nothing below it", start)
        return root, steps, fields.get(root)

    def _steps(self) -> tuple[str | int, ...]:
        steps: list[str | int] = []
        while self._position < len(self._text) and self._text[self._position] in ".[":
            if len(steps) == STEPS_MAX:
                self._refuse(f"a path has at most {STEPS_MAX} steps")
            if self._text[self._position] == "[":
                item = self._take(_ITEM)
                if item is None:
                    self._refuse("expected the number of a list item, as in [0]")
                steps.append(int(item[1:-1]))
                continue
            self._position += 1
            if self._text.startswith('"', self._position):
                steps.append(self._quoted())
            elif (name := self._take(_NAME)) is not None:
                steps.append(name)
            else:
                self._refuse("expected a name; one with odd characters stands in double quotes")
        if any(isinstance(step, str) and not _is_storable(step) for step in steps):
            self._refuse("names are Unicode text, without NUL")
        return tuple(steps)

    def _quoted(self) -> str:
        start = self._position
        found = self._take(_QUOTED)
        if found is None:
            self._refuse('expected a closing "')
        try:
            text = json.loads(found)
        except ValueError:
            self._refuse('expected a text as JSON writes it: \\" and \\\\ for " and \\', start)
        if not _is_storable(text):
            self._refuse("a text is Unicode, without half of a surrogate pair and without NUL", start)
        return str(text)

    def _operand(self, operator: Operator, start: int, field_type: FieldType | None, *, is_text: bool) -> Operand:
        at = self._position
        is_quoted = self._text.startswith('"', at)
        word = self._quoted() if is_quoted else self._take(_WORD)
        if word is None or not _is_storable(word):
            self._refuse('expected a value: a number, true, false, null, a word, or a "text" in double quotes', at)
        self._take(_SPACE)
        if self._position < len(self._text):
            self._refuse(
                "nothing may follow after the value: a text with spaces stands in double quotes, and each"
                " condition is given on its own"
            )
        is_bare_number = not is_quoted and _JSON_NUMBER.fullmatch(word) is not None
        if is_text and field_type is None and is_bare_number and operator in _ORDERING:
            self._refuse(
                f'labels are texts, of which "10" comes before "9": compare texts as in {operator.value}"{word}", or'
                " keep numbers in the metadata",
                at,
            )
        try:
            return _checked(word, operator, field_type, self._now_s, is_text=is_text or is_quoted)
        except _Misfit as misfit:
            self._refuse(str(misfit), start if misfit.is_operator else at)


class _Misfit(Exception):
    """A value or an operator that does not fit."""

    def __init__(self, message: str, *, is_operator: bool = False) -> None:
        super().__init__(message)
        self.is_operator = is_operator


def _checked(word: str, operator: Operator, field_type: FieldType | None, now_s: float, *, is_text: bool) -> Operand:
    """The value, as what the field or the operator asks for."""
    if field_type is None or field_type is FieldType.TEXT:
        if is_text or operator is Operator.CONTAINS:
            return word
        return _json_literal(word, operator)
    if operator is Operator.CONTAINS:
        raise _Misfit(f"~ looks into a text, and this is a {field_type.value}", is_operator=True)
    if field_type is FieldType.FLAG:
        if operator not in _EXACT:
            raise _Misfit("expected = or !=", is_operator=True)
        if word not in ("true", "false"):
            raise _Misfit("expected true or false")
        return word == "true"
    try:
        return _quantity(word, field_type, now_s)
    except (ValueError, OverflowError) as error:
        raise _Misfit(str(error)) from None


def _quantity(word: str, field_type: FieldType, now_s: float) -> float:
    if field_type is FieldType.SIZE:
        return parse_size(word)
    if field_type is FieldType.DURATION:
        return parse_duration(word)
    if field_type is FieldType.INSTANT:
        return parse_instant(word, now_s)
    if _JSON_NUMBER.fullmatch(word) is None:
        raise ValueError("expected a number")
    return _number(word)


def _json_literal(word: str, operator: Operator) -> Operand:
    if word in _LITERALS:
        if operator in _ORDERING:
            raise _Misfit(f"{word} is neither more nor less than anything: expected = or !=", is_operator=True)
        return _LITERALS[word]
    if word.lower() in _ALMOST_LITERALS:
        raise _Misfit('expected true, false or null; as a text it stands in double quotes: "None"')
    if _JSON_NUMBER.fullmatch(word) is not None:
        return _number(word)
    if operator in _ORDERING and _is_almost_number(word):
        raise _Misfit("expected a number as JSON writes it, such as 0.5; a text stands in double quotes")
    return word


def _number(word: str) -> float:
    if _is_whole(word) and -(2**63) <= int(word) < 2**63:
        return int(word)
    number = float(word)
    if not isfinite(number):
        raise _Misfit("the number is too large")
    return number


def _is_whole(word: str) -> bool:
    # Longer ones do not fit 64 bits, and int() refuses very long ones.
    return len(word) <= len(str(-(2**63))) and word.lstrip("-").isdecimal()


def _is_almost_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _is_storable(text: str) -> bool:
    if "\0" in text:
        return False  # SQLite would cut it there
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
