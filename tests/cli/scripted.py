"""A management API that answers what a test wrote down, and records what it was asked."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from motools.cache.cleaning import (
    CleanupPlan,
    CleanupResult,
    Finding,
    PlanItem,
    Progress,
    ProtectedEntry,
    TrashItem,
    VerifyReport,
)

ITEM = PlanItem(
    kind="model", key="k1", value="ft-1", paths=["runs/1"], size_bytes=5, allocated_bytes=4_096, reason="asked for"
)
PINNED = ProtectedEntry(kind="model", key="k2", why="pinned: paper")


class ScriptedUtils:
    """Fulfils what the commands of clean-up use of `CacheUtils`."""

    def __init__(self) -> None:
        """A plan of one model, a trash of two removals, nothing wrong."""
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.plan = CleanupPlan(plan_id="abc123", items=[ITEM], protected=[PINNED], size_bytes=5, freed_bytes=4_096)
        self.result = CleanupResult(removal_id=7, models=1, freed_bytes=4_096)
        self.trash = [
            TrashItem(id=7, removed_at="2026-11-23T12:00:00.5Z", reason="models", entries=1, paths=1),
            TrashItem(id=6, removed_at="2026-11-22T12:00:00Z", reason="orphans", paths=2, allocated_bytes=2_048),
        ]
        self.findings: list[Finding] = []
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        """As the real one."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""

    def names(self) -> list[str]:
        """What was asked, in order."""
        return [name for name, _ in self.asked]

    def prune(self, **options: Any) -> CleanupPlan:  # noqa: ANN401 - whatever the command passes
        """The plan."""
        self.asked.append(("prune", options))
        return self.plan

    def clear_models(self, model_ids: object = None, **options: Any) -> CleanupPlan:  # noqa: ANN401 - as above
        """The plan."""
        self.asked.append(("clear_models", {"model_ids": model_ids, **options}))
        return self.plan

    def apply_plan(self, plan_id: str, **options: Any) -> CleanupResult:  # noqa: ANN401 - as above
        """The result, or the error."""
        options.pop("on_progress")(Progress(done=1, total=1, unit="items", freed_bytes=0))
        self.asked.append(("apply_plan", {"plan_id": plan_id, **options}))
        if self.error is not None:
            raise self.error
        return self.result

    def list_trash(self) -> list[TrashItem]:
        """Two removals."""
        return self.trash

    def undo(self, removal_id: int, **_options: object) -> CleanupResult:
        """The result."""
        self.asked.append(("undo", {"removal_id": removal_id}))
        return self.result

    def empty_trash(self, removal_ids: list[int] | None, **_options: object) -> CleanupResult:
        """What was freed."""
        self.asked.append(("empty_trash", {"removal_ids": removal_ids}))
        return CleanupResult(freed_bytes=2_048)

    def verify(self, **options: Any) -> VerifyReport:  # noqa: ANN401 - as above
        """What is wrong."""
        options.pop("on_progress")
        self.asked.append(("verify", options))
        return VerifyReport(findings=self.findings, entries=3, files=4)

    def pin(self, key: str, **options: Any) -> int:  # noqa: ANN401 - as above
        """One entry."""
        self.asked.append(("pin", {"key": key, **options}))
        return 1

    def unpin(self, key: str, **options: Any) -> int:  # noqa: ANN401 - as above
        """Two entries."""
        self.asked.append(("unpin", {"key": key, **options}))
        return 2
