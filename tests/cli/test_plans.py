"""Plans and results as texts."""

from __future__ import annotations

import pytest

from motools.cache.cleaning import CleanupPlan, CleanupResult, KeptPath, PlanItem, ProtectedEntry, TrashItem
from motools.cli.plans import (
    NAMED_MAX,
    largest_text,
    plan_document,
    plan_items,
    plan_text,
    result_document,
    result_text,
    staying_text,
    trash_text,
)

ITEMS = [
    PlanItem(kind="model", key="k1", value="ft-1", paths=["runs/1"], size_bytes=5, allocated_bytes=4_096, reason="old"),
    PlanItem(kind="model", key="k2", value="ft-2", paths=["runs/2"], size_bytes=6, allocated_bytes=8_192, reason="old"),
    PlanItem(kind="orphan", key="runs/x", paths=["runs/x"], allocated_bytes=0, reason="no entry names it"),
]
PLAN = CleanupPlan(plan_id="abc", items=ITEMS, size_bytes=11, freed_bytes=12_288)


def test_plan_is_a_sentence() -> None:
    """Kinds in the order in which they come, each in its number."""
    assert plan_text(PLAN) == "2 models and 1 orphan, 12.0 KiB"
    assert plan_text(CleanupPlan(plan_id="abc")) == "nothing, 0 B"


def test_result_is_a_sentence() -> None:
    """What is none of is not named."""
    result = CleanupResult(datasets=1, models=2_000, evals=3, freed_bytes=1_024)
    assert result_text(result) == "1 dataset, 2,000 models and 3 evals, 1.0 KiB"


def test_largest_comes_first() -> None:
    """In tables and at the prompt."""
    assert [item["key"] for item in plan_items(PLAN.items)] == ["k2", "k1", "runs/x"]
    lines = largest_text(PLAN)
    assert lines[0].split(maxsplit=2)[2] == "model ft-2 (old)"
    assert lines[2].endswith("orphan runs/x (no entry names it)")


def test_long_lists_are_cut_and_say_so() -> None:
    """A prompt stays on one screen."""
    many = [PlanItem(kind="eval", key=f"k{number}", reason="asked for") for number in range(NAMED_MAX + 5)]
    lines = largest_text(CleanupPlan(plan_id="abc", items=many))
    assert len(lines) == NAMED_MAX + 1
    assert lines[-1].strip() == "... and 5 more"
    protected = [ProtectedEntry(kind="model", key=f"k{number}", why="pinned") for number in range(NAMED_MAX + 2)]
    kept = [KeptPath(path=f"runs/{number}", why="owned") for number in range(NAMED_MAX + 3)]
    staying = staying_text(protected, kept)
    assert len(staying) == 2 * (NAMED_MAX + 1)
    assert staying[0] == "stays: model k0: pinned"
    assert staying[NAMED_MAX] == "... and 2 more stay: --json names all"
    assert staying[-1] == "... and 3 more files stay: --json names all"


def test_documents_have_every_field() -> None:
    """Programs get plans and results as the API has them."""
    document = plan_document(PLAN)
    assert set(document) == {"plan_id", "items", "protected", "kept", "size_bytes", "freed_bytes"}
    assert set(document["items"][0]) == {"kind", "key", "value", "paths", "size_bytes", "allocated_bytes", "reason"}
    assert document["items"][0]["paths"] == ["runs/1"]
    assert result_document(CleanupResult(removal_id=3))["removal_id"] == 3


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\udcff", "\u202e"])
def test_hostile_names_are_escaped(text: str) -> None:
    """A path that somebody chose does not move the cursor."""
    plan = CleanupPlan(plan_id="abc", items=[PlanItem(kind="orphan", key=text, reason="no entry names it")])
    shown = [*largest_text(plan), *staying_text([ProtectedEntry(kind="model", key=text, why="pinned")])]
    shown.append(trash_text(TrashItem(id=1, removed_at="", reason=text)))
    assert all(line.isprintable() for line in shown)


def test_removal_is_named_with_what_it_holds() -> None:
    """So that somebody knows which to put back."""
    item = TrashItem(id=4, removed_at="", reason="models", entries=1, paths=0, allocated_bytes=0)
    assert trash_text(item) == "removal 4 (models: 1 entry, no files, 0 B)"
    item = TrashItem(id=4, removed_at="", reason="orphans", entries=0, paths=2, allocated_bytes=2_048)
    assert trash_text(item) == "removal 4 (orphans: 0 entries, 2 files or directories, 2.0 KiB)"
