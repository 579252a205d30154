"""Comparing rows, files and the database with what they should be.

Layer: engine. Imports census, cleaner, writer, store and core.
Invariant: without `repair` nothing is changed. What is repaired becomes a miss; a row whose file is gone goes to the
trash, from where it can be put back; no file is removed.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

import anyio
import anyio.to_thread

from motoolsd.core.files import dataset_path
from motoolsd.core.guards import DAMAGED, MISSING
from motoolsd.core.ports import FileTree, TreeError
from motoolsd.core.slots import Slots
from motoolsd.engine.census import Census
from motoolsd.engine.cleaner import Cleaner
from motoolsd.engine.writer import Writer
from motoolsd.store.entries import SetVoid
from motoolsd.store.ownership import OwnedPath, select_owned
from motoolsd.store.reads import FROM_START, select_damaged
from motoolsd.store.store import Store
from motoolsd.wire.cleaning import ORPHAN, Criteria, Finding, FindingPage, Progress, Verify
from motoolsd.wire.keys import Kind, slot_of

PAGE_ROWS: Final = 500
DATABASE: Final = "database"


class Verification:
    """Looks at everything once."""

    def __init__(
        self, store: Store, files: FileTree, writer: Writer, slots: Slots, census: Census, cleaner: Cleaner
    ) -> None:
        """Wire up."""
        self._store = store
        self._files = files
        self._writer = writer
        self._slots = slots
        self._census = census
        self._cleaner = cleaner

    async def verify(self, request: Verify) -> AsyncGenerator[Progress | FindingPage, None]:
        """What is wrong, as it is found, with progress in between.

        Cancellation: leaves at the next page.

        Raises:
            RequestError: the database cannot be read; with `repair`, written.
        """
        entries = files = 0
        for detail in await self._store.integrity():
            yield FindingPage(items=[Finding(problem="corrupt", kind=DATABASE, key="cache.db", detail=detail)])
        for kind in Kind:
            async for looked_at, found in self._check_rows(kind, repair=request.repair):
                entries += looked_at
                yield FindingPage(items=found) if found else Progress(done=entries, unit="entries")
        for kind in Kind:
            async for looked_at, found in self._check_files(kind, request):
                files += looked_at
                yield FindingPage(items=found) if found else Progress(done=files, unit="files")
        if request.repair:
            await self._cleaner.remove(Criteria(dangling=True), "verify --repair", to_trash=True)
        await self._census.rescan()
        orphans = [
            Finding(
                problem=ORPHAN,
                kind=ORPHAN,
                key=orphan.path.decode("utf-8", "backslashreplace"),
                path=orphan.path,
                detail="no entry names it: `motools cache prune --orphans` removes it",
            )
            for orphan in self._census.orphans
            if not orphan.is_empty
        ]
        for start in range(0, len(orphans), PAGE_ROWS):
            yield FindingPage(items=orphans[start : start + PAGE_ROWS])
        yield FindingPage(entries=entries, files=files, is_last=True)

    async def _check_rows(self, kind: Kind, *, repair: bool) -> AsyncGenerator[tuple[int, list[Finding]], None]:
        """Rows whose value does not fit its checksum."""
        after: int | None = FROM_START
        while after is not None:
            part = await self._store.read(select_damaged, kind, after, PAGE_ROWS)
            after = part.next_after
            detail = "its row does not fit its checksum; it misses"
            findings = [Finding(problem="corrupt", kind=kind.value, key=key, detail=detail) for key in part.keys]
            yield part.rows, await self._repaired(findings, DAMAGED) if repair else findings

    async def _check_files(self, kind: Kind, request: Verify) -> AsyncGenerator[tuple[int, list[Finding]], None]:
        after: tuple[object, bytes] | None = None
        while True:
            numbers = self._slots.snapshot()
            page = await self._store.read(select_owned, kind, after, PAGE_ROWS)
            found = await self._look(page.items, deep=request.deep)
            # What was stored again meanwhile has other files by now.
            found = [one for one in found if self._is_unchanged(one, numbers)]
            if request.repair:
                missing = [one for one in found if one.problem == "missing"]
                corrupt = [one for one in found if one.problem == "corrupt"]
                others = [one for one in found if one.problem == "unreadable"]
                found = [*await self._repaired(missing, MISSING), *await self._repaired(corrupt, DAMAGED), *others]
            yield len(page.items), found
            if page.next_after is None:
                return
            after = page.next_after

    def _is_unchanged(self, finding: Finding, numbers: Sequence[int]) -> bool:
        slot = slot_of(Kind(finding.kind), finding.key)
        return self._slots.is_current(slot, numbers[slot])

    async def _repaired(self, findings: list[Finding], reason: str) -> list[Finding]:
        """Let the entries miss, and say that this was done."""
        if not findings:
            return []
        await self._writer.change(SetVoid(tuple((Kind(one.kind), one.key) for one in findings), reason))
        return [
            Finding(problem=one.problem, kind=one.kind, key=one.key, path=one.path, detail=one.detail, repaired=True)
            for one in findings
        ]

    async def _look(self, items: Sequence[OwnedPath], *, deep: bool) -> list[Finding]:
        stopped = threading.Event()

        def look() -> list[Finding]:
            return [
                found
                for item in items
                # What was found damaged misses already.
                if item.void_reason != DAMAGED
                and (found := file_problem(self._files, item, stopped.is_set, deep=deep)) is not None
            ]

        try:
            return await anyio.to_thread.run_sync(look, abandon_on_cancel=True)
        finally:
            stopped.set()


def file_problem(files: FileTree, item: OwnedPath, is_stopped: Callable[[], bool], *, deep: bool) -> Finding | None:
    """What is wrong with a file that an entry owns; None if nothing is, or it was stopped.

    Args:
        files: where it lies.
        item: what it should be.
        is_stopped: asked while content is read.
        deep: read the content, too, where its name is its hash.
    """
    try:
        problem, detail = _compared(files, item, is_stopped, deep=deep)
    except TreeError as error:
        problem, detail = "unreadable", error.reason
    if problem is None:
        return None
    return Finding(problem=problem, kind=item.kind.value, key=item.key, path=item.path, detail=detail)


def _compared(
    files: FileTree, item: OwnedPath, is_stopped: Callable[[], bool], *, deep: bool
) -> tuple[str | None, str]:
    found = files.measure(item.path)
    if found is None:
        return "missing", "its file is gone"
    seen = files.see(item.path)
    is_file = seen is not None and not seen.is_directory
    if is_file and item.size_bytes is not None and found.size_bytes != item.size_bytes:
        return "corrupt", f"its file has {found.size_bytes} bytes instead of {item.size_bytes}"
    if deep and is_file and item.kind is Kind.DATASET and item.path == dataset_path(item.key):
        digest = files.digest(item.path, is_stopped)
        if digest is not None and digest != item.key and len(item.key) == len(digest):
            return "corrupt", f"its content has the hash {digest}"
    return None, ""
