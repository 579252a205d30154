"""Storing entries together with their files.

Layer: engine. Imports census, writer, store.ownership and core.
Invariant: a file is whole, on disk and in its place before its row is stored; a row that is not stored leaves no file
in its place. What a kill leaves behind in between still stands in `staging/`, and goes at the next start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import anyio
import anyio.to_thread

from motoolsd.core.errors import RequestError, StorageFailed
from motoolsd.core.files import Measured, check_path, dataset_of, dataset_path
from motoolsd.core.ports import Clock, FileTree, PathMissing, TreeError
from motoolsd.engine.census import Census
from motoolsd.engine.disk import refusal, run_on_disk
from motoolsd.engine.writer import Answer, Writer
from motoolsd.store.ownership import OwnedFile, Publication, select_recorded
from motoolsd.store.puts import put_keys
from motoolsd.store.store import Store
from motoolsd.wire.fields import Outcome
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import PutDataset, PutEvals, PutModel, WriteReply, WriteRequest

logger = logging.getLogger(__name__)

PutRequest = PutDataset | PutModel | PutEvals
Enqueue = Callable[[Publication, Answer], None]


def has_files(request: WriteRequest) -> bool:
    """Whether a write is more than a row: it has files, or an end, or is no success."""
    if not isinstance(request, PutRequest):
        return False
    if request.outcome is not Outcome.SUCCESS:
        return True
    return bool(request.files) or request.ttl_s is not None or getattr(request, "staged", None) is not None


class Publishing:
    """Puts with files."""

    def __init__(
        self, store: Store, files: FileTree, census: Census, clock: Clock, writer: Writer, enqueue: Enqueue
    ) -> None:
        """Wire up; `enqueue` queues a publication, and raises as `Engine.submit_nowait`."""
        self._files = files
        self._census = census
        self._clock = clock
        self._writer = writer
        self._rows = store
        self._enqueue = enqueue

    async def publish(self, request: PutRequest) -> WriteReply:
        """Store entries with their files.

        Cancellation: a file that was published and has no row yet is taken back.

        Raises:
            RequestError: a path is none that an entry may own, nothing is there, or the write was refused.
            StorageFailed: the disk is full.
        """
        paths = paths_of(request)
        for found in paths.values():
            for path in found:
                check_path(path)
        staged = request.staged if isinstance(request, PutDataset) else None
        is_new = False
        if staged is not None:
            target = _target(request)
            (key,) = paths
            paths[key] = [*dict.fromkeys([*paths[key], target])]
            is_new = await self._place(staged, target, may_be_done=request.request_key.is_retry)
        is_stored = False
        try:
            measured = await self._measure([path for found in paths.values() for path in found])
            files = {key: [owned_file(path, measured[path]) for path in found] for key, found in paths.items()}
            recorded = await self._rows.read(select_recorded, list(measured)) if measured else {}
            expires = None if request.ttl_s is None else self._clock.moment().after(request.ttl_s)
            reply = await self._store(Publication(put=request, files=files, expires=expires))
            is_stored = True
        finally:
            if staged is not None:
                with anyio.CancelScope(shield=True):
                    await self._leave_staging(staged, target if is_new and not is_stored else None)
        if not request.request_key.is_retry:
            for path, size in measured.items():
                self._census.published(path, size, recorded.get(path))
        return reply

    async def recover(self) -> None:
        """Clear what clients that have ended left in staging; with it what was published and has no row.

        What the disk does not let go stays until the next start.

        Raises:
            RequestError: the database cannot be read.
        """
        try:
            abandoned = await anyio.to_thread.run_sync(self._files.abandoned)
        except TreeError as error:
            logger.error("staging cannot be read, what is left in it stays until the next start: %s", error)
            return
        for staged, path in abandoned:
            key = None if path is None else dataset_of(path)
            is_stored = key is not None and key in (await self._rows.values(Kind.DATASET, [key])).found
            await self._leave_staging(staged, None if is_stored else path)
            logger.info("left in staging by a client that has ended: %s", staged.decode("utf-8", "backslashreplace"))

    async def _place(self, staged: bytes, target: bytes, *, may_be_done: bool) -> bool:
        try:
            return await anyio.to_thread.run_sync(self._files.publish, staged, target)
        except PathMissing as error:
            if may_be_done and await run_on_disk(partial(self._files.see, target)) is not None:
                return False  # the first try went through, and only its reply was lost
            message = "the staged content is gone: store the dataset again"
            raise RequestError(message) from error
        except TreeError as error:
            message = f"{refusal(error).message}; nothing was stored"
            raise StorageFailed(message) from error

    async def _measure(self, paths: Sequence[bytes]) -> dict[bytes, Measured]:
        def measure() -> dict[bytes, Measured]:
            found: dict[bytes, Measured] = {}
            for path in paths:
                if (size := self._files.measure(path)) is None:
                    shown = path.decode("utf-8", "backslashreplace")
                    raise RequestError(f"there is no file or directory {shown} in the cache directory")
                found[path] = size
            return found

        return await run_on_disk(measure) if paths else {}

    async def _store(self, publication: Publication) -> WriteReply:
        # Two, because what it takes away from whoever computes it is a write, too.
        await self._writer.wait_room(2)
        done = anyio.Event()
        outcomes: list[WriteReply | RequestError] = []

        def answer(outcome: WriteReply | RequestError) -> None:
            outcomes.append(outcome)
            done.set()

        self._enqueue(publication, answer)
        # What was queued is stored, whoever waits for it: the file must not be taken back from under its row.
        with anyio.CancelScope(shield=True):
            await done.wait()
        (outcome,) = outcomes
        if isinstance(outcome, RequestError):
            raise outcome
        return outcome

    async def _leave_staging(self, staged: bytes, taken_back: bytes | None) -> None:
        """Remove a staged name, and what was published from it at a path, if that is to be taken back."""
        try:
            if taken_back is not None:
                await anyio.to_thread.run_sync(self._files.withdraw, staged, taken_back)
            else:
                await anyio.to_thread.run_sync(self._files.unstage, staged)
        except TreeError as error:
            logger.error("something is left in staging until the next start: %s", error)


def paths_of(request: PutRequest) -> dict[str, list[bytes]]:
    """The paths of each entry of a put, by key.

    Raises:
        RequestError: a log is given for a task that is not stored.
    """
    keys = [key for _, key in put_keys(request)]
    if not isinstance(request, PutEvals):
        return {keys[0]: list(request.files)}
    if foreign := request.files.keys() - request.logs.keys():
        message = f"there is a file, but no log, for task {min(foreign)}"
        raise RequestError(message)
    by_task = dict(zip(request.logs, keys, strict=True))
    return {by_task[task]: [path] for task, path in request.files.items()}


def owned_file(path: bytes, measured: Measured) -> OwnedFile:
    """A path as its entry owns it."""
    return OwnedFile(path, measured.size_bytes, measured.allocated_bytes)


def _target(request: PutRequest) -> bytes:
    assert isinstance(request, PutDataset), "only datasets are staged"
    path = dataset_path(request.dataset_hash)
    if path is None:
        message = "this dataset's hash is no file name: its content cannot be kept"
        raise RequestError(message)
    return path
