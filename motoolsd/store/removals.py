"""Clean-ups on disk: what each took, and putting it back.

Layer: store. Imports core.retention, outcomes, ownership and rows.
Invariant: rows go, and come back, in the same transaction that says so. What lies in `trash/<removal>/<number>` was at
the path that has this number; a removal's state tells which way whatever is half done is to go.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Any, ClassVar, Final

import msgspec

from motoolsd.core.deadlines import Moment, unpacked
from motoolsd.core.errors import EntryNotFound, RequestError
from motoolsd.core.files import Seen
from motoolsd.core.guards import Guard
from motoolsd.core.retention import PlannedItem
from motoolsd.store.history import Why, bury
from motoolsd.store.outcomes import Applied, Change, Key, Outcome, StoredEntry
from motoolsd.store.ownership import ENTRY_COLUMN, WHERE_KEY, as_name, guard_of, key_cells, select_owners
from motoolsd.store.rows import TABLES, VALUE_COLUMN, Cell, bytes_of, text_of, timestamp
from motoolsd.wire.cleaning import ORPHAN, TrashRow
from motoolsd.wire.keys import Kind

_encoder = msgspec.msgpack.Encoder()
_seen_decoder = msgspec.msgpack.Decoder(Seen)


class State(StrEnum):
    """Where a removal stands. What is half done is brought to its end, at the latest by the next daemon."""

    REMOVING = "removing"
    TRASHED = "trashed"
    RESTORING = "restoring"
    PURGING = "purging"


class SavedEntry(msgspec.Struct, frozen=True):
    """A removed row, with all its columns, and its files."""

    row: dict[str, Any]
    files: list[tuple[bytes, int | None, int | None]]


_entry_decoder = msgspec.msgpack.Decoder(SavedEntry)


class Removal(msgspec.Struct, frozen=True):
    """A clean-up, as it stands."""

    id: int
    state: str
    reason: str
    removed_at: str
    expires: Moment | None


class RemovedPath(msgspec.Struct, frozen=True):
    """A path of a removal."""

    number: int
    path: bytes
    seen: Seen
    size_bytes: int
    allocated_bytes: int


class BeginRemoval(Change, frozen=True):
    """Open a removal; its number is that of the outcome."""

    frees_room: ClassVar[bool] = True

    plan_id: str
    reason: str
    expires: Moment | None

    def apply(self, connection: sqlite3.Connection, now: str, /) -> Outcome:
        """Add it, with nothing removed yet."""
        expires = None if self.expires is None else self.expires.packed()
        cursor = connection.execute(
            "INSERT INTO motoolsd_removals (plan_id, reason, removed_at, expires_at, state) VALUES (?, ?, ?, ?, ?)",
            (self.plan_id, self.reason, now, expires, State.REMOVING.value),
        )
        assert cursor.lastrowid is not None, "a row was inserted"
        return Applied(number=cursor.lastrowid)


class SetRemovalState(Change, frozen=True):
    """Say which way a removal goes."""

    frees_room: ClassVar[bool] = True

    removal: int
    state: State
    outcome: bytes | None = None
    """What came of its plan, if that is known by now."""

    def apply(self, connection: sqlite3.Connection, _now: str, /) -> Outcome:
        """Set it."""
        connection.execute("UPDATE motoolsd_removals SET state = ? WHERE id = ?", (self.state.value, self.removal))
        if self.outcome is not None:
            connection.execute(_SET_OUTCOME, (self.outcome, self.removal))
        return Applied()


_SET_OUTCOME: Final = (
    "UPDATE motoolsd_plans SET outcome = ? WHERE id = (SELECT plan_id FROM motoolsd_removals WHERE id = ?)"
)


class RemoveItems(Change, frozen=True):
    """Take some of a plan's entries out of their tables, and note their paths: the files are moved after that.

    An item whose entry is another by now, or whose path somebody else owns by now, keeps that.
    """

    frees_room: ClassVar[bool] = True

    removal: int
    first_number: int
    items: tuple[PlannedItem, ...]
    why: Why = Why()

    @property
    def keys(self) -> Collection[Key]:
        """Those of the entries."""
        return [(Kind(item.kind), item.key) for item in self.items if item.kind != ORPHAN]

    def apply(self, connection: sqlite3.Connection, now: str, /) -> Outcome:
        """Rows first, all of them; then which paths are free by that."""
        removed: list[Key] = []
        taken: list[tuple[int, PlannedItem]] = []
        for number, item in enumerate(self.items, self.first_number):
            if item.kind == ORPHAN or self._take_row(connection, number, item):
                taken.append((number, item))
                if item.kind != ORPHAN:
                    removed.append((Kind(item.kind), item.key))
        for number, item in taken:
            self._note_paths(connection, number, item)
        bury(connection, removed, self.why.reason, now, detail=self.why.detail, origin=self.why.origin)
        return Applied(removed=removed, number=len(taken))

    def _take_row(self, connection: sqlite3.Connection, number: int, item: PlannedItem) -> bool:
        kind = Kind(item.kind)
        cursor = connection.execute(
            f"DELETE FROM {TABLES[kind]} WHERE {WHERE_KEY[kind]} AND CAST({VALUE_COLUMN[kind]} AS BLOB) = ?"
            " AND created_at IS ? RETURNING *",
            (*key_cells(kind, item.key), item.value, item.created_at),
        )
        names = [column[0] for column in cursor.description]
        if (cells := cursor.fetchone()) is None:
            return False
        row = dict(zip(names, cells, strict=True))
        entry = as_name(row[ENTRY_COLUMN[kind]])
        files = connection.execute(
            "DELETE FROM motoolsd_files WHERE kind = ? AND entry = ? RETURNING path, size_bytes, allocated_bytes",
            (kind.value, entry),
        ).fetchall()
        saved = _encoder.encode(SavedEntry(row, files if row["files"] else []))
        connection.execute(
            "INSERT INTO motoolsd_removed_entries (removal, number, kind, key, entry) VALUES (?, ?, ?, ?, ?)",
            (self.removal, number, kind.value, item.key, saved),
        )
        return True

    def _note_paths(self, connection: sqlite3.Connection, number: int, item: PlannedItem) -> None:
        owners = select_owners(connection, [path.path for path in item.paths])
        for place, (path, others) in enumerate(zip(item.paths, owners, strict=True)):
            if not others:
                connection.execute(
                    "INSERT INTO motoolsd_removed_paths (removal, number, path, seen, size_bytes, allocated_bytes)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        self.removal,
                        path_number(number, place),
                        path.path,
                        _encoder.encode(path.seen),
                        path.size_bytes,
                        path.allocated_bytes,
                    ),
                )


_PLACES: Final = 2**30
"""More than all paths of a plan: each may go with the same entry."""


def path_number(number: int, place: int) -> int:
    """The number of the path that stands at a place of an item."""
    assert place < _PLACES, "a plan is bounded, and so are the files of an entry"
    return number * _PLACES + place


class ForgetPaths(Change, frozen=True):
    """Paths that stayed where they were are no part of a removal."""

    frees_room: ClassVar[bool] = True

    removal: int
    numbers: tuple[int, ...]

    def apply(self, connection: sqlite3.Connection, _now: str, /) -> Outcome:
        """Drop them."""
        connection.executemany(
            "DELETE FROM motoolsd_removed_paths WHERE removal = ? AND number = ?",
            [(self.removal, number) for number in self.numbers],
        )
        return Applied()


class RestoreEntries(Change, frozen=True):
    """Put removed rows back, those with these keys; the files are where they were."""

    removal: int
    entries: tuple[Key, ...]

    @property
    def keys(self) -> Collection[Key]:
        """Those."""
        return self.entries

    def apply(self, connection: sqlite3.Connection, _now: str, /) -> Outcome:
        """Insert what is not there; what was stored meanwhile stays."""
        stored: list[StoredEntry] = []
        guards: dict[Key, Guard] = {}
        for kind, key in self.entries:
            row = connection.execute(
                "DELETE FROM motoolsd_removed_entries WHERE removal = ? AND kind = ? AND key = ? RETURNING entry",
                (self.removal, kind.value, key),
            ).fetchone()
            if row is None or _stands(connection, kind, key):
                continue
            saved = _entry_decoder.decode(row[0])
            _insert(connection, kind, saved)
            if saved.row.get("void_since") is None:
                stored.append((kind, key, bytes_of(saved.row[VALUE_COLUMN[kind]])))
                names = (ENTRY_COLUMN[kind], "files", "expires_at", "version")
                cells: Sequence[Cell] = [saved.row[name] for name in names]
                if (guard := guard_of(connection, kind, cells)) is not None:
                    guards[kind, key] = guard
        return Applied(stored=stored, guards=guards, number=len(stored))


def _insert(connection: sqlite3.Connection, kind: Kind, saved: SavedEntry) -> None:
    # Texts were read as bytes, because they may be no UTF-8; the columns hold texts.
    places = ", ".join("CAST(? AS TEXT)" if isinstance(cell, bytes) else "?" for cell in saved.row.values())
    cursor = connection.execute(
        f"INSERT INTO {TABLES[kind]} ({', '.join(saved.row)}) VALUES ({places})", tuple(saved.row.values())
    )
    if saved.row.get("created_at") is None:  # a trigger stamps what has no time, as older rows have none
        connection.execute(f"UPDATE {TABLES[kind]} SET created_at = NULL WHERE rowid = ?", (cursor.lastrowid,))
    entry = as_name(saved.row[ENTRY_COLUMN[kind]])
    connection.executemany(
        "INSERT OR REPLACE INTO motoolsd_files (kind, entry, path, size_bytes, allocated_bytes) VALUES (?, ?, ?, ?, ?)",
        [(kind.value, entry, *file) for file in saved.files],
    )


def _stands(connection: sqlite3.Connection, kind: Kind, key: str) -> bool:
    found = connection.execute(f"SELECT 1 FROM {TABLES[kind]} WHERE {WHERE_KEY[kind]}", key_cells(kind, key))
    return found.fetchone() is not None


class DropRemoval(Change, frozen=True):
    """Nothing of a removal is left in the trash."""

    frees_room: ClassVar[bool] = True

    removal: int
    is_undone: bool = False
    """Whether its plan can be carried out again."""

    def apply(self, connection: sqlite3.Connection, _now: str, /) -> Outcome:
        """Forget it."""
        if self.is_undone:
            connection.execute(_SET_OUTCOME, (None, self.removal))
        for table in ("motoolsd_removed_entries", "motoolsd_removed_paths"):
            connection.execute(f"DELETE FROM {table} WHERE removal = ?", (self.removal,))
        connection.execute("DELETE FROM motoolsd_removals WHERE id = ?", (self.removal,))
        return Applied()


# Reading.


_REMOVAL: Final = "SELECT id, state, reason, removed_at, expires_at FROM motoolsd_removals"


def _removal(cells: Sequence[Cell]) -> Removal:
    number, state, reason, removed_at, expires = cells
    assert isinstance(number, int), "it is the row's number"
    deadline = unpacked(expires if isinstance(expires, bytes) else None)
    return Removal(number, text_of(state), text_of(reason), timestamp(removed_at) or "", deadline)


def select_removals(connection: sqlite3.Connection) -> list[Removal]:
    """All removals, the oldest first."""
    return [_removal(cells) for cells in connection.execute(f"{_REMOVAL} ORDER BY id").fetchall()]


def select_removal_of(connection: sqlite3.Connection, plan_id: str) -> Removal | None:
    """The removal of a plan; None if it was not carried out, or nothing of it lies in the trash any more."""
    row = connection.execute(f"{_REMOVAL} WHERE plan_id = ? ORDER BY id DESC", (plan_id,)).fetchone()
    return None if row is None else _removal(row)


def select_removal(connection: sqlite3.Connection, removal_id: int | None) -> Removal:
    """A removal that can be undone; without a number the latest.

    Raises:
        EntryNotFound: there is none.
        RequestError: it is on its way out.
    """
    if removal_id is None:
        row = connection.execute(
            f"{_REMOVAL} WHERE state IN (?, ?) ORDER BY id DESC LIMIT 1", (State.TRASHED.value, State.RESTORING.value)
        ).fetchone()
        if row is None:
            raise EntryNotFound("there is nothing to undo: the trash is empty")
        return _removal(row)
    row = connection.execute(f"{_REMOVAL} WHERE id = ?", (removal_id,)).fetchone()
    if row is None:
        raise EntryNotFound(f"there is nothing with number {removal_id} in the trash: see `motools cache trash list`")
    found = _removal(row)
    if found.state == State.PURGING:
        raise RequestError(f"{removal_id} is being freed: it cannot be put back any more")
    return found


def select_paths(connection: sqlite3.Connection, removal: int, first_number: int = 0) -> list[RemovedPath]:
    """The paths that a removal took, from a number on."""
    rows = connection.execute(
        "SELECT number, path, seen, size_bytes, allocated_bytes FROM motoolsd_removed_paths WHERE removal = ?"
        " AND number >= ? ORDER BY number",
        (removal, first_number),
    ).fetchall()
    return [
        RemovedPath(number, bytes_of(path), _seen_decoder.decode(seen), size, room)
        for number, path, seen, size, room in rows
    ]


def select_entries(connection: sqlite3.Connection, removal: int) -> list[Key]:
    """The keys of the entries that a removal took."""
    rows = connection.execute(
        "SELECT kind, key FROM motoolsd_removed_entries WHERE removal = ? ORDER BY number", (removal,)
    )
    return [(Kind(kind.decode()), text_of(key)) for kind, key in rows.fetchall()]


def select_standing(connection: sqlite3.Connection, entries: Sequence[Key]) -> list[Key]:
    """Those of the keys that have a row."""
    return [(kind, key) for kind, key in entries if _stands(connection, kind, key)]


def select_trash(connection: sqlite3.Connection) -> list[TrashRow]:
    """What lies in the trash, the latest first."""
    rows = []
    for removal in reversed(select_removals(connection)):
        (entries,) = connection.execute(
            "SELECT count(*) FROM motoolsd_removed_entries WHERE removal = ?", (removal.id,)
        ).fetchone()
        paths, size, room = connection.execute(
            "SELECT count(*), coalesce(sum(size_bytes), 0), coalesce(sum(allocated_bytes), 0)"
            " FROM motoolsd_removed_paths WHERE removal = ?",
            (removal.id,),
        ).fetchone()
        rows.append(
            TrashRow(
                id=removal.id,
                removed_at=removal.removed_at,
                reason=removal.reason,
                state=removal.state,
                entries=entries,
                paths=paths,
                size_bytes=size,
                allocated_bytes=room,
                expires_at=None if removal.expires is None else removal.expires.text,
            )
        )
    return rows
