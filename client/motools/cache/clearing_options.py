"""Which entries a clear or a prune takes, and how: options as callers give them, and as the daemon takes them.

Layer: motools.cache. Imports arguments, calls, cleaning, errors, filtering and motoolsd.wire.
Invariant: nothing is chosen by what is not given; an option of another name is a TypeError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import msgspec

from motools.cache.arguments import ByteSize, Duration, byte_size, duration
from motools.cache.calls import ClearScope
from motools.cache.cleaning import OnProgress
from motools.cache.errors import CacheRequestError
from motools.cache.filtering import (
    AnyFilterOptions,
    FilterOptions,
    checked_filters,
    filters_of,
    fitting_kinds,
    kinds_named,
)
from motoolsd.wire.cleaning import ORPHAN_AGE_S, Criteria
from motoolsd.wire.filters import Filters
from motoolsd.wire.keys import Kind


class ClearOptions(TypedDict, total=False):
    """How files are removed.

    Attributes:
        to_trash: so that it can be undone; else the room is freed at once.
        force: pins protect nothing.
        on_progress: told how far it has come.
    """

    to_trash: bool
    force: bool
    on_progress: OnProgress | None


class FilteredClearOptions(ClearOptions, FilterOptions, total=False):
    """Which entries go, and how.

    Attributes:
        downstream: also what was made from them: models of datasets, evaluations of models.
    """

    downstream: bool


class Clearing(msgspec.Struct, frozen=True, kw_only=True):
    """The same with what is not given; an option of another name is a TypeError."""

    to_trash: bool = True
    force: bool = False
    on_progress: OnProgress | None = None
    downstream: bool = False


def filtered(options: FilteredClearOptions, kind: Kind) -> tuple[Clearing, ClearScope]:
    """How to clear entries of one kind, and which of them.

    Raises:
        TypeError: an option has no such name.
        CacheRequestError: a filter makes no sense.
    """
    given = dict(options)
    names = [name for name in Clearing.__struct_fields__ if name in given]
    how = Clearing(**{name: given.pop(name) for name in names})  # type: ignore[arg-type]
    scope = ClearScope(force=how.force, filters=checked_filters(given, kind), downstream=how.downstream)
    return how, scope


class PruneOptions(ClearOptions, AnyFilterOptions, total=False):
    """What is to go, and how: entries that pass all filters, or other things.

    Attributes:
        to: only so many entries, the least recently used first, as bring the total down to this: bytes, or "50GB".
        downstream: also what was made from them.
        orphans: files that belong to nothing.
        orphan_age: of these only what has been there for so long; a day.
        dangling: entries whose files are gone.
        kinds: "dataset", "model", "eval": only these are chosen by filters and size; None: all that these fit.
    """

    to: ByteSize | None
    downstream: bool
    orphans: bool
    orphan_age: Duration
    dangling: bool
    kinds: Sequence[str] | None


class Pruning(Clearing, frozen=True, kw_only=True):
    """The same with what is not given; `filters` are those that were."""

    to: ByteSize | None = None
    orphans: bool = False
    orphan_age: Duration = ORPHAN_AGE_S
    dangling: bool = False
    kinds: Sequence[str] | None = None
    filters: Filters = Filters()

    def criteria(self) -> Criteria:
        """The same in the daemon's words.

        Raises:
            CacheRequestError: nothing was chosen, or something cannot be read.
        """
        to_bytes = None if self.to is None else byte_size(self.to, "to")
        by_entry = self.filters != Filters() or to_bytes is not None
        if not (by_entry or self.orphans or self.dangling):
            message = (
                "prune removes nothing until it is told what: give a filter (older_than, unused_for, labels, where"
                " ...), to, orphans=True or dangling=True"
            )
            raise CacheRequestError(message)
        # Ages are said in the reason of each entry, so they travel by themselves.
        others = msgspec.structs.replace(self.filters, older_than_s=None, unused_for_s=None)
        return Criteria(
            kinds=self._kinds(by_entry=by_entry),
            older_than_s=self.filters.older_than_s,
            unused_for_s=self.filters.unused_for_s,
            filters=None if others == Filters() else others,
            downstream=bool(self.downstream),
            to_bytes=to_bytes,
            orphans=bool(self.orphans),
            orphan_age_s=duration(self.orphan_age, "orphan_age"),
            dangling=bool(self.dangling),
            force=bool(self.force),
        )

    def _kinds(self, *, by_entry: bool) -> tuple[Kind, ...]:
        chosen = kinds_named(self.kinds)
        # Without a filter or a size, the daemon would take these kinds as a whole.
        if chosen and not by_entry:
            message = "kinds choose among filters and to: give one of these with them"
            raise CacheRequestError(message)
        return fitting_kinds(self.filters, chosen) if by_entry else ()


def pruning(options: PruneOptions) -> Pruning:
    """What is to go, and how.

    Raises:
        TypeError: an option has no such name.
        CacheRequestError: a filter cannot be read.
    """
    given = dict(options)
    names = [name for name in Pruning.__struct_fields__ if name != "filters" and name in given]
    return Pruning(**{name: given.pop(name) for name in names}, filters=filters_of(given))  # type: ignore[arg-type]
