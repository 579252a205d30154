"""Claims: what the blocking and the async ones have in common.

Layer: motools.cache. Imports calls, lookups, errors, files, owned, publishing and motoolsd.wire.
Invariant: no I/O but the notice on stderr. A claim belongs to the process that made it: a forked child that leaves the
block releases nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, get_args

from msgspec import Struct, structs

from motools.cache import calls, lease_calls
from motools.cache.arguments import check_seconds, text
from motools.cache.calls import Call
from motools.cache.clock import monotonic_s
from motools.cache.entries import LeaseEntry, lease_entry, text_of
from motools.cache.errors import CacheProtocolError, CacheRequestError, ClaimTimeout, ComputationFailed
from motools.cache.files import Check, Content, proceed
from motools.cache.lookups import eval_inputs, eval_keys_of, model_inputs, model_key_of
from motools.cache.owned import own_logs, own_run
from motools.cache.publishing import DatasetPut
from motools.cache.recording import PLAIN, Owned, Provenance, Record
from motoolsd.wire.entries import KeyState
from motoolsd.wire.keys import Kind
from motoolsd.wire.leases import Claim

OnFailure = Literal["raise", "take over"]

NOTICE_AFTER_S: Final = 2.0
NOTICE_INTERVAL_S: Final = 300.0
"""A waiting claim says whom it waits for after the first, then every so often."""
GIVE_UP_TIMEOUT_S: Final = 2.0
"""For telling the daemon that a claim is over, when an exception is on its way."""

_process_id = os.urandom(16)


def _after_fork_in_child() -> None:
    global _process_id  # noqa: PLW0603 - a child is another process
    _process_id = os.urandom(16)


os.register_at_fork(after_in_child=_after_fork_in_child)


def context_of(place: int) -> bytes:
    """Names a thread or task among all of all processes."""
    return _process_id + place.to_bytes(8, "big", signed=False)


class Target(Struct, frozen=True):
    """A key to claim, and how its value is stored."""

    kind: Kind
    key: str
    put: Callable[[Provenance, str, int, Owned], Call[None]]
    """From provenance, value, token and what the entry owns."""
    inputs: Callable[[], bytes] | None = None
    """What the key is made from, as JSON, without credentials; None: the key says it all."""
    task_id: str | None = None
    """Of an evaluation."""
    dataset_hash: str | None = None
    """Of a model."""

    def owned(
        self, directory: str | None, value: object, run_dir: object, record: Record = PLAIN, check: Check = proceed
    ) -> Owned:
        """What the entry owns with this value, brought to disk. Blocks.

        Args:
            directory: the cache's; None: there is none, and nothing is owned.
            value: that of an evaluation may be the path of its log.
            run_dir: of a model.
            record: what else is stored with it.
            check: called now and then.

        Raises:
            CacheRequestError: a run directory for what is no model, or one that no entry can own.
            StorageFailed: the disk failed.
        """
        if run_dir is not None and self.kind is not Kind.MODEL:
            raise CacheRequestError(f"run_dir is a model's; this is the claim of {self.kind.value} {self.key}")
        if directory is None:
            return Owned(record=record)
        logs = {} if self.task_id is None else own_logs(directory, {self.task_id: value}, check)
        return Owned(files=own_run(directory, run_dir, check), logs=logs, record=record)


def dataset_target(dataset_hash: str) -> Target:
    """The file id of a dataset."""

    def put(provenance: Provenance, value: str, token: int, owned: Owned) -> Call[None]:
        return calls.set_file_id(provenance, dataset_hash, value, token, owned)

    return Target(Kind.DATASET, text(dataset_hash, "dataset_hash"), put)


def model_target(dataset_hash: str, config: Mapping[str, Any], backend_type: str) -> Target:
    """The id of a trained model."""
    key = model_key_of(dataset_hash, config, backend_type)

    def put(provenance: Provenance, value: str, token: int, owned: Owned) -> Call[None]:
        return calls.set_model_id(provenance, dataset_hash, config, value, backend_type, token, owned)

    inputs = partial(model_inputs, dataset_hash, config, backend_type)
    return Target(Kind.MODEL, key, put, inputs, dataset_hash=dataset_hash)


def eval_target(model_id: str, task_id: str, backend_type: str, inspect_kwargs: Mapping[str, Any] | None) -> Target:
    """The log of an evaluation."""
    (key,) = eval_keys_of(model_id, [text(task_id, "task_id")], backend_type, inspect_kwargs)

    def put(provenance: Provenance, value: str, token: int, owned: Owned) -> Call[None]:
        logs = {task_id: value}
        return calls.set_eval_log_paths(provenance, model_id, logs, backend_type, inspect_kwargs, token, owned)

    inputs = partial(eval_inputs, model_id, task_id, backend_type, inspect_kwargs)
    return Target(Kind.EVAL, key, put, inputs, task_id=task_id)


class ClaimOptions(Struct, frozen=True, kw_only=True):
    """How a claim behaves."""

    wait: bool = True
    timeout_s: float | None = None
    on_failure: str = "raise"
    work_dir: bytes | None = None
    """Relative to the cache directory."""

    def __post_init__(self) -> None:
        """Check them."""
        if self.on_failure not in get_args(OnFailure):
            raise CacheRequestError(f'on_failure must be "raise" or "take over", not {self.on_failure!r}')
        if self.timeout_s is not None:
            check_seconds(self.timeout_s, "timeout_s")


class ClaimBase:
    """One key's claim.

    Attributes:
        value: the value; None until there is one.
        is_owner: whether this claim has the lease: compute, then `fulfil`.
        holder: with `wait=False`, who has it.
        claim_id: names the claim, for `join_lease`.
    """

    def __init__(self, target: Target, options: ClaimOptions, provenance: Provenance, held: set[bytes]) -> None:
        """Nothing is asked before the block is entered; `held` names the client's claims that have a lease."""
        self._held = held
        self._target = target
        self._options = options
        self._provenance = provenance
        self._pid = os.getpid()
        self._token = 0
        self._granted_s: float | None = None
        self._is_uncached = False
        self._is_inside = False
        self._is_over = False
        self.claim_id = os.urandom(16)
        self.value: str | None = None
        self.is_owner = False
        self.holder: LeaseEntry | None = None

    @property
    def pending(self) -> bool:
        """Whether somebody else computes; only with `wait=False`."""
        return self.holder is not None

    def __repr__(self) -> str:
        """The key, and how it stands."""
        state = "owner" if self.is_owner else "pending" if self.pending else repr(self.value)
        return f"<{type(self).__name__} {self._target.kind.value} {self._target.key} {state}>"

    def _enter(self) -> None:
        if self._is_inside or self._is_over:
            message = "a claim is entered once: make a new one"
            raise CacheRequestError(message)
        self._is_inside = True

    def _request(self, context: bytes, *, wait: bool) -> Call[list[KeyState]]:
        return lease_calls.claim(
            claim_request(
                self.claim_id,
                context,
                [self._target],
                self._provenance,
                wait=wait,
                takes_over=self._options.on_failure == "take over",
                work_dir=self._options.work_dir,
            )
        )

    def _take(self, states: list[KeyState]) -> None:
        """Learn how the key stands.

        Raises:
            ComputationFailed: its owner recorded a failure.
        """
        self.holder = None
        if not states:  # no daemon, and misses were asked for
            self.is_owner = self._is_uncached = True
            return
        (state,) = states
        if state.value is not None:
            self.value = text_of(state.value)
        elif state.token:
            self._token = state.token
            self._granted_s = monotonic_s()
            self.is_owner = True
            self._held.add(self.claim_id)
        elif state.failure is not None:
            raise ComputationFailed(state.failure)
        elif state.holder is not None:
            self.holder = lease_entry(state.holder)
        else:
            message = "the daemon answered a claim with nothing"
            raise CacheProtocolError(message)

    def _record(self, options: Mapping[str, Any], labels: Mapping[str, str]) -> Record:
        """What is stored with the value; how long it took is measured from the grant of the lease.

        Raises:
            CacheRequestError: an option makes no sense.
        """
        record = Record(**options, labels=labels or None)
        if record.seconds is not None or self._granted_s is None:
            return record
        return structs.replace(record, seconds=monotonic_s() - self._granted_s)

    def _fulfilling(self, value: str, owned: Owned) -> Call[None]:
        """The call that stores the value.

        Raises:
            CacheRequestError: the value is none.
        """
        return self._target.put(self._provenance, value, self._token, owned)

    def _fulfilling_with(self, content: Content, file_id: str, record: Record) -> DatasetPut:
        """The same for a dataset whose content is kept.

        Raises:
            CacheRequestError: it is no dataset, or an argument is none.
        """
        if self._target.kind is not Kind.DATASET:
            raise CacheRequestError(f"content is a dataset's; this is the claim of {self._target.kind.value}")
        key = self._target.key
        return DatasetPut(content, file_id, self._provenance, record, token=self._token, dataset_hash=key)

    def _failing(self, reason: str, retry_after_s: float | None) -> Call[int]:
        self._check_owner("fail")
        return lease_calls.record_failure(self._target.kind, self._target.key, self._token or 1, reason, retry_after_s)

    def _check_owner(self, verb: str) -> None:
        if self._pid != os.getpid():
            raise CacheRequestError(f"{verb}() in a forked child: the lease is the parent's")
        if not self._is_inside:
            raise CacheRequestError(f"{verb}() outside the claim's block")
        if self._is_over:
            raise CacheRequestError(f"{verb}() after the claim was fulfilled or has failed: a claim ends once")
        if not self.is_owner:
            raise CacheRequestError(f"{verb}() without the lease: use claim.value, or see claim.is_owner")

    def _end(self, value: str | None = None) -> None:
        self._is_over = True
        self.is_owner = False
        self._held.discard(self.claim_id)
        if value is not None:
            self.value = os.fspath(value)

    def _leave(self) -> bool:
        """Whether the lease is to be released."""
        is_held = self.is_owner and not self._is_over and not self._is_uncached and self._pid == os.getpid()
        self._is_inside = False
        self._is_over = True
        self.is_owner = False
        self._held.discard(self.claim_id)
        return is_held


