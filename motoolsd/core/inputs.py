"""What entries were made from, and in which fields two of them differ.

Layer: core. Imports wire.keys.
Invariant: pure. Values are told apart as JSON writes them, because keys are: 1, 1.0 and true are three values. However
deep, wide or odd the inputs are, a comparison ends, and what it gives is bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from math import isfinite
from typing import Final, NamedTuple, TypeAlias

import msgspec

from motoolsd.wire.keys import EvalIdentity, Kind

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

MISSING: Final = msgspec.UNSET
"""Stands where there is no value; msgspec leaves a field out that has it."""

DIFFERENCES_MAX: Final = 1_000
DEPTH_MAX: Final = 100
"""Steps of a path; what lies deeper is compared as a whole."""
NAME_SIZE_MAX: Final = 200
"""Characters of a name in a path; a longer one is cut."""
PATHS_SIZE_MAX: Final = 256 * 1024
"""Characters of all paths of one comparison."""

FIELDS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.DATASET: ("dataset_hash",),
    Kind.MODEL: ("dataset_hash", "backend_type", "config"),
    Kind.EVAL: ("model_id", "task_id", "backend_type", "kwargs"),
}
"""What the key of each kind is made from, in the order in which it reads best."""
_MAPPINGS: Final = frozenset({"config", "kwargs"})
_BARE_NAME: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class Inputs(NamedTuple):
    """What an entry was made from, or would be."""

    kind: Kind
    fields: dict[str, JsonValue]
    """By `FIELDS`; one that is not known is not there."""


class Difference(msgspec.Struct, frozen=True):
    """One place in which two inputs differ."""

    path: str
    """As TOML writes a dotted key: `config.hyperparameters.epochs`, `config."a name"`; `[n]` in lists."""
    cached: JsonValue | msgspec.UnsetType = MISSING
    asked: JsonValue | msgspec.UnsetType = MISSING

    @property
    def cached_json(self) -> bytes | None:
        """The cached value as JSON in ASCII; None if there is none."""
        return _json(self.cached)

    @property
    def asked_json(self) -> bytes | None:
        """The asked value as JSON in ASCII; None if there is none."""
        return _json(self.asked)


def inputs_of_dataset(dataset_hash: str) -> Inputs:
    """Those of a dataset: its content."""
    return Inputs(Kind.DATASET, {"dataset_hash": dataset_hash})


def inputs_of_model(dataset_hash: str | None, config: bytes | None, backend_type: str | None) -> Inputs:
    """Those of a stored model.

    Args:
        dataset_hash: None if it is not known: the older package kept the key alone.
        config: its JSON; what is none, or no mapping, counts as not known.
        backend_type: None if it is not known.
    """
    return _known(Kind.MODEL, dataset_hash=dataset_hash, backend_type=backend_type, config=_mapping_of(config))


def inputs_of_eval(identity: EvalIdentity, kwargs: bytes | None) -> Inputs:
    """Those of an evaluation.

    Args:
        identity: its columns; without a hash it has no arguments.
        kwargs: the JSON of its arguments; None, and what is no mapping, counts as not known where there is a hash.
    """
    known = {} if identity.kwargs_hash is None else _mapping_of(kwargs)
    return _known(
        Kind.EVAL,
        model_id=identity.model_id,
        task_id=identity.task_id,
        backend_type=identity.backend_type,
        kwargs=known,
    )


def inputs_of_question(kind: Kind, fields: Mapping[str, JsonValue]) -> Inputs:
    """Those that somebody asks for.

    Args:
        kind: of the entry.
        fields: by `FIELDS`, as decoded JSON; one that is left out is not known. `kwargs` may be None: there are none.

    Raises:
        ValueError: a field is none of the kind's, or of the wrong type.
    """
    for name, value in fields.items():
        if name not in FIELDS[kind]:
            message = f"{_shown(name)} is none of {', '.join(FIELDS[kind])}"
            raise ValueError(message)
        if name in _MAPPINGS:
            if not isinstance(value, dict) and (name, value) != ("kwargs", None):
                message = f"{name} is no mapping"
                raise ValueError(message)
        elif not isinstance(value, str):
            message = f"{name} is no text"
            raise ValueError(message)
    if "kwargs" in fields:
        fields = {**fields, "kwargs": fields["kwargs"] or {}}
    return _known(kind, **fields)


def differences(cached: Inputs, asked: Inputs) -> list[Difference]:
    """Where two inputs differ, field by field.

    Lists are compared by position; where one is longer and most of what they share differs too, as a whole. A field
    that is not known on one side is one difference.

    Returns:
        Fields in the order of `FIELDS`, mappings last; inside of them by path. At most `DIFFERENCES_MAX`, and no more
        once their paths have `PATHS_SIZE_MAX` characters.
    """
    found: list[Difference] = []
    size = 0
    for name in dict.fromkeys((*FIELDS[cached.kind], *FIELDS[asked.kind])):
        for one in _compared((name,), cached.fields.get(name, MISSING), asked.fields.get(name, MISSING)):
            found.append(one)
            size += len(one.path)
            if len(found) == DIFFERENCES_MAX or size >= PATHS_SIZE_MAX:
                return found
    return found


_Step = str | int
_Side: TypeAlias = "JsonValue | msgspec.UnsetType"


def _compared(steps: tuple[_Step, ...], cached: _Side, asked: _Side) -> Iterator[Difference]:
    """The differences below a place. It calls itself, at most `DEPTH_MAX` times inside each other."""
    if len(steps) < DEPTH_MAX:
        if isinstance(cached, dict) and isinstance(asked, dict):
            for name in sorted(cached.keys() | asked.keys()):
                one, other = cached.get(name, MISSING), asked.get(name, MISSING)
                if not _are_same_leaf(one, other):
                    yield from _compared((*steps, name), one, other)
            return
        if isinstance(cached, list) and isinstance(asked, list) and _are_comparable(cached, asked):
            for number, (one, other) in enumerate(zip_longest(cached, asked, fillvalue=MISSING)):
                if not _are_same_leaf(one, other):
                    yield from _compared((*steps, number), one, other)
            return
    if not _are_same(cached, asked):
        yield Difference(_path(steps), cached, asked)


def _are_same_leaf(one: _Side, other: _Side) -> bool:
    """Whether both are no list or mapping, and the same in JSON; -0.0 is not 0.0 there."""
    kind = type(one)
    if kind is not type(other) or kind is dict or kind is list:
        return False
    return one == other and (kind is not float or repr(one) == repr(other))


def _are_same(one: _Side, other: _Side) -> bool:
    """Whether both are the same in JSON, however deep they are."""
    pairs: list[tuple[_Side, _Side]] = [(one, other)]
    while pairs:
        one, other = pairs.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            if one.keys() != other.keys():
                return False
            pairs += [(one[name], other[name]) for name in one]
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return False
            pairs += zip(one, other, strict=True)
        elif not _are_same_leaf(one, other):
            return False
    return True


def _are_comparable(cached: Sequence[JsonValue], asked: Sequence[JsonValue]) -> bool:
    """Whether a comparison by position says more of two lists than both of them side by side."""
    if len(cached) == len(asked):
        return True
    # Lists and mappings inside of them are not looked into: what they differ in can be told in few words.
    alike = sum(
        (isinstance(one, dict | list) and type(one) is type(other)) or _are_same_leaf(one, other)
        for one, other in zip(cached, asked, strict=False)
    )
    return 2 * alike >= max(len(cached), len(asked))


def _path(steps: Sequence[_Step]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_shown(step)}" for step in steps)
    return text.removeprefix(".")


def _shown(name: str) -> str:
    """A name as it stands, or in quotes: nothing that a terminal would obey is left in it."""
    if len(name) > NAME_SIZE_MAX:
        name = f"{name[:NAME_SIZE_MAX]}..."
    return name if _BARE_NAME.fullmatch(name) else json.dumps(name)


def _known(kind: Kind, **fields: JsonValue) -> Inputs:
    return Inputs(kind, {name: fields[name] for name in FIELDS[kind] if fields.get(name) is not None})


def _json(value: _Side) -> bytes | None:
    if isinstance(value, msgspec.UnsetType):
        return None
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return b'"(nested too deeply)"'


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        message = f"{text} is too large"
        raise ValueError(message)
    return number


def _refused(text: str) -> float:
    message = f"{text} is no number of JSON"
    raise ValueError(message)


# Not msgspec's: that knows no half of a surrogate pair, which a configuration may hold.
_decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_refused)


def parsed_mapping(text: bytes) -> dict[str, JsonValue]:
    """A JSON mapping.

    Raises:
        ValueError: it is none, holds what JSON has no number for, or is nested too deeply.
    """
    try:
        value = _decoder.decode(text.decode())
    except RecursionError:
        message = "it is nested too deeply"
        raise ValueError(message) from None
    if not isinstance(value, dict):
        message = "it is no mapping"
        raise ValueError(message)  # noqa: TRY004 - the type of what the text says, not of an argument
    return value


def _mapping_of(text: bytes | None) -> dict[str, JsonValue] | None:
    if text is None:
        return None
    try:
        return parsed_mapping(text)
    except ValueError:
        return None
