"""Filters, explanations and invalidation over both clients: what each method sends, and to whom it is not sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from motools.cache import (
    AmbiguousName,
    CachePolicy,
    CacheRequestError,
    DatasetEntry,
    EvalEntry,
    ModelEntry,
    UnknownOperation,
)
from motoolsd.wire import cleaning
from motoolsd.wire import explaining as wire
from motoolsd.wire.entries import DatasetRow, EvalRow, ModelRow
from motoolsd.wire.filters import Filters, Order
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import DatasetPage, EvalPage, Invalidate, Invalidated, ListEntries, ModelPage
from motoolsd.wire.messages import Clear, Cleared, Hello, Reply, Request, Welcome
from motoolsd.wire.origins import origin_id
from motoolsd.wire.reasons import Reason
from motoolsd.wire.version import __version__
from tests.cache.scripted import Talk, answer_to, scripted_daemon
from tests.cache.twins import TWINS, run_twin

ITEM = cleaning.PlanItem(kind="model", key="k", value=b"m")
NAME = wire.EntryName(kind=Kind.MODEL, key="k", value=b"m")
PAGES: dict[Kind, Reply] = {
    Kind.DATASET: DatasetPage(items=[DatasetRow(dataset_hash="d", value=b"f")], next_after=b"ABC", is_last=True),
    Kind.MODEL: ModelPage(items=[ModelRow(cache_key="k", value=b"m")], is_last=True),
    Kind.EVAL: EvalPage(items=[EvalRow(id=1, model_id="m", task_id="t", backend_type="b", value=b"/l")], is_last=True),
}


@pytest.fixture(params=TWINS, ids="-".join)
def twin(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A client and its event loop."""
    found: tuple[str, str] = request.param
    return found


def page_of(request: ListEntries) -> Reply:
    """One entry of the kind."""
    return PAGES[request.kind]


def explained(request: wire.Explain) -> Reply:
    """Only datasets hit."""
    reason = Reason.HIT if request.kind is Kind.DATASET else Reason.NEVER_COMPUTED
    return wire.Explanation(kind=request.kind, key=request.key, reason=reason)


def shown(request: wire.Show) -> Reply:
    """One name means several entries."""
    if request.name == "several":
        return wire.Details(candidates=[NAME])
    return wire.Details(kind=Kind.MODEL, key="k", model=ModelRow(cache_key="k", value=b"m"))


MISS = wire.MissItem(kind=Kind.MODEL, key="k", missed_at="then", reason="cleared")
REPLIES: dict[type[Request], Reply | Callable[[Any], Reply]] = {
    ListEntries: page_of,
    wire.Explain: explained,
    wire.ListMisses: wire.MissPage(items=[MISS], is_last=True),
    wire.Show: shown,
    wire.GetLineage: wire.Lineage(nodes=[wire.LineageNode(kind=Kind.MODEL, key="k", value=b"m")]),
    wire.Compare: wire.Comparison(first=NAME, second=NAME, differences=[wire.Difference(path="p", cached=b"1")]),
    wire.GetUsage: wire.UsageTable(items=[wire.UsageRow(kind=Kind.MODEL, hits=1)]),
    Invalidate: Invalidated(models=1, evals=2),
    Clear: Cleared(datasets=1, models=2, evals=3),
    cleaning.MakePlan: cleaning.PlanPage(items=[ITEM], plan_id="plan", is_last=True),
    cleaning.ApplyPlan: cleaning.Cleaned(models=1, evals=2),
}


def reply_to(request: Request) -> Reply:
    """What a daemon with one entry of each kind would say."""
    reply = REPLIES.get(type(request))
    if reply is None:
        return answer_to(request)
    return reply(request) if callable(reply) else reply


def explaining(talk: Talk) -> None:
    """A daemon that explains."""
    talk.greet()
    while (request := talk.next()) is not None:
        talk.reply(request, reply_to(request.body))


def of_before(talk: Talk) -> None:
    """One that knows no filters: it would leave them out."""
    hello = talk.next()
    assert hello is not None
    welcome = talk.session.welcome(version=__version__, pid=1, started_by="command")
    assert isinstance(welcome, Welcome)
    features = tuple(feature for feature in welcome.features if feature != "filters")
    talk.reply(hello, structs.replace(welcome, features=features))
    while (request := talk.next()) is not None:
        talk.reply(request, reply_to(request.body))


