"""The table of calls that explain: what they ask, and what is refused before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from motools.cache import explaining_calls as table
from motools.cache import lookups
from motools.cache.calls import Call
from motools.cache.errors import AmbiguousName, CacheProtocolError, CacheRequestError, UncacheableConfigError
from motools.cache.explanations import Difference, EntryName, Explanation
from motoolsd.core.inputs import inputs_of_question
from motoolsd.wire import explaining as wire
from motoolsd.wire.entries import ModelRow
from motoolsd.wire.filters import Filters, Order
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import EvalPage, Invalidate, Invalidated, ListEntries, ModelPage
from motoolsd.wire.messages import Lookup

NAME = wire.EntryName(kind=Kind.MODEL, key="k", value=b"m")


def asked_inputs(call: Call[Explanation]) -> Any:  # noqa: ANN401 - any JSON
    """What a key is said to be made from, as the daemon reads it."""
    request = call.request
    assert isinstance(request, wire.Explain)
    assert request.inputs is not None
    return inputs_of_question(request.kind, json.loads(request.inputs)).fields


def looked_up(call: Call[Any]) -> tuple[Kind, list[str]]:
    """The keys of a lookup."""
    assert isinstance(call.request, Lookup)
    return call.request.kind, call.request.keys


def test_model_is_explained_by_the_key_that_a_lookup_asks_for() -> None:
    """With what it was made from, in the daemon's words."""
    config = {"lr": 0.1, "layers": (1, 2)}
    call = table.explain_model("d", config, "openai", None)
    assert isinstance(call.request, wire.Explain)
    assert (call.request.kind, [call.request.key]) == looked_up(lookups.get_model_id("d", config, "openai"))
    assert call.request.version is None
    assert asked_inputs(call) == {
        "dataset_hash": "d",
        "backend_type": "openai",
        "config": {"lr": 0.1, "layers": [1, 2]},
    }


@pytest.mark.parametrize(("kwargs", "known"), [({"limit": 3}, {"limit": 3}), (None, {}), ({}, {})])
def test_evaluation_is_explained_by_the_key_that_a_lookup_asks_for(
    kwargs: dict[str, Any] | None, known: dict[str, Any]
) -> None:
    """No arguments are known to be none."""
    call = table.explain_eval("m", "t", "inspect", kwargs, "1")
    assert isinstance(call.request, wire.Explain)
    assert (call.request.kind, [call.request.key]) == looked_up(lookups.get_evals("m", ["t"], "inspect", kwargs))
    assert call.request.version == "1"
    assert asked_inputs(call) == {"model_id": "m", "task_id": "t", "backend_type": "inspect", "kwargs": known}


def test_credentials_are_not_sent_but_count_in_the_key() -> None:
    """The key is that of the whole configuration, as a lookup's."""
    secret = "sk-proj-" + "a1B2c3D4" * 6
    config = {"api_key": secret, "lr": 1}
    model, evaluation = table.explain_model("d", config, "b", None), table.explain_eval("m", "t", "b", config, None)
    for call, lookup, name in (
        (model, lookups.get_model_id("d", config, "b"), "config"),
        (evaluation, lookups.get_evals("m", ["t"], "b", config), "kwargs"),
    ):
        assert isinstance(call.request, wire.Explain)
        assert (call.request.kind, [call.request.key]) == looked_up(lookup)
        assert secret not in str(call.request)
        assert asked_inputs(call)[name]["lr"] == 1
    assert config["api_key"] == secret


def test_key_alone_is_asked_for_under_the_kinds_that_it_may_be_of() -> None:
    """Keys of evaluations are lists; a hash may be a model's or a dataset's."""
    assert table.kinds_of_key('["m","t","b",null]', None) == ["eval"]
    assert table.kinds_of_key("0af3", None) == ["model", "dataset"]
    assert table.kinds_of_key("[odd", "dataset") == ["dataset"]
    call = table.explain("k", "dataset", "2")
    assert call.request == wire.Explain(kind=Kind.DATASET, key="k", version="2")
    assert table.explain_dataset("d", None).request == wire.Explain(kind=Kind.DATASET, key="d")


@pytest.mark.parametrize(
    ("model", "dataset", "kind"),
    [
        ("never_computed", "never_computed", "model"),
        ("different_inputs", "never_computed", "model"),
        ("never_computed", "hit", "dataset"),
        ("different_inputs", "evicted", "dataset"),
        ("cleared", "hit", "model"),
        ("hit", "never_computed", "model"),
    ],
)
def test_explanation_that_knows_something_of_the_key_is_taken(model: str, dataset: str, kind: str) -> None:
    """Else that of a model."""
    found = [
        Explanation(kind="model", key="k", result="miss", reason=model),
        Explanation(kind="dataset", key="k", result="miss", reason=dataset),
    ]
    assert table.likeliest(found).kind == kind


