"""What a clean-up takes: nothing protected, no path that a survivor needs, no more than needed, the same each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoolsd.core import retention
from motoolsd.core.deadlines import Moment
from motoolsd.core.files import Measured, Orphan, Seen, is_within, overlaps
from motoolsd.core.guards import DAMAGED, EXPIRED, MISSING
from motoolsd.core.leases import Key
from motoolsd.core.retention import (
    Candidate,
    EntryName,
    OwnedRoom,
    Plan,
    PlannedItem,
    PlannedPath,
    changes_since,
    choose,
    choose_orphans,
    place_paths,
)
from motoolsd.wire.cleaning import ORPHAN, Criteria, Kept, Protected
from motoolsd.wire.keys import Kind

NOW: Final = Moment("boot", 1_000.0, 1_770_000_000.0)
HERE: Final = Seen(1, 2, True, 4096, 3)
MODELS: Final = Criteria(kinds=(Kind.MODEL,))
NOBODY: Final[dict[Key, str]] = {}
BLOCK: Final = 4096


def entry(key: str, *paths: bytes, size: int = 10, **more: str | None) -> Candidate:
    """A model with files."""
    files = tuple(OwnedRoom(path, size, BLOCK) for path in paths)
    made = Candidate(Kind.MODEL, key, (Kind.MODEL, key.encode()), b"value", "2026-01-01 00:00:00", None, files)
    return msgspec.structs.replace(made, **more)


def keys_of(chosen: Sequence[tuple[Candidate, str]]) -> list[str]:
    """Whose."""
    return [candidate.key for candidate, _ in chosen]


def owners_of(entries: Sequence[Candidate]) -> dict[bytes, list[EntryName]]:
    """Of each path, all that own it or something above or below it, looked for the long way."""
    paths = {file.path for one in entries for file in one.files}
    return {
        path: [one.name for one in entries if any(overlaps(file.path, path) for file in one.files)] for path in paths
    }


def place(chosen: Sequence[Candidate], others: Sequence[Candidate] = ()) -> tuple[list[PlannedItem], list[Kept]]:
    """Place the paths of entries that go while others stay; everything is there."""
    owners = owners_of([*chosen, *others])
    return place_paths([(one, "why") for one in chosen], owners, dict.fromkeys(owners, HERE))


def paths_of(items: Sequence[PlannedItem]) -> dict[str, list[bytes]]:
    """Which paths go with whom."""
    return {item.key: [path.path for path in item.paths] for item in items}


# Choosing.


def test_everything_that_fits_goes_in_its_order() -> None:
    """Without a limit all candidates are taken, with or without files."""
    draft = choose([entry("b", b"runs/b"), entry("a"), entry("c")], MODELS, NOBODY, 0)
    assert keys_of(draft.chosen) == ["b", "a", "c"]
    assert draft.protected == []


def test_protected_entry_stays_and_is_named() -> None:
    """By a lease, a use, or as what a protected model was made from: with the reason that was given."""
    draft = choose([entry("a"), entry("b")], MODELS, {(Kind.MODEL, "a"): "in use by pid 7"}, 0)
    assert keys_of(draft.chosen) == ["b"]
    assert draft.protected == [Protected(kind="model", key="a", why="in use by pid 7")]


def test_same_key_of_another_kind_is_not_protected() -> None:
    """A dataset and a model may have the same key."""
    assert keys_of(choose([entry("a")], MODELS, {(Kind.DATASET, "a"): "leased"}, 0).chosen) == ["a"]


@pytest.mark.parametrize("force", [False, True])
def test_force_overrides_pins_only(force: bool) -> None:  # noqa: FBT001
    """A lease or a use keeps an entry whatever is asked for."""
    criteria = Criteria(kinds=(Kind.MODEL,), force=force)
    pinned = entry("pinned", pinned="pinned: of the paper")
    both = entry("both", pinned="pinned")
    draft = choose([pinned, both], criteria, {(Kind.MODEL, "both"): "leased by pid 7"}, 0)
    assert keys_of(draft.chosen) == (["pinned"] if force else [])
    assert draft.protected[-1] == Protected(kind="model", key="both", why="leased by pid 7")
    assert len(draft.protected) == 2 - force


@pytest.mark.parametrize(("to_bytes", "gone"), [(100, ""), (70, ""), (69, "a"), (60, "a"), (59, "ab"), (0, "abcd")])
def test_limit_takes_the_first_and_no_more_than_needed(to_bytes: int, gone: str) -> None:
    """The least recently used come first; at the limit itself it is enough."""
    candidates = [entry(key, b"runs/" + key.encode()) for key in "abcd"]
    criteria = Criteria(kinds=(Kind.MODEL,), to_bytes=to_bytes)
    assert keys_of(choose(candidates, criteria, NOBODY, 70).chosen) == list(gone)


def test_limit_passes_by_what_frees_nothing() -> None:
    """An entry without files is not removed for room."""
    criteria = Criteria(kinds=(Kind.MODEL,), to_bytes=0)
    assert keys_of(choose([entry("a"), entry("b", b"runs/b")], criteria, NOBODY, 10).chosen) == ["b"]


def test_limit_goes_on_behind_what_is_protected() -> None:
    """What stays frees nothing: the next one goes for it, and what is behind the limit is not named."""
    candidates = [entry(key, b"runs/" + key.encode()) for key in "abc"]
    criteria = Criteria(kinds=(Kind.MODEL,), to_bytes=0)
    draft = choose(candidates, criteria, {(Kind.MODEL, "a"): "in use", (Kind.MODEL, "c"): "in use"}, 10)
    assert keys_of(draft.chosen) == ["b"]
    assert [stay.key for stay in draft.protected] == ["a"]


def test_shared_file_is_room_only_with_its_last_owner() -> None:
    """Two entries of one directory free it once, and not before both go."""
    shared = [entry("a", b"runs/s"), entry("b", b"runs/s"), entry("c", b"runs/c"), entry("d", b"runs/d")]
    criteria = Criteria(kinds=(Kind.MODEL,), to_bytes=20)
    assert keys_of(choose(shared, criteria, NOBODY, 30).chosen) == ["a", "b"]
    assert keys_of(choose(shared, criteria, {(Kind.MODEL, "b"): "in use"}, 30).chosen) == ["a", "c"]


def test_dangling_entries_go_beside_a_limit() -> None:
    """They free nothing, and are asked for all the same, wherever they stand in the order."""
    candidates = [entry("a", b"runs/a"), entry("b", b"runs/b"), entry("gone", void_reason=MISSING)]
    criteria = Criteria(kinds=(Kind.MODEL,), to_bytes=10, dangling=True)
    draft = choose(candidates, criteria, NOBODY, 20)
    assert keys_of(draft.chosen) == ["a", "gone"]
    assert draft.chosen[1][1] == "its file is gone"


@pytest.mark.parametrize("reason", [None, EXPIRED, DAMAGED])
def test_only_entries_whose_file_is_gone_are_dangling(reason: str | None) -> None:
    """An expired or damaged one is not chosen as such."""
    criteria = Criteria(kinds=(Kind.MODEL,), to_bytes=0, dangling=True)
    assert choose([entry("a", void_reason=reason)], criteria, NOBODY, 10).chosen == []


def test_plan_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is above the bound is left for the next plan, dangling or not."""
    monkeypatch.setattr(retention, "PLAN_ITEMS_MAX", 2)
    criteria = Criteria(kinds=(Kind.MODEL,), dangling=True)
    candidates = [entry("a", void_reason=MISSING), entry("b"), entry("c", void_reason=MISSING), entry("d")]
    assert keys_of(choose(candidates, criteria, NOBODY, 0).chosen) == ["a", "b"]


