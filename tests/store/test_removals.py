"""What a clean-up takes out of the tables comes back as it was, to the last column; half done, it says so."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from motoolsd.core.deadlines import Moment
from motoolsd.core.errors import EntryNotFound, RequestError, StorageFailed
from motoolsd.core.files import Seen, overlaps
from motoolsd.core.guards import MISSING, Guard
from motoolsd.core.retention import PlannedItem, PlannedPath
from motoolsd.store.commits import commit_batch
from motoolsd.store.entries import SetPin, SetVoid
from motoolsd.store.migration import prepare_database
from motoolsd.store.outcomes import Applied
from motoolsd.store.reads import select_values
from motoolsd.store.removals import (
    BeginRemoval,
    DropRemoval,
    ForgetPaths,
    RemovedPath,
    RemoveItems,
    RestoreEntries,
    SetRemovalState,
    State,
    path_number,
    select_entries,
    select_paths,
    select_removal,
    select_removal_of,
    select_removals,
    select_standing,
    select_trash,
)
from motoolsd.store.rows import TABLES
from motoolsd.store.statistics import UseReport
from motoolsd.store.store import open_store
from motoolsd.wire.cleaning import ORPHAN
from motoolsd.wire.keys import Kind, eval_key, model_key
from motoolsd.wire.messages import PutDataset, PutEvals, PutModel
from tests.samples import (
    NOW,
    commit,
    committed,
    execute,
    make_old_database,
    publication,
    put_dataset,
    put_evals,
    put_model,
)

END = Moment("boot", 500.0, 1_770_000_000.0)
SEEN = Seen(1, 2**63, is_directory=True, size_bytes=4096, mtime_ns=3)
MODEL = model_key("d", "{}", "openai")
EVAL = eval_key("m", "t", "inspect", None)
OWN_TABLES = (*TABLES.values(), "motoolsd_files")


def dump(raw: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
    """Every column of every entry and owned file, with its type."""
    found = []
    for table in OWN_TABLES:
        columns = [row[1].decode() for row in raw.execute(f"PRAGMA table_info({table})")]
        typed = ", ".join(f"{column}, typeof({column})" for column in columns)
        found.append(sorted(raw.execute(f"SELECT {typed} FROM {table}").fetchall(), key=repr))
    return found


def item(kind: Kind, key: str, value: bytes, *paths: bytes, created_at: str | None = NOW) -> PlannedItem:
    """An entry that is to go."""
    planned = tuple(PlannedPath(path, SEEN, 10, 4096) for path in paths)
    return PlannedItem(kind.value, key, value, created_at, planned, "why", 10, 4096)


def orphan(path: bytes) -> PlannedItem:
    """A path that nobody owns."""
    return PlannedItem(ORPHAN, path.decode(), paths=(PlannedPath(path, SEEN, 10, 4096),))


def begin(raw: sqlite3.Connection, plan_id: str = "p1", expires: Moment | None = END) -> int:
    """Open a removal; its number."""
    (begun,) = committed(raw, BeginRemoval(plan_id, "models", expires))
    return begun.number


def remove(raw: sqlite3.Connection, removal: int, *items: PlannedItem, first_number: int = 0) -> Applied:
    """Take entries out."""
    return committed(raw, RemoveItems(removal, first_number, items))[0]


def restore(raw: sqlite3.Connection, removal: int) -> Applied:
    """Put all of them back."""
    return committed(raw, RestoreEntries(removal, tuple(select_entries(raw, removal))))[0]


def paths(raw: sqlite3.Connection, removal: int, first_number: int = 0) -> dict[int, bytes]:
    """What was noted of the paths."""
    return {path.number: path.path for path in select_paths(raw, removal, first_number)}


DATASET_ITEM = item(Kind.DATASET, "d", b"file-\xff", b"datasets/d")
MODEL_ITEM = item(Kind.MODEL, MODEL, b"model-1", b"runs/\xff", b"runs/b")
EVAL_ITEM = item(Kind.EVAL, EVAL, b"log\xfe", b"evals/t")


@pytest.fixture
def filled(raw: sqlite3.Connection) -> sqlite3.Connection:
    """An entry of each kind with every column filled, and one of each kind beside it."""
    evaluation = msgspec.structs.replace(put_evals({"t": b"log\xfe"}), labels={"a": "b"}, version="1")
    committed(
        raw,
        *(put_dataset("other"), put_model("other"), put_evals({"other": b"log"})),
        publication(put_dataset("d", b"file-\xff"), b"datasets/d", expires=END),
        publication(put_model("d", b"model-1"), b"runs/\xff", b"runs/b", expires=END),
        publication(evaluation, b"evals/t", expires=END),
    )
    entries = ((Kind.DATASET, "d"), (Kind.MODEL, MODEL), (Kind.EVAL, EVAL))
    committed(raw, *[UseReport(hour=0, hits={kind: {key: 3}}) for kind, key in entries])
    committed(raw, *[SetPin(kinds=(kind,), name=key, is_pinned=True, reason="r", until=END) for kind, key in entries])
    return raw


# There and back.


@pytest.mark.parametrize("gone", [(DATASET_ITEM,), (MODEL_ITEM,), (EVAL_ITEM,), (DATASET_ITEM, MODEL_ITEM, EVAL_ITEM)])
def test_what_was_removed_comes_back_to_the_last_column(
    filled: sqlite3.Connection, gone: Sequence[PlannedItem]
) -> None:
    """Values, times, uses, pins, ends, sizes, checksums, numbers and files, with their types."""
    before = dump(filled)
    removal = begin(filled)
    outcome = remove(filled, removal, *gone)
    keys = [(Kind(one.kind), one.key) for one in gone]
    assert (outcome.removed, outcome.number) == (keys, len(gone))
    assert select_entries(filled, removal) == keys
    assert select_standing(filled, [(Kind.DATASET, "other"), *keys]) == [(Kind.DATASET, "other")]
    assert sum(map(len, dump(filled))) < sum(map(len, before))
    back = restore(filled, removal)
    assert back.number == len(gone)
    assert dump(filled) == before
    assert select_entries(filled, removal) == []


def test_restored_entry_is_told_with_what_it_depends_on(filled: sqlite3.Connection) -> None:
    """So that memory has it at once."""
    removal = begin(filled)
    remove(filled, removal, MODEL_ITEM)
    back = restore(filled, removal)
    assert back.stored == [(Kind.MODEL, MODEL, b"model-1")]
    assert back.guards == {(Kind.MODEL, MODEL): Guard((b"runs/b", b"runs/\xff"), END)}


def test_void_entry_comes_back_void(filled: sqlite3.Connection) -> None:
    """Its file was gone before it was removed."""
    committed(filled, SetVoid(((Kind.DATASET, "d"),), MISSING))
    before = dump(filled)
    removal = begin(filled)
    remove(filled, removal, DATASET_ITEM)
    assert restore(filled, removal).stored == []
    assert dump(filled) == before
    assert select_values(filled, Kind.DATASET, ["d"]).found == {}


def test_row_of_the_older_package_comes_back_without_a_time(tmp_path: Path) -> None:
    """Nobody knows when it was stored, also after an undo: it would count as new, and never grow old."""
    database = tmp_path / "cache.db"
    make_old_database(database)
    prepare_database(str(database))
    with sqlite3.connect(database, isolation_level=None) as raw:
        raw.text_factory = bytes
        before = dump(raw)
        removal = begin(raw)
        gone = [
            item(Kind.DATASET, "d1", b"file-1", created_at=None),
            item(Kind.MODEL, "k1", b"model-1", created_at=None),
        ]
        assert remove(raw, removal, *gone).number == 2
        restore(raw, removal)
        assert dump(raw) == before
    raw.close()


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE dataset_files SET labels = CAST(x'ff' AS TEXT), version = CAST(x'fe' AS TEXT)",
        "UPDATE dataset_files SET hits = 1.5, size_bytes = -1, pinned = 7",
        "UPDATE dataset_files SET last_used_at = 1700000000",
        "UPDATE dataset_files SET checksum = -9223372036854775808",
        "UPDATE dataset_files SET file_id = CAST(x'ff' AS TEXT)",
        "UPDATE motoolsd_files SET size_bytes = NULL, allocated_bytes = NULL",
    ],
)
def test_row_edited_by_hand_comes_back_as_it_was(raw: sqlite3.Connection, database: str, edit: str) -> None:
    """Whatever somebody wrote into it."""
    committed(raw, publication(put_dataset("d", b"file"), b"datasets/d"))
    execute(database, f"{edit};")
    before = dump(raw)
    (value,) = raw.execute("SELECT file_id FROM dataset_files").fetchone()
    removal = begin(raw)
    assert remove(raw, removal, item(Kind.DATASET, "d", value)).number == 1
    restore(raw, removal)
    assert dump(raw) == before


def put_of(kind: Kind, name: str, value: bytes) -> PutDataset | PutModel | PutEvals:
    """An entry of a kind."""
    match kind:
        case Kind.DATASET:
            return put_dataset(name, value)
        case Kind.MODEL:
            return put_model(name, value)
        case Kind.EVAL:
            return put_evals({name: value})


def test_value_that_is_no_text_can_be_removed(raw: sqlite3.Connection, database: str) -> None:
    """Written as bytes by hand: it is shown in a plan, and goes."""
    execute(database, "INSERT INTO dataset_files (dataset_hash, file_id, created_at) VALUES ('d', x'ff00', 'then');")
    assert remove(raw, begin(raw), item(Kind.DATASET, "d", b"\xff\0", created_at="then")).number == 1


ROWS = st.lists(
    st.tuples(
        st.sampled_from(list(Kind)),
        st.text(min_size=1, max_size=4),
        st.binary(min_size=1, max_size=4),
        st.sets(st.sampled_from([b"runs/a", b"runs/a/b", b"runs/\xff"]), max_size=2),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda row: row[:2],
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_removing_and_undoing_changes_nothing(
    raw: sqlite3.Connection, rows: list[tuple[Kind, str, bytes, set[bytes], bool]]
) -> None:
    """Whichever entries, whatever they are called and share; a path is noted if and only if nobody owns it then."""
    for table in OWN_TABLES:
        raw.execute(f"DELETE FROM {table}")
    items: list[PlannedItem] = []
    survivors: set[bytes] = set()
    for kind, name, value, owned, goes in rows:
        ((_, key, _),) = committed(raw, publication(put_of(kind, name, value), *sorted(owned)))[0].stored
        if goes:
            items.append(item(kind, key, value, *sorted(owned)))
        else:
            survivors |= owned
    before = dump(raw)
    removal = begin(raw)
    assert remove(raw, removal, *items).number == len(items)
    noted = set(paths(raw, removal).values())
    wanted = {path.path for one in items for path in one.paths}
    assert noted == {path for path in wanted if not any(overlaps(path, one) for one in survivors)}
    restore(raw, removal)
    assert dump(raw) == before


# What is not as the plan saw it.


@pytest.mark.parametrize(
    "wrong",
    [
        item(Kind.DATASET, "d", b"another value", b"datasets/d"),
        item(Kind.DATASET, "d", b"file-\xff", b"datasets/d", created_at="2026-01-01 00:00:00"),
        item(Kind.DATASET, "d", b"file-\xff", b"datasets/d", created_at=None),
        item(Kind.DATASET, "gone", b"file-\xff", b"datasets/d"),
        item(Kind.EVAL, eval_key("m", "t", "inspect", "hash"), b"log\xfe", b"evals/t"),
    ],
)
def test_entry_that_is_another_by_now_stays_with_its_files(filled: sqlite3.Connection, wrong: PlannedItem) -> None:
    """Stored again, with the same value even: it is not what was shown."""
    before = dump(filled)
    removal = begin(filled)
    outcome = remove(filled, removal, wrong)
    assert (outcome.removed, outcome.number) == ([], 0)
    assert dump(filled) == before
    assert (select_entries(filled, removal), paths(filled, removal)) == ([], {})


@pytest.mark.parametrize("other", [b"runs/b", b"runs/b/deep", b"runs"])
def test_path_that_somebody_owns_by_now_stays(filled: sqlite3.Connection, other: bytes) -> None:
    """Its entry goes; the path, above, below or itself, belongs to another."""
    if other != b"runs":
        committed(filled, publication(put_dataset("late"), other))
    removal = begin(filled)
    remove(filled, removal, MODEL_ITEM)
    free = [b"runs/\xff", b"runs/b"] if other == b"runs" else [b"runs/\xff"]
    assert list(paths(filled, removal).values()) == free


def test_orphan_that_became_owned_stays(raw: sqlite3.Connection) -> None:
    """Published between the plan and now."""
    committed(raw, publication(put_dataset("d"), b"runs/a/b"))
    removal = begin(raw)
    outcome = remove(raw, removal, orphan(b"runs/a"), orphan(b"runs/c"))
    assert outcome.removed == []
    assert list(paths(raw, removal).values()) == [b"runs/c"]
    assert select_entries(raw, removal) == []


def test_path_shared_by_what_goes_together_is_free(raw: sqlite3.Connection) -> None:
    """All rows go first, then it is asked who owns what."""
    committed(raw, publication(put_dataset("a"), b"runs/a"), publication(put_dataset("b"), b"runs/a/b"))
    removal = begin(raw)
    remove(raw, removal, item(Kind.DATASET, "a", b"file", b"runs/a"), item(Kind.DATASET, "b", b"file"))
    assert list(paths(raw, removal).values()) == [b"runs/a"]


def test_paths_have_numbers_of_their_own(filled: sqlite3.Connection) -> None:
    """Item by item, batch after batch: what lies in the trash is named by them."""
    removal = begin(filled)
    remove(filled, removal, MODEL_ITEM, orphan(b"runs/x"))
    remove(filled, removal, EVAL_ITEM, first_number=2)
    assert paths(filled, removal) == {
        path_number(0, 0): b"runs/\xff",
        path_number(0, 1): b"runs/b",
        path_number(1, 0): b"runs/x",
        path_number(2, 0): b"evals/t",
    }
    assert list(paths(filled, removal, path_number(2, 0)).values()) == [b"evals/t"]
    assert select_paths(filled, removal)[0] == RemovedPath(0, b"runs/\xff", SEEN, 10, 4096)


def test_path_that_stayed_is_forgotten(filled: sqlite3.Connection) -> None:
    """It is no part of the removal, and nothing is put back over it."""
    removal = begin(filled)
    remove(filled, removal, MODEL_ITEM)
    committed(filled, ForgetPaths(removal, (path_number(0, 0), 99)))
    assert list(paths(filled, removal).values()) == [b"runs/b"]


def test_value_stored_meanwhile_is_not_overwritten(filled: sqlite3.Connection) -> None:
    """It was computed anew: the older one does not come back over it."""
    removal = begin(filled)
    remove(filled, removal, DATASET_ITEM)
    committed(filled, put_dataset("d", b"new"))
    before = dump(filled)
    assert restore(filled, removal).stored == []
    assert dump(filled) == before


def test_restoring_twice_is_restoring_once(filled: sqlite3.Connection) -> None:
    """What a kill left half done is done again."""
    before = dump(filled)
    removal = begin(filled)
    remove(filled, removal, DATASET_ITEM, MODEL_ITEM)
    committed(filled, RestoreEntries(removal, ((Kind.DATASET, "d"),)))
    change = RestoreEntries(removal, ((Kind.DATASET, "d"), (Kind.MODEL, MODEL)))
    assert list(change.keys) == [(Kind.DATASET, "d"), (Kind.MODEL, MODEL)]
    assert committed(filled, change)[0].number == 1
    assert dump(filled) == before


def test_removal_names_the_keys_that_it_may_change() -> None:
    """Their slots move; orphans have none."""
    change = RemoveItems(1, 0, (DATASET_ITEM, orphan(b"runs/a"), EVAL_ITEM))
    assert list(change.keys) == [(Kind.DATASET, "d"), (Kind.EVAL, EVAL)]


# States.


def test_state_tells_which_way_a_removal_goes(raw: sqlite3.Connection) -> None:
    """From its beginning until nothing of it is left."""
    removal = begin(raw)
    for state in (State.REMOVING, State.TRASHED, State.RESTORING, State.PURGING):
        committed(raw, SetRemovalState(removal, state))
        (one,) = select_removals(raw)
        assert (one.id, one.state, one.reason, one.expires) == (removal, state, "models", END)
        assert one.removed_at == f"{NOW.replace(' ', 'T')}Z"
    committed(raw, DropRemoval(removal))
    assert select_removals(raw) == []


def test_numbers_of_removals_never_repeat(raw: sqlite3.Connection) -> None:
    """What lies in the trash under an old one is not taken for a new one's."""
    first = begin(raw)
    committed(raw, DropRemoval(first))
    assert begin(raw) > first


