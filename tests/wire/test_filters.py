"""Filters: what fits which kind, what excludes itself, and instants and orders as people write them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoolsd.wire.filters import (
    FIELDS,
    INSTANT_MAX_S,
    ORDER_KEY,
    Filters,
    Order,
    check_filters,
    check_order,
    kinds_of,
    parse_instant,
    parse_order,
)
from motoolsd.wire.keys import Kind
from motoolsd.wire.quantities import parse_duration

NOW_S = 1_795_132_800.0  # 2026-11-20T00:00:00Z
DAY_S = 86_400.0


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is an hour ahead of UTC, in summer two."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_no_filter_is_an_empty_message() -> None:
    """What is not given is not sent; an empty list is something else than none."""
    assert msgspec.json.encode(Filters()) == b"{}"
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Filters(keys=[])), type=Filters).keys == []
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Filters()), type=Filters) == Filters()


@pytest.mark.parametrize(
    "sent",
    [
        {"created_after_s": float("nan")},
        {"created_after_s": float("inf")},
        {"used_before_s": -1.0},
        {"older_than_s": 1e11},
        {"larger_than_bytes": 2**63},
        {"key_prefix": ""},
        {"keys": [""]},
        {"labels": {"": "x"}},
        {"labels": {str(number): "" for number in range(65)}},
        {"where": ["x"] * 17},
        {"where": ["x" * 4_097]},
        {"model_ids": ["x"] * 10_001},
    ],
)
def test_what_is_out_of_bounds_is_refused(sent: dict[str, object]) -> None:
    """By the decoder, before anybody looks at it."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=Filters)


@pytest.mark.parametrize(
    ("filters", "kinds"),
    [
        (Filters(), tuple(Kind)),
        (Filters(datasets=["d"], labels={"a": "b"}, version="1"), tuple(Kind)),
        (Filters(model_ids=["m"]), (Kind.MODEL, Kind.EVAL)),
        (Filters(backends=["b"]), (Kind.MODEL, Kind.EVAL)),
        (Filters(task_ids=[]), (Kind.EVAL,)),
    ],
)
def test_filters_fit_kinds_that_have_what_they_ask_for(filters: Filters, kinds: tuple[Kind, ...]) -> None:
    """All other kinds are refused, with the filter and the kinds it fits in the text."""
    assert kinds_of(filters) == kinds
    for kind in Kind:
        if kind in kinds:
            check_filters(filters, kind)
        else:
            with pytest.raises(ValueError, match=rf"{kind.plural} have no \w+: that filter fits .*evals only"):
                check_filters(filters, kind)


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        (Filters(created_after_s=5, created_before_s=5), "created_after_s and created_before_s"),
        (Filters(used_after_s=6, used_before_s=5), "used_after_s and used_before_s"),
        (Filters(created_after_s=6, used_before_s=5), "created_after_s and used_before_s"),
        (Filters(created_after_s=NOW_S - DAY_S, older_than_s=2 * DAY_S), "created_after_s and older_than_s"),
        (Filters(used_after_s=NOW_S - DAY_S, unused_for_s=2 * DAY_S), "used_after_s and unused_for_s"),
        (Filters(created_after_s=NOW_S - DAY_S, unused_for_s=2 * DAY_S), "created_after_s and unused_for_s"),
        (Filters(keys=["abc", "b"], key_prefix="ac"), "keys and key_prefix"),
    ],
)
def test_filters_that_exclude_each_other_are_refused(filters: Filters, named: str) -> None:
    """Nothing could pass both: an empty listing would hide the mistake."""
    with pytest.raises(ValueError, match=f"{named} exclude each other"):
        check_filters(filters, Kind.MODEL, NOW_S)