@pytest.mark.parametrize(
    ("criteria", "reason"),
    [
        (Criteria(kinds=(Kind.MODEL,)), "asked for"),
        (Criteria(kinds=(Kind.MODEL,), older_than_s=30 * 86_400), "stored more than 30 d ago"),
        (Criteria(kinds=(Kind.MODEL,), unused_for_s=7_200), "not used for 2 h"),
        (
            Criteria(kinds=(Kind.MODEL,), older_than_s=1.5 * 86_400, to_bytes=0),
            "stored more than 1.5 d ago, least recently used (2026-01-02)",
        ),
    ],
)
def test_reason_says_what_was_asked_for(criteria: Criteria, reason: str) -> None:
    """In words, with the day of the last use where that decides."""
    candidate = entry("a", b"runs/a", used_at="2026-01-02 00:00:00")
    assert choose([candidate], criteria, NOBODY, 10).chosen == [(candidate, reason)]


SIZES = st.integers(0, 20)
CANDIDATES = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.lists(st.tuples(st.sampled_from("pqrstu"), SIZES), max_size=2)),
    max_size=8,
).map(
    lambda rows: [
        msgspec.structs.replace(
            entry(f"k{number}"),
            pinned="pinned" if is_pinned else None,
            void_reason=MISSING if is_void else None,
            files=tuple(OwnedRoom(f"runs/{name}".encode(), ord(name)) for name, _ in files),
        )
        for number, (is_pinned, is_void, files) in enumerate(rows)
    ]
)
LIMITS = st.none() | st.integers(0, 800)


