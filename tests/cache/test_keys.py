"""Keys: what the older package gave is given still, and what it would have hashed wrongly is refused by its place."""

from __future__ import annotations

import json
import math
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motools.cache.errors import CacheError, UncacheableConfigError
from motools.cache.keys import canonical_json, hash_content, hash_dict, make_eval_cache_key, make_model_cache_key
from motoolsd.wire.keys import model_key

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def containers(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists, tuples, and mappings whose keys can be sorted."""
    by_text = st.dictionaries(st.text(), values)
    by_number = st.dictionaries(st.integers(), values)
    by_fraction = st.dictionaries(FINITE.filter(lambda key: key != 0), values)
    by_truth = st.dictionaries(st.booleans(), values)
    return st.lists(values) | st.tuples(values, values) | by_text | by_number | by_fraction | by_truth


JSON_VALUES = st.recursive(SCALARS, containers, max_leaves=20)


@given(JSON_VALUES)
def test_canonical_json_is_what_the_older_package_hashed(value: object) -> None:
    """For all that JSON can hold, the text is `json.dumps(value, sort_keys=True)`, so that old entries still hit."""
    assert canonical_json(value, "config") == json.dumps(value, sort_keys=True)


@given(st.text(), st.dictionaries(st.text(), SCALARS), st.text())
def test_older_key_functions_give_what_they_gave(dataset: str, config: dict[str, Any], backend: str) -> None:
    """`hash_dict` is SHA-256 of the sorted JSON, and both key functions are made of it."""
    text = json.dumps({"dataset": dataset, "config": config, "backend": backend}, sort_keys=True)
    expected = sha256(text.encode()).hexdigest()
    assert make_model_cache_key(dataset, config, backend) == expected
    assert model_key(dataset, canonical_json(config, "config"), backend) == expected
    kwargs_hash = sha256(json.dumps(config, sort_keys=True).encode()).hexdigest() if config else None
    assert make_eval_cache_key("m", "t", backend, config) == ("m", "t", backend, kwargs_hash)


def test_hash_content_takes_text_and_bytes() -> None:
    """A text is hashed as UTF-8."""
    assert hash_content("dätá") == hash_content("dätá".encode()) == sha256("dätá".encode()).hexdigest()


def test_hash_dict_refuses_as_it_always_did() -> None:
    """The older function raised a bare TypeError for what JSON has no form for, and does so still."""
    with pytest.raises(TypeError, match="set"):
        hash_dict({"tags": {1}})
    assert make_eval_cache_key("m", "t", "inspect", {}) == ("m", "t", "inspect", None)


CYCLE: list[Any] = []
CYCLE.append(CYCLE)

REFUSED: list[tuple[object, str, str]] = [
    ({"lr": math.nan}, "config.lr", "nan"),
    ({"a": [1, {"b": -math.inf}]}, "config.a[1].b", "-inf"),
    ({"data": b"x"}, "config.data", "bytes"),
    ({"tags": {1}}, "config.tags", "set"),
    ({"a": [object()]}, "config.a[0]", "object"),
    ({"a": {(1, 2): 3}}, "config.a", "tuple"),
    ({"a": {math.nan: 3}}, "config.a", "nan"),
    ({"a": {1: "x", "1": "y"}}, "config.a", "alike"),
    ({"a": {None: "x", "null": "y"}}, "config.a", "alike"),
    ({"a": {True: "x", "true": "y"}}, "config.a", "alike"),
    ({"a": CYCLE}, "config.a[0]", "itself"),
]


@pytest.mark.parametrize(("value", "path", "reason"), REFUSED)
def test_refusal_names_the_place_and_the_reason(value: object, path: str, reason: str) -> None:
    """What JSON cannot hold exactly is a TypeError that says where it is and why, instead of a wrong hit."""
    with pytest.raises(UncacheableConfigError) as caught:
        canonical_json(value, "config")
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert path in str(caught.value)
    assert isinstance(caught.value, TypeError | CacheError)


def test_same_list_twice_is_no_cycle() -> None:
    """Only a value inside itself has no end."""
    layers = [1, 2]
    assert canonical_json({"a": layers, "b": layers}, "config") == '{"a": [1, 2], "b": [1, 2]}'


def test_deep_nesting_is_refused_and_not_a_recursion_error() -> None:
    """A configuration nested thousands deep is refused like any other that has no key."""
    value: Any = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(UncacheableConfigError, match="nested too deeply"):
        canonical_json(value, "config")


@pytest.mark.parametrize("value", [{"n": 10**5000}, {10**5000: "n"}], ids=["value", "key"])
def test_number_too_long_to_be_written_is_refused(value: object) -> None:
    """An integer that Python will not write out has no JSON text."""
    with pytest.raises(UncacheableConfigError, match="config"):
        canonical_json(value, "config")


def test_keys_of_several_types_are_taken_as_json_writes_them() -> None:
    """The older package could not sort these at all; they are sorted by their JSON names."""
    assert canonical_json({2: "b", "1": "a", None: "c"}, "config") == '{"1": "a", "2": "b", "null": "c"}'


def test_canonical_json_leaves_the_value_as_it_is() -> None:
    """The caller's configuration is never changed."""
    value = {"b": (1, 2), "a": {3: None}}
    canonical_json(value, "config")
    assert value == {"b": (1, 2), "a": {3: None}}
