"""The nearest entries are those that a comparison with all of them would find."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest
from blockbuster import BlockBuster

from motoolsd.core.errors import StorageFailed
from motoolsd.core.inputs import differences, inputs_of_dataset, inputs_of_question
from motoolsd.core.slots import Slots
from motoolsd.engine import nearest as nearest_module
from motoolsd.engine.index import Index
from motoolsd.engine.nearest import CANDIDATES_MAX, Nearest
from motoolsd.engine.writer import Writer
from motoolsd.store.entries import SetVoid
from motoolsd.store.migration import prepare_database
from motoolsd.store.nearest import SIGNED_KINDS, select_unsigned
from motoolsd.store.store import Store, open_store
from motoolsd.store.writes import BatchItem
from motoolsd.wire.keys import Kind, eval_key, json_hash
from tests.fakes import FakeClock
from tests.samples import commit, execute, put_evals, put_model
from tests.signing import Config, changed, key_of_model, model_question, prepare_signing, random_config


class Scene:
    """A database with models, and what looks for them."""

    def __init__(self, database: str, store: Store, writer: Writer) -> None:
        """Over an open store; the writer runs."""
        self.database = database
        self.store = store
        self.writer = writer
        self.nearest = Nearest(store, writer)
        self.configs: list[Config] = []

    async def add(self, *configs: Config) -> None:
        """Store models, one after another."""
        self.configs += configs
        for start in range(0, len(configs), 100):
            await commit(self.store, *[put_model(**config) for config in configs[start : start + 100]])

    async def put(self, *items: BatchItem) -> None:
        """Commit anything."""
        await commit(self.store, *items)

    async def sign(self) -> int:
        """Sign everything; how many there were."""
        count = 0
        while number := await self.nearest.sign_some():
            count += number
        return count

    async def unsigned(self) -> int:
        """Rows without a signature."""
        pages = [await self.store.read(select_unsigned, kind, 10_000, 2**30) for kind in SIGNED_KINDS]
        return sum(map(len, pages))

    async def found(self, config: Config, limit: int = 3) -> list[tuple[str, int]]:
        """Key and number of differences of the nearest."""
        entries = await self.nearest.find(model_question(config), limit)
        return [(entry.key, len(entry.differences)) for entry in entries]

    def expected(self, config: Config, limit: int = 3) -> list[tuple[str, int]]:
        """The same by a comparison with every entry."""
        asked = model_question(config)
        counts = [
            (len(differences(model_question(stored), asked)), -number) for number, stored in enumerate(self.configs)
        ]
        return [(key_of_model(self.configs[-number]), count) for count, number in sorted(counts)[:limit]]


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A fresh cache.db that can hold signatures."""
    path = str(tmp_path_factory.mktemp("near") / "cache.db")
    prepare_database(path)
    prepare_signing(path)
    return path


@asynccontextmanager
async def opened(database: str, queue_max: int = 100) -> AsyncIterator[Scene]:
    """A scene whose writer runs until the block is left."""
    async with open_store(database, synchronous="NORMAL") as store:
        writer = Writer(store, Index(10), Slots(0), FakeClock(), queue_max=queue_max, batch_max=100)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(writer.run)
                try:
                    yield Scene(database, store, writer)
                finally:
                    writer.close()


@pytest.fixture
async def scene(database: str) -> AsyncIterator[Scene]:
    """An open scene."""
    async with opened(database) as one:
        yield one


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("signed", ["none", "some", "all"])
async def test_nearest_are_those_of_a_full_comparison(scene: Scene, seed: int, signed: str) -> None:
    """Among many that have nothing to do with the question, those with 1 to 3 other leaves, the fewest first."""
    generator = random.Random(seed)
    asked = random_config(generator)
    near = [changed(asked, count, generator) for count in (1, 1, 2, 2, 3, 3)]
    others = [random_config(generator) for _ in range(120)]
    configs = [*near, *others]
    generator.shuffle(configs)
    await scene.add(*configs[:70])
    if signed != "none":
        await scene.sign()
    await scene.add(*configs[70:])
    if signed == "all":
        await scene.sign()
    assert await scene.found(asked, 6) == scene.expected(asked, 6)
    await scene.writer.wait_settled()
    assert await scene.found(asked, 6) == scene.expected(asked, 6)


async def test_of_equally_near_ones_the_newest_comes_first(scene: Scene) -> None:
    """Of a sweep over one parameter the last runs are shown, also where there are more than are compared."""
    await scene.add(*[{"epochs": number, "text": "x"} for number in range(2 * CANDIDATES_MAX)])
    await scene.sign()
    found = await scene.found({"epochs": -1, "text": "x"})
    assert found == [(key_of_model({"epochs": 2 * CANDIDATES_MAX - number, "text": "x"}), 1) for number in (1, 2, 3)]


async def test_differences_lead_from_the_entry_to_the_question(scene: Scene) -> None:
    """`cached` is what the entry has, `asked` what was asked for."""
    await scene.add({"hyperparameters": {"epochs": 3}})
    (entry,) = await scene.nearest.find(model_question({"hyperparameters": {"epochs": 5}}))
    (one,) = entry.differences
    assert (one.path, one.cached, one.asked) == ("config.hyperparameters.epochs", 3, 5)
    assert (entry.value, entry.void_reason, entry.created_at) == (b"model", None, "2026-01-31T23:59:59.123Z")


