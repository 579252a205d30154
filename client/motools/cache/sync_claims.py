"""Blocking claims.

Layer: motools.cache. Imports claims, files, owned, publishing, recording and sync_waiting.
Invariant: a claim that waits uses a connection of its own, so that other threads go on. Whatever ends the wait, the
daemon is told, or notices by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from motools.cache import lease_calls
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
from motools.cache.errors import (
    StaleLease,
)
from motools.cache.files import Content
from motools.cache.owned import work_path
from motools.cache.publishing import put_dataset
from motools.cache.recording import OutcomeName, Record
from motools.cache.sync_waiting import give_up, wait_for_claim

if TYPE_CHECKING:
    from motools.cache.sync import SyncCache


class SyncClaim(ClaimBase):
    """A claim of one key, to be used as a context manager.

    Leaving the block without `fulfil` or `fail`, by an exception too, releases the lease: the next who waits has it.
    """

    def __init__(self, cache: SyncCache, target: Target, options: ClaimOptions) -> None:
        """Nothing is asked before the block is entered."""
        super().__init__(target, options, cache._provenance, cache._held)  # noqa: SLF001 - the cache makes claims
        self._cache = cache

    def __enter__(self) -> Self:
        """Ask, and wait if somebody else computes.

        Raises:
            ComputationFailed: its owner recorded a failure, and `on_failure` is "raise".
            ClaimTimeout: somebody else still computes after `timeout_s`.
            ClaimDeadlock: waiting would never end.
            CacheUnavailable: the daemon cannot be had.
        """
        self._enter()
        context = context_of(get_ident())
        try:
            self._take(self._cache._call(self._request(context, wait=False)))  # noqa: SLF001 - as above
            if self.holder is not None and self._options.wait:
                states = wait_for_claim(
                    self._cache, self._request(context, wait=True), self.holder, self._options.timeout_s
                )
                self._take(states)
        except BaseException as error:
            self._leave()
            give_up(self._cache, self.claim_id, error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lease, if it is still held."""
        if self._leave():
            give_up(self._cache, self.claim_id)

    def fulfil(
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

        Args:
            value: the file id, model id or path of the log. A log that lies below `datasets/`, `runs/` or `evals/` of
                the cache directory belongs to the entry from now on.
            path_or_bytes: of a dataset, its content: kept as `put_dataset` keeps it.
            run_dir: of a model, a directory below `runs/` of the cache directory: it belongs to the entry from now on.
            ttl_s: the entry misses after so long; None: it lasts.
            metadata: what else is to be known of it: as in `RecordOptions`.
            seconds: how long it took; None: since the lease was granted.
            outcome: what is no `"success"` is kept and explained, but never a hit: those that wait compute it anew.
            labels: stored with the entry, beside those of the client.

        Raises:
            StaleLease: the lease was lost meanwhile; the value was not stored.
            CacheRequestError: not text, empty, outside the block, or a second time; or a path that no entry can own.
        """
        self._check_owner("fulfil")
        options = {"ttl_s": ttl_s, "metadata": metadata, "seconds": seconds, "outcome": outcome}
        record = self._record(options, labels)
        if path_or_bytes is not None:
            put_dataset(self._cache, self._fulfilling_with(path_or_bytes, value, record))
        else:
            owned = self._target.owned(self._cache.directory, value, run_dir, record)
            self._cache._call(self._fulfilling(value, owned))  # noqa: SLF001 - the cache makes claims
        self._end(value)

    def fail(self, reason: str, retry_after_s: float | None = None) -> None:
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
            self._cache._call(failing)  # noqa: SLF001 - the cache makes claims
        self._end()


class SyncClaims:
    """The claims of a blocking cache. `SyncCache` adds everything else."""

    def claim_dataset(
        self,
        dataset_hash: str,
        *,
        wait: bool = True,
        timeout_s: float | None = None,
        on_failure: OnFailure = "raise",
        work_dir: str | os.PathLike[str] | None = None,
    ) -> SyncClaim:
        """Claim the file id of a dataset: see `SyncClaim`.

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
    ) -> SyncClaim:
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
    ) -> SyncClaim:
        """Claim the log of an evaluation: as `claim_dataset`."""
        target = eval_target(model_id, task_id, backend_type, inspect_kwargs)
        return self._claim(target, wait=wait, timeout_s=timeout_s, on_failure=on_failure, work_dir=work_dir)

    def get_or_upload(self, dataset_hash: str, upload: Callable[[], str]) -> str:
        """The file id of a dataset; `upload()` makes it, in one process of all that ask."""
        return self._get_or_compute(self.claim_dataset(dataset_hash), upload)

    def get_or_train(
        self, dataset_hash: str, config: Mapping[str, Any], train: Callable[[], str], backend_type: str = "openai"
    ) -> str:
        """The id of a trained model; `train()` makes it, in one process of all that ask."""
        return self._get_or_compute(self.claim_model(dataset_hash, config, backend_type), train)

    def get_or_evaluate(
        self,
        model_id: str,
        task_ids: Sequence[str],
        evaluate: Callable[[list[str]], Mapping[str, str]],
        backend_type: str,
        inspect_kwargs: Mapping[str, Any] | None = None,
        *,
        one_by_one: bool = False,
    ) -> dict[str, str]:
        """The logs of evaluations; only missing tasks are evaluated, each in one process of all that ask.

        Args:
            model_id: of the model.
            task_ids: the tasks; claimed together, so that others that ask in another order cannot deadlock with this.
            evaluate: given tasks, returns the path of each one's log.
            backend_type: of the evaluation.
            inspect_kwargs: its arguments.
            one_by_one: call `evaluate` once for each task instead of once for all.
        """
        targets = {task: eval_target(model_id, task, backend_type, inspect_kwargs) for task in dict.fromkeys(task_ids)}
        group = SyncClaimGroup(self._as_cache(), targets)
        return group.compute(evaluate, one_by_one=one_by_one)

    def list_leases(self) -> list[LeaseEntry]:
        """Who computes what, the oldest first."""
        return self._as_cache()._call(lease_calls.list_leases())  # noqa: SLF001 - one object

    def break_lease(self, key: str, kind: str | None = None) -> int:
        """Take the lease of a key away from its owner, whose `fulfil` will raise StaleLease; how many there were."""
        return self._as_cache()._call(lease_calls.break_lease(key, kind))  # noqa: SLF001 - one object

    def _claim(
        self,
        target: Target,
        *,
        wait: bool,
        timeout_s: float | None,
        on_failure: OnFailure,
        work_dir: str | os.PathLike[str] | None,
    ) -> SyncClaim:
        cache = self._as_cache()
        place = None if work_dir is None else work_path(cache.directory, work_dir)
        options = ClaimOptions(wait=wait, timeout_s=timeout_s, on_failure=on_failure, work_dir=place)
        return SyncClaim(cache, target, options)

    def _get_or_compute(self, claim: SyncClaim, compute: Callable[[], str]) -> str:
        with claim:
            if claim.value is None:
                value = compute()
                try:
                    claim.fulfil(value)
                except StaleLease as error:
                    if error.value is None:
                        raise
                    return error.value
        assert claim.value is not None, "fulfilled, or a hit"
        return claim.value

    def _as_cache(self) -> SyncCache:
        raise NotImplementedError