def test_lists_are_filtered_sorted_and_limited(twin: tuple[str, str], cache_dir: Path) -> None:
    """Ids of the older signature are filters among others; without any, the request is what it always was."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        assert [type(entry) for entry in await cache.list_datasets(version="1")] == [DatasetEntry]
        assert [type(entry) for entry in await cache.list_models("m", sort="size:desc", limit=3)] == [ModelEntry]
        assert [type(entry) for entry in await cache.list_evals("m", "t", where="hits>1")] == [EvalEntry]
        assert [type(entry) for entry in await cache.list_evals("m", version=None)] == [EvalEntry]
        page = await cache.list_entries("dataset", limit=1)
        assert (len(page.items), page.cursor) == (1, "QUJD")
        assert (await cache.list_entries("model", cursor=page.cursor)).cursor is None

    with scripted_daemon(cache_dir, explaining) as daemon:
        run_twin(twin, cache_dir, body)
    assert [request for request in daemon.requests if isinstance(request, ListEntries)] == [
        ListEntries(kind=Kind.DATASET, filters=Filters(version="1")),
        ListEntries(
            kind=Kind.MODEL,
            filters=Filters(model_ids=["m"]),
            order=Order(field="size_bytes", is_descending=True),
            limit=3,
        ),
        ListEntries(kind=Kind.EVAL, filters=Filters(model_ids=["m"], task_ids=["t"], where=["hits>1"])),
        ListEntries(kind=Kind.EVAL, model_id="m"),
        ListEntries(kind=Kind.DATASET, filters=Filters(), limit=1),
        ListEntries(kind=Kind.MODEL, filters=Filters(), after=b"ABC"),
    ]


def test_clears_take_what_passes_and_what_was_made_from_it(twin: tuple[str, str], cache_dir: Path) -> None:
    """With and without files; the count is of everything that went."""
    chosen = {"version": "1", "downstream": True}

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        assert await cache.clear_models(["m"], **chosen) == 6
        assert (await cache.clear_models(["m"], delete_files=True, **chosen)).evals == 2
        assert (await cache.prune(backends=["b"], downstream=True)).models == 1
        with pytest.raises(TypeError, match="version"):
            await cache.clear_all(version="1")

    with scripted_daemon(cache_dir, explaining) as daemon:
        run_twin(twin, cache_dir, body)
    (clear,) = [request for request in daemon.requests if isinstance(request, Clear)]
    assert (clear.model_ids, clear.filters, clear.downstream) == (["m"], Filters(version="1"), True)
    assert [request.criteria for request in daemon.requests if isinstance(request, cleaning.MakePlan)] == [
        cleaning.Criteria(kinds=(Kind.MODEL,), model_ids=["m"], filters=Filters(version="1"), downstream=True),
        cleaning.Criteria(kinds=(Kind.MODEL, Kind.EVAL), filters=Filters(backends=["b"]), downstream=True),
    ]


def test_plan_is_applied_in_the_name_of_who_does_it(twin: tuple[str, str], cache_dir: Path) -> None:
    """So that an explanation can name them."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        await cache.apply_plan("plan")

    with scripted_daemon(cache_dir, explaining) as daemon:
        run_twin(twin, cache_dir, body)
    (plan,) = [request for request in daemon.requests if isinstance(request, cleaning.ApplyPlan)]
    assert plan.origin is not None
    assert [type(notice).__name__ for notice in daemon.told] == ["Introduce"]


