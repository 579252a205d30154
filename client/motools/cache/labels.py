"""Labels: from the environment, of a cache, of one call.

Layer: motools.cache. Imports errors and masking.
Invariant: what comes out is within the limits and holds no credentials; what cannot be read is refused, never guessed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

from motools.cache.errors import CacheRequestError
from motools.cache.masking import mask_mapping

VARIABLE: Final = "MOTOOLS_LABELS"
LABELS_MAX: Final = 64
LABEL_SIZE_MAX: Final = 256
"""Characters in a name, and in a value."""
ENVIRONMENT_SIZE_MAX: Final = 64 * 1024

_EXAMPLE: Final = f"{VARIABLE}='experiment=e1,owner=ann,note=\"two words\"'"
_QUOTED: Final = r'"(?:[^"\\]|\\.)*+"'
_ITEM: Final = re.compile(rf'({_QUOTED}|[^\s,="]++)=({_QUOTED}|[^\s,"]*+)(?=[\s,]|\Z)', re.DOTALL)
_BETWEEN: Final = re.compile(r"[\s,]*+")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


def labels_from_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What `MOTOOLS_LABELS` says: `experiment=e1,owner=ann`, between commas or white space.

    In double quotes a name or a value may hold anything; a backslash takes the next character as it is.

    Args:
        environment: None: that of this process.

    Raises:
        CacheRequestError: it cannot be read, names a label twice, or breaks a limit; the text names the variable.
    """
    text = (os.environ if environment is None else environment).get(VARIABLE, "")
    if len(text) > ENVIRONMENT_SIZE_MAX:
        raise CacheRequestError(f"{VARIABLE} is longer than {ENVIRONMENT_SIZE_MAX} characters")
    labels: dict[str, str] = {}
    position = _end_of_space(text, 0)
    while position < len(text):
        item = _ITEM.match(text, position)
        if item is None:
            rest = text[position : position + 40]
            raise CacheRequestError(f"{VARIABLE} cannot be read from {rest!r} on: write it as in {_EXAMPLE}")
        name, value = _unquoted(item[1]), _unquoted(item[2])
        if name in labels:
            raise CacheRequestError(f"{VARIABLE} names the label {name!r} twice: write it as in {_EXAMPLE}")
        labels[name] = value
        position = _end_of_space(text, item.end())
    try:
        return checked_labels(labels)
    except CacheRequestError as error:
        raise CacheRequestError(f"{VARIABLE}: {error}; write it as in {_EXAMPLE}") from None


def _end_of_space(text: str, position: int) -> int:
    found = _BETWEEN.match(text, position)
    assert found is not None, "it matches the empty text"
    return found.end()


def _unquoted(text: str) -> str:
    return _ESCAPED.sub(r"\1", text[1:-1]) if text.startswith('"') else text


def merged_labels(*layers: Mapping[str, str] | None) -> dict[str, str]:
    """Labels of several sources in one, the later over the earlier: the environment, the cache, the call.

    Raises:
        CacheRequestError: one is no text, empty or too long, or there are too many.
    """
    labels: dict[str, str] = {}
    for layer in layers:
        if layer is not None and not isinstance(layer, Mapping):
            raise CacheRequestError(f"labels must be a mapping of texts, not {type(layer).__name__}")
        labels |= layer or {}
    return checked_labels(labels)


def checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """A copy of labels that may be stored, with what looks like a credential masked.

    Raises:
        CacheRequestError: as `merged_labels`.
    """
    if len(labels) > LABELS_MAX:
        raise CacheRequestError(f"{len(labels)} labels: an entry may have {LABELS_MAX}")
    for name, value in labels.items():
        _check(name, "a label's name")
        _check(value, f"label {name[:LABEL_SIZE_MAX]}")
    masked: dict[str, str] = mask_mapping(labels)
    return masked


def _check(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise CacheRequestError(f"{what} must be text, not {type(text).__name__}")
    if not text:
        raise CacheRequestError(f"{what} is empty")
    if len(text) > LABEL_SIZE_MAX:
        raise CacheRequestError(f"{what} is longer than {LABEL_SIZE_MAX} characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CacheRequestError(f"{what} holds a character that no text may hold ({error.reason})") from None
