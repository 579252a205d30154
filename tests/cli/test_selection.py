"""Which entries a command is about: a kind, and filters that go with it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import typer

from motools.cache import CacheUtils, InMemoryCache
from motools.cli.options import Clearable, Kind
from motools.cli.selection import (
    CLEAR_FILTERS,
    LIST_FILTERS,
    OPTIONS,
    Filters,
    check_filters,
    clear_entries,
    count_entries,
    counts_text,
    read_entries,
)

EVERYTHING = {"datasets": 2, "models": 3, "evals": 3}


@pytest.mark.parametrize(
    ("kind", "filters", "expected"),
    [
        (Kind.DATASETS, Filters(), ["file-a", "file-b"]),
        (Kind.DATASETS, Filters(dataset_hash=["hash-b"]), ["file-b"]),
        (Kind.MODELS, Filters(), ["ft-1", "ft-2", "ft-3"]),
        (Kind.MODELS, Filters(model_id=["ft-3"]), ["ft-3"]),
        (Kind.MODELS, Filters(model_id=["ft-3", "ft-1"]), ["ft-1", "ft-3"]),
        (Kind.MODELS, Filters(dataset_hash=["hash-b"]), ["ft-2", "ft-3"]),
        (Kind.MODELS, Filters(dataset_hash=["hash-b"], model_id=["ft-1", "ft-2"]), ["ft-2"]),
        (Kind.EVALS, Filters(), ["one.eval", "two.eval", "three.eval"]),
        (Kind.EVALS, Filters(task_id=["task_1"]), ["one.eval", "three.eval"]),
        (Kind.EVALS, Filters(model_id=["ft-1"], task_id=["task_1"]), ["one.eval"]),
        (Kind.EVALS, Filters(model_id=["ft-1", "ft-2"], task_id=["task_2", "task_3"]), ["two.eval"]),
        (Kind.EVALS, Filters(model_id=["nobody"]), []),
    ],
)
def test_all_filters_must_fit_and_one_value_of_each_is_enough(
    filled: InMemoryCache, kind: Kind, filters: Filters, expected: list[str]
) -> None:
    """Several values of a filter mean any of them, several filters all of them; the order stays that of the cache."""
    value = {Kind.DATASETS: "file_id", Kind.MODELS: "model_id", Kind.EVALS: "log_file_path"}[kind]
    assert [getattr(entry, value) for entry in read_entries(CacheUtils(filled), kind, filters)] == expected


def combinations() -> list[Any]:
    """Every kind with every set of filters that goes with it, with one value each."""
    values = {"dataset_hash": ["hash-b"], "model_id": ["ft-1", "ft-2"], "task_id": ["task_1"]}
    return [
        (kind, Filters(**{name: values[name] for name in names}))
        for kind in Clearable
        for count in range(len(CLEAR_FILTERS[kind]) + 1)
        for names in itertools.combinations(CLEAR_FILTERS[kind], count)
    ]


@pytest.mark.parametrize(("kind", "filters"), combinations())
def test_as_many_are_removed_as_were_counted(filled: InMemoryCache, kind: Clearable, filters: Filters) -> None:
    """The number in the question is the number removed; nothing that does not fit goes, no other kind either."""
    utils = CacheUtils(filled)
    counts = count_entries(utils, kind, filters)
    assert any(counts.values())
    assert clear_entries(utils, kind, filters, force=False) == counts
    left = {other.value: len(read_entries(utils, other, Filters())) for other in Kind}
    assert left == {name: count - counts.get(name, 0) for name, count in EVERYTHING.items()}
    assert not any(count_entries(utils, kind, filters).values())


@pytest.mark.parametrize("allowed", [LIST_FILTERS, CLEAR_FILTERS])
def test_a_filter_that_does_not_go_with_the_kind_is_refused(allowed: dict[str, tuple[str, ...]]) -> None:
    """Never ignored, which would clear too much: the error names the option, and those that there are."""
    for kind, names in allowed.items():
        for name in OPTIONS:
            filters = Filters(**{name: ["x"]})
            if name in names:
                check_filters(kind, filters, allowed)
                continue
            with pytest.raises(typer.BadParameter) as error:
                check_filters(kind, filters, allowed)
            assert error.value.param_hint == OPTIONS[name]
            assert all(OPTIONS[other] in error.value.message for other in names)


def test_counts_are_words() -> None:
    """One of a kind is singular; kinds are listed as people do."""
    assert counts_text({"evals": 1}) == "1 eval"
    assert counts_text({"datasets": 0, "models": 2}) == "0 datasets and 2 models"
    assert counts_text({"datasets": 1, "models": 2, "evals": 0}) == "1 dataset, 2 models and 0 evals"
