"""What sizes, clean-ups, the trash and verifying give back.

Layer: motools.cache. Imports entries and motoolsd.wire.
Invariant: times are RFC 3339 UTC texts, sizes bytes, paths texts relative to the cache directory.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from motools.cache.entries import text_of
from motoolsd.wire import cleaning as wire
from motoolsd.wire import sizes
from motoolsd.wire.sizes import Size


class EntrySize(Struct, frozen=True, kw_only=True):
    """What the files of one entry take; `kind` is `dataset`, `model`, `eval` or `orphan`."""

    kind: str
    key: str
    value: str = ""
    size_bytes: int = 0
    allocated_bytes: int = 0


class SizeReport(Struct, frozen=True, kw_only=True):
    """What everything takes.

    Attributes:
        categories: `datasets`, `runs`, `evals`, `database`, `trash`, `staging`, `ballast`.
        orphans: what no entry names, of the categories above.
        num_orphans: how many files or directories that is.
        num_dangling: entries whose files are gone.
        scanned_at: when the files were counted last; None: not yet.
        is_scanning: whether they are being counted now.
        top: the largest entries, the largest first, as many as were asked for.
    """

    categories: dict[str, Size]
    orphans: Size = Size()
    num_orphans: int = 0
    num_dangling: int = 0
    scanned_at: str | None = None
    is_scanning: bool = False
    top: list[EntrySize] = []

    @property
    def total_size_bytes(self) -> int:
        """The lengths of all files."""
        return sum(size.size_bytes for size in self.categories.values())

    @property
    def total_allocated_bytes(self) -> int:
        """What all files occupy on disk."""
        return sum(size.allocated_bytes for size in self.categories.values())


class PlanItem(Struct, frozen=True, kw_only=True):
    """One entry that goes with its files, or one orphan (`kind="orphan"`, `key` is its path)."""

    kind: str
    key: str
    value: str = ""
    paths: list[str] = []
    size_bytes: int = 0
    allocated_bytes: int = 0
    reason: str = ""


class ProtectedEntry(Struct, frozen=True, kw_only=True):
    """What would have gone, and why it stays."""

    kind: str
    key: str
    why: str


class KeptPath(Struct, frozen=True, kw_only=True):
    """A path that stays, and why."""

    path: str
    why: str


class CleanupPlan(Struct, frozen=True, kw_only=True):
    """What a clean-up would remove; `apply_plan(plan_id)` removes exactly this, or refuses.

    Attributes:
        kept: paths that stay because something else owns them, too.
        size_bytes: the lengths of the files that go.
        freed_bytes: what the disk gets back.
    """

    plan_id: str
    items: list[PlanItem] = []
    protected: list[ProtectedEntry] = []
    kept: list[KeptPath] = []
    size_bytes: int = 0
    freed_bytes: int = 0


class CleanupResult(Struct, frozen=True, kw_only=True):
    """What a clean-up, an undo or emptying the trash did.

    Attributes:
        removal_id: what `undo` takes; None: there is nothing to undo.
        datasets, models, evals, orphans: how many went, or came back.
        freed_bytes: what their files occupy on disk.
        is_complete: whether it came to its end; else it was interrupted, and what it did so far can be undone.
        left: files that stayed though they were to go.
        protected: entries that stayed; known where the plan was made by the same call.
    """

    removal_id: int | None = None
    datasets: int = 0
    models: int = 0
    evals: int = 0
    orphans: int = 0
    freed_bytes: int = 0
    is_complete: bool = True
    left: list[KeptPath] = []
    protected: list[ProtectedEntry] = []


class TrashItem(Struct, frozen=True, kw_only=True):
    """One clean-up that can be undone; `expires_at`: when it goes by itself."""

    id: int
    removed_at: str
    reason: str = ""
    state: str = "trashed"
    entries: int = 0
    paths: int = 0
    size_bytes: int = 0
    allocated_bytes: int = 0
    expires_at: str | None = None


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that is wrong; `problem` is `corrupt`, `missing`, `unreadable` or `orphan`."""

    problem: str
    kind: str
    key: str
    path: str = ""
    detail: str = ""
    repaired: bool = False