def test_name_that_means_several_entries_names_them() -> None:
    """The candidates are in the error, and in its text."""
    call = table.show("run", None)
    assert call.request == wire.Show(name="run")
    with pytest.raises(AmbiguousName, match="run means several entries: model k, model l") as caught:
        call.result(wire.Details(candidates=[NAME, wire.EntryName(kind=Kind.MODEL, key="l", value=b"n")]))
    assert caught.value.candidates == [
        EntryName(kind="model", key="k", value="m"),
        EntryName(kind="model", key="l", value="n"),
    ]
    assert isinstance(caught.value, CacheRequestError)


@pytest.mark.parametrize("reply", [wire.Details(), wire.Details(kind=Kind.MODEL, key="k")])
def test_details_of_nothing_are_no_answer(reply: wire.Details) -> None:
    """A daemon that says nothing is not believed."""
    with pytest.raises(CacheProtocolError, match="says nothing of 'run'"):
        table.show("run", None).result(reply)


def test_lineage_and_comparison_ask_by_name() -> None:
    """A kind narrows what a name may mean."""
    assert table.get_lineage("n", "eval", up=True, down=False).request == wire.GetLineage(
        name="n", kind=Kind.EVAL, down=False
    )
    call = table.compare("a", "b", "model")
    assert call.request == wire.Compare(name="a", other="b", kind=Kind.MODEL)
    found = wire.Difference(path="config.lr", cached=b"1", asked=b"2")
    reply = wire.Comparison(first=NAME, second=NAME, differences=[found])
    assert call.result(reply) == [Difference(path="config.lr", cached=1, asked=2)]


def test_listing_asks_for_a_page() -> None:
    """By filters, order, size and the cursor of the page before; never from a daemon that would leave them out."""
    call = table.list_entries("model", "size:desc", 2, "QUJD", {"version": "1", "labels": None})
    assert call.request == ListEntries(
        kind=Kind.MODEL,
        filters=Filters(version="1"),
        order=Order(field="size_bytes", is_descending=True),
        limit=2,
        after=b"ABC",
    )
    assert call.needs == "filters"
    pages: list[Any] = [
        ModelPage(items=[ModelRow(cache_key="k", value=b"m")]),
        ModelPage(items=[ModelRow(cache_key="l", value=b"n")], next_after=b"DEF", is_last=True),
    ]
    found = call.result_of_pages(pages)
    assert [getattr(entry, "model_id", None) for entry in found.items] == ["m", "n"]
    assert found.cursor == "REVG"
    assert call.result_of_pages([ModelPage(items=[], is_last=True)]).cursor is None
    with pytest.raises(CacheProtocolError):
        call.result_of_pages([EvalPage(items=[], is_last=True)])


def test_usage_is_asked_for_by_time_job_and_label() -> None:
    """Nothing given asks for all that is kept."""
    assert table.get_usage(None, None, None, None, by_job=False).request == wire.GetUsage()
    full = table.get_usage(timedelta(hours=1), "slurm:1", {"owner": "ann"}, "run", by_job=False)
    assert full.request == wire.GetUsage(since_s=3600.0, job="slurm:1", labels={"owner": "ann"}, by_label="run")
    assert table.get_usage("1d", None, None, None, by_job=True).request == wire.GetUsage(since_s=86_400.0, by_job=True)


def invalidated(
    reason: str | None = None,
    kinds: Any = None,  # noqa: ANN401 - what is wrong, too
    *,
    restore: bool = False,
    **filters: Any,  # noqa: ANN401
) -> Call[dict[str, int]]:
    """The call with few arguments."""
    return table.invalidate(reason, kinds, filters, restore=restore, downstream=False, dry_run=False)


