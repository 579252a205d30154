"""Keys are those of the older package, unambiguous, and spread over the slots."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoolsd.wire.keys import SLOT_COUNT, EvalIdentity, Kind, eval_key, json_hash, model_key, parse_eval_key, slot_of

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
configs = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(texts, configs, texts)
def test_model_key_is_the_older_package_s(dataset_hash: str, config: object, backend: str) -> None:
    """Old entries still hit: the key is the digest of the whole mapping with sorted keys."""
    inputs = {"dataset": dataset_hash, "config": config, "backend": backend}
    expected = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    assert model_key(dataset_hash, json.dumps(config, sort_keys=True), backend) == expected


@given(texts, texts, texts, st.none() | texts)
def test_eval_key_gives_its_columns_back(model_id: str, task_id: str, backend: str, kwargs_hash: str | None) -> None:
    """Whatever ids hold, no two evaluations have the same key."""
    key = eval_key(model_id, task_id, backend, kwargs_hash)
    assert parse_eval_key(key) == EvalIdentity(model_id, task_id, backend, kwargs_hash)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "[]",
        '["a"]',
        "nonsense",
        '{"model_id": 1}',
        "[1,2,3,4]",
        '["a","b","c"]',
        '["a","b","c",null,1]',
        '["a", "b", "c", null]',
        '["\\u00e9","b","c",null]',
        '["\udcff","b","c",null]',
    ],
)
def test_key_of_nobody_is_refused(key: str) -> None:
    """A text that no key function made is a ValueError, not a wrong lookup; another spelling has another slot."""
    with pytest.raises(ValueError, match="not the key"):
        parse_eval_key(key)


def test_slots_do_not_move() -> None:
    """Clients of another version look at the same slots."""
    assert [slot_of(kind, "a" * 64) for kind in Kind] == [64247, 26616, 27939]
    assert all(0 <= slot_of(Kind.MODEL, str(number)) < SLOT_COUNT for number in range(100))


def test_eval_key_does_not_change_between_versions() -> None:
    """Clients in other languages write it too: no spaces, UTF-8 as it is, control characters escaped."""
    key = eval_key('é"\\/\n\x01\x7f', "t", "b", None)
    assert key == '["é\\"\\\\/\\n\\u0001\x7f","t","b",null]'


def test_kinds_have_the_names_of_the_commands() -> None:
    """What stands on the wire is singular, what users type plural."""
    assert [(kind.value, kind.plural) for kind in Kind] == [
        ("dataset", "datasets"),
        ("model", "models"),
        ("eval", "evals"),
    ]


def test_json_hash_is_sha_256() -> None:
    """As the older package hashed arguments."""
    assert json_hash("{}") == hashlib.sha256(b"{}").hexdigest()
