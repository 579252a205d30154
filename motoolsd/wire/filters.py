"""Filters of listings and clean-ups, their order, and instants as people write them.

Layer: wire. Imports fields, keys and quantities.
Invariant: whatever decodes into these types is bounded; a filter that no entry of the kind could pass is refused by
`check_filters`, never taken for one that all pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

from motoolsd.wire.fields import KEYS_PER_REQUEST_MAX, Seconds, Text
from motoolsd.wire.keys import Kind
from motoolsd.wire.quantities import parse_duration

INSTANT_MAX_S: Final = 253_402_300_799.0
"""The end of the year 9999, and of the calendar."""
CONDITION_SIZE_MAX: Final = 4_096
"""Characters of one `where`."""
CONDITIONS_MAX: Final = 16
LABELS_MAX: Final = 64

Names = Annotated[list[Text], Meta(max_length=KEYS_PER_REQUEST_MAX)]
Instant = Annotated[float, Meta(ge=0, le=INSTANT_MAX_S)]
"""Wall clock, seconds since the epoch."""
Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Condition = Annotated[str, Meta(min_length=1, max_length=CONDITION_SIZE_MAX)]


class FieldType(StrEnum):
    """What a field of an entry holds, and so what it can be compared with."""

    TEXT = "text"
    NUMBER = "number"
    SIZE = "size"
    DURATION = "duration"
    INSTANT = "instant"
    FLAG = "flag"


_COMMON: Final = {
    "created_at": FieldType.INSTANT,
    "last_used_at": FieldType.INSTANT,
    "expires_at": FieldType.INSTANT,
    "hits": FieldType.NUMBER,
    "size_bytes": FieldType.SIZE,
    "allocated_bytes": FieldType.SIZE,
    "seconds": FieldType.DURATION,
    "version": FieldType.TEXT,
    "pinned": FieldType.FLAG,
}
FIELDS: Final[Mapping[Kind, Mapping[str, FieldType]]] = {
    Kind.DATASET: {"dataset_hash": FieldType.TEXT, "file_id": FieldType.TEXT, **_COMMON},
    Kind.MODEL: {
        "cache_key": FieldType.TEXT,
        "model_id": FieldType.TEXT,
        "dataset_hash": FieldType.TEXT,
        "backend_type": FieldType.TEXT,
        **_COMMON,
    },
    Kind.EVAL: {
        "model_id": FieldType.TEXT,
        "task_id": FieldType.TEXT,
        "backend_type": FieldType.TEXT,
        "kwargs_hash": FieldType.TEXT,
        "log_file_path": FieldType.TEXT,
        **_COMMON,
    },
}
"""The plain fields of each kind that conditions and orders may name."""
ORDER_KEY: Final = "key"
"""Orders by the entries' keys."""
ORDER_ALIASES: Final[Mapping[str, str]] = {
    "size": "size_bytes",
    "allocated": "allocated_bytes",
    "created": "created_at",
    "used": "last_used_at",
    "expires": "expires_at",
    "backend": "backend_type",
    "dataset": "dataset_hash",
}
_ORDER_FIELDS: Final = {ORDER_KEY, *(name for fields in FIELDS.values() for name in fields)}