def claim_request(
    claim_id: bytes,
    context: bytes,
    targets: Sequence[Target],
    provenance: Provenance,
    *,
    wait: bool,
    takes_over: bool,
    work_dir: bytes | None = None,
) -> Claim:
    """The request for keys of one kind."""
    return Claim(
        claim_id=claim_id,
        context=context,
        kind=targets[0].kind,
        keys=[target.key for target in targets],
        wait=wait,
        takes_over=takes_over,
        work_dir=work_dir,
        dataset_hash=targets[0].dataset_hash,
        version=provenance.asked_version,
        is_strict=provenance.is_strict,
        inputs=[] if wait else [target.inputs() for target in targets if target.inputs is not None],
    )


def sort_states(
    tasks: Sequence[str], states: list[KeyState], values: dict[str, str]
) -> tuple[dict[str, int], LeaseEntry | None]:
    """Put values where they belong; the tokens of what was granted, and a holder if there is nothing to compute.

    Raises:
        ComputationFailed: an owner recorded a failure.
    """
    granted: dict[str, int] = {}
    holder: LeaseEntry | None = None
    if not states:  # no daemon, and misses were asked for
        return dict.fromkeys(tasks, 0), None
    for task, state in zip(tasks, states, strict=True):
        if state.value is not None:
            values[task] = text_of(state.value)
        elif state.token:
            granted[task] = state.token
        elif state.failure is not None:
            raise ComputationFailed(state.failure)
        elif state.holder is not None:
            holder = lease_entry(state.holder)
        else:
            message = "the daemon answered a claim with nothing"
            raise CacheProtocolError(message)
    return granted, holder if not granted else None


