"""Claims for asyncio and trio.

Layer: motools.cache. Imports claims, files and publishing.
Invariant: works over whatever answers its two kinds of questions, a daemon or a dictionary. A claim that is cancelled
while it waits leaves nothing behind.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio

from motools.cache import lease_calls
from motools.cache.async_waiting import Asker, give_up, wait_for_claim
from motools.cache.claims import (
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
    parts_of,
    sort_states,
)
from motools.cache.clock import monotonic_s
from motools.cache.entries import LeaseEntry
from motools.cache.errors import StaleLease
from motools.cache.files import Content
from motools.cache.recording import OutcomeName, Record

T = TypeVar("T")


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
        except BaseException as error:
            self._leave()
            await give_up(self._asker, self.claim_id, error)
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
        metadata: Mapping[str, Any] | None = None,
        seconds: float | None = None,
        outcome: OutcomeName = "success",
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
        options = {"ttl_s": ttl_s, "metadata": metadata, "seconds": seconds, "outcome": outcome}
        record = self._record(options, labels)
        if path_or_bytes is not None:
            await self._asker._keep(self._fulfilling_with(path_or_bytes, value, record))  # noqa: SLF001
        else:
            owned = await self._asker._own(self._target, value, run_dir, record)  # noqa: SLF001
            await self._asker._ask(self._fulfilling(value, owned))  # noqa: SLF001
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
                    started_s = monotonic_s()
                    logs = await evaluate(part)
                    share_s = (monotonic_s() - started_s) / len(part)
                    await self._fulfil({task: granted[task] for task in part}, logs, Record(seconds=share_s))
        except BaseException as error:
            await give_up(self._asker, self._claim_id, error)
            raise
        return {task: self._values[task] for task in wanted}

    async def _ask(
        self, tasks: list[str], context: bytes, holder: LeaseEntry | None
    ) -> tuple[dict[str, int], LeaseEntry | None]:
        """Which tasks are ours to compute, with their tokens; waits if `holder` computes all of them."""
        targets = [self._targets[task] for task in tasks]
        provenance = self._asker._provenance  # noqa: SLF001
        request = claim_request(
            self._claim_id,
            context,
            targets,
            provenance,
            wait=holder is not None,
            takes_over=False,
        )
        call = lease_calls.claim(request)
        if holder is None:
            return sort_states(tasks, await self._asker._ask(call), self._values)  # noqa: SLF001
        return sort_states(tasks, await wait_for_claim(self._asker, call, holder, None), self._values)

    async def _fulfil(self, granted: Mapping[str, int], logs: Mapping[str, str], record: Record) -> None:
        check_logs(granted, logs)
        for task, token in granted.items():
            owned = await self._asker._own(self._targets[task], logs[task], None, record)  # noqa: SLF001
            put = self._targets[task].put(self._asker._provenance, logs[task], token, owned)  # noqa: SLF001
            try:
                await self._asker._ask(put)  # noqa: SLF001
                self._values[task] = os.fspath(logs[task])
            except StaleLease as error:
                if error.value is None:
                    raise
                self._values[task] = error.value