class SyncClaimGroup:
    """Several evaluations claimed at once."""

    def __init__(self, cache: SyncCache, targets: Mapping[str, Target]) -> None:
        """Claim nothing yet."""
        self._cache = cache
        self._targets = dict(targets)
        self._claim_id = os.urandom(16)
        self._values: dict[str, str] = {}

    def compute(self, evaluate: Callable[[list[str]], Mapping[str, str]], *, one_by_one: bool) -> dict[str, str]:
        """Compute what is granted, then wait for what others compute."""
        wanted = list(self._targets)
        context = context_of(get_ident())
        try:
            holder: LeaseEntry | None = None
            while left := [task for task in wanted if task not in self._values]:
                granted, holder = self._ask(left, context, holder)
                for part in parts_of(granted, one_by_one=one_by_one):
                    started_s = monotonic_s()
                    logs = evaluate(part)
                    share_s = (monotonic_s() - started_s) / len(part)
                    self._fulfil({task: granted[task] for task in part}, logs, Record(seconds=share_s))
        except BaseException as error:
            give_up(self._cache, self._claim_id, error)
            raise
        return {task: self._values[task] for task in wanted}

    def _ask(
        self, tasks: list[str], context: bytes, holder: LeaseEntry | None
    ) -> tuple[dict[str, int], LeaseEntry | None]:
        """Which tasks are ours to compute, with their tokens; waits if `holder` computes all of them."""
        targets = [self._targets[task] for task in tasks]
        provenance = self._cache._provenance  # noqa: SLF001
        call = lease_calls.claim(
            claim_request(
                self._claim_id,
                context,
                targets,
                provenance,
                wait=holder is not None,
                takes_over=False,
            )
        )
        states = (
            self._cache._call(call)  # noqa: SLF001 - the cache makes claims
            if holder is None
            else wait_for_claim(self._cache, call, holder, None)
        )
        return sort_states(tasks, states, self._values)

    def _fulfil(self, granted: Mapping[str, int], logs: Mapping[str, str], record: Record) -> None:
        check_logs(granted, logs)
        for task, token in granted.items():
            try:
                owned = self._targets[task].owned(self._cache.directory, logs[task], None, record)
                put = self._targets[task].put(self._cache._provenance, logs[task], token, owned)  # noqa: SLF001
                self._cache._call(put)  # noqa: SLF001
                self._values[task] = os.fspath(logs[task])
            except StaleLease as error:
                if error.value is None:
                    raise
                self._values[task] = error.value
