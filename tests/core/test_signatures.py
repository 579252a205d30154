"""The more two inputs differ, the more bits of their signatures do."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoolsd.core.inputs import Inputs, JsonValue
from motoolsd.core.signatures import NEAREST_MAX, SIGNATURE_SIZE_BYTES, nearest, rank, signature
from motoolsd.wire.keys import Kind


def model(config: JsonValue, dataset_hash: str = "d") -> Inputs:
    """The inputs of a model."""
    return Inputs(Kind.MODEL, {"dataset_hash": dataset_hash, "backend_type": "openai", "config": config})


def distance(one: bytes, other: bytes) -> int:
    """In how many bits two signatures differ."""
    return sum((left ^ right).bit_count() for left, right in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "0000000000002314000000004000008000006000080000800000002000000000"),
        (
            {"epochs": 3, "lr": 1e-5, "flag": True, "none": None, "layers": [1, [], "größe\ud800"]},
            "0008010008006200404000000402008200106080280002400084000200440100",
        ),
    ],
)
def test_signature_never_changes(config: JsonValue, expected: str) -> None:
    """Signatures are stored: every version and machine makes the same."""
    assert signature(model(config)).hex() == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": "1"}),
        ({"a": None}, {}),
        ({"a": {}}, {"a": []}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": {"b": 1}}, {"a.b": 1}),
        ({"a": [1]}, {"a[0]": 1}),
        ({"a": {"0": 1}}, {"a": [1]}),
    ],
)
def test_what_json_tells_apart_has_another_signature(one: JsonValue, other: JsonValue) -> None:
    """As differences do."""
    assert signature(model(one)) != signature(model(other))


def test_order_of_names_does_not_count() -> None:
    """A mapping has none."""
    assert signature(model({"a": 1, "b": 2})) == signature(model({"b": 2, "a": 1}))


@pytest.mark.parametrize("size", [5, 50, 300])
def test_distance_counts_differences_whatever_the_size(size: int) -> None:
    """About four bits a difference: what is the same in both cancels out, so that nothing fills up."""
    generator = random.Random(size)
    config: dict[str, JsonValue] = {f"field{n}": n for n in range(size)}
    means = []
    for changed in (1, 2, 4):
        distances = []
        for _ in range(30):
            other = {**config, **{f"field{n}": -1 for n in generator.sample(range(size), changed)}}
            distances.append(distance(signature(model(config)), signature(model(other, "d"))))
        means.append(sum(distances) / len(distances) / changed)
    assert all(3 <= mean <= 4 for mean in means)


def test_huge_inputs_have_a_signature() -> None:
    """Wide or deep, in bounded time."""
    deep: JsonValue = 1
    for _ in range(100_000):
        deep = [deep]
    wide: JsonValue = list(range(100_000))
    assert {len(signature(model(config))) for config in (deep, wide)} == {SIGNATURE_SIZE_BYTES}


SIGNATURES = st.binary(min_size=SIGNATURE_SIZE_BYTES, max_size=SIGNATURE_SIZE_BYTES)


@given(st.lists(SIGNATURES, max_size=30), SIGNATURES, st.integers(1, 10))
def test_rank_is_a_sort_by_distance_then_newest(found: list[bytes], asked: bytes, limit: int) -> None:
    """As if all were sorted."""
    candidates = list(enumerate(found + found))
    expected = sorted(candidates, key=lambda one: (distance(one[1], asked), -one[0]))
    assert rank(candidates, asked, limit) == [row_number for row_number, _ in expected[:limit]]


@given(st.lists(SIGNATURES, max_size=30), SIGNATURES, st.integers(1, 10), st.integers(1, 7))
def test_nearest_may_be_looked_for_part_by_part(found: list[bytes], asked: bytes, limit: int, part: int) -> None:
    """The same as at once: each once, and those that are as near as the last one are not lost."""
    found = list(dict.fromkeys(found))
    near: list[bytes] = []
    for start in range(0, len(found), part):
        near = nearest([*near, *found[start : start + part]], asked, limit)
    ordered = sorted(distance(one, asked) for one in found)
    farthest = ordered[:limit][-1] if ordered else 0
    assert near == nearest(found, asked, limit)
    assert set(near) == {one for one in found if distance(one, asked) <= farthest}


def test_equally_near_ones_are_bounded() -> None:
    """A hundred thousand that are all as far away do not come along."""
    found = [(1 << bit | 1 << other).to_bytes(32) for bit in range(256) for other in range(bit)]
    assert len(nearest(found, bytes(32), 3)) == NEAREST_MAX
