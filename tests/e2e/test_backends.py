"""One contract, and every cache that is to hold it: in memory, async over the daemon, and blocking over it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from motools.cache import (
    Cache,
    CacheBackend,
    CacheError,
    CacheRequestError,
    CacheUtils,
    InMemoryCache,
    SyncCache,
    UncacheableConfigError,
    hash_dict,
    make_model_cache_key,
)

TIMEOUT_S = 60.0
LABELS = {"run": "7"}

Body = Callable[[CacheBackend], Awaitable[None]]
Run = Callable[[Body], None]


class Awaiting:
    """A SyncCache in the shape of a `CacheBackend`: what it gives can be awaited."""

    def __init__(self, cache: SyncCache) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, object]]:
        """A method, so that it is called when it is awaited."""
        method = getattr(self._cache, name)

        async def call(*args: object, **kwargs: object) -> object:
            return method(*args, **kwargs)

        return call


@contextlib.contextmanager
def opened(name: str, directory: Path) -> Iterator[Any]:
    """A cache of the given class, with labels and a version."""
    if name == "SyncCache":
        with SyncCache(directory, labels=LABELS, version="v1") as cache:
            yield Awaiting(cache)
    elif name == "InMemoryCache":
        yield InMemoryCache(labels=LABELS, version="v1")
    else:
        yield Cache(directory, labels=LABELS, version="v1")


KINDS = [("InMemoryCache", "asyncio"), ("InMemoryCache", "trio"), ("Cache", "asyncio"), ("Cache", "trio")]


@pytest.fixture(params=[*KINDS, ("SyncCache", "asyncio")], ids="-".join)
def run(request: pytest.FixtureRequest, shared_dir: Path) -> Iterator[Run]:
    """Runs a test's body with an open cache, under the event loop of that kind."""
    name, loop = request.param
    with opened(name, shared_dir) as cache:

        async def whole(body: Body) -> None:
            with anyio.fail_after(TIMEOUT_S):
                await body(cache)
                if isinstance(cache, Cache):
                    await cache.aclose()

        def run_whole(body: Body) -> None:
            anyio.run(whole, body, backend=loop)

        yield run_whole


def test_what_is_set_is_got_and_all_else_misses(run: Run) -> None:
    """Each kind, with its whole key."""

    async def body(cache: CacheBackend) -> None:
        assert await cache.get_file_id("d") is None
        await cache.set_file_id("d", "file")
        assert await cache.get_file_id("d") == "file"
        await cache.set_model_id("d", {"lr": 0.1}, "model")
        assert await cache.get_model_id("d", {"lr": 0.1}) == "model"
        assert await cache.get_model_id("d", {"lr": 0.1}, "other") is None
        assert await cache.get_model_id("d", {"lr": 0.2}) is None
        assert await cache.get_model_id("e", {"lr": 0.1}) is None
        await cache.set_eval_log_paths("m", {"t": "/log"}, "inspect", {"limit": 3})
        assert await cache.get_eval_log_paths("m", ["t"], "inspect", {"limit": 3}) == {"t": "/log"}
        assert await cache.get_eval_log_paths("m", ["t"], "inspect") is None
        assert await cache.get_eval_log_paths("m", ["t"], "other", {"limit": 3}) is None

    run(body)


def test_later_value_replaces_the_earlier_one_in_its_place(run: Run) -> None:
    """A listing keeps the order in which entries were first stored."""

    async def body(cache: CacheBackend) -> None:
        for name in ("b", "a", "c"):
            await cache.set_file_id(name, f"file {name}")
            await cache.set_model_id(name, {}, f"model {name}")
            await cache.set_eval_log_paths("m", {name: f"/{name}"}, "inspect")
        await cache.set_file_id("b", "again")
        await cache.set_model_id("b", {}, "again")
        await cache.set_eval_log_paths("m", {"b": "/again"}, "inspect")
        assert [entry.file_id for entry in await cache.list_datasets()] == ["again", "file a", "file c"]
        assert [entry.model_id for entry in await cache.list_models()] == ["again", "model a", "model c"]
        evals = await cache.list_evals()
        assert [(entry.id, entry.log_file_path) for entry in evals] == [(1, "/again"), (2, "/a"), (3, "/c")]

    run(body)


