"""Which entries a command is about: a kind, and filters that go with it.

Layer: motools.cli. Imports options and motools.cache.
Invariant: a filter that makes no sense for the kind is refused, never ignored: ignoring one would clear too much.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from motools.cache.entries import CacheStats, DatasetEntry, Entry, EvalEntry, ModelEntry
from motools.cache.errors import CacheRequestError
from motools.cli.options import Clearable, Kind

if TYPE_CHECKING:
    from motools.cache.cleaning import CleanupPlan
    from motools.cache.explanations import Listing
    from motools.cache.lookups import KindName
    from motools.cache.utils import CacheUtils

Filters = Mapping[str, Any]
"""Options of the API, as `filter_options` makes them."""
ENTRY_TYPES: Mapping[Kind, type[Entry]] = {
    Kind.DATASETS: DatasetEntry,
    Kind.MODELS: ModelEntry,
    Kind.EVALS: EvalEntry,
}
_SINGULAR: Mapping[str, KindName] = {"datasets": "dataset", "models": "model", "evals": "eval"}
_PLURAL = {singular: plural for plural, singular in _SINGULAR.items()}
_IDS: Mapping[str, tuple[str, ...]] = {
    "datasets": ("datasets",),
    "models": ("model_ids",),
    "evals": ("model_ids", "task_ids"),
}
"""Filters that the API takes by place: what is computed under them is given up, too."""


def kinds_meant(kind: Kind | Clearable, filters: Filters) -> list[KindName]:
    """The kinds that a command is about: one, or all that the filters fit.

    Raises:
        typer.BadParameter: a filter does not fit, or cannot be read; or two exclude each other.
    """
    from motools.cache import filtering

    try:
        return filtering.kinds_meant(filters, None if kind is Clearable.ALL else _SINGULAR[kind.value])
    except CacheRequestError as error:
        raise typer.BadParameter(str(error)) from error


def read_entries(
    utils: CacheUtils,
    kind: Kind,
    filters: Filters,
    *,
    sort: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Listing:
    """The entries that fit."""
    (name,) = kinds_meant(kind, filters)
    return utils.list_entries(name, sort=sort, limit=limit, cursor=cursor, **filters)


def count_entries(utils: CacheUtils, kind: Clearable, filters: Filters, *, downstream: bool = False) -> dict[str, int]:
    """How many entries of each kind fit, with what was made from them."""
    kinds = kinds_meant(kind, filters)
    if downstream:
        found = Counter(item.kind for item in plan_clear(utils, kind, filters, force=True, downstream=True).items)
        return {plural: found[singular] for singular, plural in _PLURAL.items() if found[singular] or singular in kinds}
    if not filters:
        counts = _counts(utils.get_stats())
        return {_PLURAL[name]: counts[_PLURAL[name]] for name in kinds}
    return {_PLURAL[name]: len(utils.list_entries(name, **filters).items) for name in kinds}


def clear_entries(
    utils: CacheUtils, kind: Clearable, filters: Filters, *, force: bool, downstream: bool = False
) -> int:
    """Remove the entries that fit, pinned ones only with `force`; how many there were."""
    if kind is Clearable.ALL and not filters:
        return sum(utils.clear_all(force=force).values())
    removed = 0
    # What was made from others goes first: it is found by them.
    for name in reversed(kinds_meant(kind, filters)):
        ids, others = _split(_PLURAL[name], filters)
        clear: Callable[..., int] = getattr(utils, f"clear_{_PLURAL[name]}")
        removed += clear(*ids, **others, force=force, downstream=downstream)
    return removed


def plan_clear(
    utils: CacheUtils, kind: Clearable, filters: Filters, *, force: bool, downstream: bool = False
) -> CleanupPlan:
    """What would go with its files."""
    kinds = kinds_meant(kind, filters)
    if not filters and kind is Clearable.ALL:
        return utils.clear_all(delete_files=True, dry_run=True, force=force)
    if len(kinds) > 1:
        return utils.prune(dry_run=True, kinds=kinds, force=force, downstream=downstream, **filters)
    ids, others = _split(_PLURAL[kinds[0]], filters)
    clear: Callable[..., CleanupPlan] = getattr(utils, f"clear_{_PLURAL[kinds[0]]}")
    options = {**others, "force": force, "downstream": downstream, "delete_files": True, "dry_run": True}
    return clear(*ids, **options)


def _split(plural: str, filters: Filters) -> tuple[list[list[str] | None], dict[str, Any]]:
    """The ids that a clear takes by place, and the other filters."""
    others = dict(filters)
    return [others.pop(name, None) for name in _IDS[plural]], others


def counts_text(counts: Mapping[str, int]) -> str:
    """Counts in words: `1 dataset, 2 models and 0 evals`."""
    words = [f"{count} {name.removesuffix('s') if count == 1 else name}" for name, count in counts.items()]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _counts(stats: CacheStats) -> dict[str, int]:
    return {"datasets": stats.num_datasets, "models": stats.num_models, "evals": stats.num_evals}
