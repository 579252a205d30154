"""Filters: what is let through can be sent and means what it says; all else is refused by its name."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motools.cache import filtering
from motools.cache.errors import CacheRequestError
from motools.cache.filtering import (
    AnyFilterOptions,
    FilterOptions,
    checked_filters,
    cursor_bytes,
    cursor_text,
    filters_of,
    fitting_kinds,
    is_plain,
    kinds_meant,
    kinds_named,
    limit_of,
    order_of,
    with_ids,
)
from motoolsd.wire.fields import TEXT_SIZE_MAX
from motoolsd.wire.filters import CONDITION_SIZE_MAX, INSTANT_MAX_S, Filters, Order
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import LISTED_MAX

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOW_S = NOON.timestamp()
NAMES = [*get_type_hints(AnyFilterOptions)]
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=5)
    | ANY_TEXT
    | st.lists(ANY_TEXT | st.integers(), max_size=3)
    | st.dictionaries(ANY_TEXT | st.integers(), ANY_TEXT | st.none(), max_size=3)
    | st.datetimes()
    | st.datetimes(timezones=st.just(UTC))
    | st.timedeltas()
)


@pytest.fixture(autouse=True)
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ages are told from one moment."""
    monkeypatch.setattr(filtering, "wall_s", lambda: NOW_S)


def test_every_option_is_read_into_its_field() -> None:
    """All of them at once, as people write them."""
    options: AnyFilterOptions = {
        "keys": ["k"],
        "model_ids": ("m",),
        "task_ids": [],
        "datasets": ["d"],
        "backends": ["b"],
        "labels": {"run": "7", "note": ""},
        "key_prefix": "k",
        "version": "1.0",
        "created_after": "1d",
        "created_before": NOON,
        "used_after": "2026-11-20T11:00:00Z",
        "used_before": NOON + timedelta(hours=1),
        "older_than": "1h",
        "unused_for": timedelta(minutes=1),
        "larger_than": "1KiB",
        "where": "hits>3",
    }
    assert sorted(options) == sorted(NAMES)
    assert filters_of(options) == Filters(
        keys=["k"],
        model_ids=["m"],
        task_ids=[],
        datasets=["d"],
        backends=["b"],
        labels={"run": "7", "note": ""},
        key_prefix="k",
        version="1.0",
        created_after_s=NOW_S - 86_400,
        created_before_s=NOW_S,
        used_after_s=NOW_S - 3_600,
        used_before_s=NOW_S + 3_600,
        older_than_s=3_600.0,
        unused_for_s=60.0,
        larger_than_bytes=1024,
        where=["hits>3"],
    )


def test_every_field_of_the_wire_has_an_option() -> None:
    """One that was added there is not forgotten here."""
    assert {field for field, _ in filtering._READ.values()} == set(Filters.__struct_fields__)  # noqa: SLF001 - the table
    assert set(filtering._READ) == set(NAMES)  # noqa: SLF001
    assert set(NAMES) - set(get_type_hints(FilterOptions)) == {"model_ids", "task_ids"}


def test_option_that_is_not_given_filters_nothing() -> None:
    """Nor does None; an empty list of keys is none of them, and passes nothing."""
    assert filters_of({}) == filters_of(dict.fromkeys(NAMES)) == Filters()
    assert filters_of({"labels": {}, "where": []}) == Filters()
    assert filters_of({"keys": []}) != Filters()