def test_some_evals_and_all_of_them(run: Run) -> None:
    """`get_evals` says which are missing, in the order asked; the older call is all or None."""

    async def body(cache: CacheBackend) -> None:
        await cache.set_eval_log_paths("m", {"a": "/a", "b": Path("/b")}, "inspect")
        hits = await cache.get_evals("m", ["z", "b", "y", "a", "b"], "inspect")
        assert hits.found == {"a": "/a", "b": "/b"}
        assert hits.missing == ["z", "y"]
        assert await cache.get_eval_log_paths("m", ["a", "z"], "inspect") is None
        assert await cache.get_eval_log_paths("m", [], "inspect") == {}
        assert await cache.get_evals("m", [], "inspect") == type(hits)({}, [])

    run(body)


def test_many_answers_in_the_order_of_their_questions(run: Run) -> None:
    """Each kind, misses and repetitions among them; what may be left out is what it is elsewhere. Asked twice alike."""

    async def body(cache: CacheBackend) -> None:
        await cache.set_file_id("d", "file")
        await cache.set_model_id("d", {"lr": 0.1}, "model")
        await cache.set_model_id("d", {"lr": 0.1}, "of another", "other")
        await cache.set_eval_log_paths("m", {"t": "/log"}, "inspect")
        await cache.set_eval_log_paths("m", {"t": "/limited"}, "inspect", {"limit": 3})
        models = [("d", {"lr": 0.1}), ("e", {}), ["d", {"lr": 0.1}, "other"], ("d", {"lr": 0.1}, "openai")]
        evals = [("m", "t", "inspect", {"limit": 3}), ("m", "u", "inspect"), ("m", "t", "inspect"), ("m", "t", "other")]
        for _ in range(2):
            assert await cache.get_many("dataset", ["e", "d", "e", "d"]) == [None, "file", None, "file"]
            assert await cache.get_many("model", models) == ["model", None, "of another", "model"]
            assert await cache.get_many("eval", evals) == ["/limited", None, "/log", None]

    run(body)


def test_many_questions_may_be_none_and_ten_thousand(run: Run) -> None:
    """Nothing is asked and nothing answered; as many as fit into a request; and not one more."""

    async def body(cache: CacheBackend) -> None:
        assert await cache.get_many("dataset", []) == await cache.get_many("model", ()) == []
        await cache.set_file_id("9999", "last")
        keys = [str(number) for number in range(10_000)]
        assert await cache.get_many("dataset", keys) == [None] * 9_999 + ["last"]
        with pytest.raises(CacheRequestError, match="in parts"):
            await cache.get_many("dataset", [*keys, "one more"])

    run(body)


def test_entries_say_what_they_were_made_from(run: Run) -> None:
    """The older fields, and labels and version of the client that stored them."""

    async def body(cache: CacheBackend) -> None:
        config = {"layers": (1, 2), "names": {3: None}}
        await cache.set_file_id("d", "file")
        await cache.set_model_id("d", config, "model")
        await cache.set_eval_log_paths("m", {"t": "/log"}, "inspect", {"sizes": (1, 2)})
        (dataset,), (model,), (log,) = await cache.list_datasets(), await cache.list_models(), await cache.list_evals()
        assert (dataset.dataset_hash, dataset.file_id) == ("d", "file")
        assert model.cache_key == make_model_cache_key("d", config, "openai")
        assert (model.dataset_hash, model.model_id, model.backend_type) == ("d", "model", "openai")
        assert model.config == {"layers": [1, 2], "names": {"3": None}}
        assert (log.id, log.model_id, log.task_id, log.backend_type) == (1, "m", "t", "inspect")
        assert log.inspect_kwargs_hash == hash_dict({"sizes": (1, 2)})
        assert log.inspect_kwargs == {"sizes": [1, 2]}
        for entry in (dataset, model, log):
            assert (entry.labels, entry.version, entry.pinned) == (LABELS, "v1", False)
            assert (entry.created_at or "").endswith("Z")

    run(body)