def test_latest_that_can_be_put_back_is_undone_first(raw: sqlite3.Connection) -> None:
    """Not one that is on its way in or out."""
    first, second, third, fourth = (begin(raw, f"p{number}") for number in range(4))
    for removal, state in ((first, State.TRASHED), (second, State.TRASHED), (third, State.PURGING)):
        committed(raw, SetRemovalState(removal, state))
    assert select_removal(raw, None).id == second
    committed(raw, DropRemoval(second))
    assert select_removal(raw, None).id == first
    committed(raw, SetRemovalState(fourth, State.RESTORING))
    assert select_removal(raw, None).id == fourth
    assert select_removal(raw, first).id == first


def test_nothing_to_undo_is_said(raw: sqlite3.Connection) -> None:
    """An empty trash, a number that is none, one that is being freed: each with its reason."""
    with pytest.raises(EntryNotFound, match="the trash is empty"):
        select_removal(raw, None)
    with pytest.raises(EntryNotFound, match=r"nothing with number 7 .*trash list"):
        select_removal(raw, 7)
    removal = begin(raw)
    committed(raw, SetRemovalState(removal, State.PURGING))
    with pytest.raises(RequestError, match="being freed"):
        select_removal(raw, removal)


def test_removal_of_a_plan_is_found(raw: sqlite3.Connection) -> None:
    """The latest, if it was carried out, undone, and carried out again."""
    assert select_removal_of(raw, "p1") is None
    begin(raw, "p2")
    begin(raw)
    latest = begin(raw)
    found = select_removal_of(raw, "p1")
    assert found is not None
    assert found.id == latest


