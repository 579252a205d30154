"""Runs `motools` inside the test's process, over a cache in memory."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from motools.cache import CacheUtils, InMemoryCache, Listing, Usage
from motools.cache.cleaning import EntrySize, OnProgress, Progress, SizeReport
from motools.cache.lookups import KindName
from motools.cli import cache as cache_commands
from motools.cli import filter_options, main
from motoolsd.wire.sizes import Size


class Done(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


Motools = Callable[..., Done]

FILTERS = {f"--{name.replace('_', '-')}" for name in filter_options.NAMES}


class MemoryUtils(CacheUtils):
    """The management API of a cache in memory, which has no files but says that it has, and knows some filters."""

    def list_entries(
        self,
        kind: KindName,
        *,
        sort: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        **filters: Any,  # noqa: ANN401 - as the command passes them
    ) -> Listing:
        """What passes filters by ids and datasets, in the order in which it was stored."""
        assert (sort, cursor) == (None, None), "memory does not sort"
        listings: dict[str, Callable[[], list[Any]]] = {
            "dataset": self.list_datasets,
            "model": self.list_models,
            "eval": self.list_evals,
        }
        found = listings[kind]()
        names = {"model_ids": "model_id", "task_ids": "task_id", "datasets": "dataset_hash"}
        for name, wanted in filters.items():
            found = [entry for entry in found if getattr(entry, names[name]) in wanted]
        return Listing(items=found[:limit])

    def get_usage(self, **_options: Any) -> list[Usage]:  # noqa: ANN401 - as above
        """Nothing is counted."""
        return []

    def get_size_report(
        self, *, rescan: bool = False, top: int = 0, on_progress: OnProgress | None = None
    ) -> SizeReport:
        """Made up."""
        if rescan and on_progress is not None:
            on_progress(Progress(done=3, total=4, unit="files"))
        entry = EntrySize(kind="eval", key="k", value="one.eval", size_bytes=10, allocated_bytes=4_096)
        return SizeReport(
            categories={
                "datasets": Size(1_500, 4_096),
                "runs": Size(),
                "evals": Size(10, 4_096),
                "database": Size(2**20, 2**20),
                "trash": Size(),
                "staging": Size(),
            },
            orphans=Size(500, 4_096),
            num_orphans=2,
            num_dangling=1,
            scanned_at="2026-11-23T12:00:00.123Z",
            top=[entry] * min(top, 1),
        )


def without_filters(help_text: str) -> list[str]:
    """The lines of a help, without those of the filters, which are the same everywhere."""
    lines: list[str] = []
    is_filter = False
    for line in help_text.splitlines():
        if line.startswith("  -"):
            is_filter = line.split()[0].rstrip(",") in FILTERS
        if not is_filter or not line.startswith("  "):
            lines.append(line)
    return lines


@pytest.fixture
def motools(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Motools:
    """Runs a command line through the script's entry point."""

    def run(*words: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["motools", *words])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # typer sets its own
        with pytest.raises(SystemExit) as end:
            main()
        out, err = (text.decode("utf-8", "surrogateescape") for text in capsysbinary.readouterr())
        assert isinstance(end.value.code, int)
        return Done(end.value.code, out, err)

    return run


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> InMemoryCache:
    """What the commands of `motools cache` look into, whichever directory they are given."""
    memory = InMemoryCache()
    monkeypatch.setattr(cache_commands, "open_utils", lambda _directory: MemoryUtils(memory))
    return memory


@pytest.fixture
def filled(memory: InMemoryCache) -> InMemoryCache:
    """The same with two datasets, three models and three evaluations in it."""

    async def fill() -> None:
        for name in ("a", "b"):
            await memory.set_file_id(f"hash-{name}", f"file-{name}")
        await memory.set_model_id("hash-a", {"lr": 1e-4}, "ft-1")
        await memory.set_model_id("hash-b", {"lr": 1e-4}, "ft-2")
        await memory.set_model_id("hash-b", {"lr": 2e-4}, "ft-3", backend_type="dummy")
        await memory.set_eval_log_paths("ft-1", {"task_1": "one.eval", "task_2": "two.eval"}, "inspect", {"limit": 3})
        await memory.set_eval_log_paths("ft-2", {"task_1": "three.eval"}, "inspect")

    asyncio.run(fill())
    return memory
