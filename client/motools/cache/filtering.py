"""Filters as callers give them.

Layer: motools.cache. Imports arguments, clock, errors and motoolsd.wire.
Invariant: an option that is not given filters nothing; one that cannot be read is refused by its name, and never
filters less than it says.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypedDict

from motools.cache.arguments import (
    ByteSize,
    Duration,
    byte_size,
    duration,
    optional_kind,
    text,
    texts,
)
from motools.cache.clock import wall_s
from motools.cache.errors import CacheRequestError
from motools.cache.lookups import KindName
from motoolsd.wire.fields import KEYS_PER_REQUEST_MAX
from motoolsd.wire.filters import (
    CONDITION_SIZE_MAX,
    CONDITIONS_MAX,
    INSTANT_MAX_S,
    LABELS_MAX,
    Filters,
    Order,
    check_filters,
    check_order,
    kinds_of,
    parse_instant,
    parse_order,
)
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import LISTED_MAX as LISTED_MAX  # noqa: PLC0414 - for the commands

SIZE_MAX: Final = 2**63 - 1

Instant = datetime | str
"""A time (aware, or local), or a text: RFC 3339, a day, or an age with a unit such as `30d`."""


class FilterOptions(TypedDict, total=False):
    """Which entries are meant: those that pass all of these. None, or left out, filters nothing.

    Attributes:
        keys: of entries; an empty list passes nothing, as in all lists here.
        datasets: hashes: those datasets, models trained from them, and evaluations of such models.
        backends: of models and evaluations.
        labels: an entry has all of them.
        key_prefix: its key begins with this.
        version: the version that it was stored under.
        created_after, created_before: stored at or after, and before: a time, or a text as `parse_instant` reads it.
        used_after, used_before: stored or used, whichever was later.
        older_than, unused_for: stored at least so long ago; neither stored nor used for so long.
        larger_than: its files take more: bytes, or a text such as "1GB".
        where: conditions such as `config.hyperparameters.epochs>3`, one or several.
    """

    keys: Sequence[str] | None
    datasets: Sequence[str] | None
    backends: Sequence[str] | None
    labels: Mapping[str, str] | None
    key_prefix: str | None
    version: str | None
    created_after: Instant | None
    created_before: Instant | None
    used_after: Instant | None
    used_before: Instant | None
    older_than: Duration | None
    unused_for: Duration | None
    larger_than: ByteSize | None
    where: str | Sequence[str] | None


class AnyFilterOptions(FilterOptions, total=False):
    """The same for entries of any kind.

    Attributes:
        model_ids: of models, and of the models that were evaluated.
        task_ids: of evaluations.
    """

    model_ids: Sequence[str] | None
    task_ids: Sequence[str] | None


def _instant(value: object, what: str) -> float:
    if isinstance(value, datetime):
        try:
            seconds = value.timestamp()
        except (OverflowError, OSError, ValueError):
            raise CacheRequestError(f"{what} is not in the calendar: {value!r}") from None
        return min(max(seconds, 0.0), INSTANT_MAX_S)
    if not isinstance(value, str):
        raise CacheRequestError(f"{what} must be a datetime or a text, not {type(value).__name__}")
    try:
        return parse_instant(value, wall_s())
    except ValueError as error:
        raise CacheRequestError(f"{what}: {error}") from None


def _names(value: object, what: str) -> list[str]:
    found = texts(value, what)
    if len(found) > KEYS_PER_REQUEST_MAX:
        raise CacheRequestError(f"{what} has {len(found)} items: at most {KEYS_PER_REQUEST_MAX} go together")
    return found


def _labels(value: object, what: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise CacheRequestError(f"{what} must be a mapping of texts, not {type(value).__name__}")
    if len(value) > LABELS_MAX:
        raise CacheRequestError(f"{what} has {len(value)} items: an entry may have {LABELS_MAX}")
    # An empty value is a text, too, though no client of this version stores one.
    pairs = ((text(name, f"each name of {what}"), label) for name, label in value.items())
    return {name: "" if label == "" else text(label, f"each of {what}") for name, label in pairs}


def _conditions(value: object, what: str) -> list[str]:
    found = texts([value] if isinstance(value, str) else value, what)
    if len(found) > CONDITIONS_MAX:
        raise CacheRequestError(f"{what} has {len(found)} conditions: at most {CONDITIONS_MAX} go together")
    if any(len(condition) > CONDITION_SIZE_MAX for condition in found):
        raise CacheRequestError(f"a condition of {what} is longer than {CONDITION_SIZE_MAX} characters")
    return found


def _size(value: object, what: str) -> int:
    found = byte_size(value, what)
    if found > SIZE_MAX:
        raise CacheRequestError(f"{what} is more than any file may have: {value!r}")
    return found


_READ: Final[Mapping[str, tuple[str, Callable[[Any, str], object]]]] = {
    "keys": ("keys", _names),
    "model_ids": ("model_ids", _names),
    "task_ids": ("task_ids", _names),
    "datasets": ("datasets", _names),
    "backends": ("backends", _names),
    "labels": ("labels", _labels),
    "key_prefix": ("key_prefix", text),
    "version": ("version", text),
    "created_after": ("created_after_s", _instant),
    "created_before": ("created_before_s", _instant),
    "used_after": ("used_after_s", _instant),
    "used_before": ("used_before_s", _instant),
    "older_than": ("older_than_s", duration),
    "unused_for": ("unused_for_s", duration),
    "larger_than": ("larger_than_bytes", _size),
    "where": ("where", _conditions),
}
"""Of each option its field on the wire, and how it is read."""


def filters_of(options: Mapping[str, Any]) -> Filters:
    """Options as the daemon takes them.

    Raises:
        TypeError: there is no such option.
        CacheRequestError: one cannot be read; the text names it.
    """
    if unknown := options.keys() - _READ.keys():
        raise TypeError(f"there is no filter {min(unknown)!r}: choose from {', '.join(_READ)}")
    given = ((name, value) for name, value in options.items() if value is not None)
    fields: dict[str, Any] = {_READ[name][0]: _READ[name][1](value, name) for name, value in given}
    return Filters(**fields)


def is_plain(sort: str | None, limit: int | None, options: Mapping[str, Any]) -> bool:
    """Whether a listing is one that any backend can give: all entries, as they were first stored.

    Raises:
        TypeError, CacheRequestError: as `filters_of`.
    """
    return sort is None and limit is None and filters_of(options) == Filters()


def with_ids(filters: Mapping[str, Any], **ids: str | None) -> dict[str, Any]:
    """Filters and the single ids that callers may give beside them.

    Raises:
        CacheRequestError: an id is no text.
        TypeError: it is given as a filter, too.
    """
    chosen = dict(filters)
    for name, value in ids.items():
        if value is None:
            continue
        if f"{name}s" in chosen:
            raise TypeError(f"{name} and {name}s say the same: give one of them")
        chosen[f"{name}s"] = [text(value, name)]
    return chosen


def checked_filters(options: Mapping[str, Any], kind: Kind) -> Filters | None:
    """The same for entries of one kind; None if nothing is filtered.

    Raises:
        TypeError, CacheRequestError: as `filters_of`; or a filter does not fit the kind, or two exclude each other.
    """
    filters = filters_of(options)
    if filters == Filters():
        return None
    _check(filters, [kind])
    return filters


def fitting_kinds(filters: Filters, kinds: Sequence[Kind]) -> tuple[Kind, ...]:
    """The kinds that are meant: those chosen, or all that have what the filters ask for.

    Raises:
        CacheRequestError: a chosen one has not, or two filters exclude each other.
    """
    chosen = tuple(kinds) or kinds_of(filters)
    _check(filters, chosen)
    return chosen


def _check(filters: Filters, kinds: Sequence[Kind]) -> None:
    try:
        for kind in kinds:
            check_filters(filters, kind, wall_s())
    except ValueError as error:
        message = str(error)
        for option, (field, _) in _READ.items():
            message = message.replace(field, option)
        raise CacheRequestError(message) from None


def kinds_meant(options: Mapping[str, Any], kind: str | None = None) -> list[KindName]:
    """The kinds that filters are about: one that was chosen, or all that they fit.

    Raises:
        TypeError, CacheRequestError: as `filters_of` and `fitting_kinds`.
    """
    chosen = optional_kind(kind)
    fitting = fitting_kinds(filters_of(options), [] if chosen is None else [chosen])
    return [one.value for one in fitting]


def kinds_named(kinds: Sequence[str] | None) -> list[Kind]:
    """Kinds by their names; None: none is chosen.

    Raises:
        CacheRequestError: there is no such kind, or the list is empty.
    """
    if kinds is None:
        return []
    if isinstance(kinds, str) or not isinstance(kinds, Iterable):
        raise CacheRequestError(f"kinds must be a list of kinds, not {kinds!r}")
    chosen = list(dict.fromkeys(_kind(name) for name in kinds))
    if not chosen:
        raise CacheRequestError(f"kinds is empty: choose from {', '.join(Kind)}")
    return chosen


def _kind(name: object) -> Kind:
    kind = optional_kind(name)
    if kind is None:
        raise CacheRequestError(f"no kind None: choose from {', '.join(Kind)}")
    return kind


def order_of(sort: object, kind: Kind) -> Order | None:
    """An order as it is written: `size`, `size:desc`, `created_at:asc`; None: as entries were first stored.

    Raises:
        CacheRequestError: no such field, or another direction.
    """
    if sort is None:
        return None
    try:
        order = parse_order(text(sort, "sort"))
        check_order(order, kind)
    except ValueError as error:
        raise CacheRequestError(f"sort: {error}") from None
    return order


def limit_of(limit: object) -> int | None:
    """How many entries at most; None: all.

    Raises:
        CacheRequestError: it is no whole number above 0.
    """
    if limit is None:
        return None
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= LISTED_MAX:
        raise CacheRequestError(f"limit must be a whole number from 1 to {LISTED_MAX}, not {limit!r}")
    return limit


def cursor_text(after: bytes | None) -> str | None:
    """Where a listing goes on, as callers keep it."""
    return None if after is None else urlsafe_b64encode(after).decode()


def cursor_bytes(cursor: object) -> bytes | None:
    """The same as the daemon gave it.

    Raises:
        CacheRequestError: it is none.
    """
    if cursor is None:
        return None
    try:
        found = b64decode(text(cursor, "cursor"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not found:
        raise CacheRequestError("cursor is none: pass that of the listing before, or None to begin at the first page")
    return found