def test_trash_is_listed_with_what_lies_in_it(filled: sqlite3.Connection) -> None:
    """The latest first: entries, paths, room, and when it goes by itself."""
    first = begin(filled, expires=None)
    remove(filled, first, DATASET_ITEM)
    second = begin(filled)
    remove(filled, second, MODEL_ITEM, orphan(b"runs/x"))
    committed(filled, SetRemovalState(second, State.TRASHED))
    latest, oldest = select_trash(filled)
    assert (latest.id, latest.state, latest.entries, latest.paths) == (second, "trashed", 1, 3)
    assert (latest.size_bytes, latest.allocated_bytes, latest.expires_at) == (30, 3 * 4096, END.text)
    assert (oldest.id, oldest.state, oldest.entries, oldest.expires_at) == (first, "removing", 1, None)


@pytest.mark.parametrize("expires", ["'tomorrow'", "7", "x'c1'", "'[\"boot\",1,1e300]'"])
def test_end_that_cannot_be_read_is_none(filled: sqlite3.Connection, database: str, expires: str) -> None:
    """What lies there stays until somebody empties the trash."""
    begin(filled)
    execute(database, f"UPDATE motoolsd_removals SET expires_at = {expires};")
    assert select_trash(filled)[0].expires_at is None


def test_dropped_removal_leaves_no_rows(filled: sqlite3.Connection) -> None:
    """Of its own; another's stay."""
    first, second = begin(filled), begin(filled)
    remove(filled, first, DATASET_ITEM)
    remove(filled, second, MODEL_ITEM)
    committed(filled, DropRemoval(first))
    assert [one.id for one in select_trash(filled)] == [second]
    assert (select_entries(filled, first), paths(filled, first)) == ([], {})
    assert (len(select_entries(filled, second)), len(paths(filled, second))) == (1, 2)