def test_invalidation_is_of_the_kinds_that_the_filters_fit() -> None:
    """Unless some are chosen, which is enough to say what is meant."""
    assert invalidated("bug", version="1").request == Invalidate(
        kinds=tuple(Kind), filters=Filters(version="1"), reason="bug"
    )
    assert invalidated("bug", backends=["b"]).request == Invalidate(
        kinds=(Kind.MODEL, Kind.EVAL), filters=Filters(backends=["b"]), reason="bug"
    )
    assert invalidated("bug", ["eval"]).request == Invalidate(kinds=(Kind.EVAL,), reason="bug")
    assert invalidated(None, ["eval"], restore=True).request == Invalidate(kinds=(Kind.EVAL,), restore=True)
    whole = table.invalidate("bug", ["eval"], {}, restore=False, downstream=True, dry_run=True)
    assert whole.request == Invalidate(kinds=(Kind.EVAL,), reason="bug", downstream=True, dry_run=True)
    assert whole.result(Invalidated(models=1, evals=2)) == {"datasets": 0, "models": 1, "evals": 2}


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: table.kinds_of_key("", None), "key is empty"),
    (lambda: table.kinds_of_key(7, None), "key must be text"),
    (lambda: table.kinds_of_key("k", "models"), "no kind 'models': choose from dataset, model, eval"),
    (lambda: table.explain("", "model", None), "key is empty"),
    (lambda: table.explain("k", "model", ""), "version is empty"),
    (lambda: table.explain_model("", {}, "b", None), "dataset_hash is empty"),
    (lambda: table.explain_model("d", {}, "", None), "backend_type is empty"),
    (lambda: table.explain_eval("m", "", "b", None, None), "task_id is empty"),
    (lambda: table.explain_eval("m", "t", "b", None, 7), "version must be text"),  # type: ignore[arg-type]
    (lambda: table.list_misses(0), "limit must be a whole number from 1 to 1000, not 0"),
    (lambda: table.list_misses(True), "limit must be"),
    (lambda: table.list_misses(1001), "limit must be"),
    (lambda: table.show("", None), "name is empty"),
    (lambda: table.show("n", "runs"), "no kind 'runs'"),
    (lambda: table.get_lineage("\ud800", None, up=True, down=True), "name holds a character"),
    (lambda: table.compare("a", "", None), "other is empty"),
    (lambda: table.compare("a", "b", "x"), "no kind 'x'"),
    (lambda: table.list_entries(None, None, None, None, {}), "kind is one of dataset, model, eval"),  # type: ignore[arg-type]
    (lambda: table.list_entries("dataset", None, None, None, {"task_ids": ["t"]}), "datasets have no task_ids"),
    (lambda: table.list_entries("dataset", "model_id", None, None, {}), "is no field of datasets to sort by"),
    (lambda: table.list_entries("dataset", None, 0, None, {}), "limit must be"),
    (lambda: table.list_entries("dataset", None, None, "?", {}), "cursor is none"),
    (lambda: table.get_usage("soon", None, None, None, by_job=False), "since: 'soon' is no duration"),
    (lambda: table.get_usage(None, "", None, None, by_job=False), "job is empty"),
    (lambda: table.get_usage(None, None, {"a": 1}, None, by_job=False), "each of labels"),  # type: ignore[dict-item]
    (lambda: table.get_usage(None, None, None, "", by_job=False), "by_label is empty"),
    (lambda: table.get_usage(None, None, None, "run", by_job=True), "by_label and by_job exclude each other"),
    (lambda: invalidated("bug"), "say which entries are meant: pass a filter, or kinds"),
    (lambda: invalidated("bug", labels={}, where=[], version=None), "say which entries are meant"),
    (lambda: invalidated(None, restore=True), "say which entries are meant"),
    (lambda: invalidated("bug", []), "kinds is empty"),
    (lambda: invalidated("bug", "model"), "kinds must be a list of kinds"),
    (lambda: invalidated("bug", ["model"], task_ids=["t"]), "models have no task_ids"),
    (lambda: invalidated("", ["model"]), "reason is empty"),
    (lambda: invalidated(None, ["model"]), "reason must be text"),
    (lambda: invalidated("x" * 4097, ["model"]), "reason is longer than 4096 characters"),
]


@pytest.mark.parametrize(("make", "text"), MISTAKES)
def test_mistake_in_an_argument_is_refused_by_name(make: Callable[[], object], text: str) -> None:
    """Nothing is sent."""
    with pytest.raises(CacheRequestError, match=text):
        make()


def test_configuration_without_a_key_names_the_place() -> None:
    """As a lookup does."""
    with pytest.raises(UncacheableConfigError, match=r"config\.lr is nan"):
        table.explain_model("d", {"lr": float("nan")}, "b", None)
    with pytest.raises(UncacheableConfigError, match=r"inspect_kwargs\.x is of type object"):
        table.explain_eval("m", "t", "b", {"x": object()}, None)