@given(st.sampled_from(NAMES), ANYTHING)
def test_filter_that_is_let_through_can_be_sent(name: str, value: object) -> None:
    """Everything else is a CacheRequestError that names the argument, and nothing else is raised."""
    try:
        accepted = filters_of({name: value})
    except CacheRequestError as error:
        assert name in str(error)  # noqa: PT017 - the text of any mistake
    else:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(accepted), type=Filters) == accepted


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"keys": "abc"}, "keys must be a list of texts, not str"),
    ({"datasets": [b"d"]}, "each of datasets must be text, not bytes"),
    ({"backends": [""]}, "each of backends is empty"),
    ({"keys": ["k"] * 10_001}, "keys has 10001 items: at most 10000"),
    ({"labels": ["run"]}, "labels must be a mapping of texts, not list"),
    ({"labels": {"run": 7}}, "each of labels must be text, not int"),
    ({"labels": {7: "run"}}, "each name of labels must be text"),
    ({"labels": {"": "run"}}, "each name of labels is empty"),
    ({"labels": {"run": "\ud800"}}, "each of labels holds a character"),
    ({"labels": {str(number): "x" for number in range(65)}}, "labels has 65 items: an entry may have 64"),
    ({"key_prefix": ""}, "key_prefix is empty"),
    ({"version": 1}, "version must be text"),
    ({"version": "x" * (TEXT_SIZE_MAX + 1)}, "version is longer"),
    ({"created_after": "yesterday"}, "created_after: 'yesterday' is no instant: write it as 2026-11-20T12:00:00Z"),
    ({"created_before": "2026-13-01"}, "created_before: '2026-13-01' is no instant"),
    ({"used_after": 1_700_000_000}, "used_after must be a datetime or a text, not int"),
    ({"used_before": date(2026, 11, 20)}, "used_before must be a datetime or a text, not date"),
    ({"used_before": "7"}, "used_before: '7' is no instant"),
    ({"older_than": "7 parsecs"}, "older_than: '7 parsecs' is no duration"),
    ({"unused_for": -1}, "unused_for: -1"),
    ({"larger_than": "big"}, "larger_than: 'big' is no size"),
    ({"larger_than": 2**63}, "larger_than"),
    ({"where": 7}, "where must be a list of texts, not int"),
    ({"where": ""}, "each of where is empty"),
    ({"where": ["hits>1"] * 17}, "where has 17 conditions: at most 16"),
    ({"where": "x" * (CONDITION_SIZE_MAX + 1)}, "a condition of where is longer than 4096 characters"),
    ({"where": "a='\ud800'"}, "each of where holds a character"),
]


@pytest.mark.parametrize(("options", "text"), MISTAKES)
def test_filter_that_cannot_be_read_is_refused_by_its_name(options: dict[str, Any], text: str) -> None:
    """And the text says what can be written, or what is wrong."""
    with pytest.raises(CacheRequestError, match=text):
        filters_of(options)


def test_filter_of_another_name_is_no_filter() -> None:
    """As any argument that a function does not have."""
    with pytest.raises(TypeError, match="no filter 'model_id': choose from keys, model_ids"):
        filters_of({"model_id": "m"})


def test_times_before_the_epoch_and_after_the_calendar_are_its_ends() -> None:
    """Nothing was stored then."""
    early, late = datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    found = filters_of({"created_after": early, "created_before": late})
    assert found.created_after_s == 0.0
    assert found.created_before_s is not None
    assert NOW_S < found.created_before_s <= INSTANT_MAX_S


def test_naive_time_is_local() -> None:
    """As Python takes it."""
    naive = datetime(2026, 11, 20, 12)  # noqa: DTZ001 - that is meant
    assert filters_of({"created_after": naive}).created_after_s == naive.timestamp()


def test_filters_that_exclude_each_other_are_refused_in_the_callers_words() -> None:
    """Names and no fields of the wire."""
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"created_after": "1d", "created_before": "2d"}, "^created_after and created_before exclude each other"),
        ({"used_after": "1h", "unused_for": "2h"}, "^used_after and unused_for exclude each other"),
        ({"keys": ["a"], "key_prefix": "b"}, "^keys and key_prefix exclude each other"),
        ({"task_ids": ["t"]}, "^models have no task_ids: that filter fits evals only"),
    ]
    for options, text in mistakes:
        with pytest.raises(CacheRequestError, match=text):
            checked_filters(options, Kind.MODEL)
    assert checked_filters({"used_after": "1h", "older_than": "2h"}, Kind.MODEL) is not None
    assert checked_filters({"version": None}, Kind.MODEL) is None