# Kills, and disks that refuse.


@pytest.mark.parametrize(
    ("table", "number"), [("motoolsd_removed_entries", 1), ("motoolsd_removed_paths", path_number(1, 0))]
)
def test_removal_that_fails_in_the_middle_takes_nothing(
    filled: sqlite3.Connection, database: str, table: str, number: int
) -> None:
    """Neither of its rows nor of its neighbours in the batch; the next try takes them all."""
    execute(
        database,
        f"CREATE TRIGGER full BEFORE INSERT ON {table} WHEN NEW.number = {number}"
        " BEGIN SELECT RAISE(ABORT, 'no room'); END;",
    )
    removal = begin(filled)
    before = dump(filled)
    change = RemoveItems(removal, 0, (DATASET_ITEM, MODEL_ITEM))
    refused, good = commit_batch(filled, [change, SetVoid((), MISSING)], NOW, "cache.db")
    assert isinstance(refused, StorageFailed)
    assert isinstance(good, Applied)
    assert dump(filled) == before
    assert (select_entries(filled, removal), paths(filled, removal)) == ([], {})
    execute(database, "DROP TRIGGER full;")
    assert committed(filled, change)[0].number == 2


def test_restoring_that_fails_in_the_middle_restores_nothing(filled: sqlite3.Connection, database: str) -> None:
    """What was removed is whole in the removal, until all of it can be put back."""
    before = dump(filled)
    removal = begin(filled)
    remove(filled, removal, DATASET_ITEM, MODEL_ITEM)
    execute(database, "CREATE TRIGGER full BEFORE INSERT ON trained_models BEGIN SELECT RAISE(ABORT, 'no room'); END;")
    change = RestoreEntries(removal, tuple(select_entries(filled, removal)))
    (refused,) = commit_batch(filled, [change], NOW, "cache.db")
    assert isinstance(refused, StorageFailed)
    assert len(select_entries(filled, removal)) == 2
    assert select_standing(filled, change.entries) == []
    execute(database, "DROP TRIGGER full;")
    committed(filled, change)
    assert dump(filled) == before