@given(CANDIDATES, st.sets(st.integers(0, 7)), LIMITS, st.booleans(), st.booleans())
def test_choice_keeps_its_promises(
    candidates: list[Candidate],
    protected: set[int],
    to_bytes: int | None,
    force: bool,  # noqa: FBT001 - hypothesis gives positional arguments
    dangling: bool,  # noqa: FBT001
) -> None:
    """Nothing protected, in order, nothing behind the limit, and the same again."""
    criteria = Criteria(kinds=(Kind.MODEL,), to_bytes=to_bytes, force=force, dangling=dangling)
    why = {(Kind.MODEL, f"k{number}"): "in use" for number in protected}
    live = sum({file.path: file.size_bytes for one in candidates for file in one.files}.values())
    draft = choose(candidates, criteria, why, live)
    chosen = [candidate for candidate, _ in draft.chosen]

    def is_protected(one: Candidate) -> bool:
        return (one.kind, one.key) in why or (one.pinned is not None and not force)

    assert not any(is_protected(one) for one in chosen)
    assert chosen == [one for one in candidates if one in chosen]
    assert {stay.key for stay in draft.protected} <= {one.key for one in candidates if is_protected(one)}
    assert draft == choose(candidates, criteria, why, live)
    free = [one for one in candidates if not is_protected(one)]
    wanted = [one for one in chosen if not (dangling and one.void_reason == MISSING)]
    if to_bytes is None:
        assert chosen == free
        return
    assert all(one in chosen for one in free if dangling and one.void_reason == MISSING)
    if wanted:
        before = chosen[: chosen.index(wanted[-1])]
        assert live - room_freed(before, candidates) > to_bytes, "without the last it was not enough"
    if live - room_freed(chosen, candidates) > to_bytes:
        assert all(one in chosen for one in free if one.files), "there was nothing more to take"


def room_freed(gone: Sequence[Candidate], candidates: Sequence[Candidate]) -> int:
    """What the disk gets back: each path once, if all of its owners went."""
    needed = {file.path for one in candidates if one not in gone for file in one.files}
    freed = {file.path: file.size_bytes for one in gone for file in one.files}
    return sum(size for path, size in freed.items() if path not in needed)


# Placing.


def test_path_goes_with_its_entry() -> None:
    """With what it looked like, and what it takes."""
    items, kept = place([entry("a", b"runs/a")])
    assert items[0].paths == (PlannedPath(b"runs/a", HERE, 10, BLOCK),)
    assert (items[0].size_bytes, items[0].allocated_bytes, items[0].reason) == (10, BLOCK, "why")
    assert kept == []


@pytest.mark.parametrize("other", [b"runs/a", b"runs/a/b/c", b"runs/a/b", b"runs/a/b/d/e"])
def test_path_stays_with_who_owns_something_of_it(other: bytes) -> None:
    """The path itself, something above it or something below it: the row goes, the path is named as kept."""
    items, kept = place([entry("a", b"runs/a/b")], [entry("survivor", other)])
    assert paths_of(items) == {"a": []}
    assert [one.path for one in kept] == [b"runs/a/b"]
    assert "model survivor owns it" in kept[0].why


@pytest.mark.parametrize("other", [b"runs/a-b", b"runs/ab", b"runs/a0", b"runs/b", b"evals/a"])
def test_neighbour_keeps_nothing(other: bytes) -> None:
    """A name that begins alike is another path."""
    assert paths_of(place([entry("a", b"runs/a")], [entry("survivor", other)])[0]) == {"a": [b"runs/a"]}


