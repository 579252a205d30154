"""What a clean-up takes, and what it leaves.

Layer: core. Imports deadlines, files, leases and wire.
Invariant: pure. A path goes only if all that own it, or anything above or below it, go too. What is protected is
named, never silently left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct, field

from motoolsd.core.deadlines import Moment
from motoolsd.core.files import Orphan, Seen, ancestors_of, overlaps
from motoolsd.core.guards import MISSING
from motoolsd.core.leases import Key
from motoolsd.wire.cleaning import ORPHAN, Criteria, Kept, PlanItem, Protected
from motoolsd.wire.keys import Kind

PLAN_ITEMS_MAX: Final = 200_000
"""Items of one plan; what is above it is left for the next."""
_DAY_S: Final = 86_400.0

EntryName = tuple[Kind, "bytes | float | None"]
"""An entry as motoolsd_files names it."""


class OwnedRoom(Struct, frozen=True, array_like=True, gc=False):
    """A path of an entry, and what it takes."""

    path: bytes
    size_bytes: int = 0
    allocated_bytes: int = 0


class Candidate(Struct, frozen=True, gc=False):
    """An entry that fits the criteria."""

    kind: Kind
    key: str
    name: EntryName
    value: bytes
    created_at: str | None
    """As the row has it."""
    used_at: str | None
    """The latest of its creation and its last use."""
    files: tuple[OwnedRoom, ...] = ()
    pinned: str | None = None
    """Why it is pinned; None if it is not."""
    void_reason: str | None = None


class PlannedPath(Struct, frozen=True, array_like=True, gc=False):
    """A path that goes, and what it looked like."""

    path: bytes
    seen: Seen
    size_bytes: int = 0
    allocated_bytes: int = 0


class PlannedItem(Struct, frozen=True, gc=False):
    """An entry or an orphan that goes."""

    kind: str
    key: str
    value: bytes = b""
    created_at: str | None = None
    paths: tuple[PlannedPath, ...] = ()
    reason: str = ""
    size_bytes: int = 0
    allocated_bytes: int = 0
    """Of the paths that go with it."""

    def shown(self) -> PlanItem:
        """As it is told."""
        return PlanItem(
            kind=self.kind,
            key=self.key,
            value=self.value,
            paths=tuple(path.path for path in self.paths),
            size_bytes=self.size_bytes,
            allocated_bytes=self.allocated_bytes,
            reason=self.reason,
        )


class Plan(Struct, frozen=True):
    """What a clean-up is to do, exactly."""

    plan_id: str
    made: Moment
    criteria: Criteria
    items: list[PlannedItem] = field(default_factory=list)
    protected: list[Protected] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    reason: str = ""

    @property
    def allocated_bytes(self) -> int:
        """What the disk gets back."""
        return sum(item.allocated_bytes for item in self.items)


class Draft(Struct, frozen=True):
    """The choice, before anybody has looked at the files."""

    chosen: list[tuple[Candidate, str]]
    """With the reason."""
    protected: list[Protected]


def choose(candidates: Sequence[Candidate], criteria: Criteria, protected: Mapping[Key, str], live_bytes: int) -> Draft:
    """Which candidates go.

    Args:
        candidates: the least recently used first.
        criteria: what was asked for.
        protected: why these entries stay, whatever they are asked for.
        live_bytes: what everything but the trash takes now.
    """
    chosen: list[tuple[Candidate, str]] = []
    stay: list[Protected] = []
    left = live_bytes
    owners = Counter(file.path for candidate in candidates for file in candidate.files)
    for candidate in candidates:
        if len(chosen) >= PLAN_ITEMS_MAX:
            break
        is_dangling = criteria.dangling and candidate.void_reason == MISSING
        is_enough = criteria.to_bytes is not None and (left <= criteria.to_bytes or not candidate.files)
        if is_enough and not is_dangling:
            continue
        why = protected.get((candidate.kind, candidate.key))
        if why is None and candidate.pinned is not None and not criteria.force:
            why = candidate.pinned
        if why is not None:
            stay.append(Protected(kind=candidate.kind.value, key=candidate.key, why=why))
            continue
        chosen.append((candidate, _reason(candidate, criteria, is_dangling=is_dangling)))
        for file in candidate.files:
            owners[file.path] -= 1
            left -= 0 if owners[file.path] else file.size_bytes  # the disk has it back with the last of its owners
    return Draft(chosen, stay)


DOWNSTREAM: Final[Mapping[Kind, tuple[Kind, ...]]] = {
    Kind.DATASET: (Kind.MODEL, Kind.EVAL),
    Kind.MODEL: (Kind.EVAL,),
}
"""What is made from entries of a kind, directly or not."""


def with_downstream(draft: Draft, made: Sequence[Candidate], criteria: Criteria, protected: Mapping[Key, str]) -> Draft:
    """A choice, and what was made from what goes.

    Args:
        draft: the choice.
        made: everything that was made from it.
        criteria: only whether pins count.
        protected: as for `choose`.
    """
    going = {candidate.name for candidate, _ in draft.chosen}
    named = {(one.kind, one.key) for one in draft.protected}
    more = choose([one for one in made if one.name not in going], Criteria(force=criteria.force), protected, 0)
    chosen = [*draft.chosen, *((candidate, "made from what goes") for candidate, _ in more.chosen)]
    stay = [one for one in more.protected if (one.kind, one.key) not in named]
    return Draft(chosen[:PLAN_ITEMS_MAX], [*draft.protected, *stay])


def _reason(candidate: Candidate, criteria: Criteria, *, is_dangling: bool) -> str:
    if is_dangling:
        return "its file is gone"
    reasons = []
    if criteria.older_than_s is not None:
        reasons.append(f"stored more than {_age_text(criteria.older_than_s)} ago")
    if criteria.unused_for_s is not None:
        reasons.append(f"not used for {_age_text(criteria.unused_for_s)}")
    if criteria.to_bytes is not None:
        reasons.append(f"least recently used ({(candidate.used_at or 'never')[:10]})")
    return ", ".join(reasons) or "asked for"


def _age_text(seconds: float) -> str:
    return f"{seconds / _DAY_S:g} d" if seconds >= _DAY_S else f"{seconds / 3600:g} h"


def place_paths(
    chosen: Sequence[tuple[Candidate, str]],
    owners: Mapping[bytes, Sequence[EntryName]],
    seen: Mapping[bytes, Seen | None],
) -> tuple[list[PlannedItem], list[Kept]]:
    """Which path goes with which of the chosen entries: the last that owns it, or anything above or below it.

    Args:
        chosen: as `choose` gives them; their rows go in this order, not all at once.
        owners: of each of their paths, the entries that own it or something above or below it.
        seen: what lies at each path now; None: nothing.
    """
    going = {candidate.name for candidate, _ in chosen}
    rooms: dict[bytes, OwnedRoom] = {}
    there: dict[bytes, Seen] = {}
    kept: dict[bytes, Kept] = {}
    for candidate, _ in chosen:
        for file in candidate.files:
            other = next((owner for owner in owners.get(file.path, ()) if owner not in going), None)
            if other is not None:
                kept[file.path] = Kept(
                    path=file.path, why=f"{other[0].value} {_name_text(other)} owns it, or part of it, too"
                )
            elif (found := seen.get(file.path)) is not None:
                rooms[file.path] = file
                there[file.path] = found
    whole = {path: next((above for above in ancestors_of(path) if above in rooms), path) for path in rooms}
    parts: dict[bytes, list[OwnedRoom]] = {}
    for path, file in rooms.items():
        parts.setdefault(whole[path], []).append(file)
    paths: dict[int, list[PlannedPath]] = {}
    for path, number in sorted(_last_owners(chosen, parts).items()):
        paths.setdefault(number, []).append(_planned(path, there[path], parts[path]))
    items = [
        _planned_item(candidate, reason, tuple(paths.get(number, ())))
        for number, (candidate, reason) in enumerate(chosen)
    ]
    return items, list(kept.values())


def _last_owners(chosen: Sequence[tuple[Candidate, str]], paths: Container[bytes]) -> dict[bytes, int]:
    """Which of the chosen is the last that owns one of the paths, or anything above or below it, there or not."""
    latest = {file.path: number for number, (candidate, _) in enumerate(chosen) for file in candidate.files}
    last: dict[bytes, int] = {}
    for path, number in latest.items():
        above = ancestors_of(path)
        if (whole := next((one for one in [*above, path] if one in paths), None)) is not None:
            last[whole] = max(last.get(whole, 0), number, *(latest.get(one, 0) for one in above))
    return last


def _planned(path: bytes, seen: Seen, parts: Sequence[OwnedRoom]) -> PlannedPath:
    """A path with all that entries own of it: what lies below two owned paths was counted for the inner one."""
    return PlannedPath(path, seen, sum(part.size_bytes for part in parts), sum(part.allocated_bytes for part in parts))


def _planned_item(candidate: Candidate, reason: str, paths: tuple[PlannedPath, ...]) -> PlannedItem:
    return PlannedItem(
        candidate.kind.value,
        candidate.key,
        candidate.value,
        candidate.created_at,
        paths,
        reason,
        sum(path.size_bytes for path in paths),
        sum(path.allocated_bytes for path in paths),
    )


def _name_text(name: EntryName) -> str:
    entry = name[1]
    return entry.decode("utf-8", "backslashreplace") if isinstance(entry, bytes) else str(entry)


def choose_orphans(
    orphans: Iterable[Orphan],
    *,
    now: Moment,
    age_s: float,
    unowned: Iterable[bytes],
    work_dirs: Mapping[bytes, str],
) -> tuple[list[PlannedItem], list[Protected]]:
    """Which orphans go: those that nothing in them is younger than `age_s`, and nobody works in.

    Args:
        orphans: as a scan found them.
        now: the wall clock counts here, because that is what files have.
        age_s: seconds.
        unowned: paths that lay there before there was ownership.
        work_dirs: directories in use, and why.
    """
    limit_ns = (now.wall_s - age_s) * 1e9
    before = frozenset(unowned)
    above_before = {above for path in before for above in ancestors_of(path)}
    items, stay = [], []
    for orphan in orphans:
        path = orphan.path
        shown = path.decode("utf-8", "backslashreplace")
        if path in above_before or not before.isdisjoint([path, *ancestors_of(path)]):
            continue
        why = next((why for other, why in work_dirs.items() if overlaps(path, other)), None)
        if why is not None:
            stay.append(Protected(kind=ORPHAN, key=shown, why=why))
            continue
        if orphan.measured.newest_ns > limit_ns:
            continue
        planned = PlannedPath(path, orphan.seen, orphan.measured.size_bytes, orphan.measured.allocated_bytes)
        items.append(
            PlannedItem(
                ORPHAN,
                shown,
                paths=(planned,),
                reason="no entry names it",
                size_bytes=planned.size_bytes,
                allocated_bytes=planned.allocated_bytes,
            )
        )
    return items, stay


def changes_since(plan: Plan, now: Plan) -> list[str]:
    """What of a plan is not so any more, given the same made anew; empty if all of it stands."""
    standing = {(item.kind, item.key): item for item in now.items}
    why = {(stay.kind, stay.key): stay.why for stay in now.protected}
    changed = []
    for item in plan.items:
        name = (item.kind, item.key)
        other = standing.get(name)
        if other is None:
            changed.append(f"{item.kind} {item.key}: {why.get(name, 'it is gone, was used, or was stored again')}")
        elif (other.value, other.created_at) != (item.value, item.created_at):
            changed.append(f"{item.kind} {item.key}: it was stored again")
        elif [(path.path, path.seen) for path in other.paths] != [(path.path, path.seen) for path in item.paths]:
            changed.append(f"{item.kind} {item.key}: its files have changed")
    return changed
