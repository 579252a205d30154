"""Which entries a command is about: a kind, and filters that go with it.

Layer: motools.cli. Imports options and motools.cache.
Invariant: a filter that makes no sense for the kind is refused, never ignored: ignoring one would clear too much.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import typer

from motools.cache.entries import CacheStats, DatasetEntry, Entry, EvalEntry, ModelEntry
from motools.cli.options import Clearable, Kind

if TYPE_CHECKING:
    from motools.cache.cleaning import CleanupPlan
    from motools.cache.utils import CacheUtils

ENTRY_TYPES: Mapping[Kind, type[Entry]] = {
    Kind.DATASETS: DatasetEntry,
    Kind.MODELS: ModelEntry,
    Kind.EVALS: EvalEntry,
}
OPTIONS = {"dataset_hash": "--dataset-hash", "model_id": "--model-id", "task_id": "--task-id"}
LIST_FILTERS: Mapping[str, tuple[str, ...]] = {
    "datasets": ("dataset_hash",),
    "models": ("model_id", "dataset_hash"),
    "evals": ("model_id", "task_id"),
}
CLEAR_FILTERS: Mapping[str, tuple[str, ...]] = {
    "datasets": ("dataset_hash",),
    "models": ("model_id",),
    "evals": ("model_id", "task_id"),
    "all": (),
}


class Filters(NamedTuple):
    """Values that an entry's field may have; None where any will do. All that are given must fit."""

    dataset_hash: list[str] | None = None
    model_id: list[str] | None = None
    task_id: list[str] | None = None

    def given(self) -> dict[str, list[str]]:
        """Those that were given, by the field's name."""
        return {name: values for name, values in self._asdict().items() if values is not None}

    def fits(self, entry: Entry) -> bool:
        """Whether an entry has the values asked for."""
        return all(getattr(entry, name) in values for name, values in self.given().items())


def check_filters(kind: str, filters: Filters, allowed: Mapping[str, tuple[str, ...]]) -> None:
    """Make sure that the filters go with the kind.

    Raises:
        typer.BadParameter: one does not; the text names those that do.
    """
    for name in filters.given():
        if name not in allowed[kind]:
            fitting = " and ".join(OPTIONS[other] for other in allowed[kind]) or "none"
            text = f"it is no filter for {kind}; the filters for {kind}: {fitting}"
            raise typer.BadParameter(text, param_hint=OPTIONS[name])


def read_entries(utils: CacheUtils, kind: Kind, filters: Filters) -> list[Entry]:
    """The entries that fit; a single value is looked for by the daemon, several are by us."""
    entries: list[Entry]
    if kind is Kind.DATASETS:
        entries = [*utils.list_datasets()]
    elif kind is Kind.MODELS:
        entries = [*utils.list_models(_only(filters.model_id))]
    else:
        entries = [*utils.list_evals(_only(filters.model_id), _only(filters.task_id))]
    return [entry for entry in entries if filters.fits(entry)]


def count_entries(utils: CacheUtils, kind: Clearable, filters: Filters) -> dict[str, int]:
    """How many entries of each kind fit."""
    if filters.given():
        return {kind.value: len(read_entries(utils, Kind(kind.value), filters))}
    counts = _counts(utils.get_stats())
    return counts if kind is Clearable.ALL else {kind.value: counts[kind.value]}


def clear_entries(utils: CacheUtils, kind: Clearable, filters: Filters, *, force: bool) -> dict[str, int]:
    """Remove the entries that fit, pinned ones only with `force`; how many of each kind that were."""
    if kind is Clearable.DATASETS:
        return {"datasets": utils.clear_datasets(filters.dataset_hash, force=force)}
    if kind is Clearable.MODELS:
        return {"models": utils.clear_models(filters.model_id, force=force)}
    if kind is Clearable.EVALS:
        return {"evals": utils.clear_evals(filters.model_id, filters.task_id, force=force)}
    return utils.clear_all(force=force)


def plan_clear(utils: CacheUtils, kind: Clearable, filters: Filters, *, force: bool) -> CleanupPlan:
    """What would go with its files."""
    if kind is Clearable.DATASETS:
        return utils.clear_datasets(filters.dataset_hash, delete_files=True, dry_run=True, force=force)
    if kind is Clearable.MODELS:
        return utils.clear_models(filters.model_id, delete_files=True, dry_run=True, force=force)
    if kind is Clearable.EVALS:
        return utils.clear_evals(filters.model_id, filters.task_id, delete_files=True, dry_run=True, force=force)
    return utils.clear_all(delete_files=True, dry_run=True, force=force)


def counts_text(counts: Mapping[str, int]) -> str:
    """Counts in words: `1 dataset, 2 models and 0 evals`."""
    words = [f"{count} {name.removesuffix('s') if count == 1 else name}" for name, count in counts.items()]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _counts(stats: CacheStats) -> dict[str, int]:
    return {"datasets": stats.num_datasets, "models": stats.num_models, "evals": stats.num_evals}


def _only(values: list[str] | None) -> str | None:
    return values[0] if values is not None and len(values) == 1 else None