def test_shared_path_goes_once_with_the_last() -> None:
    """Rows go in order: until the last of them is gone, somebody owns it."""
    items, kept = place([entry("a", b"runs/s"), entry("b", b"runs/s")])
    assert paths_of(items) == {"a": [], "b": [b"runs/s"]}
    assert sum(item.size_bytes for item in items) == 10
    assert kept == []


def test_directory_goes_once_with_all_that_is_owned_in_it() -> None:
    """Its figures are those of its parts, because the scan counts what lies below two owned paths for the inner one."""
    items, _ = place([entry("in", b"runs/a/b", size=5), entry("out", b"runs/a"), entry("other", b"runs/c")])
    assert paths_of(items) == {"in": [], "out": [b"runs/a"], "other": [b"runs/c"]}
    assert (items[1].size_bytes, items[1].paths[0].size_bytes, items[1].allocated_bytes) == (15, 15, 2 * BLOCK)


def test_directory_goes_with_the_last_that_owns_something_in_it() -> None:
    """Rows go in batches: a directory that went with an earlier one would be found owned, and stay for good."""
    items, _ = place([entry("out", b"runs/a"), entry("in", b"runs/a/b", size=5)])
    assert paths_of(items) == {"out": [], "in": [b"runs/a"]}
    assert [item.size_bytes for item in items] == [0, 15]


def test_crosswise_directories_both_go() -> None:
    """Each of two entries owns a file in the other's directory."""
    items, _ = place([entry("a", b"runs/a", b"runs/b/x"), entry("b", b"runs/b", b"runs/a/x")])
    assert paths_of(items) == {"a": [], "b": [b"runs/a", b"runs/b"]}


def test_path_goes_with_the_last_that_owns_something_above_it() -> None:
    """A directory that a survivor keeps is still owned by those whose rows have yet to go."""
    chosen = [entry("in", b"runs/a/z"), entry("above", b"runs/a"), entry("other", b"runs/b")]
    items, kept = place(chosen, [entry("survivor", b"runs/a/x")])
    assert paths_of(items) == {"in": [], "above": [b"runs/a/z"], "other": [b"runs/b"]}
    assert [one.path for one in kept] == [b"runs/a"]


def test_what_is_not_there_is_no_part_of_the_plan() -> None:
    """The row goes; a path that is a link, or gone, is left alone."""
    one = entry("a", b"runs/a", b"runs/b")
    items, kept = place_paths([(one, "why")], owners_of([one]), {b"runs/a": None, b"runs/b": HERE})
    assert paths_of(items) == {"a": [b"runs/b"]}
    assert kept == []


PATHS = (b"runs/a", b"runs/a/x", b"runs/a/x/y", b"runs/a/z", b"runs/ab", b"runs/b", b"runs/b/x", b"evals/a")
ENTRIES = st.lists(st.tuples(st.booleans(), st.sets(st.sampled_from(PATHS), max_size=4)), max_size=7)


def made(rows: Sequence[tuple[bool, set[bytes]]], *, going: bool) -> list[Candidate]:
    """Those entries that go, or those that stay; a path takes as much room as its number says."""
    return [
        msgspec.structs.replace(
            entry(f"k{number}"),
            files=tuple(OwnedRoom(path, 2 ** PATHS.index(path), 1) for path in sorted(paths)),
        )
        for number, (goes, paths) in enumerate(rows)
        if goes is going
    ]


def apply_in_batches(items: Sequence[PlannedItem], everybody: Sequence[Candidate], size: int) -> set[bytes]:
    """The paths that are moved if rows go batch after batch, and a path only if nobody owns anything of it by then."""
    left = {one.key: one for one in everybody}
    moved: set[bytes] = set()
    for start in range(0, len(items), size):
        batch = items[start : start + size]
        for item in batch:
            del left[item.key]
        needed = [file.path for one in left.values() for file in one.files]
        moved |= {
            path.path for item in batch for path in item.paths if not any(overlaps(path.path, one) for one in needed)
        }
    return moved


