"""The table of calls: arguments are checked before anything is sent, replies before anything is believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from motools.cache import calls
from motools.cache.errors import CacheProtocolError, CacheRequestError, StorageFailed
from motools.cache.recording import Provenance
from motoolsd.wire import messages as m
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.fields import TEXT_SIZE_MAX
from motoolsd.wire.filters import Filters
from motoolsd.wire.listing import DatasetPage, EvalPage

NOTHING = Provenance(None, None)
KEY = m.RequestKey(b"client-of-tests.", 1, 1)


def request_of(call: calls.Call[Any]) -> Any:  # noqa: ANN401 - any request's fields are looked at
    """What a call sends."""
    return call.request_for(KEY)


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: calls.set_file_id(NOTHING, "d", ""), "file_id is empty"),
    (lambda: calls.set_file_id(NOTHING, "d", None), "file_id must be text"),  # type: ignore[arg-type]
    (lambda: calls.set_file_id(NOTHING, "d", "ä" * TEXT_SIZE_MAX), "longer"),
    (lambda: calls.set_file_id(NOTHING, "d", "\ud800"), "surrogates not allowed"),
    (lambda: calls.set_model_id(NOTHING, "d", {"x": "y" * TEXT_SIZE_MAX}, "m", "b"), "config is longer"),
    (lambda: calls.set_eval_log_paths(NOTHING, "m", ["t"], "inspect", None), "must map"),  # type: ignore[arg-type]
    (lambda: calls.set_eval_log_paths(NOTHING, "m", {"t": 3}, "inspect", None), "log path of t"),  # type: ignore[dict-item]
    (lambda: calls.set_eval_log_paths(NOTHING, "m", {"t": "/l"}, "i", {"x": float("nan")}), "inspect_kwargs.x"),
    (lambda: calls.set_eval_log_paths(NOTHING, "m", {str(n): "/l" for n in range(10_001)}, "i", None), "more than"),
    (lambda: calls.clear_datasets("abc"), "list of texts, not str"),
    (lambda: calls.clear_models([""]), "empty"),
    (lambda: calls.clear_evals(None, [None]), "each of task_ids"),  # type: ignore[list-item]
    (lambda: calls.list_models(7), "model_id must be text"),  # type: ignore[arg-type]
    (lambda: calls.list_evals("m", "\ud800"), "surrogates not allowed"),
]


@pytest.mark.parametrize(("make", "text"), MISTAKES)
def test_mistake_in_an_argument_is_refused_by_name(make: Callable[[], object], text: str) -> None:
    """Nothing is sent, and the text says which argument is wrong and how."""
    with pytest.raises(CacheRequestError, match=text):
        make()


def test_paths_travel_as_bytes(tmp_path: Path) -> None:
    """A log's name need not be UTF-8, and may be a path object."""
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.json"))
    request = request_of(calls.set_eval_log_paths(NOTHING, "m", {"t": odd, "u": "/plain"}, "inspect", None))
    assert request.logs == {"t": os.fsencode(odd), "u": b"/plain"}


def test_none_clears_all_and_an_empty_list_nothing() -> None:
    """The two are different requests."""
    assert request_of(calls.clear_datasets(None)).keys is None
    assert request_of(calls.clear_datasets([])).keys == []
    both = request_of(calls.clear_evals([], None))
    assert (both.model_ids, both.task_ids) == ([], None)


@pytest.mark.parametrize(
    ("call", "reply"),
    [
        (calls.set_file_id(NOTHING, "d", "f"), m.Found(values=[None])),
        (calls.clear_all(), m.Stored()),
        (calls.get_stats(), m.Draining()),
    ],
)
def test_reply_that_is_no_answer_is_a_protocol_error(call: calls.Call[Any], reply: m.Reply) -> None:
    """A daemon that answers something else is not believed."""
    with pytest.raises(CacheProtocolError):
        call.result(reply)


def test_failure_in_place_of_a_reply_is_raised() -> None:
    """Also in the middle of a stream."""
    failure = m.Failure(code=ErrorCode.STORAGE_FAILED, message="I/O error")
    with pytest.raises(StorageFailed, match="I/O error"):
        calls.clear_all().result(failure)
    with pytest.raises(StorageFailed):
        calls.list_datasets().result_of_pages([DatasetPage(items=[]), failure])


def test_page_of_another_kind_is_a_protocol_error() -> None:
    """A listing of datasets holds datasets."""
    with pytest.raises(CacheProtocolError):
        calls.list_datasets().result_of_pages([EvalPage(items=[], is_last=True)])


def test_cleared_counts_hold_what_went_downstream() -> None:
    """Each clear gives one number for everything that it took, all of them together a mapping."""
    assert calls.clear_datasets(None).result(m.Cleared(datasets=1, models=2, evals=3)) == 6
    assert calls.clear_models(None).result(m.Cleared(models=2, evals=3)) == 5
    assert calls.clear_evals(None, None).result(m.Cleared(evals=3)) == 3
    assert calls.clear_all().result(m.Cleared(datasets=1, evals=3)) == {"datasets": 1, "models": 0, "evals": 3}


def test_clear_carries_what_narrows_and_widens_it() -> None:
    """And is kept from a daemon that would leave the filters out, and so remove everything."""
    scope = calls.ClearScope(force=True, filters=Filters(version="1"), downstream=True)
    for call in (
        calls.clear_datasets(None, scope),
        calls.clear_models(None, scope),
        calls.clear_evals(None, None, scope),
    ):
        request = request_of(call)
        assert (request.force, request.filters, request.downstream) == (True, Filters(version="1"), True)
        assert call.needs == "filters"
    assert calls.clear_models(None).needs is None
    assert calls.clear_models(None, calls.ClearScope(downstream=True)).needs == "filters"