def check_logs(granted: Mapping[str, int], logs: object) -> None:
    """Make sure that an evaluation gave every log.

    Raises:
        CacheRequestError: it did not.
    """
    if not isinstance(logs, Mapping):
        raise CacheRequestError(f"evaluate() must return a mapping of task ids to paths, not {type(logs).__name__}")
    if missing := [task for task in granted if task not in logs]:
        raise CacheRequestError(f"evaluate() returned no log for {', '.join(missing[:5])}")


def parts_of(granted: Mapping[str, int], *, one_by_one: bool) -> list[list[str]]:
    """The tasks of each call of `evaluate`."""
    if one_by_one:
        return [[task] for task in granted]
    return [list(granted)] if granted else []


def overdue(holder: LeaseEntry, timeout_s: float | None) -> ClaimTimeout:
    """The error for a wait that took too long."""
    return ClaimTimeout(f"pid {holder.pid} still computes {holder.kind} {holder.key} after {timeout_s:g} s")


def say_whom_it_waits_for(holder: LeaseEntry) -> None:
    """One line on stderr."""
    owner = f"pid {holder.pid}" if holder.pid else "a process of another PID namespace"
    doing = f" ({holder.command[:60]})" if holder.command else ""
    line = f"motools: waiting for the {holder.kind} that {owner}{doing} computes since {holder.since}\n"
    try:
        sys.stderr.write(line)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # nobody reads it


def join_lease(directory: str, claim_id: bytes) -> None:
    """Let the leases of a claim last until this process has ended, too.

    For a child that a job has forked, before it executes another program.

    Raises:
        CacheError: the daemon cannot be had, or the claim holds no lease.
    """
    from motools.cache.connection import BlockingConnection  # this is for one process in a thousand
    from motools.cache.launch import connect

    connection = BlockingConnection(
        connect(directory, timeout_s=GIVE_UP_TIMEOUT_S, autostart=False, create=False), GIVE_UP_TIMEOUT_S
    )
    try:
        call = lease_calls.join(claim_id)
        call.result(connection.exchange(call.request_for(None), GIVE_UP_TIMEOUT_S))
    finally:
        connection.close()