@pytest.mark.parametrize(
    "filters",
    [
        Filters(created_after_s=5, created_before_s=6),
        Filters(used_after_s=6, created_before_s=5),
        Filters(used_after_s=NOW_S - DAY_S, older_than_s=2 * DAY_S),
        Filters(created_after_s=NOW_S - DAY_S, older_than_s=DAY_S),
        Filters(keys=["abc", "b"], key_prefix="ab"),
        Filters(keys=[], key_prefix="ab"),
        Filters(older_than_s=1e10),
    ],
)
def test_filters_that_leave_room_pass(filters: Filters) -> None:
    """Stored long ago and used lately is no contradiction; ages count to their very end."""
    check_filters(filters, Kind.MODEL, NOW_S)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-20T00:00:00Z", NOW_S),
        ("2026-11-20t00:00:00z", NOW_S),
        ("2026-11-20 02:30:00.250+02:30", NOW_S + 0.25),
        ("2026-11-20", NOW_S - 3_600),
        ("2026-11-20T00:00", NOW_S - 3_600),
        (" 2026-07-01 12:00 ", 1_782_900_000.0),
        ("30d", NOW_S - 30 * DAY_S),
        ("1d12h", NOW_S - 1.5 * DAY_S),
        ("1960-01-01", 0.0),
        ("9999-12-31T23:59:59-12:00", INSTANT_MAX_S),
    ],
)
def test_instants_are_read(berlin: None, text: str, instant: float) -> None:
    """Without an offset they are local time, in summer and in winter; ages count back from now."""
    assert parse_instant(text, NOW_S) == instant


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026", "20261120", "1795132800", "1.5", "30", "-3d", "yesterday", "\0"),
        *("2026-13-01", "2026-11-20T25:00", "2026-11-20x", "2026-W47-5", "2026-11-20T00:00:00+99:00"),
        *("\u0662026-11-20", "2026-11-20\ud800"),
    ],
)
def test_what_is_no_instant_is_refused_with_examples(text: str) -> None:
    """A bare number is refused: it may be a year, seconds, or days."""
    with pytest.raises(ValueError, match=r"is no instant: write it as 2026-11-20T12:00:00Z"):
        parse_instant(text, NOW_S)


@given(st.datetimes(datetime(1970, 1, 3), datetime(9998, 1, 1)), st.integers(-1_439, 1_439))  # noqa: DTZ001 - bounds
def test_rfc_3339_is_read_back(moment: datetime, offset_minutes: int) -> None:
    """Whatever the offset, to the microsecond."""
    there = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=offset_minutes)))
    assert parse_instant(there.isoformat(), NOW_S) == moment.replace(tzinfo=UTC).timestamp()


@given(st.text(max_size=30))
def test_any_text_is_an_instant_or_refused(text: str) -> None:
    """And nothing else."""
    try:
        found = parse_instant(text, NOW_S)
    except ValueError:
        return
    assert 0 <= found <= INSTANT_MAX_S
    if not text.strip()[:4].isdecimal() or "-" not in text:
        assert found == max(NOW_S - parse_duration(text.strip()), 0.0)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("size", Order(field="size_bytes")),
        ("size:desc", Order(field="size_bytes", is_descending=True)),
        ("created_at:asc", Order(field="created_at")),
        ("used:desc", Order(field="last_used_at", is_descending=True)),
        ("key", Order(field=ORDER_KEY)),
    ],
)
def test_orders_are_read(text: str, order: Order) -> None:
    """By the fields' names, or shorter."""
    assert parse_order(text) == order


@pytest.mark.parametrize(
    ("text", "says"),
    [("sise", "Did you mean size"), ("size:down", "write size, size:asc or size:desc"), ("", "There are: ")],
)
def test_unknown_orders_are_refused(text: str, says: str) -> None:
    """With what there is."""
    with pytest.raises(ValueError, match=says):
        parse_order(text)


def test_orders_are_held_against_the_kind() -> None:
    """Each kind can be sorted by its own fields."""
    for kind in Kind:
        for field in (ORDER_KEY, *FIELDS[kind]):
            check_order(Order(field=field), kind)
    with pytest.raises(ValueError, match="'task_id' is no field of models"):
        check_order(Order(field="task_id"), Kind.MODEL)