def test_listings_are_filtered(run: Run) -> None:
    """By model, by task, by both."""

    async def body(cache: CacheBackend) -> None:
        for model in ("m1", "m2"):
            await cache.set_model_id("d", {"m": model}, model)
            await cache.set_eval_log_paths(model, {"t1": "/1", "t2": "/2"}, "inspect")
        assert [entry.model_id for entry in await cache.list_models("m2")] == ["m2"]
        assert await cache.list_models("m3") == []
        assert len(await cache.list_evals("m1")) == len(await cache.list_evals(task_id="t1")) == 2
        (only,) = await cache.list_evals("m1", "t2")
        assert (only.model_id, only.task_id) == ("m1", "t2")

    run(body)


def test_clearing_takes_what_matches_and_counts_it(run: Run) -> None:
    """None is all, an empty list nothing, two lists both of them."""

    async def body(cache: CacheBackend) -> None:
        for name in "abc":
            await cache.set_file_id(name, "file")
            await cache.set_model_id(name, {}, f"model {name}")
            await cache.set_eval_log_paths(f"m {name}", {"t1": "/1", "t2": "/2"}, "inspect")
        assert await cache.clear_datasets([]) == await cache.clear_models([]) == 0
        assert await cache.clear_evals([], None) == await cache.clear_evals(None, []) == 0
        assert await cache.clear_datasets(["a", "a", "nobody"]) == 1
        assert await cache.get_file_id("a") is None
        assert await cache.clear_models(["model b"]) == 1
        assert await cache.get_model_id("b", {}) is None
        assert await cache.clear_evals(["m a", "m b"], ["t1"]) == 2
        assert await cache.get_eval_log_paths("m a", ["t2"], "inspect") == {"t2": "/2"}
        assert await cache.clear_evals() == 4
        stats = await cache.get_stats()
        assert (stats.num_datasets, stats.num_models, stats.num_evals) == (2, 2, 0)
        assert await cache.clear_all() == {"datasets": 2, "models": 2, "evals": 0}
        assert [*await cache.list_datasets(), *await cache.list_models()] == []

    run(body)


def test_stats_and_sizes_have_the_promised_names(run: Run) -> None:
    """Counts, and bytes by category that add up."""

    async def body(cache: CacheBackend) -> None:
        await cache.set_file_id("d", "file")
        sizes = await cache.get_size_breakdown()
        assert list(sizes) == ["datasets", "runs", "evals", "database", "trash", "staging", "ballast"]
        assert sizes["database"] > 0
        assert (await cache.get_stats()).total_size_bytes > 0

    run(body)


MISTAKES: list[Callable[[Any], Any]] = [
    lambda cache: cache.get_file_id(""),
    lambda cache: cache.get_file_id(7),
    lambda cache: cache.set_file_id("d", ""),
    lambda cache: cache.set_file_id("d", "\ud800"),
    lambda cache: cache.set_model_id("d", {"lr": float("nan")}, "m"),
    lambda cache: cache.get_model_id("d", {"tags": {1}}),
    lambda cache: cache.get_evals("m", "task", "inspect"),
    lambda cache: cache.get_evals("", [], "inspect"),
    lambda cache: cache.get_eval_log_paths("m", ["t"], ""),
    lambda cache: cache.set_eval_log_paths("m", {"t": "/log", "u": None}, "inspect"),
    lambda cache: cache.set_eval_log_paths("m", ["t"], "inspect"),
    lambda cache: cache.set_eval_log_paths("m", {"t": "/log"}, "inspect", {"x": b"y"}),
    lambda cache: cache.get_many("nonsense", []),
    lambda cache: cache.get_many("dataset", "abc"),
    lambda cache: cache.get_many("dataset", None),
    lambda cache: cache.get_many("dataset", ["d", 7]),
    lambda cache: cache.get_many("model", [("d",)]),
    lambda cache: cache.get_many("model", [("d", {"lr": float("nan")})]),
    lambda cache: cache.get_many("eval", [("m", "t", "inspect", None, 1)]),
    lambda cache: cache.clear_datasets("abc"),
    lambda cache: cache.clear_models([None]),
    lambda cache: cache.list_models(7),
    lambda cache: cache.list_evals("m", "\ud800"),
]


