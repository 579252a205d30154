"""The language of conditions: what can be written, and that anything else is refused with its position."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoolsd.core.where import ROOTS, STEPS_MAX, Condition, Operand, Operator, WhereError, parse_where
from motoolsd.wire.filters import CONDITION_SIZE_MAX, FIELDS, FieldType
from motoolsd.wire.keys import Kind

NOW_S = 1_795_132_800.0
SIGNS = ["=", "!=", "<", "<=", ">", ">=", "~"]


def read(text: str, kind: Kind = Kind.MODEL) -> Condition:
    """The condition."""
    return parse_where(text, kind, NOW_S)


def read_or_error(text: str, kind: Kind) -> Condition | WhereError:
    """The condition, or why it is refused."""
    try:
        return read(text, kind)
    except WhereError as error:
        return error


def refused(text: str, kind: Kind = Kind.MODEL) -> WhereError:
    """Why it is refused."""
    with pytest.raises(WhereError) as caught:
        read(text, kind)
    return caught.value


@pytest.mark.parametrize(
    ("text", "steps", "operator", "operand"),
    [
        ("config.hyperparameters.epochs>3", ("hyperparameters", "epochs"), Operator.GREATER, 3),
        ("  config . x".replace(" . ", "."), ("x",), Operator.EXISTS, None),
        ("!config.x", ("x",), Operator.ABSENT, None),
        ("config", (), Operator.EXISTS, None),
        ("config.x == 1e-05", ("x",), Operator.EQUAL, 1e-05),
        ("config.x != null", ("x",), Operator.UNEQUAL, None),
        ("config.x=true", ("x",), Operator.EQUAL, True),
        ('config.x="true"', ("x",), Operator.EQUAL, "true"),
        ("config.x=gpt-4.1", ("x",), Operator.EQUAL, "gpt-4.1"),
        ('config.x="a b"', ("x",), Operator.EQUAL, "a b"),
        ("config.x~3", ("x",), Operator.CONTAINS, "3"),
        ("config.a[0].b[12]<=-2", ("a", 0, "b", 12), Operator.LESS_OR_EQUAL, -2),
        ('config."a.b"."c\\"d"=1', ("a.b", 'c"d'), Operator.EQUAL, 1),
        ("config.learning-rate>=0.5", ("learning-rate",), Operator.GREATER_OR_EQUAL, 0.5),
        ("config.x=9223372036854775808", ("x",), Operator.EQUAL, float(2**63)),
        ("config.x=2026-11-20", ("x",), Operator.EQUAL, "2026-11-20"),
    ],
)
def test_conditions_on_json_are_read(
    text: str, steps: tuple[str | int, ...], operator: Operator, operand: Operand
) -> None:
    """Values keep the type that JSON gives them; a bare word is a text."""
    found = read(text)
    assert found == Condition("config", steps, operator, operand)
    assert type(found.operand) is type(operand)


@pytest.mark.parametrize(
    ("text", "operand"),
    [
        ("size_bytes>1.5GB", 1_500_000_000),
        ("size_bytes>10", 10),
        ("seconds>=2h", 7_200.0),
        ("created_at<30d", NOW_S - 30 * 86_400),
        ('created_at>"2026-11-20 00:00:00Z"', NOW_S),
        ("hits=0", 0),
        ("pinned=true", True),
        ("pinned!=false", False),
        ("version=1.0", "1.0"),
        ("labels.run=3", "3"),
        ("labels.run=true", "true"),
        ("model_id~ft:", "ft:"),
    ],
)
def test_plain_fields_take_what_they_hold(text: str, operand: Operand) -> None:
    """Sizes, durations and instants with their units; versions and labels are texts, whatever they look like."""
    found = read(text)
    assert (found.operand, type(found.operand)) == (operand, type(operand))


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 0, "expected a field"),
        ("=3", 0, "expected a field"),
        ("config.", 7, "expected a name"),
        ("config..x", 7, "expected a name"),
        ("config.a[x]", 8, "number of a list item"),
        ("config.a[-1]", 8, "number of a list item"),
        ('config."a', 7, 'closing "'),
        ('config."a\nb"', 7, "as JSON writes it"),
        ("config.x>", 9, "expected a value"),
        ("config.x in 3", 9, "expected one of"),
        ("config.x>>3", 9, "expected a value"),
        ("config.x=3 and config.y=4", 11, "nothing may follow"),
        ("config.x='a'", 9, "expected a value"),
        ("config.x=[1]", 9, "expected a value"),
        ("!config.x=3", 9, "PATH != VALUE"),
        ("config.x=None", 9, "true, false or null"),
        ("config.x>.5", 9, "as JSON writes it"),
        ("config.x>null", 8, "neither more nor less"),
        ("config.x=1e999", 9, "too large"),
        ('config.x="\\ud800"', 9, "surrogate"),
        ('config.x="\\u0000"', 9, "NUL"),
        ("size_bytes>big", 11, "is no size"),
        ("size_bytes~3", 10, "looks into a text"),
        ("pinned>true", 6, "expected = or !="),
        ("pinned=1", 7, "true or false"),
        ("hits>1h", 5, "expected a number"),
        ("created_at>2026", 11, "is no instant"),
        ("version.x=1", 0, "nothing below"),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, position: int, expected: str) -> None:
    """Where it went wrong, and what was expected there."""
    error = refused(text)
    assert error.position == position
    assert expected in error.expected
    assert f"character {position + 1}" in error.message
    assert error.to_failure().detail["position"] == position


@pytest.mark.parametrize(
    ("text", "kind", "nearest"),
    [
        ("confg.x=1", Kind.MODEL, "config"),
        ("size_byte>1", Kind.DATASET, "size_bytes"),
        ("kwarg.x", Kind.EVAL, "kwargs"),
        ("zzz", Kind.MODEL, None),
        ("\u202econfig", Kind.MODEL, "config"),
    ],
)
def test_unknown_fields_are_told_with_the_nearest(text: str, kind: Kind, nearest: str | None) -> None:
    """And with all there are; what another kind has is unknown here."""
    error = refused(text, kind)
    assert error.nearest == nearest
    assert all(name in error.expected for name in (*ROOTS[kind], *FIELDS[kind]))


def test_each_kind_has_its_own_fields() -> None:
    """A model has no kwargs, a dataset no config."""
    for kind in Kind:
        for root in ROOTS[kind]:
            assert read(f"{root}.x", kind).root == root
        for field, field_type in FIELDS[kind].items():
            assert read(field, kind) == Condition(field, (), Operator.EXISTS, None, field_type)
    assert refused("kwargs.x").position == 0
    assert refused("config.x", Kind.DATASET).position == 0


def test_conditions_are_bounded() -> None:
    """In length and in depth."""
    assert len(read("config" + ".x" * STEPS_MAX).steps) == STEPS_MAX
    assert "at most" in refused("config" + "[0]" * (STEPS_MAX + 1)).expected
    assert "at most" in refused("config.x=" + "x" * CONDITION_SIZE_MAX).expected
    assert len(refused("config.x=" + "x " * 2_000).message) < 1_000


PIECES = st.sampled_from(
    [
        *SIGNS,
        "config",
        "labels",
        ".",
        "[",
        "]",
        "0",
        '"',
        "\\",
        "!",
        " ",
        "x",
        "null",
        "1e",
        "-",
        "size_bytes",
        "\ud800",
    ]
)


@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=14).map("".join)), st.sampled_from(Kind))
def test_any_text_is_a_condition_or_an_error(text: str, kind: Kind) -> None:
    """And nothing else; what is read can be bound, and what is told can be sent."""
    found = read_or_error(text, kind)
    if isinstance(found, WhereError):
        assert 0 <= found.position <= len(text)
        found.to_failure().message.encode()
        return
    assert found.root in ROOTS[kind] or found.root in FIELDS[kind]
    assert len(found.steps) <= STEPS_MAX
    for part in (*found.steps, found.operand):
        if isinstance(part, str):
            assert "\0" not in part
            part.encode()
        elif isinstance(part, int):
            assert -(2**63) <= part < 2**63


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
STEPS = st.lists(st.one_of(TEXTS, st.integers(0, 999_999_999)), max_size=STEPS_MAX)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), TEXTS, st.floats(allow_nan=False))


@given(STEPS, st.sampled_from(SIGNS), SCALARS.filter(lambda value: value not in (float("inf"), -float("inf"))))
def test_what_is_written_is_read_back(steps: list[str | int], sign: str, operand: Operand) -> None:
    """Any names and any values, quotes and operators in them included: nothing in quotes is taken for anything else."""
    if sign not in ("=", "!=") and (operand is None or isinstance(operand, bool)):
        return
    bare = re.compile(r"[A-Za-z0-9_-]+")
    path = "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" if bare.fullmatch(step) else f".{json.dumps(step)}"
        for step in steps
    )
    found = read(f"metadata{path} {sign} {json.dumps(operand)}")
    if sign == "~" and not isinstance(operand, str):
        operand = json.dumps(operand)
    assert found == Condition("metadata", tuple(steps), Operator(sign), operand)
    assert type(found.operand) is type(operand)


def test_plain_fields_have_types() -> None:
    """JSON has none: there a value's own type counts."""
    assert read("labels.x=1").field_type is None
    assert read("hits=1").field_type is FieldType.NUMBER