def test_everything_explains_what_it_is_asked_for(twin: tuple[str, str], cache_dir: Path) -> None:
    """One request each, but two for a key without a kind."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        assert (await cache.explain("k")).kind == "dataset"
        assert (await cache.explain("k", "model")).kind == "model"
        assert (await cache.explain("[]")).kind == "eval"
        assert (await cache.explain_dataset("d")).result == "hit"
        assert (await cache.explain_model("d", {"lr": 1})).reason == "never_computed"
        assert (await cache.explain_eval("m", "t", "b", {"x": 1})).reason == "never_computed"
        assert [miss.key for miss in await cache.list_misses(5)] == ["k"]
        assert (await cache.show("k")).entry.model_id == "m"
        with pytest.raises(AmbiguousName) as caught:
            await cache.show("several")
        assert [one.key for one in caught.value.candidates] == ["k"]
        assert (await cache.lineage("k", up=False)).nodes[0].value == "m"
        assert [one.path for one in await cache.compare("k", "l")] == ["p"]
        assert [one.hits for one in await cache.get_usage(since="1h", by_job=True)] == [1]
        counts = {"datasets": 0, "models": 1, "evals": 2}
        assert await cache.invalidate(reason="bug", version="1", dry_run=True) == counts
        assert await cache.restore(kinds=["model"], downstream=True) == counts

    with scripted_daemon(cache_dir, explaining) as daemon:
        run_twin(twin, cache_dir, body)
    asked = [request.kind for request in daemon.requests if isinstance(request, wire.Explain)]
    assert asked == [Kind.MODEL, Kind.DATASET, Kind.MODEL, Kind.EVAL, Kind.DATASET, Kind.MODEL, Kind.EVAL]
    introduced = next(one for one in daemon.told if isinstance(one, wire.Introduce))
    ours = origin_id(introduced.origin)
    assert daemon.requests[-4:] == [
        wire.Compare(name="k", other="l"),
        wire.GetUsage(since_s=3600.0, by_job=True),
        Invalidate(kinds=tuple(Kind), filters=Filters(version="1"), reason="bug", dry_run=True, origin=ours),
        Invalidate(kinds=(Kind.MODEL,), restore=True, downstream=True, origin=ours),
    ]


@pytest.mark.parametrize(
    ("options", "given", "expected"),
    [
        ({}, None, None),
        ({}, "2", "2"),
        ({"version": "1"}, None, "1"),
        ({"version": "1"}, "2", "2"),
        ({"version": "1", "policy": CachePolicy(on_mismatch="warn")}, None, None),
        ({"version": "1", "policy": CachePolicy(on_mismatch="ignore")}, None, None),
        ({"version": "1", "policy": CachePolicy(on_mismatch="ignore")}, "2", "2"),
    ],
)
def test_explanation_is_of_the_lookup_that_this_client_would_do(
    twin: tuple[str, str], cache_dir: Path, options: dict[str, Any], given: str | None, expected: str | None
) -> None:
    """A value of another version misses only where the client lets it."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        await cache.explain_model("d", {}, version=given)
        await cache.explain("k", "dataset", version=given)

    with scripted_daemon(cache_dir, explaining) as daemon:
        run_twin(twin, cache_dir, body, **options)
    asked = [request.version for request in daemon.requests if isinstance(request, wire.Explain)]
    assert asked == [expected, expected]


def test_filters_are_never_sent_to_a_daemon_that_would_leave_them_out(twin: tuple[str, str], cache_dir: Path) -> None:
    """It would remove everything. What it knows it is asked for."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        asks: list[Callable[[], Awaitable[object]]] = [
            lambda: cache.list_models(version="1"),
            lambda: cache.list_entries("model"),
            lambda: cache.clear_models(version="1"),
            lambda: cache.clear_models(downstream=True),
            lambda: cache.clear_models(delete_files=True, version="1"),
            lambda: cache.prune(version="1"),
            lambda: cache.prune(older_than=0, downstream=True),
        ]
        for ask in asks:
            with pytest.raises(UnknownOperation, match="`motools daemon restart`"):
                await ask()
        assert len(await cache.list_models()) == 1
        assert await cache.clear_models() == 6
        assert (await cache.prune(older_than=0)).models == 1

    with scripted_daemon(cache_dir, of_before) as daemon:
        run_twin(twin, cache_dir, body)
    assert daemon.kinds() == ["ListEntries", "Clear", "MakePlan", "ApplyPlan"]


def test_mistake_is_told_before_anything_is_asked(twin: tuple[str, str], cache_dir: Path) -> None:
    """Not even a connection is made."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        asks: list[Callable[[], Awaitable[object]]] = [
            lambda: cache.list_datasets(task_ids=["t"]),
            lambda: cache.list_models(created_after="tomorrow"),
            lambda: cache.clear_evals(where=[""]),
            lambda: cache.prune(version="1", kinds=["runs"]),
            lambda: cache.invalidate(reason="bug"),
            lambda: cache.explain("k", "runs"),
            lambda: cache.list_misses(0),
        ]
        for ask in asks:
            with pytest.raises(CacheRequestError):
                await ask()

    with scripted_daemon(cache_dir, explaining) as daemon:
        run_twin(twin, cache_dir, body)
    assert [request for request in daemon.requests if not isinstance(request, Hello)] == []
