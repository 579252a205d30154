"""What a caller may pass: checked before anything is sent.

Layer: motools.cache. Imports clock, errors, keys and motoolsd.wire.
Invariant: what comes out can be encoded and is within the wire's limits; what cannot is refused by its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime, timedelta
from math import inf

from motools.cache.clock import wall_s
from motools.cache.errors import CacheRequestError
from motools.cache.keys import canonical_json
from motoolsd.wire.fields import TEXT_SIZE_MAX
from motoolsd.wire.keys import Kind, json_hash
from motoolsd.wire.quantities import DURATION_MAX_S, parse_duration, parse_size

Duration = float | timedelta | str
"""Seconds, or a text such as `30d`."""
ByteSize = int | str
"""Bytes, or a text such as `50GB`."""


def text(value: object, what: str) -> str:
    """A key, id or name as it may be sent.

    Raises:
        CacheRequestError: it is no text, empty, too long, or holds half a surrogate pair.
    """
    if not isinstance(value, str):
        raise CacheRequestError(f"{what} must be text, not {type(value).__name__}")
    if not value:
        raise CacheRequestError(f"{what} is empty")
    if len(value) > TEXT_SIZE_MAX:
        raise CacheRequestError(f"{what} is longer than {TEXT_SIZE_MAX} characters")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise CacheRequestError(f"{what} holds a character that no text may hold ({error.reason})") from None
    return value


def value_bytes(value: object, what: str) -> bytes:
    """A value or a path as it is sent; file names that are no UTF-8 included.

    Raises:
        CacheRequestError: it is neither text nor a path, empty, or too long.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise CacheRequestError(f"{what} must be text, not {type(value).__name__}")
    try:
        encoded = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise CacheRequestError(f"{what} holds a character that no text may hold ({error.reason})") from None
    if not 0 < len(encoded) <= TEXT_SIZE_MAX:
        raise CacheRequestError(f"{what} is empty" if not encoded else f"{what} is longer than {TEXT_SIZE_MAX} bytes")
    return encoded


def texts(values: object, what: str) -> list[str]:
    """Several ids; one bare text is a mistake that would ask for its letters.

    Raises:
        CacheRequestError: they are no list of texts.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise CacheRequestError(f"{what} must be a list of texts, not {type(values).__name__}")
    return [text(value, f"each of {what}") for value in values]


def check_seconds(value: object, what: str) -> None:
    """Make sure that a duration is one.

    Raises:
        CacheRequestError: it is no finite number, or below zero.
    """
    if not isinstance(value, int | float) or not 0 <= value < inf:
        raise CacheRequestError(f"{what} must be a number of seconds, 0 or more, not {value!r}")


def optional_texts(values: object, what: str) -> list[str] | None:
    """The same, where None is allowed."""
    return None if values is None else texts(values, what)


def json_bytes(value: object, what: str) -> bytes:
    """A configuration as it is sent: its canonical JSON.

    Raises:
        CacheRequestError: it has none, or one that is too long.
    """
    encoded = canonical_json(value, what).encode()
    if len(encoded) > TEXT_SIZE_MAX:
        raise CacheRequestError(f"{what} is longer than {TEXT_SIZE_MAX} bytes as JSON")
    return encoded


def kwargs_json(inspect_kwargs: object) -> tuple[bytes | None, str | None]:
    """An evaluation's arguments as JSON, and their hash; none at all is the same as None, as it always was.

    Raises:
        CacheRequestError: as `json_bytes`.
    """
    if not inspect_kwargs:
        return None, None
    encoded = json_bytes(inspect_kwargs, "inspect_kwargs")
    return encoded, json_hash(encoded.decode())


def optional_text(value: object, what: str) -> str | None:
    """The same as `text`, where None is allowed."""
    return None if value is None else text(value, what)


def ttl(ttl_s: object) -> float | None:
    """How long an entry lasts; None: it does.

    Raises:
        CacheRequestError: it is no number of seconds.
    """
    if ttl_s is None:
        return None
    check_seconds(ttl_s, "ttl_s")
    return duration(ttl_s, "ttl_s")


def duration(value: object, what: str) -> float:
    """Seconds, from a number, a timedelta or a text such as `30d`.

    Raises:
        CacheRequestError: it is none of these, negative, or longer than thirty years.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        raise CacheRequestError(f"{what} must be a duration, not {type(value).__name__}")
    try:
        return parse_duration(value)
    except ValueError as error:
        raise CacheRequestError(f"{what}: {error}; at most {DURATION_MAX_S:g} s") from None


def byte_size(value: object, what: str) -> int:
    """Bytes, from a number or a text such as `50GB`.

    Raises:
        CacheRequestError: it is none of these, or negative.
    """
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        raise CacheRequestError(f"{what} must be a size, not {type(value).__name__}")
    try:
        return parse_size(value)
    except ValueError as error:
        raise CacheRequestError(f"{what}: {error}") from None


def seconds_until(until: object, what: str) -> float:
    """Seconds from now, from a time (aware, or local), or from a duration.

    Raises:
        CacheRequestError: it is none of these, or the time has passed.
    """
    if not isinstance(until, datetime):
        return duration(until, what)
    left_s = until.timestamp() - wall_s()
    if left_s <= 0:
        raise CacheRequestError(f"{what} lies in the past: {until.isoformat()}")
    return duration(left_s, what)


def optional_kind(kind: object) -> Kind | None:
    """A kind by its name, where None means all.

    Raises:
        CacheRequestError: there is no such kind.
    """
    if kind is None:
        return None
    if kind not in [known.value for known in Kind]:
        raise CacheRequestError(f"no kind {kind!r}: choose from {', '.join(Kind)}")
    return Kind(kind)
