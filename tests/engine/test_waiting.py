"""How claimed keys stand that have values, and answers that wake a claim once."""

from __future__ import annotations

from motoolsd.engine.waiting import Waiting, found_states
from motoolsd.wire.entries import KeyState
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import Found

KEYS = [(Kind.DATASET, "a"), (Kind.DATASET, "b"), (Kind.DATASET, "c")]


def test_only_keys_with_a_value_stand() -> None:
    """The version that does not go with the asked one belongs to its place, and to no other."""
    states = found_states(KEYS, Found(values=[b"1", None, b""], versions={2: "1.0"}))
    assert states == {KEYS[0]: KeyState(value=b"1"), KEYS[2]: KeyState(value=b"", version="1.0")}


def test_first_answer_counts() -> None:
    """Whatever comes after it finds nobody."""
    waiting = Waiting(peer=None)
    assert (waiting.answered.is_set(), waiting.answer) == (False, None)
    waiting.give(None)
    waiting.give(KeyError)  # type: ignore[arg-type]
    assert (waiting.answered.is_set(), waiting.answer) == (True, None)
