"""Entries with real files, and what clean-ups made of them: what tests of clean-up do again and again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from motoolsd.store.entries import SetPin
from motoolsd.wire.cleaning import ApplyPlan, Cleaned, Criteria, Kept, MakePlan, PlanItem, Progress, Protected, Undo
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import ListEntries, ModelPage
from motoolsd.wire.messages import PutEvals, PutModel
from motoolsd.wire.sizes import GetSizes, Sizes
from tests.engine.bench import Bench
from tests.samples import put_evals, put_model, request_key

SIZE_BYTES = 5_000


class Plan:
    """A plan as a client puts it together from its pages."""

    def __init__(self) -> None:
        """Empty."""
        self.plan_id = ""
        self.items: list[PlanItem] = []
        self.protected: list[Protected] = []
        self.kept: list[Kept] = []
        self.freed_bytes = 0

    @property
    def names(self) -> list[tuple[str, str]]:
        """Kind and value, or the key of an orphan."""
        return [(item.kind, item.value.decode() or item.key) for item in self.items]


def write(directory: Path, path: str, size_bytes: int = SIZE_BYTES) -> bytes:
    """A file below the cache directory; its path as rows have it."""
    file = directory / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size_bytes)
    return path.encode()


async def publish_model(bench: Bench, name: str, *, dataset: str = "d", ttl_s: float | None = None) -> str:
    """A model whose run directory holds one file; its key."""
    write(bench.directory, f"runs/{name}/weights")
    put = put_model(dataset, name.encode(), name=name)
    await bench.engine.publishing.publish(with_files(put, f"runs/{name}", ttl_s=ttl_s))
    return await key_of(bench, name)


def with_files(put: PutModel, *paths: str, ttl_s: float | None = None) -> PutModel:
    """The same with files."""
    return PutModel(
        request_key=request_key(),
        dataset_hash=put.dataset_hash,
        config=put.config,
        backend_type=put.backend_type,
        model_id=put.model_id,
        files=[path.encode() for path in paths],
        ttl_s=ttl_s,
    )


async def publish_eval(bench: Bench, task: str, path: str) -> None:
    """An evaluation whose log lies in the cache."""
    owned = write(bench.directory, path)
    put = put_evals({task: bytes(bench.directory / path)})
    await bench.engine.publishing.publish(
        PutEvals(
            request_key=request_key(),
            model_id=put.model_id,
            backend_type=put.backend_type,
            logs=put.logs,
            files={task: owned},
        )
    )


async def key_of(bench: Bench, model_id: str) -> str:
    """The key of a model."""
    async for page in bench.engine.listing.entries(ListEntries(kind=Kind.MODEL, model_id=model_id)):
        assert isinstance(page, ModelPage)
        for row in page.items:
            return row.cache_key
    raise AssertionError(model_id)


async def models(bench: Bench) -> list[str]:
    """The values of all models that are listed."""
    pages = [page async for page in bench.engine.listing.entries(ListEntries(kind=Kind.MODEL))]
    return [row.value.decode() for page in pages for row in page.items]


async def plan(bench: Bench, *kinds: Kind, **criteria: Any) -> Plan:  # noqa: ANN401 - whatever Criteria has
    """What would go."""
    made = Plan()
    async for page in bench.engine.cleaner.plan(MakePlan(criteria=Criteria(kinds=kinds, **criteria))):
        made.items += page.items
        made.protected += page.protected
        made.kept += page.kept
        made.plan_id, made.freed_bytes = page.plan_id, page.freed_bytes
    return made


async def finish(stream: AsyncGenerator[Any, None]) -> Cleaned:
    """The end of a stream of progress."""
    parts = [part async for part in stream]
    assert all(isinstance(part, Progress) for part in parts[:-1])
    assert isinstance(parts[-1], Cleaned)
    return parts[-1]


async def apply(bench: Bench, plan_id: str, *, to_trash: bool = True) -> Cleaned:
    """Carry a plan out."""
    return await finish(bench.engine.cleaner.apply(ApplyPlan(plan_id=plan_id, to_trash=to_trash)))


async def remove(bench: Bench, *kinds: Kind, to_trash: bool = True, **criteria: Any) -> Cleaned:  # noqa: ANN401 - as above
    """Plan and carry out."""
    return await apply(bench, (await plan(bench, *kinds, **criteria)).plan_id, to_trash=to_trash)


async def undo(bench: Bench, removal_id: int | None = None) -> Cleaned:
    """Put a removal back."""
    return await finish(bench.engine.cleaner.undo(Undo(removal_id=removal_id)))


async def sizes(bench: Bench, *, rescan: bool = False) -> Sizes:
    """What everything takes."""
    *_, found = [part async for part in bench.engine.census.sizes(GetSizes(rescan=rescan))]
    assert isinstance(found, Sizes)
    return found


async def pin(bench: Bench, name: str, **options: Any) -> None:  # noqa: ANN401 - whatever SetPin has
    """Pin an entry."""
    await bench.writer.change(SetPin(kinds=tuple(Kind), name=name, is_pinned=True, **options))


def files_below(directory: Path) -> dict[str, bytes]:
    """Every file of entries and trash, with its content."""
    places = [directory / name for name in ("datasets", "runs", "evals", "trash")]
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for place in places
        for path in place.rglob("*")
        if path.is_file()
    }