@pytest.mark.parametrize("step", ["begun", "removed", "trashed", "restoring", "half restored", "restored"])
async def test_killed_daemon_leaves_each_entry_in_one_place(database: str, tmp_path: Path, step: str) -> None:
    """In its table, or in the removal: never in both, never in none; and the state says which way it was going."""
    entries: tuple[tuple[Kind, str], ...] = ((Kind.DATASET, "a"), (Kind.DATASET, "b"))
    copy = str(tmp_path / "copy.db")
    async with open_store(database, synchronous="FULL") as store:
        await commit(store, *[publication(put_dataset(key), b"datasets/" + key.encode()) for _, key in entries])
        gone = tuple(item(kind, key, b"file", b"datasets/" + key.encode()) for kind, key in entries)
        changes = {
            "begun": BeginRemoval("p1", "why", END),
            "removed": RemoveItems(1, 0, gone),
            "trashed": SetRemovalState(1, State.TRASHED),
            "restoring": SetRemovalState(1, State.RESTORING),
            "half restored": RestoreEntries(1, entries[:1]),
            "restored": RestoreEntries(1, entries),
        }
        for name, change in changes.items():
            await commit(store, change)
            if name == step:
                break
        for suffix in ("", "-wal"):
            shutil.copy(f"{database}{suffix}", f"{copy}{suffix}")
    async with open_store(copy, synchronous="FULL") as store:
        standing = await store.read(select_standing, entries)
        saved = await store.read(select_entries, 1)
        assert sorted([*standing, *saved]) == list(entries)
        expected = {"begun": 2, "half restored": 1, "restored": 2}
        assert len(standing) == expected.get(step, 0)
        found = await store.values(Kind.DATASET, ["a", "b"])
        assert len(found.guards) == len(standing)
        state = {"begun": State.REMOVING, "removed": State.REMOVING, "trashed": State.TRASHED}
        assert (await store.read(select_removals))[0].state == state.get(step, State.RESTORING)
        assert len(await store.read(select_paths, 1)) == (0 if step == "begun" else 2)
