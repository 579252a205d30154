"""The table of lookups: which keys a question asks for, and what the answers to them mean."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from motools.cache import lookups
from motools.cache.calls import Call
from motools.cache.errors import CacheProtocolError, CacheRequestError, StorageFailed, UncacheableConfigError
from motools.cache.keys import make_model_cache_key
from motoolsd.wire import messages as m
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.fields import KEYS_PER_REQUEST_MAX, TEXT_SIZE_MAX
from motoolsd.wire.keys import Kind, eval_key, json_hash

MANY: Any = lookups.get_many
"""Without its types: most of what is asked here is wrong."""


def request_of(call: Call[Any]) -> m.Lookup:
    """What a lookup sends."""
    request = call.request_for(None)
    assert isinstance(request, m.Lookup)
    return request


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: lookups.get_file_id(7), "dataset_hash"),  # type: ignore[arg-type]
    (lambda: lookups.get_file_id(b"d"), "dataset_hash"),  # type: ignore[arg-type]
    (lambda: lookups.get_file_id(["d"]), "dataset_hash"),  # type: ignore[arg-type]
    (lambda: lookups.get_file_id(""), "empty"),
    (lambda: lookups.get_file_id("\ud800"), "surrogates not allowed"),
    (lambda: lookups.get_file_id("x" * (TEXT_SIZE_MAX + 1)), "longer"),
    (lambda: lookups.get_model_id("d", {}, ""), "backend_type"),
    (lambda: lookups.get_evals("m", "task", "inspect", None), "list of texts, not str"),
    (lambda: lookups.get_evals("m", 3, "inspect", None), "list of texts, not int"),  # type: ignore[arg-type]
    (lambda: lookups.get_evals("m", ["t", 3], "inspect", None), "each of task_ids"),  # type: ignore[list-item]
    (lambda: lookups.get_evals("m", [str(n) for n in range(10_001)], "inspect", None), "more than 10000"),
    (lambda: MANY("nonsense", []), "kind is one of dataset, model, eval, not 'nonsense'"),
    (lambda: MANY("datasets", ["d"]), "kind is one of"),
    (lambda: MANY(None, []), "kind is one of"),
    (lambda: MANY([], []), "kind is one of"),
    (lambda: MANY("dataset", "abc"), "questions must be a list, not str"),
    (lambda: MANY("dataset", b"abc"), "questions must be a list, not bytes"),
    (lambda: MANY("dataset", {"d": 1}), "questions must be a list, not dict"),
    (lambda: MANY("dataset", None), "questions must be a list, not NoneType"),
    (lambda: MANY("dataset", 3), "questions must be a list, not int"),
    (lambda: MANY("dataset", ["d", 3]), "dataset_hash must be text"),
    (lambda: MANY("dataset", ["d", ""]), "dataset_hash is empty"),
    (lambda: MANY("dataset", [("d",)]), "dataset_hash must be text"),
    (lambda: MANY("model", ["d"]), "a model is asked for by"),
    (lambda: MANY("model", [("d",)]), "a model is asked for by"),
    (lambda: MANY("model", [("d", {}, "openai", 1)]), "a model is asked for by"),
    (lambda: MANY("model", [("d", {}, None)]), "backend_type"),
    (lambda: MANY("model", [("d", {"tags": {1}})]), "config"),
    (lambda: MANY("eval", ["m"]), "an evaluation is asked for by"),
    (lambda: MANY("eval", [("m", "t")]), "an evaluation is asked for by"),
    (lambda: MANY("eval", [("m", "t", "i", None, 1)]), "an evaluation is asked for by"),
    (lambda: MANY("eval", [("m", ["t"], "i")]), "task_id must be text"),
    (lambda: MANY("eval", [("m", "t", "i", {"x": b"y"})]), "inspect_kwargs"),
    (lambda: MANY("dataset", [str(n) for n in range(10_001)]), "more than 10000 keys .* in parts"),
]


@pytest.mark.parametrize(("make", "text"), MISTAKES)
def test_mistake_in_an_argument_is_refused_by_name(make: Callable[[], object], text: str) -> None:
    """Nothing is sent, and the text says which argument is wrong and how."""
    with pytest.raises(CacheRequestError, match=text):
        make()


def test_configuration_without_a_key_is_named_among_many() -> None:
    """It is the same mistake in a list as alone."""
    with pytest.raises(UncacheableConfigError, match=r"config\.lr"):
        lookups.get_many("model", [("d", {"lr": 0.1}), ("d", {"lr": float("nan")})])


def test_paths_come_back_as_they_were() -> None:
    """A log's name need not be UTF-8."""
    odd = os.fsdecode(b"/logs/caf\xe9.json")
    hits = lookups.get_evals("m", ["t", "u"], "inspect", None).result(m.Found(values=[os.fsencode(odd), b"/plain"]))
    assert hits.found == {"t": odd, "u": "/plain"}
    assert Path(hits.found["t"]).name == Path(odd).name


def test_several_evals_ask_once_for_each_task() -> None:
    """A task that is named twice is one key, and the order of the misses is that of the question."""
    call = lookups.get_evals("m", ["b", "a", "b", "c"], "inspect", None)
    assert request_of(call).keys == [eval_key("m", task, "inspect", None) for task in "bac"]
    hits = call.result(m.Found(values=[None, b"/log", None]))
    assert (hits.found, hits.missing) == ({"a": "/log"}, ["b", "c"])


def test_eval_paths_are_all_or_none() -> None:
    """One missing task makes the whole a miss, as in the older package."""
    call = lookups.get_eval_log_paths("m", ["a", "b"], "inspect", None)
    assert call.result(m.Found(values=[b"/a", None])) is None
    assert call.result(m.Found(values=[b"/a", b"/b"])) == {"a": "/a", "b": "/b"}