def test_mistakes_are_refused_and_store_nothing(run: Run) -> None:
    """Every backend refuses the same arguments, before anything is changed."""

    async def body(cache: CacheBackend) -> None:
        for mistake in MISTAKES:
            with pytest.raises(CacheRequestError) as caught:
                await mistake(cache)
            assert isinstance(caught.value, CacheError)
        with pytest.raises(UncacheableConfigError, match=r"config\.lr"):
            await cache.set_model_id("d", {"lr": float("inf")}, "m")
        stats = await cache.get_stats()
        assert (stats.num_datasets, stats.num_models, stats.num_evals) == (0, 0, 0)

    run(body)


def test_values_survive_whatever_they_hold(run: Run) -> None:
    """Names that are no UTF-8, quotes, NULs, long texts."""

    async def body(cache: CacheBackend) -> None:
        odd = os.fsdecode(b"/logs/caf\xe9 'x' \"y\".json")
        for number, value in enumerate([odd, "a\0b", "ä" * 10_000, " ", "null"]):
            await cache.set_file_id(f"d{number}", value)
            assert await cache.get_file_id(f"d{number}") == value
            await cache.set_eval_log_paths(f"m{number}", {"t'\"\0": value}, "inspect")
            assert await cache.get_eval_log_paths(f"m{number}", ["t'\"\0"], "inspect") == {"t'\"\0": value}

    run(body)


def test_what_a_caller_does_to_an_entry_stays_with_the_caller(run: Run) -> None:
    """Entries, configurations and labels are copies."""

    async def body(cache: CacheBackend) -> None:
        config = {"layers": [1]}
        await cache.set_model_id("d", config, "model")
        config["layers"].append(2)
        (entry,) = await cache.list_models()
        entry.labels["mine"] = "x"
        (entry.config or {})["mine"] = "x"
        (again,) = await cache.list_models()
        assert (again.labels, again.config) == (LABELS, {"layers": [1]})

    run(body)


@pytest.mark.parametrize("kind", [Cache, InMemoryCache])
def test_backend_fulfils_the_protocol(kind: type[Any], cache_dir: Path) -> None:
    """Methods, parameters and defaults are those of `CacheBackend`."""
    cache = kind() if kind is InMemoryCache else kind(cache_dir)
    assert isinstance(cache, CacheBackend)
    for name, method in vars(CacheBackend).items():
        if inspect.iscoroutinefunction(method):
            if name.startswith("clear_"):  # a backend without files has no plans, and no trash
                for other in (kind, SyncCache):
                    assert _starts_alike(method, getattr(other, name)), name
                continue
            assert inspect.signature(method) == inspect.signature(getattr(kind, name)), name
            if not name.startswith(("claim_", "get_or_")):  # these take functions, or give blocks, that are awaited
                assert inspect.signature(method) == inspect.signature(getattr(SyncCache, name)), name
            assert inspect.iscoroutinefunction(getattr(kind, name))
            assert not inspect.iscoroutinefunction(getattr(SyncCache, name))


def _starts_alike(method: Callable[..., object], other: Callable[..., object]) -> bool:
    wanted = list(inspect.signature(method).parameters.items())
    return list(inspect.signature(other).parameters.items())[: len(wanted)] == wanted


def test_utilities_look_after_any_backend() -> None:
    """Synchronously, with or without a running event loop."""
    cache = InMemoryCache()
    asyncio.run(cache.set_file_id("d", "file"))
    utils = CacheUtils(cache)
    assert [entry.file_id for entry in utils.list_datasets()] == ["file"]

    async def inside() -> int:
        return utils.clear_datasets(["d"])

    assert asyncio.run(inside()) == 1
    assert anyio.run(inside, backend="trio") == 0
    assert utils.get_stats().num_datasets == 0
