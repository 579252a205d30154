"""The table of lookups: which keys a question is about, and what their values mean.

Layer: motools.cache. Imports arguments, calls, entries, errors, keys and motoolsd.wire.
Invariant: a key is made here and nowhere else, so that what is asked, remembered and claimed is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from motools.cache.arguments import kwargs_json, text, texts
from motools.cache.calls import Call, Inputs
from motools.cache.entries import EvalHits, text_of
from motools.cache.errors import CacheProtocolError, CacheRequestError
from motools.cache.keys import canonical_json
from motools.cache.recording import masked
from motoolsd.wire import messages as m
from motoolsd.wire.fields import KEYS_PER_REQUEST_MAX
from motoolsd.wire.keys import Kind, eval_key, model_key

T = TypeVar("T")

KindName = Literal["dataset", "model", "eval"]


def get_file_id(dataset_hash: str) -> Call[str | None]:
    """The file id of a dataset."""
    return _only(Kind.DATASET, text(dataset_hash, "dataset_hash"))


def get_model_id(dataset_hash: str, config: Mapping[str, Any], backend_type: str) -> Call[str | None]:
    """The id of a trained model."""
    key = model_key_of(dataset_hash, config, backend_type)
    return _only(Kind.MODEL, key, lambda _: model_inputs(dataset_hash, config, backend_type))


def get_evals(
    model_id: str, task_ids: Sequence[str], backend_type: str, inspect_kwargs: Mapping[str, Any] | None
) -> Call[EvalHits]:
    """Which evaluations are there, and which are not."""
    tasks = list(dict.fromkeys(texts(task_ids, "task_ids")))

    def hits(values: Sequence[str | None]) -> EvalHits:
        pairs = list(zip(tasks, values, strict=True))
        found = {task: path for task, path in pairs if path is not None}
        return EvalHits(found, [task for task, path in pairs if path is None])

    def inputs(place: int) -> bytes:
        return eval_inputs(model_id, tasks[place], backend_type, inspect_kwargs)

    return _several(Kind.EVAL, eval_keys_of(model_id, tasks, backend_type, inspect_kwargs), hits, inputs)


def get_eval_log_paths(
    model_id: str, task_ids: Sequence[str], backend_type: str, inspect_kwargs: Mapping[str, Any] | None
) -> Call[dict[str, str] | None]:
    """The logs of all tasks, or None if one of them is missing."""
    tasks = list(dict.fromkeys(texts(task_ids, "task_ids")))

    def logs(values: Sequence[str | None]) -> dict[str, str] | None:
        found = {task: path for task, path in zip(tasks, values, strict=True) if path is not None}
        return found if len(found) == len(tasks) else None

    def inputs(place: int) -> bytes:
        return eval_inputs(model_id, tasks[place], backend_type, inspect_kwargs)

    return _several(Kind.EVAL, eval_keys_of(model_id, tasks, backend_type, inspect_kwargs), logs, inputs)


def get_many(kind: str, questions: Sequence[Any]) -> Call[list[str | None]]:
    """The values of many keys of one kind, in their order."""
    keys = many_keys(kind, questions)
    return _several(Kind(kind), keys, list, _inputs_of_many(kind, questions))


def many_keys(kind: object, questions: object) -> list[str]:
    """The key of each question of a `get_many`.

    Raises:
        CacheRequestError: the kind is none, or a question is not one of that kind.
    """
    make = _KEY_MAKERS.get(kind) if isinstance(kind, str) else None
    if make is None:
        raise CacheRequestError(f"kind is one of {', '.join(_KEY_MAKERS)}, not {kind!r}")
    if isinstance(questions, str | bytes | Mapping) or not isinstance(questions, Iterable):
        raise CacheRequestError(f"questions must be a list, not {type(questions).__name__}")
    return [make(question) for question in questions]


def model_key_of(dataset_hash: str, config: Mapping[str, Any], backend_type: str) -> str:
    """The key of a model, from what a caller gives.

    Raises:
        CacheRequestError: something in it cannot be part of a key.
    """
    checked = text(dataset_hash, "dataset_hash"), canonical_json(config, "config"), text(backend_type, "backend_type")
    return model_key(*checked)


def eval_keys_of(
    model_id: str, tasks: Sequence[str], backend_type: str, inspect_kwargs: Mapping[str, Any] | None
) -> list[str]:
    """The keys of evaluations, from what a caller gives; the tasks are texts already.

    Raises:
        CacheRequestError: something in it cannot be part of a key.
    """
    _, kwargs_hash = kwargs_json(inspect_kwargs)
    model, backend = text(model_id, "model_id"), text(backend_type, "backend_type")
    return [eval_key(model, task, backend, kwargs_hash) for task in tasks]


def _dataset_question(question: object) -> str:
    return text(question, "dataset_hash")


def _model_question(question: object) -> str:
    if not isinstance(question, tuple | list) or len(question) not in (2, 3):
        raise CacheRequestError(f"a model is asked for by (dataset_hash, config, backend_type), not by {question!r}")
    dataset_hash, config, backend_type = (*question, "openai")[:3]
    return model_key_of(dataset_hash, config, backend_type)


def _eval_question(question: object) -> str:
    if not isinstance(question, tuple | list) or len(question) not in (3, 4):
        form = "(model_id, task_id, backend_type, inspect_kwargs)"
        raise CacheRequestError(f"an evaluation is asked for by {form}, not by {question!r}")
    model_id, task_id, backend_type, inspect_kwargs = (*question, None)[:4]
    (key,) = eval_keys_of(model_id, [text(task_id, "task_id")], backend_type, inspect_kwargs)
    return key


_KEY_MAKERS: dict[str, Callable[[object], str]] = {
    "dataset": _dataset_question,
    "model": _model_question,
    "eval": _eval_question,
}


def values_of(kind: Kind, keys: list[str]) -> Call[list[str | None]]:
    """The values of keys."""
    return _several(kind, keys, list)


def model_inputs(dataset_hash: str, config: Mapping[str, Any], backend_type: str) -> bytes:
    """What the key of a model is made from, for explanations: without credentials."""
    return _inputs({"dataset_hash": dataset_hash, "backend_type": backend_type, "config": masked(config)})


def eval_inputs(model_id: str, task_id: str, backend_type: str, inspect_kwargs: Mapping[str, Any] | None) -> bytes:
    """The same of an evaluation."""
    kwargs = masked(inspect_kwargs) if inspect_kwargs else None
    return _inputs({"model_id": model_id, "task_id": task_id, "backend_type": backend_type, "kwargs": kwargs})


def _inputs(fields: dict[str, Any]) -> bytes:
    return canonical_json(fields, "inputs").encode()


def _inputs_of_many(kind: str, questions: Sequence[Any]) -> Inputs | None:
    def of_model(place: int) -> bytes:
        dataset_hash, config, backend_type = (*questions[place], "openai")[:3]
        return model_inputs(dataset_hash, config, backend_type)

    def of_eval(place: int) -> bytes:
        model_id, task_id, backend_type, inspect_kwargs = (*questions[place], None)[:4]
        return eval_inputs(model_id, task_id, backend_type, inspect_kwargs)

    return {"model": of_model, "eval": of_eval}.get(kind)


def _only(kind: Kind, key: str, inputs: Inputs | None = None) -> Call[str | None]:
    return Call(m.Lookup(kind=kind, keys=[key]), m.Found, _only_value, None, of_values=_first, inputs=inputs)


def _only_value(reply: m.Found) -> str | None:
    if len(reply.values) != 1:
        raise _wrong_count(reply, 1)
    value = reply.values[0]
    return None if value is None else text_of(value)


def _first(values: Sequence[str | None]) -> str | None:
    return values[0]


def _several(
    kind: Kind, keys: list[str], of_values: Callable[[Sequence[str | None]], T], inputs: Inputs | None = None
) -> Call[T]:
    count = len(keys)
    if count > KEYS_PER_REQUEST_MAX:
        raise CacheRequestError(f"more than {KEYS_PER_REQUEST_MAX} keys in one call: ask for them in parts")

    def decode(reply: m.Found) -> T:
        if len(reply.values) != count:
            raise _wrong_count(reply, count)
        return of_values([None if value is None else text_of(value) for value in reply.values])

    missing = of_values([None] * count)
    return Call(m.Lookup(kind=kind, keys=keys), m.Found, decode, missing, of_values=of_values, inputs=inputs)


def _wrong_count(reply: m.Found, count: int) -> CacheProtocolError:
    return CacheProtocolError(f"the daemon gave {len(reply.values)} values for {count} keys")