class VerifyReport(Struct, frozen=True, kw_only=True):
    """What is wrong, and how many entries and files were looked at."""

    findings: list[Finding] = []
    entries: int = 0
    files: int = 0


class Progress(Struct, frozen=True, kw_only=True):
    """How far something long has come; `total` is 0 where nobody knows."""

    done: int = 0
    total: int = 0
    unit: str = "items"
    freed_bytes: int = 0


OnProgress = Callable[[Progress], None]
"""Called in the caller's thread or task, as often as the daemon tells. What it raises ends the call."""


def size_report(reply: sizes.Sizes) -> SizeReport:
    """The daemon's figures as users see them."""
    return SizeReport(
        categories=reply.categories,
        orphans=reply.orphans,
        num_orphans=reply.num_orphans,
        num_dangling=reply.num_dangling,
        scanned_at=reply.as_of,
        is_scanning=reply.is_scanning,
        top=[
            EntrySize(
                kind=one.kind,
                key=one.key,
                value=text_of(one.value),
                size_bytes=one.size_bytes,
                allocated_bytes=one.allocated_bytes,
            )
            for one in reply.top
        ],
    )


def cleanup_plan(pages: list[wire.PlanPage]) -> CleanupPlan:
    """A plan from its pages."""
    last = pages[-1]
    return CleanupPlan(
        plan_id=last.plan_id,
        items=[_plan_item(item) for page in pages for item in page.items],
        protected=[ProtectedEntry(kind=one.kind, key=one.key, why=one.why) for page in pages for one in page.protected],
        kept=[_kept(one) for page in pages for one in page.kept],
        size_bytes=last.size_bytes,
        freed_bytes=last.freed_bytes,
    )


def cleanup_result(pages: list[wire.Cleaned]) -> CleanupResult:
    """What was done."""
    done = pages[-1]
    return CleanupResult(
        removal_id=done.removal_id or None,
        datasets=done.datasets,
        models=done.models,
        evals=done.evals,
        orphans=done.orphans,
        freed_bytes=done.freed_bytes,
        is_complete=done.is_complete,
        left=[_kept(one) for one in done.left],
    )


def trash_items(pages: list[wire.TrashPage]) -> list[TrashItem]:
    """The trash, the latest first."""
    return [
        TrashItem(
            id=row.id,
            removed_at=row.removed_at,
            reason=row.reason,
            state=row.state,
            entries=row.entries,
            paths=row.paths,
            size_bytes=row.size_bytes,
            allocated_bytes=row.allocated_bytes,
            expires_at=row.expires_at,
        )
        for page in pages
        for row in page.items
    ]


def verify_report(pages: list[wire.FindingPage]) -> VerifyReport:
    """All findings."""
    return VerifyReport(
        findings=[_finding(found) for page in pages for found in page.items],
        entries=pages[-1].entries,
        files=pages[-1].files,
    )


def progress(page: wire.Progress) -> Progress:
    """One step."""
    return Progress(done=page.done, total=page.total, unit=page.unit, freed_bytes=page.freed_bytes)


def _plan_item(item: wire.PlanItem) -> PlanItem:
    return PlanItem(
        kind=item.kind,
        key=item.key,
        value=text_of(item.value),
        paths=[text_of(path) for path in item.paths],
        size_bytes=item.size_bytes,
        allocated_bytes=item.allocated_bytes,
        reason=item.reason,
    )


def _kept(kept: wire.Kept) -> KeptPath:
    return KeptPath(path=text_of(kept.path), why=kept.why)


def _finding(found: wire.Finding) -> Finding:
    return Finding(
        problem=found.problem,
        kind=found.kind,
        key=found.key,
        path=text_of(found.path),
        detail=found.detail,
        repaired=found.repaired,
    )