def test_no_kwargs_and_none_are_the_same_eval() -> None:
    """As it always was: both have no hash."""
    empty, none = lookups.get_evals("m", ["t"], "inspect", {}), lookups.get_evals("m", ["t"], "inspect", None)
    assert request_of(empty).keys == request_of(none).keys


# Many at once.


@pytest.mark.parametrize(
    ("kind", "questions", "keys"),
    [
        ("dataset", ["b", "a"], ["b", "a"]),
        (
            "model",
            [("d", {"lr": 1}), ("d", {"lr": 1}, "other"), ["e", {}, "openai"]],
            [
                make_model_cache_key("d", {"lr": 1}, "openai"),
                make_model_cache_key("d", {"lr": 1}, "other"),
                make_model_cache_key("e", {}, "openai"),
            ],
        ),
        (
            "eval",
            [("m", "t", "i"), ("m", "t", "i", {"limit": 3}), ["m", "t", "i", {}]],
            [
                eval_key("m", "t", "i", None),
                eval_key("m", "t", "i", json_hash('{"limit": 3}')),
                eval_key("m", "t", "i", None),
            ],
        ),
    ],
)
def test_many_questions_have_the_keys_that_they_have_alone(kind: str, questions: list[Any], keys: list[str]) -> None:
    """In their order, each as often as it was asked; what may be left out is what it is elsewhere."""
    request = request_of(MANY(kind, questions))
    assert (request.kind, request.keys) == (Kind(kind), keys)


def test_question_alone_and_among_many_is_the_same_key() -> None:
    """What is remembered from one is a hit for the other."""
    kwargs = {"limit": 3}
    alone: list[Call[Any]] = [
        lookups.get_file_id("d"),
        lookups.get_model_id("d", {"lr": 0.1}, "openai"),
        lookups.get_evals("m", ["t"], "inspect", kwargs),
    ]
    many: list[Call[Any]] = [
        lookups.get_many("dataset", ["d"]),
        lookups.get_many("model", [("d", {"lr": 0.1})]),
        lookups.get_many("eval", [("m", "t", "inspect", kwargs)]),
    ]
    assert [request_of(call) for call in alone] == [request_of(call) for call in many]


def test_many_answers_stand_where_their_questions_stood() -> None:
    """Misses among them; a key that was asked twice is answered twice."""
    call = lookups.get_many("dataset", ["b", "a", "b", "c"])
    assert call.result(m.Found(values=[b"2", None, b"2", b"3"])) == ["2", None, "2", "3"]
    assert call.fallback == [None] * 4


def test_many_may_be_any_sequence_and_as_many_as_fit() -> None:
    """A tuple does; 10,000 is the most, and none is none."""
    keys = [str(number) for number in range(KEYS_PER_REQUEST_MAX)]
    assert request_of(lookups.get_many("dataset", tuple(keys))).keys == keys
    assert request_of(lookups.get_many("dataset", [])).keys == []


# What is believed.


@pytest.mark.parametrize(
    ("call", "reply"),
    [
        (lookups.get_file_id("d"), m.Stored()),
        (lookups.get_file_id("d"), m.Found(values=[])),
        (lookups.get_file_id("d"), m.Found(values=[b"1", b"2"])),
        (lookups.get_evals("m", ["a", "b"], "i", None), m.Found(values=[b"1"])),
        (lookups.get_many("dataset", ["a", "b"]), m.Found(values=[b"1"])),
        (lookups.get_many("dataset", ["a"]), m.Found(values=[b"1", None])),
        (lookups.get_many("dataset", ["a"]), m.Stored()),
    ],
)
def test_reply_that_is_no_answer_is_a_protocol_error(call: Call[Any], reply: m.Reply) -> None:
    """A daemon that answers something else is not believed."""
    with pytest.raises(CacheProtocolError):
        call.result(reply)


def test_failure_in_place_of_an_answer_is_raised() -> None:
    """With its class and its text."""
    failure = m.Failure(code=ErrorCode.STORAGE_FAILED, message="I/O error")
    for call in (lookups.get_file_id("d"), lookups.get_many("dataset", ["d"])):
        with pytest.raises(StorageFailed, match="I/O error"):
            call.result(failure)


@pytest.mark.parametrize(
    ("call", "values"),
    [
        (lookups.get_file_id("d"), ["file"]),
        (lookups.get_file_id("d"), [None]),
        (lookups.get_model_id("d", {}, "openai"), ["model"]),
        (lookups.get_evals("m", ["a", "b"], "i", None), ["/a", None]),
        (lookups.get_eval_log_paths("m", ["a", "b"], "i", None), ["/a", None]),
        (lookups.get_eval_log_paths("m", ["a", "b"], "i", None), ["/a", "/b"]),
        (lookups.get_many("dataset", ["a", "b", "a"]), ["1", None, "1"]),
    ],
)
def test_remembered_answer_means_what_the_daemons_means(call: Call[Any], values: list[str | None]) -> None:
    """By whichever way the values came."""
    assert call.of_values is not None
    reply = m.Found(values=[None if value is None else value.encode() for value in values])
    assert call.of_values(values) == call.result(reply)


def test_results_are_not_shared_between_calls() -> None:
    """What a caller does to one stays with the caller, also where it was remembered."""
    values: list[str | None] = ["1"]
    call = lookups.get_many("dataset", ["d"])
    assert call.of_values is not None
    call.of_values(values).append("mine")
    assert values == ["1"]