@given(ENTRIES, st.sets(st.sampled_from(PATHS)), st.integers(1, 8))
def test_path_goes_if_and_only_if_no_survivor_owns_any_of_it(
    rows: list[tuple[bool, set[bytes]]], missing: set[bytes], batch: int
) -> None:
    """Whoever owns what, whatever is there, however many rows go at once; each path once, its room once."""
    chosen, others = made(rows, going=True), made(rows, going=False)
    seen: Mapping[bytes, Seen | None] = {path: None if path in missing else HERE for path in PATHS}
    items, kept = place_paths([(one, "why") for one in chosen], owners_of([*chosen, *others]), seen)
    assert [item.key for item in items] == [one.key for one in chosen]
    going = [path.path for item in items for path in item.paths]
    needed = {file.path for one in others for file in one.files}
    owned = {file.path for one in chosen for file in one.files}
    free = {path for path in owned - missing if not any(overlaps(path, other) for other in needed)}
    for path in owned - missing:
        assert any(is_within(path, top) for top in going) == (path in free)
    assert set(going) <= free
    assert not any(path != other and overlaps(path, other) for path in going for other in going)
    assert len(set(going)) == len(going)
    assert {one.path for one in kept} == {path for path in owned if any(overlaps(path, other) for other in needed)}
    room = sum(2 ** PATHS.index(path) for path in free)
    assert sum(item.size_bytes for item in items) == room
    assert sum(path.size_bytes for item in items for path in item.paths) == room
    assert apply_in_batches(items, [*chosen, *others], batch) == set(going)


@given(ENTRIES)
def test_placing_is_deterministic(rows: list[tuple[bool, set[bytes]]]) -> None:
    """The same entries, in the same order, give the same plan, in whatever order their owners are found."""
    chosen, others = made(rows, going=True), made(rows, going=False)
    forth = owners_of([*chosen, *others])
    back = {path: forth[path] for path in reversed(forth)}
    drawn = [
        place_paths([(one, "why") for one in chosen], owners, dict.fromkeys(PATHS, HERE)) for owners in (forth, back)
    ]
    assert drawn[0] == drawn[1]


# Orphans.


def orphan(path: bytes, *, age_s: float = 100_000.0, size: int = 10) -> Orphan:
    """What no entry names, whose newest time is so long ago."""
    return Orphan(path, HERE, Measured(size, BLOCK, 1, int((NOW.wall_s - age_s) * 1e9)))


def chosen_orphans(
    *orphans: Orphan,
    unowned: Sequence[bytes] = (),
    work_dirs: Mapping[bytes, str] | None = None,
    age_s: float = 86_400.0,
) -> tuple[list[bytes], list[Protected]]:
    """The paths of those that go, and who stays."""
    items, stay = choose_orphans(orphans, now=NOW, age_s=age_s, unowned=unowned, work_dirs=work_dirs or {})
    return [path.path for item in items for path in item.paths], stay


def test_old_orphan_goes_with_what_it_looked_like() -> None:
    """Named by its path, with what it takes."""
    items, stay = choose_orphans([orphan(b"runs/\xff")], now=NOW, age_s=86_400, unowned=(), work_dirs={})
    (item,) = items
    assert (item.kind, item.key, item.reason) == (ORPHAN, "runs/\\xff", "no entry names it")
    assert item.paths == (PlannedPath(b"runs/\xff", HERE, 10, BLOCK),)
    assert (item.size_bytes, item.allocated_bytes, stay) == (10, BLOCK, [])


@pytest.mark.parametrize(
    ("age_s", "goes"), [(86_401, True), (86_400, True), (86_399, False), (0, False), (-86_400, False)]
)
def test_young_orphan_stays(age_s: float, *, goes: bool) -> None:
    """Somebody may be about to name it; so does one from the future."""
    assert chosen_orphans(orphan(b"runs/a", age_s=age_s))[0] == [b"runs/a"] * goes


def test_age_of_nothing_takes_all() -> None:
    """If that is asked for."""
    assert chosen_orphans(orphan(b"runs/a", age_s=0), age_s=0)[0] == [b"runs/a"]


@pytest.mark.parametrize("unowned", [b"runs/a", b"runs/a/deep/er", b"runs"])
def test_what_lay_there_before_ownership_is_no_orphan(unowned: bytes) -> None:
    """Nor is what holds it, or lies in it; it is not even named."""
    assert chosen_orphans(orphan(b"runs/a"), orphan(b"runs/ab"), unowned=[unowned]) == (
        [] if unowned == b"runs" else [b"runs/ab"],
        [],
    )


