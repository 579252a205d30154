"""Claims for asyncio and trio.

Layer: motools.cache. Imports claims, files and publishing.
Invariant: works over whatever answers its two kinds of questions, a daemon or a dictionary. A claim that is cancelled
while it waits leaves nothing behind.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import anyio

from motools.cache import lease_calls
from motools.cache.calls import Call, Owned, Provenance
from motools.cache.claims import (
    GIVE_UP_TIMEOUT_S,
    NOTICE_AFTER_S,
    NOTICE_INTERVAL_S,
    ClaimBase,
    ClaimOptions,
    OnFailure,
    Target,
    check_logs,
    claim_request,
    context_of,
    dataset_target,
    eval_target,
    model_target,
    overdue,
    parts_of,
    say_whom_it_waits_for,
    sort_states,
)
from motools.cache.entries import DatasetEntry, LeaseEntry
from motools.cache.errors import CacheError, StaleLease
from motools.cache.files import Content
from motools.cache.publishing import DatasetPut
from motoolsd.wire.entries import KeyState

T = TypeVar("T")


class Asker(Protocol):
    """What claims are made of: a `Cache`, or an `InMemoryCache`."""

    _provenance: Provenance
    _held: set[bytes]
    _in_use: set[bytes]

    async def _ask(self, call: Call[T]) -> T:
        """Carry a call out, within the client's timeout."""
        ...

    async def _ask_for_hours(self, call: Call[T]) -> T:
        """Carry a call out that waits for somebody else's work, over restarts of the daemon."""
        ...

    async def _own(self, target: Target, value: object, run_dir: object, ttl_s: float | None) -> Owned:
        """What an entry owns with a value, brought to disk."""
        ...

    async def _keep(self, put: DatasetPut) -> DatasetEntry:
        """Store a dataset with its content."""
        ...

    def _work_path(self, work_dir: str | os.PathLike[str] | None) -> bytes | None:
        """A directory to be worked in, relative to the cache directory."""
        ...