class Filters(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which entries are meant: those that pass all filters given. None is no filter; an empty list passes nothing."""

    keys: Names | None = None
    model_ids: Names | None = None
    task_ids: Names | None = None
    datasets: Names | None = None
    """Hashes of datasets: those themselves, models trained from them, evaluations of such models."""
    backends: Names | None = None
    labels: Annotated[dict[Text, str], Meta(max_length=LABELS_MAX)] = {}
    """An entry must have all of them."""
    key_prefix: Text | None = None
    version: Text | None = None
    created_after_s: Instant | None = None
    """At or after it."""
    created_before_s: Instant | None = None
    """Before it. Both together give a span that touches the next without a gap or an overlap."""
    used_after_s: Instant | None = None
    """Stored or used, whichever was later."""
    used_before_s: Instant | None = None
    older_than_s: Seconds | None = None
    """Only entries stored at least so long ago."""
    unused_for_s: Seconds | None = None
    """Only entries neither stored nor used for so long."""
    larger_than_bytes: Size | None = None
    """Only entries whose files are known to be larger."""
    where: Annotated[list[Condition], Meta(max_length=CONDITIONS_MAX)] = []
    """Conditions, all of which must hold: `config.hyperparameters.epochs>3`."""


class Order(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How entries are sorted. Those without the field come last, either way; those that are equal in their order."""

    field: Annotated[str, Meta(min_length=1, max_length=64)]
    """One of `FIELDS`, or `ORDER_KEY`."""
    is_descending: bool = False


_ALL: Final = frozenset(Kind)
_FITS: Final[Mapping[str, frozenset[Kind]]] = {
    "model_ids": frozenset({Kind.MODEL, Kind.EVAL}),
    "task_ids": frozenset({Kind.EVAL}),
    "backends": frozenset({Kind.MODEL, Kind.EVAL}),
}


def kinds_of(filters: Filters) -> tuple[Kind, ...]:
    """The kinds that have everything these filters ask for, what their conditions are about included.

    A condition that no kind can have is left to whoever reads it: it names the fields that there are.
    """
    given = [kinds for name, kinds in _FITS.items() if getattr(filters, name) is not None]
    given += [kinds for condition in filters.where if (kinds := _kinds_of_condition(condition))]
    return tuple(kind for kind in Kind if all(kind in kinds for kinds in given))


_ROOTS: Final[Mapping[str, frozenset[Kind]]] = {"config": frozenset({Kind.MODEL}), "kwargs": frozenset({Kind.EVAL})}
"""Fields that hold JSON, of those kinds that have them; others have all."""
_ROOT: Final = re.compile(r"\s*!?\s*([A-Za-z_]+)", re.ASCII)


def _kinds_of_condition(condition: str) -> frozenset[Kind]:
    """The kinds that have the field that a condition begins with; none if nobody has it."""
    found = _ROOT.match(condition)
    name = found[1] if found is not None else ""
    if name in _ROOTS:
        return _ROOTS[name]
    if name in ("labels", "metadata"):
        return _ALL
    return frozenset(kind for kind in Kind if name in FIELDS[kind])


def check_filters(filters: Filters, kind: Kind, now_s: float | None = None) -> None:
    """Refuse filters that no entry of a kind could pass.

    Args:
        filters: what was asked for.
        kind: of the entries.
        now_s: wall clock, seconds since the epoch; with it ages are held against instants too.

    Raises:
        ValueError: a filter does not fit the kind, or two exclude each other; the text names them.
    """
    for name, kinds in _FITS.items():
        if getattr(filters, name) is not None and kind not in kinds:
            fitting = " and ".join(fit.plural for fit in Kind if fit in kinds)
            raise ValueError(f"{kind.plural} have no {name}: that filter fits {fitting} only")
    prefix = filters.key_prefix
    if prefix is not None and filters.keys and not any(key.startswith(prefix) for key in filters.keys):
        raise ValueError(f"keys and key_prefix exclude each other: none of the keys begins with {prefix[:80]!r}")
    _check_instants(filters, now_s)


def _check_instants(filters: Filters, now_s: float | None) -> None:
    """An entry is used when it is stored, or later: so no use lies before `created_after_s` either."""
    lower = {"created_after_s": filters.created_after_s, "used_after_s": filters.used_after_s}
    upper = {
        "created_before_s": filters.created_before_s,
        "used_before_s": filters.used_before_s,
        "older_than_s": _ago(filters.older_than_s, now_s),
        "unused_for_s": _ago(filters.unused_for_s, now_s),
    }
    for later, after_s in lower.items():
        for earlier, before_s in upper.items():
            if after_s is None or before_s is None:
                continue
            if later == "used_after_s" and earlier in ("created_before_s", "older_than_s"):
                continue  # stored long ago and used lately
            # An age counts to its very end, an instant does not.
            if after_s > before_s or (after_s == before_s and earlier.endswith("before_s")):
                raise ValueError(f"{later} and {earlier} exclude each other: nothing lies between them")


def _ago(age_s: float | None, now_s: float | None) -> float | None:
    return None if age_s is None or now_s is None else max(now_s - age_s, 0.0)


_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NUMBER: Final = re.compile(r"[\d.\s]*")


def parse_instant(text: str, now_s: float) -> float:
    """Seconds since the epoch: RFC 3339, a day, or a duration, which is so long ago.

    Args:
        text: `2026-11-20T12:00:00Z`; without an offset it is local time; `2026-11-20` is that day's first moment in
            local time; `30d` is as in `quantities`, and must have a unit.
        now_s: wall clock, seconds since the epoch.

    Returns:
        Never below 0: nothing was stored before the epoch.

    Raises:
        ValueError: it is none of them, or not in the calendar; the text says what can be written.
    """
    written = text.strip()
    try:
        if _DAY.match(written) and written.isascii():
            # Without an offset timestamp() takes it for local time.
            seconds = datetime.fromisoformat(written.upper()).timestamp()
        elif _NUMBER.fullmatch(written):
            raise ValueError(written)  # noqa: TRY301 - 2026 is rather a year than so many seconds
        else:
            seconds = now_s - parse_duration(written)
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"{text[:80]!r} is no instant: write it as 2026-11-20T12:00:00Z, 2026-11-20 12:00 (local time),"
            " 2026-11-20, or as an age with a unit, 30d or 12h"
        ) from None
    return min(max(seconds, 0.0), INSTANT_MAX_S)


def parse_order(text: str) -> Order:
    """An order as it is written: `size`, `size:desc`, `created_at:asc`.

    Raises:
        ValueError: no such field, or another direction; the text names what there is.
    """
    name, _, direction = text.strip().partition(":")
    field = ORDER_ALIASES.get(name, name)
    if field not in _ORDER_FIELDS:
        raise ValueError(_no_such_field(name, {*_ORDER_FIELDS, *ORDER_ALIASES}))
    if direction not in ("", "asc", "desc"):
        raise ValueError(f"{direction[:80]!r} is no direction: write {name}, {name}:asc or {name}:desc")
    return Order(field=field, is_descending=direction == "desc")


def check_order(order: Order, kind: Kind) -> None:
    """Refuse an order by a field that a kind does not have.

    Raises:
        ValueError: the text names the fields there are.
    """
    if order.field != ORDER_KEY and order.field not in FIELDS[kind]:
        raise ValueError(_no_such_field(order.field, {ORDER_KEY, *FIELDS[kind]}, f" of {kind.plural}"))


def _no_such_field(name: str, known: set[str], whose: str = "") -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only where something is wrong: this is imported by every client

    near = get_close_matches(name[:80], known, n=1)
    guess = f" Did you mean {near[0]}?" if near else ""
    return f"{name[:80]!r} is no field{whose} to sort by.{guess} There are: {', '.join(sorted(known))}"
