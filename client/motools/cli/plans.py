"""Clean-ups as commands show them: what would go, what stays and why, what came of it.

Layer: motools.cli. Imports tables and motools.cache.
Invariant: pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import to_builtins

from motools.cli.tables import Column, Item, plain, shown, size_text

if TYPE_CHECKING:
    from motools.cache.cleaning import CleanupPlan, CleanupResult, KeptPath, PlanItem, ProtectedEntry, TrashItem

NAMED_MAX = 10
"""Of what stays, so many are named at the terminal; JSON has all."""

PLAN_COLUMNS = (
    Column("kind", plain("kind")),
    Column("on disk", lambda item: size_text(item["allocated_bytes"]), is_number=True),
    Column("reason", plain("reason")),
    Column("value", lambda item: shown(item["value"] or None)),
    Column("key", plain("key")),
)
TRASH_COLUMNS = (
    Column("id", plain("id"), is_number=True),
    Column("removed (UTC)", lambda item: shown(item["removed_at"]).replace("T", " ").split(".")[0]),
    Column("entries", plain("entries"), is_number=True),
    Column("on disk", lambda item: size_text(item["allocated_bytes"]), is_number=True),
    Column("what", plain("reason")),
    Column("goes by itself", lambda item: shown(item["expires_at"])[:10]),
)


def plan_document(plan: CleanupPlan) -> dict[str, Any]:
    """A plan for programs."""
    return {name: to_builtins(getattr(plan, name)) for name in plan.__struct_fields__}


def result_document(result: CleanupResult) -> dict[str, Any]:
    """What came of it, for programs."""
    return {name: to_builtins(getattr(result, name)) for name in result.__struct_fields__}


def plan_items(items: Sequence[PlanItem]) -> list[Item]:
    """The rows of a table, the largest first."""
    return [to_builtins(item) for item in sorted(items, key=lambda item: -item.allocated_bytes)]


def plan_text(plan: CleanupPlan) -> str:
    """What would go, in a sentence: `3 models and 2 orphans, 1.2 GiB`."""
    return f"{_kinds_text(Counter(item.kind for item in plan.items))}, {size_text(plan.freed_bytes)}"


def largest_text(plan: CleanupPlan) -> list[str]:
    """A line for each of the largest items."""
    lines = []
    for item in sorted(plan.items, key=lambda item: -item.allocated_bytes)[:NAMED_MAX]:
        name = item.key if item.kind in ("dataset", "orphan") or not item.value else item.value
        lines.append(f"  {size_text(item.allocated_bytes):>10}  {item.kind} {shown(name)} ({item.reason})")
    if (more := len(plan.items) - NAMED_MAX) > 0:
        lines.append(f"  ... and {more:,} more")
    return lines


def staying_text(protected: Sequence[ProtectedEntry], kept: Sequence[KeptPath] = ()) -> list[str]:
    """A line for each of what stays, and why."""
    lines = [f"stays: {one.kind} {shown(one.key)}: {one.why}" for one in protected[:NAMED_MAX]]
    if (more := len(protected) - NAMED_MAX) > 0:
        lines.append(f"... and {more:,} more stay: --json names all")
    lines += [f"stays: {shown(one.path)}: {one.why}" for one in kept[:NAMED_MAX]]
    if (more := len(kept) - NAMED_MAX) > 0:
        lines.append(f"... and {more:,} more files stay: --json names all")
    return lines


def result_text(result: CleanupResult) -> str:
    """What went, in a few words: `3 models and 2 orphans, 1.2 GiB`."""
    counts = {
        "dataset": result.datasets,
        "model": result.models,
        "eval": result.evals,
        "orphan": result.orphans,
    }
    return f"{_kinds_text(counts)}, {size_text(result.freed_bytes)}"


def trash_text(item: TrashItem) -> str:
    """A removal in a few words."""
    paths = f"{item.paths:,} file{'' if item.paths == 1 else 's'} or directories" if item.paths else "no files"
    entries = f"{item.entries:,} entr{'y' if item.entries == 1 else 'ies'}"
    return f"removal {item.id} ({shown(item.reason)}: {entries}, {paths}, {size_text(item.allocated_bytes)})"


def _kinds_text(counts: Counter[str] | dict[str, int]) -> str:
    words = [f"{count:,} {kind}{'' if count == 1 else 's'}" for kind, count in counts.items() if count]
    if len(words) > 1:
        return f"{', '.join(words[:-1])} and {words[-1]}"
    return words[0] if words else "nothing"