class AsyncClaim(ClaimBase):
    """A claim of one key, to be used as an async context manager.

    Leaving the block without `fulfil` or `fail`, by an exception too, releases the lease: the next who waits has it.

    Cancellation: a waiting claim leaves its queue; within the block, the lease is released.
    """

    def __init__(self, asker: Asker, target: Target, options: ClaimOptions) -> None:
        """Nothing is asked before the block is entered."""
        super().__init__(target, options, asker._provenance, asker._held)  # noqa: SLF001 - one object, in two parts
        self._asker = asker

    async def __aenter__(self) -> Self:
        """Ask, and wait if somebody else computes.

        Raises:
            ComputationFailed: its owner recorded a failure, and `on_failure` is "raise".
            ClaimTimeout: somebody else still computes after `timeout_s`.
            ClaimDeadlock: waiting would never end.
            CacheUnavailable: the daemon cannot be had.
        """
        self._enter()
        context = context_of(anyio.get_current_task().id)
        try:
            self._take(await self._asker._ask(self._request(context, wait=False)))  # noqa: SLF001
            if self.holder is not None and self._options.wait:
                call = self._request(context, wait=True)
                self._take(await wait_for_claim(self._asker, call, self.holder, self._options.timeout_s))
        except BaseException:
            self._leave()
            await give_up(self._asker, self.claim_id)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lease, if it is still held."""
        if self._leave():
            await give_up(self._asker, self.claim_id)

    async def fulfil(
        self,
        value: str,
        path_or_bytes: Content | None = None,
        *,
        run_dir: str | os.PathLike[str] | None = None,
        ttl_s: float | None = None,
        **labels: str,
    ) -> None:
        """Store the value and end the lease; on disk when this returns, and whoever waits has it.

        The arguments are those of `SyncClaim.fulfil`.

        Cancellation: leaves at once; the value may be stored all the same.

        Raises:
            StaleLease: the lease was lost meanwhile; the value was not stored.
            CacheRequestError: not text, empty, outside the block, or a second time; or a path that no entry can own.
        """
        self._check_owner("fulfil")
        if path_or_bytes is not None:
            await self._asker._keep(self._fulfilling_with(path_or_bytes, value, ttl_s, labels))  # noqa: SLF001
        else:
            owned = await self._asker._own(self._target, value, run_dir, ttl_s)  # noqa: SLF001
            await self._asker._ask(self._fulfilling(value, owned, labels))  # noqa: SLF001
        self._end(value)

    async def fail(self, reason: str, retry_after_s: float | None = None) -> None:
        """Record that the computation failed, and end the lease.

        Those that wait get ComputationFailed, or with `on_failure="take over"` the first of them the lease.

        Args:
            reason: what they are told.
            retry_after_s: for how long later claims are told the same.

        Raises:
            StaleLease: the lease was lost meanwhile.
            CacheRequestError: as `fulfil`.
        """
        failing = self._failing(reason, retry_after_s)
        if not self._is_uncached:
            await self._asker._ask(failing)  # noqa: SLF001
        self._end()


class AsyncClaims:
    """The claims of an async cache."""

    def claim_dataset(
        self,
        dataset_hash: str,
        *,
        wait: bool = True,
        timeout_s: float | None = None,
        on_failure: OnFailure = "raise",
        work_dir: str | os.PathLike[str] | None = None,
    ) -> AsyncClaim:
        """Claim the file id of a dataset: see `AsyncClaim`.

        Args:
            dataset_hash: the key.
            wait: wait for whoever computes it; else `claim.pending` tells, at once.
            timeout_s: wait at most so long; None: as long as the owner lives.
            on_failure: after a recorded failure raise ComputationFailed, or "take over": have the lease.
            work_dir: below `runs/`, `datasets/` or `evals/` of the cache directory, there or not: no clean-up touches
                it while the claim lasts.

        Raises:
            CacheRequestError: an argument is none; or `work_dir` lies elsewhere.
        """
        return self._claim(
            dataset_target(dataset_hash), wait=wait, timeout_s=timeout_s, on_failure=on_failure, work_dir=work_dir
        )

    def claim_model(
        self,
        dataset_hash: str,
        config: Mapping[str, Any],
        backend_type: str = "openai",
        *,
        wait: bool = True,
        timeout_s: float | None = None,
        on_failure: OnFailure = "raise",
        work_dir: str | os.PathLike[str] | None = None,
    ) -> AsyncClaim:
        """Claim a model that is to be trained: as `claim_dataset`."""
        target = model_target(dataset_hash, config, backend_type)
        return self._claim(target, wait=wait, timeout_s=timeout_s, on_failure=on_failure, work_dir=work_dir)

    def claim_eval(
        self,
        model_id: str,
        task_id: str,
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
        *,
        wait: bool = True,
        timeout_s: float | None = None,
        on_failure: OnFailure = "raise",
        work_dir: str | os.PathLike[str] | None = None,
    ) -> AsyncClaim:
        """Claim the log of an evaluation: as `claim_dataset`."""
        target = eval_target(model_id, task_id, backend_type, inspect_kwargs)
        return self._claim(target, wait=wait, timeout_s=timeout_s, on_failure=on_failure, work_dir=work_dir)

    async def get_or_upload(self, dataset_hash: str, upload: Callable[[], Awaitable[str]]) -> str:
        """The file id of a dataset; `await upload()` makes it, in one process of all that ask."""
        return await self._get_or_compute(self.claim_dataset(dataset_hash), upload)

    async def get_or_train(
        self,
        dataset_hash: str,
        config: Mapping[str, Any],
        train: Callable[[], Awaitable[str]],
        backend_type: str = "openai",
    ) -> str:
        """The id of a trained model; `await train()` makes it, in one process of all that ask."""
        return await self._get_or_compute(self.claim_model(dataset_hash, config, backend_type), train)

    async def get_or_evaluate(
        self,
        model_id: str,
        task_ids: Sequence[str],
        evaluate: Callable[[list[str]], Awaitable[Mapping[str, str]]],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
        *,
        one_by_one: bool = False,
    ) -> dict[str, str]:
        """The logs of evaluations; only missing tasks are evaluated, each in one process of all that ask.

        Args:
            model_id: of the model.
            task_ids: the tasks; claimed together, so that others that ask in another order cannot deadlock with this.
            evaluate: given tasks, returns (awaited) the path of each one's log.
            backend_type: of the evaluation.
            inspect_kwargs: its arguments.
            one_by_one: call `evaluate` once for each task instead of once for all.
        """
        targets = {task: eval_target(model_id, task, backend_type, inspect_kwargs) for task in dict.fromkeys(task_ids)}
        return await AsyncClaimGroup(self._as_asker(), targets).compute(evaluate, one_by_one=one_by_one)

    async def list_leases(self) -> list[LeaseEntry]:
        """Who computes what, the oldest first."""
        return await self._as_asker()._ask(lease_calls.list_leases())  # noqa: SLF001

    async def break_lease(self, key: str, kind: str | None = None) -> int:
        """Take the lease of a key away from its owner, whose `fulfil` will raise StaleLease; how many there were."""
        return await self._as_asker()._ask(lease_calls.break_lease(key, kind))  # noqa: SLF001

    def _claim(
        self,
        target: Target,
        *,
        wait: bool,
        timeout_s: float | None,
        on_failure: OnFailure,
        work_dir: str | os.PathLike[str] | None,
    ) -> AsyncClaim:
        asker = self._as_asker()
        options = ClaimOptions(
            wait=wait,
            timeout_s=timeout_s,
            on_failure=on_failure,
            work_dir=asker._work_path(work_dir),  # noqa: SLF001
        )
        return AsyncClaim(asker, target, options)

    async def _get_or_compute(self, claim: AsyncClaim, compute: Callable[[], Awaitable[str]]) -> str:
        async with claim:
            if claim.value is None:
                value = await compute()
                try:
                    await claim.fulfil(value)
                except StaleLease as error:
                    if error.value is None:
                        raise
                    return error.value
        assert claim.value is not None, "fulfilled, or a hit"
        return claim.value

    def _as_asker(self) -> Asker:
        raise NotImplementedError


class AsyncClaimGroup:
    """Several evaluations claimed at once."""

    def __init__(self, asker: Asker, targets: Mapping[str, Target]) -> None:
        """Claim nothing yet."""
        self._asker = asker
        self._targets = dict(targets)
        self._claim_id = os.urandom(16)
        self._values: dict[str, str] = {}

    async def compute(
        self, evaluate: Callable[[list[str]], Awaitable[Mapping[str, str]]], *, one_by_one: bool
    ) -> dict[str, str]:
        """Compute what is granted, then wait for what others compute."""
        wanted = list(self._targets)
        context = context_of(anyio.get_current_task().id)
        try:
            holder: LeaseEntry | None = None
            while left := [task for task in wanted if task not in self._values]:
                granted, holder = await self._ask(left, context, holder)
                for part in parts_of(granted, one_by_one=one_by_one):
                    await self._fulfil({task: granted[task] for task in part}, await evaluate(part))
        except BaseException:
            await give_up(self._asker, self._claim_id)
            raise
        return {task: self._values[task] for task in wanted}

    async def _ask(
        self, tasks: list[str], context: bytes, holder: LeaseEntry | None
    ) -> tuple[dict[str, int], LeaseEntry | None]:
        """Which tasks are ours to compute, with their tokens; waits if `holder` computes all of them."""
        targets = [self._targets[task] for task in tasks]
        request = claim_request(self._claim_id, context, targets, wait=holder is not None, takes_over=False)
        call = lease_calls.claim(request)
        if holder is None:
            return sort_states(tasks, await self._asker._ask(call), self._values)  # noqa: SLF001
        return sort_states(tasks, await wait_for_claim(self._asker, call, holder, None), self._values)

    async def _fulfil(self, granted: Mapping[str, int], logs: Mapping[str, str]) -> None:
        check_logs(granted, logs)
        for task, token in granted.items():
            owned = await self._asker._own(self._targets[task], logs[task], None, None)  # noqa: SLF001
            put = self._targets[task].put(self._asker._provenance, logs[task], token, owned)  # noqa: SLF001
            try:
                await self._asker._ask(put)  # noqa: SLF001
                self._values[task] = os.fspath(logs[task])
            except StaleLease as error:
                if error.value is None:
                    raise
                self._values[task] = error.value


async def wait_for_claim(
    asker: Asker, call: Call[list[KeyState]], holder: LeaseEntry, timeout_s: float | None
) -> list[KeyState]:
    """Wait for an answer, and say after a while whom for.

    Raises:
        ClaimTimeout: the time is over.
        CacheError: the daemon cannot be had, or refuses.
    """
    failure: CacheError | None = None
    states: list[KeyState] | None = None
    with anyio.move_on_after(timeout_s):
        async with anyio.create_task_group() as group:
            group.start_soon(_say_now_and_then, holder)
            # Caught inside the group, which would wrap it.
            try:
                states = await asker._ask_for_hours(call)  # noqa: SLF001
            except CacheError as error:
                failure = error
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if states is None:
        raise overdue(holder, timeout_s)
    return states


async def _say_now_and_then(holder: LeaseEntry) -> None:
    await anyio.sleep(NOTICE_AFTER_S)
    while True:
        say_whom_it_waits_for(holder)
        await anyio.sleep(NOTICE_INTERVAL_S)


async def give_up(asker: Asker, claim_id: bytes) -> None:
    """Release a claim, cancelled or not; without a daemon, it notices by itself when this process ends."""
    try:
        with anyio.move_on_after(GIVE_UP_TIMEOUT_S, shield=True):
            await asker._ask(lease_calls.release(claim_id))  # noqa: SLF001
            return
    except CacheError:
        pass
    import logging  # only when something is wrong

    logging.getLogger("motools.cache").warning("a lease could not be released; it ends with this process")
