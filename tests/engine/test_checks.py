"""What a write or a listing must keep to is checked before it waits for its turn."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from motoolsd.core.errors import RequestError
from motoolsd.engine.checks import check_listing, check_write
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import ListEntries
from motoolsd.wire.messages import PutModel, WriteRequest
from tests.samples import clear, clear_all, put_dataset, put_evals, put_model, request_key


@pytest.mark.parametrize(
    "request_",
    [
        put_dataset("d"),
        put_dataset("d", key=request_key(5, lowest_open=5)),
        put_model("d", lr=1),
        put_evals({"t": b"l", "u": b"m"}, kwargs=b'{"epochs": 2}'),
        msgspec.structs.replace(put_evals({"t": b"l"}), token=3),
        clear(Kind.DATASET, keys=["d"]),
        clear(Kind.MODEL, keys=["k"], model_ids=["m"]),
        clear(Kind.EVAL, model_ids=["m"], task_ids=["t"]),
        clear_all(),
    ],
    ids=lambda request: type(request).__name__,
)
def test_sound_write_passes(request_: WriteRequest) -> None:
    """Whatever its kind."""
    check_write(request_)


def model_with(config: bytes) -> PutModel:
    """A model whose config is such a text."""
    return msgspec.structs.replace(put_model(), config=config)


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (put_dataset("d", key=request_key(5, lowest_open=6)), "lowest_open"),
        (msgspec.structs.replace(put_evals({"t": b"l", "u": b"m"}), token=3), "exactly one log"),
        (msgspec.structs.replace(put_evals({}), token=3), "exactly one log"),
        (model_with(b"{lr: 1}"), "config is no JSON"),
        (model_with(b""), "config is no JSON"),
        (model_with(b'{"lr": "\xff"}'), "config is no JSON"),
        (model_with(b"[" * 100_000), "config is no JSON"),
        (put_evals({"t": b"l"}, kwargs=b"{"), "kwargs is no JSON"),
        (clear(Kind.DATASET, model_ids=["m"]), "datasets cannot be chosen by model_ids"),
        (clear(Kind.DATASET, task_ids=[]), "datasets cannot be chosen by task_ids"),
        (clear(Kind.MODEL, task_ids=["t"]), "models cannot be chosen by task_ids"),
        (clear(Kind.EVAL, keys=["k"]), "evals cannot be chosen by keys"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_write_that_breaks_a_rule_is_refused_by_name(request_: WriteRequest, named: str) -> None:
    """An empty filter is a filter: it would clear nothing, and a caller's mistake would stay hidden."""
    with pytest.raises(RequestError, match=named):
        check_write(request_)


@pytest.mark.parametrize(
    ("kind", "filters"),
    [
        (Kind.DATASET, {}),
        (Kind.MODEL, {"model_id": "m"}),
        (Kind.EVAL, {"model_id": "m", "task_id": "t"}),
    ],
)
def test_listing_takes_the_filters_of_its_kind(kind: Kind, filters: dict[str, Any]) -> None:
    """Those that its rows have."""
    check_listing(ListEntries(kind=kind, **filters))


@pytest.mark.parametrize(
    ("kind", "name"), [(Kind.DATASET, "model_id"), (Kind.DATASET, "task_id"), (Kind.MODEL, "task_id")]
)
def test_listing_refuses_other_filters(kind: Kind, name: str) -> None:
    """Rather than to list everything."""
    only: dict[str, Any] = {name: "x"}
    with pytest.raises(RequestError, match=f"{kind.plural} cannot be chosen by {name}"):
        check_listing(ListEntries(kind=kind, **only))