def test_kinds_are_those_that_the_filters_fit() -> None:
    """Unless some are chosen; one that does not fit is a mistake."""
    assert fitting_kinds(Filters(), []) == tuple(Kind)
    assert fitting_kinds(Filters(backends=["b"]), []) == (Kind.MODEL, Kind.EVAL)
    assert fitting_kinds(Filters(backends=["b"]), [Kind.EVAL]) == (Kind.EVAL,)
    with pytest.raises(CacheRequestError, match="datasets have no backends"):
        fitting_kinds(Filters(backends=["b"]), [Kind.EVAL, Kind.DATASET])
    assert kinds_meant({"task_ids": ["t"]}) == ["eval"]
    assert kinds_meant({"version": "1"}, "model") == ["model"]
    assert kinds_named(None) == []
    assert kinds_named(["eval", "model", "eval"]) == [Kind.EVAL, Kind.MODEL]


def test_single_ids_are_filters_too() -> None:
    """Beside others, and not in their place."""
    assert with_ids({"version": "1"}, model_id="m", task_id=None) == {"version": "1", "model_ids": ["m"]}
    with pytest.raises(CacheRequestError, match="model_id must be text"):
        with_ids({}, model_id=7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="model_id and model_ids say the same"):
        with_ids({"model_ids": ["n"]}, model_id="m")


def test_listing_without_filters_is_one_that_any_backend_gives() -> None:
    """Filters that are None included; a mistake is one all the same."""
    assert is_plain(None, None, {"labels": None})
    assert not is_plain("key", None, {})
    assert not is_plain(None, 1, {})
    assert not is_plain(None, None, {"keys": []})
    with pytest.raises(TypeError):
        is_plain(None, None, {"label": None})


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        (None, None),
        ("key", Order(field="key")),
        ("size:desc", Order(field="size_bytes", is_descending=True)),
        ("created_at:asc", Order(field="created_at")),
    ],
)
def test_order_is_read_as_it_is_written(sort: str | None, expected: Order | None) -> None:
    """A field, or a short name of one, and a direction."""
    assert order_of(sort, Kind.MODEL) == expected


@pytest.mark.parametrize(
    ("sort", "text"),
    [
        ("sise", "sort: 'sise' is no field to sort by. Did you mean size?"),
        ("size:down", "sort: 'down' is no direction: write size, size:asc or size:desc"),
        ("task_id", "sort: 'task_id' is no field of models to sort by"),
        ("", "sort is empty"),
        (7, "sort must be text"),
    ],
)
def test_order_by_what_is_no_field_names_those_that_are(sort: Any, text: str) -> None:  # noqa: ANN401 - what is wrong
    """And guesses what was meant."""
    with pytest.raises(CacheRequestError, match=text):
        order_of(sort, Kind.MODEL)


@pytest.mark.parametrize("limit", [0, -1, 1.0, True, "3", LISTED_MAX + 1])
def test_limit_is_a_whole_number_above_nothing(limit: object) -> None:
    """An empty page would say nothing."""
    with pytest.raises(CacheRequestError, match="limit must be a whole number from 1 to"):
        limit_of(limit)
    assert limit_of(None) is None
    assert limit_of(LISTED_MAX) == LISTED_MAX


@given(st.binary(min_size=1, max_size=100))
def test_cursor_comes_back_as_the_daemon_gave_it(after: bytes) -> None:
    """It may stand in a command line or an address."""
    text = cursor_text(after)
    assert text is not None
    assert text.replace("-", "").replace("_", "").rstrip("=").isalnum() or not text.strip("-_=")
    assert cursor_bytes(text) == after


def test_no_cursor_is_the_first_page() -> None:
    """And there is none after the last."""
    assert cursor_text(None) is None
    assert cursor_bytes(None) is None


@pytest.mark.parametrize("cursor", ["x", "a b", "QUJD\n", "QUJD!", "?&", "=", "\xe4\xf6", "", 7, b"x"])
def test_cursor_that_no_listing_gave_is_refused(cursor: object) -> None:
    """Before the daemon is asked, where that can be told."""
    with pytest.raises(CacheRequestError, match="cursor"):
        cursor_bytes(cursor)
