"""The table of calls about sizes, clean-up, the trash, protection and verifying.

Layer: motools.cache. Imports arguments, calls, cleaning, clock, entries, errors, lookups, recovery and motoolsd.wire.
Invariant: as in `calls`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, cast

import msgspec

from motools.cache.arguments import (
    optional_kind,
    optional_texts,
    seconds_until,
    text,
)
from motools.cache.calls import FILTERS, Call, ClearScope
from motools.cache.cleaning import (
    CleanupPlan,
    CleanupResult,
    OnProgress,
    SizeReport,
    TrashItem,
    VerifyReport,
    cleanup_plan,
    cleanup_result,
    progress,
    size_report,
    trash_items,
    verify_report,
)
from motools.cache.clock import monotonic_s
from motools.cache.entries import DatasetEntry, EvalEntry, ModelEntry
from motools.cache.errors import CacheError, CacheRequestError, ConnectionLost, DaemonBusy, EntryNotFound
from motools.cache.lookups import values_of
from motools.cache.recovery import Recovery
from motoolsd.wire import cleaning as wire
from motoolsd.wire.cleaning import Criteria
from motoolsd.wire.fields import KEYS_PER_REQUEST_MAX
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.leases import Released
from motoolsd.wire.messages import Reply
from motoolsd.wire.sizes import TOP_MAX, GetSizes, Sizes

PLANS_MAX: Final = 3
"""Where plan and application are one call, others may change things in between: then it is planned anew, so often."""
NUMBER_MAX: Final = 2**63 - 1


class Gathering:
    """The pages of a long answer; progress is handed on as it comes."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        """Nothing came yet."""
        self._on_progress = on_progress
        self.pages: list[Reply] = []
        self.has_begun = False

    def take(self, reply: Reply) -> None:
        """One message of it."""
        self.has_begun = True
        if not isinstance(reply, wire.Progress):
            self.pages.append(reply)
        elif self._on_progress is not None:
            self._on_progress(progress(reply))


def after_break(recovery: Recovery, error: CacheError, gathering: Gathering, *, is_repeatable: bool) -> Recovery:
    """What patience a long call has after an error.

    Raises:
        CacheError: none: nothing came for too long, or what was asked must not be asked twice.
    """
    if isinstance(error, ConnectionLost) and not is_repeatable:
        raise ConnectionLost(f"{error}; it may have been done: see list_trash()", False) from error
    if isinstance(error, DaemonBusy) and gathering.has_begun:
        raise error
    # What has come so far says that the daemon was well: its restart has the whole time again.
    return recovery.anew(monotonic_s()) if gathering.has_begun else recovery


# Sizes.


def get_size_report(*, top: int) -> Call[SizeReport]:
    """What everything takes, as far as it is known."""
    return Call(_get_sizes(rescan=False, top=top), Sizes, size_report)


def rescan(*, top: int) -> Call[SizeReport]:
    """The same, counted anew."""

    def decode(pages: list[Sizes]) -> SizeReport:
        return size_report(pages[-1])

    return Call(_get_sizes(rescan=True, top=top), Sizes, decode, is_stream=True)


def _get_sizes(*, rescan: bool, top: object) -> GetSizes:
    if not isinstance(top, int) or isinstance(top, bool) or not 0 <= top <= TOP_MAX:
        raise CacheRequestError(f"top must be a whole number up to {TOP_MAX}, not {top!r}")
    return GetSizes(rescan=rescan, top=top)


# Plans.


def make_plan(criteria: Criteria) -> Call[CleanupPlan]:
    """What would go."""
    needs = FILTERS if criteria.filters is not None or criteria.downstream else None
    return Call(wire.MakePlan(criteria=criteria), wire.PlanPage, cleanup_plan, is_stream=True, needs=needs)


def apply_plan(plan_id: str, *, to_trash: bool) -> Call[CleanupResult]:
    """Carry out exactly a plan."""
    request = wire.ApplyPlan(plan_id=_plan_name(plan_id), to_trash=bool(to_trash))
    return Call(request, wire.Cleaned, cleanup_result, is_stream=True)


def _plan_name(plan_id: object) -> str:
    name = text(plan_id, "plan_id")
    if len(name) > 64:  # noqa: PLR2004 - motoolsd.wire.cleaning.PlanId
        raise EntryNotFound(f"there is no plan {name[:64]}...: make one with dry_run=True")
    return name


def is_with_files(*, delete_files: bool, dry_run: bool) -> bool:
    """Whether a clear is a clean-up.

    Raises:
        CacheRequestError: a plan is asked for where there is none.
    """
    if dry_run and not delete_files:
        message = "dry_run shows what would go together with its files: add delete_files=True"
        raise CacheRequestError(message)
    return delete_files


def datasets(dataset_hashes: Sequence[str] | None, scope: ClearScope) -> Criteria:
    """Some datasets, or all."""
    return _criteria(Kind.DATASET, scope, keys=optional_texts(dataset_hashes, "dataset_hashes"))


def models(model_ids: Sequence[str] | None, scope: ClearScope) -> Criteria:
    """Some models, or all."""
    return _criteria(Kind.MODEL, scope, model_ids=optional_texts(model_ids, "model_ids"))


def evals(model_ids: Sequence[str] | None, task_ids: Sequence[str] | None, scope: ClearScope) -> Criteria:
    """The evaluations that match both lists, or all."""
    chosen = optional_texts(model_ids, "model_ids"), optional_texts(task_ids, "task_ids")
    return _criteria(Kind.EVAL, scope, model_ids=chosen[0], task_ids=chosen[1])


def _criteria(
    kind: Kind,
    scope: ClearScope,
    *,
    keys: list[str] | None = None,
    model_ids: list[str] | None = None,
    task_ids: list[str] | None = None,
) -> Criteria:
    return Criteria(
        kinds=(kind,),
        keys=keys,
        model_ids=model_ids,
        task_ids=task_ids,
        force=bool(scope.force),
        filters=scope.filters,
        downstream=bool(scope.downstream),
    )


def everything(*, force: bool) -> Criteria:
    """Every entry."""
    return Criteria(kinds=tuple(Kind), force=bool(force))


# The trash.


def undo(removal_id: int | None) -> Call[CleanupResult]:
    """Put back what a clean-up took."""
    chosen = None if removal_id is None else _removal(removal_id)
    return Call(wire.Undo(removal_id=chosen), wire.Cleaned, cleanup_result, is_stream=True)


def list_trash() -> Call[list[TrashItem]]:
    """What can be put back."""
    return Call(wire.ListTrash(), wire.TrashPage, trash_items, is_stream=True)


def empty_trash(removal_ids: Sequence[int] | None) -> Call[CleanupResult]:
    """Free what lies in the trash."""
    if removal_ids is not None:
        if isinstance(removal_ids, str | int):
            raise CacheRequestError(f"removal_ids must be a list of numbers, not {removal_ids!r}")
        removal_ids = [_removal(number) for number in removal_ids]
    return Call(wire.EmptyTrash(removal_ids=removal_ids), wire.Cleaned, cleanup_result, is_stream=True)


def _removal(number: object) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise CacheRequestError(f"a removal is named by its number, not by {number!r}: see list_trash()")
    if not 1 <= number <= NUMBER_MAX:
        raise EntryNotFound(f"there is nothing with number {number} in the trash: see list_trash()")
    return number


# Protection.


def pin(key: str, kind: str | None, reason: str, until: object) -> Call[int]:
    """Protect entries; how many there are."""
    if not isinstance(reason, str):
        raise CacheRequestError(f"reason must be text, not {type(reason).__name__}")
    request = wire.Pin(
        key=text(key, "key"),
        kind=optional_kind(kind),
        reason=text(reason, "reason") if reason else "",
        until_s=None if until is None else seconds_until(until, "until"),
    )
    return Call(request, wire.Pinned, _pinned)


def unpin(key: str, kind: str | None) -> Call[int]:
    """Take that protection away; how many entries there are."""
    request = wire.Pin(key=text(key, "key"), kind=optional_kind(kind), is_pinned=False)
    return Call(request, wire.Pinned, _pinned)


def _pinned(reply: wire.Pinned) -> int:
    return reply.count


class UsePart(NamedTuple):
    """Entries of one kind that are used together, as many as fit into a request."""

    use_id: bytes
    kind: Kind
    keys: list[str]

    def begin(self) -> Call[int | None]:
        """Protect them; None: there is no daemon, and misses were asked for."""
        return Call(wire.Use(use_id=self.use_id, kind=self.kind, keys=self.keys), Released, _released, None)

    def look(self) -> Call[list[str | None] | None]:
        """Their values; None as above."""
        call = cast("Call[list[str | None] | None]", values_of(self.kind, self.keys))
        return msgspec.structs.replace(call, fallback=None)

    def check(self, values: list[str | None] | None) -> None:
        """Make sure that all of them are there.

        Raises:
            EntryNotFound: one is not.
        """
        for key, value in zip(self.keys, values or (), strict=values is not None):
            if value is None:
                raise EntryNotFound(f"{self.kind.value} {key} is gone: it was removed, or its file is missing")


def use_parts(entries: Sequence[object]) -> Iterator[UsePart]:
    """What `using` asks for.

    Raises:
        CacheRequestError: one is no entry.
    """
    keys: dict[Kind, dict[str, None]] = {}
    for entry in entries:
        kind, key = _key_of(entry)
        keys.setdefault(kind, {})[key] = None
    for kind, unique in keys.items():
        listed = list(unique)
        for start in range(0, len(listed), KEYS_PER_REQUEST_MAX):
            yield UsePart(os.urandom(16), kind, listed[start : start + KEYS_PER_REQUEST_MAX])


def _key_of(entry: object) -> tuple[Kind, str]:
    match entry:
        case DatasetEntry():
            return Kind.DATASET, entry.dataset_hash
        case ModelEntry():
            return Kind.MODEL, entry.cache_key
        case EvalEntry():
            key = eval_key(entry.model_id, entry.task_id, entry.backend_type, entry.inspect_kwargs_hash)
            return Kind.EVAL, key
    raise CacheRequestError(f"using() takes entries as list_datasets() and the like give them, not {entry!r}")


def end_use(use_id: bytes) -> Call[int | None]:
    """They are not in use any more."""
    return Call(wire.EndUse(use_id=use_id), Released, _released, None)


def _released(reply: Released) -> int:
    return reply.count


# Verifying.


def verify(*, deep: bool, repair: bool) -> Call[VerifyReport]:
    """What is wrong."""
    request = wire.Verify(deep=bool(deep), repair=bool(repair))
    return Call(request, wire.FindingPage, verify_report, is_stream=True)
