"""What a clean-up is asked for in the caller's words becomes criteria, or an error that says what to write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from motools.cache import DatasetEntry, EvalEntry, ModelEntry, cleaning_calls
from motools.cache.arguments import byte_size, duration, seconds_until
from motools.cache.calls import UNPINNED, ClearScope
from motools.cache.cleaning_calls import use_parts
from motools.cache.clock import wall_s
from motools.cache.errors import CacheRequestError, EntryNotFound
from motoolsd.wire.cleaning import Criteria, EmptyTrash, Pin, Undo
from motoolsd.wire.filters import Filters
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.messages import RequestKey

DAY_S = 86_400.0
KEY = RequestKey(bytes(16), 1, 1)


def test_dry_run_without_files_names_the_remedy() -> None:
    """Clearing rows alone has no plan."""
    with pytest.raises(CacheRequestError, match="add delete_files=True"):
        cleaning_calls.is_with_files(delete_files=False, dry_run=True)
    assert cleaning_calls.is_with_files(delete_files=True, dry_run=True)
    assert not cleaning_calls.is_with_files(delete_files=False, dry_run=False)


def test_empty_list_chooses_nothing_and_none_everything() -> None:
    """As without files."""
    assert cleaning_calls.datasets([], UNPINNED) == Criteria(kinds=(Kind.DATASET,), keys=[])
    assert cleaning_calls.datasets(None, ClearScope(force=True)) == Criteria(kinds=(Kind.DATASET,), force=True)
    assert cleaning_calls.models(["m"], UNPINNED) == Criteria(kinds=(Kind.MODEL,), model_ids=["m"])
    evals = cleaning_calls.evals(["m"], ["t"], UNPINNED)
    assert evals == Criteria(kinds=(Kind.EVAL,), model_ids=["m"], task_ids=["t"])
    assert cleaning_calls.everything(force=False) == Criteria(kinds=tuple(Kind))
    with pytest.raises(CacheRequestError, match="list of texts"):
        cleaning_calls.datasets("hash", UNPINNED)


def test_plan_carries_filters_and_what_was_made_from_entries() -> None:
    """And is kept from a daemon that would leave them out, and so plan to remove everything."""
    scope = ClearScope(filters=Filters(version="1"), downstream=True)
    criteria = cleaning_calls.models(None, scope)
    assert criteria == Criteria(kinds=(Kind.MODEL,), filters=Filters(version="1"), downstream=True)
    assert cleaning_calls.make_plan(criteria).needs == "filters"
    assert cleaning_calls.make_plan(Criteria(kinds=(Kind.MODEL,), downstream=True)).needs == "filters"
    assert cleaning_calls.make_plan(Criteria(kinds=(Kind.MODEL,))).needs is None


def test_durations_and_sizes_are_read_as_people_write_them() -> None:
    """Seconds, a timedelta, or a text; bytes, or a text."""
    assert duration("1d12h", "x") == 1.5 * DAY_S
    assert duration(timedelta(days=1), "x") == DAY_S
    assert duration(90, "x") == 90
    assert byte_size("1.5GiB", "x") == 3 * 2**29
    assert byte_size(10, "x") == 10


def test_end_is_a_time_or_a_duration_from_now() -> None:
    """Aware times count as they stand, naive ones are local."""
    in_an_hour = wall_s() + 3600
    for until in (datetime.fromtimestamp(in_an_hour, UTC), datetime.fromtimestamp(in_an_hour)):  # noqa: DTZ006 - naive
        assert 3500 < seconds_until(until, "until") <= 3600
    assert seconds_until("1h", "until") == 3600
    with pytest.raises(CacheRequestError, match="until lies in the past"):
        seconds_until(datetime(2001, 1, 1, tzinfo=UTC), "until")


def test_pin_carries_reason_and_end() -> None:
    """And unpin neither."""
    assert cleaning_calls.pin("m", "model", "paper", "1h").request == Pin(
        key="m", kind=Kind.MODEL, reason="paper", until_s=3600.0
    )
    assert cleaning_calls.pin("m", None, "", None).request == Pin(key="m")
    assert cleaning_calls.unpin("m", None).request == Pin(key="m", is_pinned=False)
    wrong: list[tuple[Any, ...]] = [
        ("", None, "", None),
        ("m", "models", "", None),
        ("m", None, 7, None),
        ("m", None, "", "soon"),
    ]
    for arguments in wrong:
        with pytest.raises(CacheRequestError):
            cleaning_calls.pin(*arguments)


def test_removals_are_named_by_number() -> None:
    """What can be no number of one is not found; what is none at all is a mistake."""
    assert cleaning_calls.undo(None).request == Undo()
    assert cleaning_calls.undo(7).request == Undo(removal_id=7)
    assert cleaning_calls.empty_trash(None).request == EmptyTrash()
    assert cleaning_calls.empty_trash([]).request == EmptyTrash(removal_ids=[])
    for number in (0, -1, 2**63):
        with pytest.raises(EntryNotFound):
            cleaning_calls.undo(number)
    for wrong in ("7", True, 1.0):
        with pytest.raises(CacheRequestError, match="by its number"):
            cleaning_calls.undo(wrong)  # type: ignore[arg-type]
    with pytest.raises(CacheRequestError, match="list of numbers"):
        cleaning_calls.empty_trash(7)  # type: ignore[arg-type]


def test_plan_that_can_be_none_is_not_found() -> None:
    """Whatever is typed as its id."""
    with pytest.raises(EntryNotFound, match="no plan"):
        cleaning_calls.apply_plan("x" * 65, to_trash=True)
    with pytest.raises(CacheRequestError, match="empty"):
        cleaning_calls.apply_plan("", to_trash=True)


@pytest.mark.parametrize("top", [-1, 1001, 1.5, True, "3"])
def test_top_is_bounded(top: Any) -> None:  # noqa: ANN401 - what is wrong
    """A whole number up to a thousand."""
    with pytest.raises(CacheRequestError, match="top must be"):
        cleaning_calls.get_size_report(top=top)


def test_entries_in_use_are_named_by_their_keys() -> None:
    """Each kind in requests of its own, each entry once, each request with a name of its own."""
    dataset = DatasetEntry(dataset_hash="d", file_id="f")
    model = ModelEntry(cache_key="k", model_id="m")
    evaluation = EvalEntry(
        id=1, model_id="m", task_id="t", backend_type="b", log_file_path="p", inspect_kwargs_hash="h"
    )
    parts = list(use_parts([dataset, evaluation, model, dataset]))
    assert [(part.kind, part.keys) for part in parts] == [
        (Kind.DATASET, ["d"]),
        (Kind.EVAL, [eval_key("m", "t", "b", "h")]),
        (Kind.MODEL, ["k"]),
    ]
    assert len({part.use_id for part in parts}) == 3
    many = [DatasetEntry(dataset_hash=str(number), file_id="f") for number in range(10_001)]
    assert [len(part.keys) for part in use_parts(many)] == [10_000, 1]
    with pytest.raises(CacheRequestError, match=r"using\(\) takes entries"):
        list(use_parts(["d"]))