async def test_entry_that_misses_itself_says_why(scene: Scene) -> None:
    """It explains as much as one that hits."""
    await scene.add({"epochs": 3})
    await scene.put(SetVoid(((Kind.MODEL, key_of_model({"epochs": 3})),), "file gone"))
    (entry,) = await scene.nearest.find(model_question({"epochs": 3}))
    assert (entry.void_reason, entry.differences) == ("file gone", [])


async def test_nothing_is_near_to_a_dataset_or_to_the_unknown(scene: Scene) -> None:
    """One is its content; of the other nothing is known."""
    await scene.add({"epochs": 3})
    assert await scene.nearest.find(inputs_of_dataset("d")) == []
    assert await scene.nearest.find(inputs_of_question(Kind.MODEL, {})) == []


async def test_model_of_the_older_package_is_near_to_nothing(scene: Scene) -> None:
    """Nothing is known of its inputs."""
    execute(scene.database, "INSERT INTO trained_models (cache_key, model_id) VALUES ('k', 'm')")
    assert await scene.found({"epochs": 3}) == []
    assert await scene.sign() <= 1
    assert await scene.found({"epochs": 3}) == []


async def test_nearest_evaluation_is_found(scene: Scene) -> None:
    """By what its key is made of; one of the older package by what it kept."""
    kwargs = json.dumps({"limit": 5}).encode()
    await scene.put(
        put_evals({"gsm8k": b"/a", "mmlu": b"/b"}, model_id="m1", kwargs=kwargs),
        put_evals({"gsm8k": b"/c"}, model_id="m2"),
    )
    execute(
        scene.database,
        "INSERT INTO eval_results (model_id, task_id, backend_type, log_file_path, inspect_kwargs_hash, created_at)"
        " VALUES ('m1', 'arc', 'inspect', '/d', 'hash', '2025-01-31 23:59:59')",
    )
    fields = {"model_id": "m1", "task_id": "gsm8k", "backend_type": "inspect"}
    asked = inputs_of_question(Kind.EVAL, {**fields, "kwargs": {"limit": 6}})
    entries = await scene.nearest.find(asked, 4)
    assert entries[0].key == eval_key("m1", "gsm8k", "inspect", json_hash(kwargs.decode()))
    paths = [[one.path for one in entry.differences] for entry in entries]
    assert paths == [["kwargs.limit"], ["model_id", "kwargs.limit"], ["task_id", "kwargs.limit"], ["task_id", "kwargs"]]


async def test_question_signs_what_it_looked_at(scene: Scene) -> None:
    """The next one finds it signed."""
    await scene.add({"epochs": 1}, {"epochs": 2})
    assert await scene.unsigned() == 2
    await scene.found({"epochs": 3})
    await scene.writer.wait_settled()
    assert await scene.unsigned() == 0


async def test_question_looks_at_no_more_unsigned_rows_than_it_may(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latest ones; the others are found once they are signed."""
    monkeypatch.setattr(nearest_module, "UNSIGNED_MAX", 2)
    await scene.add(*[{"epochs": number} for number in range(5)])
    assert len(await scene.found({"epochs": 9}, 9)) == 2
    assert await scene.sign() >= 3
    assert len(await scene.found({"epochs": 9}, 9)) == 5


async def test_signing_comes_to_an_end(scene: Scene) -> None:
    """Part by part, each kind."""
    await scene.add({"epochs": 1}, {"epochs": 2})
    await scene.put(put_evals({"t": b"/log"}))
    assert [await scene.nearest.sign_some(1) for _ in range(4)] == [1, 1, 1, 0]
    assert await scene.unsigned() == 0


async def test_question_is_answered_while_nothing_can_be_written(scene: Scene) -> None:
    """Signatures are written down if there is room; the answer does not wait for it."""
    await scene.add({"epochs": 1})
    scene.writer.close()
    assert len(await scene.found({"epochs": 3})) == 1
    with pytest.raises(StorageFailed):
        await scene.nearest.sign_some()


async def test_full_queue_holds_up_no_question(database: str) -> None:
    """As little as a closed one."""
    async with opened(database, queue_max=0) as scene:
        await scene.add({"epochs": 1})
        assert len(await scene.found({"epochs": 3})) == 1
        assert await scene.unsigned() == 1


async def test_questions_side_by_side_are_all_answered(scene: Scene) -> None:
    """Also where one of them is cancelled."""
    await scene.add(*[{"epochs": number} for number in range(100)])
    answers: dict[int, Sequence[tuple[str, int]]] = {}

    async def ask(number: int) -> None:
        answers[number] = await scene.found({"epochs": number})

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(ask, number)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ask(99)
    assert {number: keys[0] for number, keys in answers.items()} == {
        number: (key_of_model({"epochs": number}), 0) for number in range(10)
    }


async def test_large_inputs_are_compared_up_to_a_bound(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest by signature are; a slice of them at least."""
    monkeypatch.setattr(nearest_module, "COMPARED_SIZE_MAX_BYTES", 1)
    monkeypatch.setattr(nearest_module, "SLICE_ROWS", 2)
    await scene.add(*[{"epochs": number, "seed": number} for number in range(5)], {"epochs": 9, "seed": 1})
    found = await scene.found({"epochs": 9, "seed": 9}, 9)
    assert len(found) == 2
    assert found[0] == (key_of_model({"epochs": 9, "seed": 1}), 1)


async def test_event_loop_makes_no_blocking_call(scene: Scene, no_blocking: BlockBuster) -> None:
    """Reading, signing and comparing are other threads' work."""
    await scene.add(*[{"epochs": number} for number in range(50)])
    assert await scene.sign() == 50
    assert len(await scene.found({"epochs": 99})) == 3
