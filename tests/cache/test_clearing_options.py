"""What a clear or a prune is told in the caller's words becomes criteria, or an error that says what to write."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from motools.cache.calls import ClearScope
from motools.cache.clearing_options import Clearing, filtered, pruning
from motools.cache.errors import CacheRequestError
from motoolsd.wire.cleaning import Criteria
from motoolsd.wire.filters import Filters
from motoolsd.wire.keys import Kind

DAY_S = 86_400.0
ALL = tuple(Kind)
OF_BACKENDS = (Kind.MODEL, Kind.EVAL)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"older_than": "30d"}, Criteria(kinds=ALL, older_than_s=30 * DAY_S)),
        ({"older_than": 0}, Criteria(kinds=ALL, older_than_s=0.0)),
        ({"unused_for": timedelta(hours=2)}, Criteria(kinds=ALL, unused_for_s=7200.0)),
        ({"to": "50GB"}, Criteria(kinds=ALL, to_bytes=50 * 10**9)),
        ({"to": 0}, Criteria(kinds=ALL, to_bytes=0)),
        ({"older_than": 1, "kinds": ["model", "model"]}, Criteria(kinds=(Kind.MODEL,), older_than_s=1.0)),
        ({"orphans": True}, Criteria(orphans=True)),
        ({"orphans": True, "orphan_age": "1h"}, Criteria(orphans=True, orphan_age_s=3600.0)),
        ({"dangling": True}, Criteria(dangling=True)),
        ({"dangling": True, "force": True}, Criteria(dangling=True, force=True)),
        ({"orphans": True, "unused_for": "14d"}, Criteria(kinds=ALL, orphans=True, unused_for_s=14 * DAY_S)),
        ({"version": "1"}, Criteria(kinds=ALL, filters=Filters(version="1"))),
        ({"backends": ["b"]}, Criteria(kinds=OF_BACKENDS, filters=Filters(backends=["b"]))),
        ({"backends": ["b"], "kinds": ["eval"]}, Criteria(kinds=(Kind.EVAL,), filters=Filters(backends=["b"]))),
        ({"task_ids": ["t"]}, Criteria(kinds=(Kind.EVAL,), filters=Filters(task_ids=["t"]))),
        ({"keys": []}, Criteria(kinds=ALL, filters=Filters(keys=[]))),
        (
            {"labels": {"a": "b"}, "older_than": 5, "downstream": True},
            Criteria(kinds=ALL, filters=Filters(labels={"a": "b"}), older_than_s=5.0, downstream=True),
        ),
        ({"to": 0, "where": "hits<3"}, Criteria(kinds=ALL, to_bytes=0, filters=Filters(where=["hits<3"]))),
        ({"orphans": True, "version": None, "labels": {}, "where": []}, Criteria(orphans=True)),
    ],
)
def test_prune_asks_for_what_is_chosen(given: Any, expected: Criteria) -> None:  # noqa: ANN401 - options
    """Entries only if a filter or a size chooses among them, and of the kinds that these fit."""
    assert pruning(given).criteria() == expected


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, r"give a filter \(older_than, unused_for, .*to, orphans=True or dangling=True"),
        ({"force": True}, "until it is told what"),
        ({"downstream": True}, "until it is told what"),
        ({"labels": {}, "where": []}, "until it is told what"),
        ({"kinds": ["model"]}, "until it is told what"),
        ({"kinds": ["model"], "dangling": True}, "kinds choose among"),
        ({"kinds": ["model"], "orphans": True}, "kinds choose among"),
        ({"kinds": [], "to": 1}, "kinds is empty"),
        ({"kinds": ["models"], "to": 1}, "no kind 'models': choose from dataset, model, eval"),
        ({"kinds": "model", "to": 1}, "a list of kinds"),
        ({"kinds": 7, "to": 1}, "a list of kinds"),
        ({"kinds": [None], "to": 1}, "no kind None"),
        ({"kinds": ["dataset"], "backends": ["b"]}, "datasets have no backends: that filter fits models and evals"),
        ({"older_than": "30 monkeys"}, "older_than: '30 monkeys' is no duration"),
        ({"older_than": -1}, "is no duration"),
        ({"older_than": timedelta(seconds=-1)}, "is no duration"),
        ({"older_than": float("nan")}, "is no duration"),
        ({"older_than": True}, "older_than must be a duration, not bool"),
        ({"unused_for": b"1d"}, "unused_for must be a duration, not bytes"),
        ({"to": "many"}, "to: 'many' is no size"),
        ({"to": -1}, "is no size"),
        ({"to": float("inf")}, "is no size"),
        ({"to": False}, "to must be a size"),
        ({"orphans": True, "orphan_age": None}, "orphan_age must be a duration"),
    ],
)
def test_prune_refuses_what_would_remove_more_than_was_meant(given: Any, reason: str) -> None:  # noqa: ANN401 - options
    """Nothing is guessed: kinds alone would be all of them."""
    with pytest.raises(CacheRequestError, match=reason):
        pruning(given).criteria()


@pytest.mark.parametrize("name", ["dryrun", "filters", "label", "to_bytes"])
def test_option_of_another_name_is_a_mistake(name: str) -> None:
    """A misspelt `dry_run` must not remove anything, nor one that is left out of the filters."""
    with pytest.raises(TypeError, match=name):
        pruning({name: True})  # type: ignore[misc]
    with pytest.raises(TypeError, match=name):
        filtered({name: True}, Kind.MODEL)  # type: ignore[misc]
    with pytest.raises(TypeError, match=name):
        Clearing(**{name: True})  # type: ignore[arg-type]


def test_clear_tells_how_from_which() -> None:
    """What is no option of the clean-up is a filter."""
    how, scope = filtered({"to_trash": False, "force": True, "downstream": True, "version": "1"}, Kind.MODEL)
    assert how == Clearing(to_trash=False, force=True, downstream=True)
    assert scope == ClearScope(force=True, downstream=True, filters=Filters(version="1"))
    assert filtered({}, Kind.MODEL) == (Clearing(), ClearScope())
    assert filtered({"version": None}, Kind.MODEL)[1].filters is None


def test_filter_that_fits_no_entry_of_the_kind_clears_nothing() -> None:
    """It is a mistake, and not left out."""
    with pytest.raises(CacheRequestError, match="datasets have no backends"):
        filtered({"backends": ["b"]}, Kind.DATASET)
