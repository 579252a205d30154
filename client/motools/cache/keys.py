"""Keys: the older package's functions, and the check that a configuration has an exact one.

Layer: motools.cache. Imports motoolsd.wire.
Invariant: the functions give what they always gave, so that old entries still hit. `canonical_json` refuses what those
would have hashed wrongly, and equals `json.dumps(value, sort_keys=True)` for all else.
"""

from __future__ import annotations

import json
from hashlib import sha256
from math import isfinite
from typing import Any

from motools.cache.errors import UncacheableConfigError
from motoolsd.wire.keys import json_hash

NESTING_MAX = 200
"""Lists and mappings inside each other."""


def hash_content(content: str | bytes) -> str:
    """SHA-256 of a text (as UTF-8) or of bytes: 64 hexadecimal digits."""
    return sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def hash_dict(data: dict[str, Any]) -> str:
    """SHA-256 of the mapping as JSON with sorted keys.

    Raises:
        TypeError: JSON has no form for something in it.
    """
    return json_hash(json.dumps(data, sort_keys=True))


def make_model_cache_key(dataset_hash: str, config: dict[str, Any], backend_type: str) -> str:
    """The key of a trained model, as `trained_models.cache_key` holds it."""
    return hash_dict({"dataset": dataset_hash, "config": config, "backend": backend_type})


def make_eval_cache_key(
    model_id: str, task_id: str, backend_type: str, inspect_kwargs: dict[str, Any] | None = None
) -> tuple[str, str, str, str | None]:
    """The identifying columns of an evaluation, as `eval_results` holds them."""
    return (model_id, task_id, backend_type, hash_dict(inspect_kwargs) if inspect_kwargs else None)


def canonical_json(value: object, what: str) -> str:
    """A configuration as the JSON text that its key is made from.

    Args:
        value: a mapping of text, finite numbers, booleans, None, lists, tuples (the same as lists) and mappings. Keys
            may be int, float, bool or None; they are taken as JSON writes them.
        what: its name in error messages, such as `config`.

    Raises:
        UncacheableConfigError: JSON cannot hold it exactly; the error names the place.
    """
    try:
        return json.dumps(_checked(value, what, []), sort_keys=True)
    except RecursionError:
        raise UncacheableConfigError(what, f"is nested too deeply, over {NESTING_MAX} levels") from None
    except ValueError as error:
        # An int of more than 4,300 digits; everything else was looked at before.
        raise UncacheableConfigError(what, f"cannot be written as JSON ({error})") from None


def _checked(value: object, path: str, parents: list[int]) -> object:
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        if not isfinite(value):
            raise UncacheableConfigError(path, f"is {value}, for which JSON has no number")
        return value
    if not isinstance(value, list | tuple | dict):
        raise UncacheableConfigError(path, f"is of type {type(value).__name__}, which JSON does not have")
    if id(value) in parents:
        raise UncacheableConfigError(path, "contains itself")
    if len(parents) >= NESTING_MAX:
        # With a raised recursion limit json would go on until the stack ends, and the process with it.
        raise RecursionError
    parents.append(id(value))
    if isinstance(value, dict):
        checked: object = _checked_mapping(value, path, parents)
    else:
        checked = [_checked(item, f"{path}[{number}]", parents) for number, item in enumerate(value)]
    parents.pop()
    return checked


def _checked_mapping(value: dict[Any, Any], path: str, parents: list[int]) -> dict[Any, object]:
    names: dict[str, object] = {}
    for key in value:
        name = _name_of(key, path)
        if name in names:
            raise UncacheableConfigError(path, f"has two keys that JSON writes alike: {names[name]!r} and {key!r}")
        names[name] = key
    pairs = zip(names, value.items(), strict=True)
    checked = {key: _checked(item, f"{path}.{name}", parents) for name, (key, item) in pairs}
    try:
        sorted(value)
    except TypeError:
        # Keys of several types cannot be sorted as they are; the older package could not store these at all.
        return dict(zip(names, checked.values(), strict=True))
    return checked


def _name_of(key: object, path: str) -> str:
    """A mapping's key as JSON writes it."""
    if isinstance(key, str):
        return key
    if isinstance(key, float) and not isfinite(key):
        raise UncacheableConfigError(path, f"has the key {key}, for which JSON has no number")
    if key is None or isinstance(key, bool | int | float):
        return json.dumps(key)
    raise UncacheableConfigError(path, f"has a key of type {type(key).__name__}, which JSON does not have")
