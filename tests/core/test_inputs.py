"""What inputs differ in is told field by field, exactly and within bounds."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoolsd.core.inputs import (
    DEPTH_MAX,
    DIFFERENCES_MAX,
    MISSING,
    NAME_SIZE_MAX,
    PATHS_SIZE_MAX,
    Difference,
    Inputs,
    JsonValue,
    differences,
    inputs_of_dataset,
    inputs_of_eval,
    inputs_of_model,
    inputs_of_question,
    parsed_mapping,
)
from motoolsd.wire.keys import EvalIdentity, Kind

STEP = re.compile(r'\.?(?:(?P<bare>[A-Za-z0-9_-]+)|(?P<quoted>"(?:[^"\\]|\\.)*"))|\[(?P<number>\d+)\]')

HOSTILE_NAMES = ["", "a", "b", "a.b", "[0]", "0", '"', "\\", "a b", "=", "\n", "\x1b[31m", "\u202e", "größe", "\ud800"]
NAMES = st.sampled_from(HOSTILE_NAMES)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=4)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 0.0, -0.0, 1.0, 2**70, 1e300, "1", "true", ""]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    ANY_TEXT,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)
CONFIGS = st.dictionaries(NAMES, VALUES, max_size=5)
MODELS = st.builds(
    lambda dataset_hash, config, backend_type: model(config, dataset_hash=dataset_hash, backend_type=backend_type),
    st.sampled_from(["d", "e", None]),
    st.one_of(st.none(), CONFIGS),
    st.sampled_from(["openai", "tinker"]),
)


def model(config: object, *, dataset_hash: str | None = "d", backend_type: str | None = "openai") -> Inputs:
    """The inputs of a model; `None` for a config that is not known."""
    return inputs_of_model(dataset_hash, None if config is None else json.dumps(config).encode(), backend_type)


def told(cached: object, asked: object) -> list[tuple[str, object, object]]:
    """Where two configurations differ, as path, cached value, asked value."""
    return [(one.path, one.cached, one.asked) for one in differences(model(cached), model(asked))]


def canonical(value: object) -> str:
    """A value as JSON tells it apart from others."""
    return json.dumps(value, sort_keys=True)


def steps_of(path: str) -> list[str | int]:
    """A path, read again."""
    steps: list[str | int] = []
    position = 0
    while position < len(path):
        found = STEP.match(path, position)
        assert found is not None, path[position:]
        if found["number"] is not None:
            steps.append(int(found["number"]))
        else:
            steps.append(found["bare"] or json.loads(found["quoted"]))
        position = found.end()
    return steps


def apply(cached: Inputs, found: Sequence[Difference]) -> dict[str, Any]:
    """The fields of inputs after all differences were made good."""
    fields: dict[str, Any] = copy.deepcopy(cached.fields)
    ordered = [one for one in found if one.asked is not MISSING]
    # From the back: what stands behind a removed item of a list would move up.
    ordered += [one for one in reversed(found) if one.asked is MISSING]
    for one in ordered:
        *parents, last = steps_of(one.path)
        place: Any = fields
        for step in parents:
            place = place[step]
        if one.asked is MISSING:
            del place[last]
        elif last == len(place) and isinstance(place, list):
            place.append(one.asked)
        else:
            place[last] = one.asked
    return fields


# Examples.


@pytest.mark.parametrize(
    ("cached", "asked", "expected"),
    [
        ({"epochs": 3}, {"epochs": 5}, [("config.epochs", 3, 5)]),
        ({"h": {"epochs": 3, "lr": 1}}, {"h": {"epochs": 5, "lr": 1}}, [("config.h.epochs", 3, 5)]),
        ({"a": 1}, {}, [("config.a", 1, MISSING)]),
        ({}, {"a": None}, [("config.a", MISSING, None)]),
        ({"a": 1}, {"a": 1.0}, [("config.a", 1, 1.0)]),
        ({"a": 1}, {"a": True}, [("config.a", 1, True)]),
        ({"a": 0.0}, {"a": -0.0}, [("config.a", 0.0, -0.0)]),
        ({"a": "1"}, {"a": 1}, [("config.a", "1", 1)]),
        ({"a": {}}, {"a": []}, [("config.a", {}, [])]),
        ({"a": {"b": 1}}, {"a": 1}, [("config.a", {"b": 1}, 1)]),
        ({"a.b": 1}, {"a.b": 2}, [('config."a.b"', 1, 2)]),
        ({"": 1}, {"": 2}, [('config.""', 1, 2)]),
        ({"\x1b[31m": 1}, {}, [('config."\\u001b[31m"', 1, MISSING)]),
        ({"b": 1, "a": 1}, {"b": 2, "a": 2}, [("config.a", 1, 2), ("config.b", 1, 2)]),
    ],
)
def test_mappings_are_compared_by_name(cached: object, asked: object, expected: object) -> None:
    """Each field that differs, with its path and both values as JSON has them."""
    # 1, 1.0 and true are equal in Python.
    assert repr(told(cached, asked)) == repr(expected)


@pytest.mark.parametrize(
    ("cached", "asked", "expected"),
    [
        ([1, 2, 3], [1, 5, 3], [("config.a[1]", 2, 5)]),
        ([1, 2, 3], [4, 5, 6], [("config.a[0]", 1, 4), ("config.a[1]", 2, 5), ("config.a[2]", 3, 6)]),
        ([1, 2, 3], [1, 2, 3, 4], [("config.a[3]", MISSING, 4)]),
        ([1, 2, 3], [1, 2], [("config.a[2]", 3, MISSING)]),
        ([1, 2, 3], [2, 3], [("config.a", [1, 2, 3], [2, 3])]),
        ([], [1], [("config.a", [], [1])]),
        ([1], [1, 2, 3, 4], [("config.a", [1], [1, 2, 3, 4])]),
        ([{"u": 1}], [{"u": 2}, {"u": 3}], [("config.a[0].u", 1, 2), ("config.a[1]", MISSING, {"u": 3})]),
        ([[1], [2]], [[1], [3]], [("config.a[1][0]", 2, 3)]),
    ],
)
def test_lists_are_compared_by_position_unless_that_says_less(cached: object, asked: object, expected: object) -> None:
    """Of lists with unlike lengths and little in common, both are told whole."""
    assert told({"a": cached}, {"a": asked}) == expected


def test_fields_come_first_and_in_their_order() -> None:
    """A reader sees another dataset before the hundredth parameter."""
    cached = inputs_of_question(Kind.MODEL, {"config": {"z": 1, "a": 1}, "backend_type": "x", "dataset_hash": "d"})
    asked = inputs_of_question(Kind.MODEL, {"config": {"z": 2, "a": 2}, "backend_type": "y", "dataset_hash": "e"})
    paths = [one.path for one in differences(cached, asked)]
    assert paths == ["dataset_hash", "backend_type", "config.a", "config.z"]


def test_unknown_field_is_one_difference() -> None:
    """The older package kept a hash only: nothing is said of what is inside."""
    cached = inputs_of_eval(EvalIdentity("m", "t", "inspect", "hash"), None)
    asked = inputs_of_question(
        Kind.EVAL, {"model_id": "m", "task_id": "t", "backend_type": "inspect", "kwargs": {"limit": 5}}
    )
    assert differences(cached, asked) == [Difference("kwargs", MISSING, {"limit": 5})]


def test_absent_value_is_left_out_when_encoded() -> None:
    """A reader of the JSON tells "no such field" from null."""
    one, other = differences(model({"a": 1}), model({"b": None}))
    assert msgspec.json.encode(one) == b'{"path":"config.a","cached":1}'
    assert msgspec.json.encode(other) == b'{"path":"config.b","asked":null}'
    assert (one.cached_json, one.asked_json) == (b"1", None)
    assert (other.cached_json, other.asked_json) == (None, b"null")


def test_value_that_is_no_text_is_told_as_json() -> None:
    """Half a surrogate pair is in no UTF-8, but JSON can spell it."""
    (found,) = differences(model({"a": "\ud800"}), model({"a": 2**100}))
    assert (found.cached_json, found.asked_json) == (b'"\\ud800"', str(2**100).encode())


# Where inputs come from.


def test_model_of_the_older_package_has_no_known_inputs() -> None:
    """It kept the key alone."""
    assert inputs_of_model(None, None, None).fields == {}


@pytest.mark.parametrize(
    "config", [b"", b"{", b"[1]", b'"a"', b"\xff", b'{"a": NaN}', b'{"a": 1e999}', b'{"a":' * 99_999]
)
def test_config_that_is_no_json_mapping_is_unknown(config: bytes) -> None:
    """Somebody edited it by hand; the rest of the row still explains something."""
    assert inputs_of_model("d", config, "openai").fields == {"dataset_hash": "d", "backend_type": "openai"}
    with pytest.raises(ValueError, match=r"."):
        parsed_mapping(config)


def test_evaluation_without_a_hash_has_no_arguments() -> None:
    """That is known: nothing and an empty mapping were always the same."""
    assert inputs_of_eval(EvalIdentity("m", "t", "b", None), None).fields["kwargs"] == {}
    assert "kwargs" not in inputs_of_eval(EvalIdentity("m", "t", "b", "hash"), None).fields
    assert inputs_of_eval(EvalIdentity("m", "t", "b", "hash"), b'{"a": 1}').fields["kwargs"] == {"a": 1}
    assert inputs_of_question(Kind.EVAL, {"kwargs": None}) == inputs_of_question(Kind.EVAL, {"kwargs": {}})
    assert inputs_of_question(Kind.EVAL, {}).fields == {}


@pytest.mark.parametrize(
    ("kind", "fields", "named"),
    [
        (Kind.DATASET, {"config": {}}, "config is none of dataset_hash"),
        (Kind.MODEL, {"config": [1]}, "config is no mapping"),
        (Kind.MODEL, {"config": None}, "config is no mapping"),
        (Kind.MODEL, {"dataset_hash": 1}, "dataset_hash is no text"),
        (Kind.EVAL, {"kwargs": "x"}, "kwargs is no mapping"),
        (Kind.EVAL, {"\x1b": 1}, r'"\\u001b" is none of model_id, task_id, backend_type, kwargs'),
    ],
)
def test_question_that_is_none_is_refused(kind: Kind, fields: dict[str, JsonValue], named: str) -> None:
    """The field is named."""
    with pytest.raises(ValueError, match=named):
        inputs_of_question(kind, fields)


def test_dataset_is_its_hash() -> None:
    """Two datasets differ in one field or in none."""
    cached, asked = inputs_of_dataset("d"), inputs_of_question(Kind.DATASET, {"dataset_hash": "e"})
    assert differences(cached, asked) == [Difference("dataset_hash", "d", "e")]


# Bounds.


def nested(depth: int, leaf: JsonValue) -> dict[str, JsonValue]:
    """A mapping so deep."""
    value: dict[str, JsonValue] = {"a": leaf}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize("depth", [10, DEPTH_MAX, 50_000])
def test_deep_inputs_are_compared(depth: int) -> None:
    """What lies too deep is told as a whole; no recursion ends the comparison."""
    cached, asked = (Inputs(Kind.MODEL, {"config": nested(depth, leaf)}) for leaf in (1, 2))
    (found,) = differences(cached, asked)
    assert found.path.count(".") == min(depth, DEPTH_MAX - 1)
    assert found.cached_json is not None
    same = Inputs(Kind.MODEL, {"config": nested(depth, 1)})
    assert differences(cached, same) == []


def test_differences_are_bounded_in_number() -> None:
    """The first ones are told."""
    found = told({f"{n:05}": 1 for n in range(5_000)}, {f"{n:05}": 2 for n in range(5_000)})
    assert len(found) == DIFFERENCES_MAX
    assert found[-1][0] == f"config.{DIFFERENCES_MAX - 1:05}"


def test_paths_are_bounded() -> None:
    """A long name is cut, and many long paths are not all told."""
    ((path, *_),) = told({"x" * 100_000: 1}, {})
    assert path == f'config."{"x" * NAME_SIZE_MAX}..."'
    deep = [nested(DEPTH_MAX - 5, {f"{'y' * 150}{n}": n + more for n in range(5_000)}) for more in (0, 1)]
    size = sum(len(path) for path, *_ in told(*deep))
    assert PATHS_SIZE_MAX - 1_000 < size < PATHS_SIZE_MAX + 1_000


# Properties.


@given(MODELS)
def test_nothing_differs_from_itself(inputs: Inputs) -> None:
    """Nor from a copy."""
    assert differences(inputs, copy.deepcopy(inputs)) == []


@given(MODELS, MODELS)
def test_differences_lead_from_one_to_the_other(cached: Inputs, asked: Inputs) -> None:
    """Nothing is left out, nothing told that is not so."""
    found = differences(cached, asked)
    assert canonical(apply(cached, found)) == canonical(asked.fields)
    assert bool(found) == (canonical(cached.fields) != canonical(asked.fields))
    for one in found:
        assert one.path.isascii()
        assert one.path.isprintable()
        assert one.cached_json != one.asked_json


@given(MODELS, MODELS)
def test_differences_are_the_same_from_both_sides(cached: Inputs, asked: Inputs) -> None:
    """The paths are the same, and the values exchanged."""
    found = [(one.path, one.cached_json, one.asked_json) for one in differences(cached, asked)]
    swapped = [(one.path, one.asked_json, one.cached_json) for one in differences(asked, cached)]
    assert found == swapped
