"""Which entries a command is about: a kind, and filters that go with it."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from motools.cache import CacheUtils, InMemoryCache
from motools.cli.options import Clearable, Kind
from motools.cli.selection import Filters, clear_entries, count_entries, counts_text, kinds_meant, read_entries
from tests.cli.conftest import MemoryUtils

EVERYTHING = {"datasets": 2, "models": 3, "evals": 3}


@pytest.mark.parametrize(
    ("kind", "filters", "expected"),
    [
        (Kind.DATASETS, {}, ["file-a", "file-b"]),
        (Kind.DATASETS, {"datasets": ["hash-b"]}, ["file-b"]),
        (Kind.MODELS, {"model_ids": ["ft-3", "ft-1"]}, ["ft-1", "ft-3"]),
        (Kind.MODELS, {"datasets": ["hash-b"], "model_ids": ["ft-1", "ft-2"]}, ["ft-2"]),
        (Kind.EVALS, {"model_ids": ["ft-1", "ft-2"], "task_ids": ["task_2", "task_3"]}, ["two.eval"]),
        (Kind.EVALS, {"model_ids": ["nobody"]}, []),
    ],
)
def test_filters_reach_the_listing(filled: InMemoryCache, kind: Kind, filters: Filters, expected: list[str]) -> None:
    """Under the API's names."""
    value = {Kind.DATASETS: "file_id", Kind.MODELS: "model_id", Kind.EVALS: "log_file_path"}[kind]
    assert [getattr(entry, value) for entry in read_entries(MemoryUtils(filled), kind, filters).items] == expected


@pytest.mark.parametrize(
    ("kind", "filters"),
    [
        (Clearable.ALL, {}),
        (Clearable.DATASETS, {}),
        (Clearable.DATASETS, {"datasets": ["hash-b"]}),
        (Clearable.MODELS, {"model_ids": ["ft-1", "ft-2"]}),
        (Clearable.EVALS, {"model_ids": ["ft-1"], "task_ids": ["task_1"]}),
        (Clearable.EVALS, {"task_ids": ["task_1"]}),
    ],
)
def test_as_many_are_removed_as_were_counted(filled: InMemoryCache, kind: Clearable, filters: Filters) -> None:
    """The number in the question is the number removed; nothing that does not fit goes, no other kind either."""
    utils = MemoryUtils(filled)
    counts = count_entries(utils, kind, filters)
    assert any(counts.values())
    assert clear_entries(utils, kind, filters, force=False) == sum(counts.values())
    left = {other.value: len(read_entries(utils, other, {}).items) for other in Kind}
    assert left == {name: count - counts.get(name, 0) for name, count in EVERYTHING.items()}
    assert not any(count_entries(utils, kind, filters).values())


@pytest.mark.parametrize(
    ("kind", "filters", "expected"),
    [
        (Clearable.ALL, {}, ["dataset", "model", "eval"]),
        (Clearable.ALL, {"labels": {"a": "b"}}, ["dataset", "model", "eval"]),
        (Clearable.ALL, {"backends": ["b"]}, ["model", "eval"]),
        (Clearable.ALL, {"task_ids": ["t"]}, ["eval"]),
        (Clearable.MODELS, {"backends": ["b"]}, ["model"]),
        (Kind.DATASETS, {"older_than": "30d"}, ["dataset"]),
    ],
)
def test_without_a_kind_all_are_meant_that_have_what_is_asked_for(
    kind: Clearable | Kind, filters: Filters, expected: list[str]
) -> None:
    """A filter by task means evaluations, and no dataset."""
    assert kinds_meant(kind, filters) == expected


@pytest.mark.parametrize(
    ("kind", "filters", "said"),
    [
        (Clearable.DATASETS, {"model_ids": ["m"]}, "that filter fits models and evals only"),
        (Clearable.MODELS, {"task_ids": ["t"]}, "that filter fits evals only"),
        (Clearable.ALL, {"created_after": "yesterday"}, "is no instant: write it as"),
        (Clearable.ALL, {"created_after": "2026-02-01", "created_before": "2026-01-01"}, "exclude each other"),
        (Kind.MODELS, {"larger_than": "much"}, "larger_than"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(kind: Clearable | Kind, filters: dict[str, Any], said: str) -> None:
    """Never ignored, which would clear too much."""
    with pytest.raises(typer.BadParameter, match=said):
        kinds_meant(kind, filters)


def test_filters_over_a_cache_without_a_daemon_are_refused(filled: InMemoryCache) -> None:
    """They would be lost on the way, and everything cleared."""
    with pytest.raises(Exception, match="has no daemon to ask"):
        CacheUtils(filled).clear_models(labels={"a": "b"})
    assert len(CacheUtils(filled).list_models()) == EVERYTHING["models"]


def test_counts_are_words() -> None:
    """One of a kind is singular; kinds are listed as people do."""
    assert counts_text({"evals": 1}) == "1 eval"
    assert counts_text({"datasets": 0, "models": 2}) == "0 datasets and 2 models"
    assert counts_text({"datasets": 1, "models": 2, "evals": 0}) == "1 dataset, 2 models and 0 evals"
