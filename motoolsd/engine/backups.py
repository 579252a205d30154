"""Copies of the database: one that somebody asks for, and those that are made by themselves.

Layer: engine. Imports disk, writer, store and core.
Invariant: a copy is made by a connection of its own in a thread of its own: lookups and writes go on. It has its name
only when it is whole, checked and on disk; the oldest automatic one goes only after that.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Final

import anyio
import msgspec

from motoolsd.core.deadlines import Moment
from motoolsd.core.errors import RequestError, StorageFailed
from motoolsd.core.ports import Clock, FileTree, PathMissing, PathTaken
from motoolsd.core.settings import Settings
from motoolsd.engine.disk import run_on_disk
from motoolsd.engine.writer import Writer
from motoolsd.store.copying import copy_database, select_fingerprint
from motoolsd.store.facts import LAST_BACKUP, SetFact, select_fact
from motoolsd.store.store import Store
from motoolsd.wire.backups import BackedUp, BackUp
from motoolsd.wire.cleaning import Progress
from motoolsd.wire.keys import Kind

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_S: Final = 0.1
UNCHANGED_PAUSE_S: Final = 3_600.0
"""Where nothing had changed when a backup was due, it is looked again after this: a look reads every row."""
NAME_SIZE_MAX_BYTES: Final = 255
"""NAME_MAX of Linux."""


class LastBackup(msgspec.Struct, frozen=True):
    """What is remembered of the last automatic backup."""

    made: Moment
    fingerprint: str
    """What was in it."""

    def is_due(self, now: Moment, interval_s: float) -> bool:
        """Whether it is that old; also after a boot with a clock that stands before it."""
        is_other_boot = now.boot_id != self.made.boot_id
        return self.made.after(interval_s).is_over(now) or (is_other_boot and now.wall_s < self.made.wall_s)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(LastBackup)


class Backups:
    """Makes them, one at a time."""

    def __init__(self, store: Store, files: FileTree, writer: Writer, clock: Clock, settings: Settings) -> None:
        """Wire up."""
        self._store = store
        self._files = files
        self._writer = writer
        self._clock = clock
        self._lock = anyio.Lock()
        self._has_failed = False
        self._next_look_s = 0.0
        self.settings = settings

    async def back_up(self, request: BackUp) -> AsyncGenerator[Progress | BackedUp, None]:
        """Copy the database to a path outside of the cache directory.

        Cancellation: the half-written copy goes, soon after.

        Raises:
            RequestError: there is something at the path already, or it may not be used.
            StorageFailed: the copy cannot be made.
        """
        name = os.path.basename(request.path)
        if not os.path.isabs(request.path) or b"\0" in request.path or not 0 < len(name) <= NAME_SIZE_MAX_BYTES:
            raise RequestError(f"a backup needs the absolute path of a file, not {_shown(request.path)[:200]!r}")
        done: list[BackedUp] = []
        # Left in the middle, it is to end here and now: it has a task of its own.
        async with aclosing(self._steps(request, done)) as steps:
            async for progress in steps:
                yield progress
        yield done[0]

    async def _steps(self, request: BackUp, done: list[BackedUp]) -> AsyncGenerator[Progress, None]:
        """Copy in a thread, and tell how far it has come."""
        stopped, progressing = threading.Event(), Progressing()
        failures: list[RequestError] = []
        ended = anyio.Event()

        async def run() -> None:
            try:
                async with self._lock:
                    copy = partial(self._copy_to, request, stopped, progressing)
                    done.append(await run_on_disk(copy, abandon_on_cancel=True))
            except RequestError as error:
                failures.append(error)
            finally:
                stopped.set()
                ended.set()

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            try:
                while not ended.is_set():
                    yield Progress(done=progressing.done, total=progressing.total, unit="pages")
                    with anyio.move_on_after(PROGRESS_INTERVAL_S):
                        await ended.wait()
            except GeneratorExit:
                # Whoever asked has left. Out of a task group this would come as a group, which ends no generator.
                group.cancel_scope.cancel()
        if failures:
            raise failures[0]

    def _copy_to(self, request: BackUp, stopped: threading.Event, step: Progressing) -> BackedUp:
        path, as_of = request.path, f"{self._clock.utc_text().replace(' ', 'T')}Z"
        try:
            with self._files.backups.draft_at(path) as (draft, name):
                contents = copy_database(self._store.database, draft.path, is_stopped=stopped.is_set, step=step)
                size_bytes = draft.publish(name, force=request.force)
        except PathTaken as error:
            remedy = "" if request.force else ". Choose another, or replace a file with --force"
            raise RequestError(f"no backup was made: {_shown(path)}: {error.reason}{remedy}") from error
        except PathMissing as error:
            raise RequestError(f"no backup was made: there is no directory {_shown(os.path.dirname(path))}") from error
        return BackedUp(
            path=path,
            size_bytes=size_bytes,
            datasets=contents.counts[Kind.DATASET],
            models=contents.counts[Kind.MODEL],
            evals=contents.counts[Kind.EVAL],
            schema_version=contents.version,
            as_of=as_of,
        )

    async def keep_up(self) -> bool:
        """Make an automatic backup if one is due and something changed since the last; whether one was made.

        A failure is logged, once until it has gone well again, and changes nothing.

        Cancellation: leaves at once; a copy that is not whole goes.
        """
        try:
            async with self._lock:
                is_made = await self._keep_up()
        except RequestError as error:
            if not self._has_failed:
                logger.error("no automatic backup is made, it is tried again and again: %s", error.message)
            self._has_failed = True
            return False
        self._has_failed = False
        return is_made

    async def _keep_up(self) -> bool:
        interval_s, now = self.settings.backup_interval_s, self._clock.moment()
        last = _unpacked(await self._store.read(select_fact, LAST_BACKUP))
        if not interval_s or (last is not None and not last.is_due(now, interval_s)):
            return False
        if self._clock.monotonic_s() < self._next_look_s:
            return False
        found = await self._store.read(select_fingerprint)
        if found.is_empty:
            return False
        if last is not None and last.fingerprint == found.text:
            self._next_look_s = self._clock.monotonic_s() + min(interval_s, UNCHANGED_PAUSE_S)
            return False
        await self._check_room(found.size_bytes)
        stopped = threading.Event()
        made_at = _compact(self._clock.utc_text())
        try:
            name = await run_on_disk(lambda: self._copy_automatic(made_at, stopped), abandon_on_cancel=True)
        finally:
            stopped.set()
        # What was stored while it was copied is in it or not: it counts as changed since.
        await self._writer.change(SetFact(LAST_BACKUP, _encoder.encode(LastBackup(now, found.text))))
        keep = self.settings.backups_keep
        await run_on_disk(lambda: self._files.backups.remove_automatic(keep, latest=name))
        logger.info("cache.db was backed up to backups/%s", os.fsdecode(name))
        return True

    async def _check_room(self, size_bytes: int) -> None:
        """A copy that nobody asked for does not take the last of the disk."""
        spare = self.settings.min_free_bytes or 0
        if await run_on_disk(self._files.free_bytes) < size_bytes + spare:
            raise StorageFailed(f"the disk has no room for a copy of {size_bytes} bytes")

    def _copy_automatic(self, made_at: str, stopped: threading.Event) -> bytes:
        with self._files.backups.draft_automatic() as draft:
            copy_database(self._store.database, draft.path, is_stopped=stopped.is_set)
            return self._files.backups.publish_automatic(draft, made_at)


class Progressing:
    """How many pages are copied: written by the thread, read by the loop."""

    def __init__(self) -> None:
        """None yet."""
        self.done = self.total = 0

    def __call__(self, done: int, total: int) -> None:
        """So many of so many."""
        self.done, self.total = done, total


def _unpacked(stored: bytes | None) -> LastBackup | None:
    try:
        return None if stored is None else _decoder.decode(stored)
    except (msgspec.MsgspecError, TypeError):
        return None  # somebody changed it by hand: the next backup is made now


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _compact(utc_text: str) -> str:
    """`20260131T235959Z`."""
    return utc_text.partition(".")[0].replace("-", "").replace(":", "").replace(" ", "T") + "Z"