@pytest.mark.parametrize("work_dir", [b"runs/a", b"runs/a/deep/er", b"runs"])
def test_directory_that_somebody_works_in_stays_and_is_named(work_dir: bytes) -> None:
    """From its claim on, however old its files are."""
    paths, stay = chosen_orphans(orphan(b"runs/a"), work_dirs={work_dir: "pid 7 computes a model in it"})
    assert paths == []
    assert stay == [Protected(kind=ORPHAN, key="runs/a", why="pid 7 computes a model in it")]


@given(
    st.lists(st.tuples(st.sampled_from(PATHS), st.booleans()), max_size=6),
    st.sets(st.sampled_from(PATHS)),
    st.sets(st.sampled_from(PATHS)),
)
def test_orphan_goes_if_and_only_if_nobody_may_need_it(
    found: list[tuple[bytes, bool]], unowned: set[bytes], work_dirs: set[bytes]
) -> None:
    """Old enough, not from before, no work in it, above it or below it."""
    orphans = [orphan(path, age_s=100_000 if is_old else 10) for path, is_old in found]
    paths, stay = chosen_orphans(*orphans, unowned=sorted(unowned), work_dirs=dict.fromkeys(sorted(work_dirs), "work"))
    free = [(path, is_old) for path, is_old in found if not any(overlaps(path, one) for one in unowned)]
    assert paths == [path for path, is_old in free if is_old and not any(overlaps(path, one) for one in work_dirs)]
    assert [one.key for one in stay] == [
        path.decode() for path, _ in free if any(overlaps(path, one) for one in work_dirs)
    ]


# What has changed.


def plan(*items: PlannedItem, protected: Sequence[Protected] = ()) -> Plan:
    """A plan."""
    return Plan("p", NOW, MODELS, list(items), list(protected))


ITEM: Final = PlannedItem("model", "k", b"v", "2026-01-01", (PlannedPath(b"runs/a", HERE, 1, 1),))


@pytest.mark.parametrize(
    ("now", "changed"),
    [
        (plan(ITEM), []),
        (plan(), ["model k: it is gone, was used, or was stored again"]),
        (plan(protected=[Protected(kind="model", key="k", why="in use")]), ["model k: in use"]),
        (plan(msgspec.structs.replace(ITEM, value=b"w")), ["model k: it was stored again"]),
        (plan(msgspec.structs.replace(ITEM, created_at="2026-01-02")), ["model k: it was stored again"]),
        (plan(msgspec.structs.replace(ITEM, paths=())), ["model k: its files have changed"]),
        (
            plan(msgspec.structs.replace(ITEM, paths=(PlannedPath(b"runs/a", HERE._replace(mtime_ns=4), 1, 1),))),
            ["model k: its files have changed"],
        ),
        (
            plan(msgspec.structs.replace(ITEM, paths=(PlannedPath(b"runs/b", HERE, 1, 1),))),
            ["model k: its files have changed"],
        ),
        (plan(msgspec.structs.replace(ITEM, kind="dataset")), ["model k: it is gone, was used, or was stored again"]),
    ],
)
def test_what_is_not_so_any_more_is_named(now: Plan, changed: list[str]) -> None:
    """The value, the time it was stored, which files, and what they look like."""
    assert changes_since(plan(ITEM), now) == changed


def test_what_has_come_since_changes_nothing() -> None:
    """A plan takes what it showed; others wait for the next."""
    other = msgspec.structs.replace(ITEM, key="other")
    assert changes_since(plan(ITEM), plan(other, ITEM)) == []


def test_figures_and_reasons_may_differ() -> None:
    """A scan in between says them better."""
    again = msgspec.structs.replace(ITEM, reason="r", size_bytes=9, paths=(PlannedPath(b"runs/a", HERE, 9, 9),))
    assert changes_since(plan(ITEM), plan(again)) == []


def test_plan_frees_the_blocks_of_its_items() -> None:
    """Allocated bytes: what the disk gets back."""
    assert plan(msgspec.structs.replace(ITEM, allocated_bytes=8), ITEM).allocated_bytes == 8


def test_item_is_told_as_it_is_planned() -> None:
    """Every figure, and the paths as bytes."""
    shown = msgspec.structs.replace(ITEM, reason="r", size_bytes=1, allocated_bytes=2).shown()
    assert (shown.kind, shown.key, shown.value, shown.paths) == ("model", "k", b"v", (b"runs/a",))
    assert (shown.reason, shown.size_bytes, shown.allocated_bytes) == ("r", 1, 2)
