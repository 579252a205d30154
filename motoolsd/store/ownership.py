"""Which files belong to which entry, and what that means for reading it.

Layer: store. Imports core and rows.
Invariant: rows of motoolsd_files count only for an entry whose `files` is above 0; whatever else stands there is left
over, and goes with the next scan. An entry is named there by its hash, key or number, which no VACUUM changes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from motoolsd.core.deadlines import Moment, unpacked
from motoolsd.core.files import ancestors_of
from motoolsd.core.guards import Guard
from motoolsd.store.outcomes import Applied, Change, Outcome
from motoolsd.store.rows import KEY_COLUMNS, TABLES, VALUE_COLUMN, Cell, bytes_of, key_of, optional_text
from motoolsd.wire.keys import Kind, parse_eval_key
from motoolsd.wire.messages import PutDataset, PutEvals, PutModel, RequestKey

ENTRY_COLUMN: Final[dict[Kind, str]] = {
    Kind.DATASET: "dataset_hash",
    Kind.MODEL: "cache_key",
    Kind.EVAL: "id",
}
"""What `motoolsd_files.entry` refers to."""
WHERE_KEY: Final[dict[Kind, str]] = {
    Kind.DATASET: "dataset_hash = ?",
    Kind.MODEL: "cache_key = ?",
    Kind.EVAL: "model_id = ? AND task_id = ? AND backend_type = ? AND ifnull(inspect_kwargs_hash, '') = ifnull(?, '')",
}
_PATHS: Final = "SELECT path FROM motoolsd_files WHERE kind = ? AND entry = ? ORDER BY path"
_DISOWN: Final = "DELETE FROM motoolsd_files WHERE kind = ? AND entry = ?"
_OWN: Final = "INSERT INTO motoolsd_files (kind, entry, path, size_bytes, allocated_bytes) VALUES (?, ?, ?, ?, ?)"


def key_cells(kind: Kind, key: str) -> tuple[str | None, ...]:
    """The key as the parameters of a statement.

    Raises:
        ValueError: an evaluation's key that nothing of ours made.
    """
    if kind is not Kind.EVAL:
        return (key,)
    identity = parse_eval_key(key)
    return (identity.model_id, identity.task_id, identity.backend_type, identity.kwargs_hash)


class OwnedFile(NamedTuple):
    """One path of an entry, as it was measured."""

    path: bytes
    size_bytes: int
    allocated_bytes: int


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """A put whose entries have files, or expire."""

    put: PutDataset | PutModel | PutEvals
    files: Mapping[str, Sequence[OwnedFile]] = {}
    """By key."""
    expires: Moment | None = None

    @property
    def request_key(self) -> RequestKey:
        """The put's own."""
        return self.put.request_key

    def guards(self, keys: Iterable[str]) -> dict[str, Guard]:
        """What each of its entries depends on."""
        version = self.put.version
        found = {
            key: Guard(tuple(file.path for file in self.files.get(key, ())), self.expires, version) for key in keys
        }
        return {key: guard for key, guard in found.items() if guard != Guard()}


def publish(
    connection: sqlite3.Connection, kind: Kind, key: str, files: Sequence[OwnedFile], publication: Publication
) -> None:
    """Give a stored entry its files and its end, inside the transaction that stored it."""
    expires = None if publication.expires is None else publication.expires.packed()
    if files:
        own_files(connection, kind, key, files)
    connection.execute(
        f"UPDATE {TABLES[kind]} SET expires_at = ? WHERE {WHERE_KEY[kind]}", (expires, *key_cells(kind, key))
    )


def own_files(connection: sqlite3.Connection, kind: Kind, key: str, files: Sequence[OwnedFile]) -> None:
    """Make these the files of an entry, instead of those it had."""
    cells = key_cells(kind, key)
    found = connection.execute(f"SELECT {ENTRY_COLUMN[kind]} FROM {TABLES[kind]} WHERE {WHERE_KEY[kind]}", cells)
    if (row := found.fetchone()) is None:
        return
    entry = row[0] if kind is Kind.EVAL else key
    connection.execute(_DISOWN, (kind.value, entry))
    connection.executemany(_OWN, [(kind.value, entry, *file) for file in files])
    sizes = sum(file.size_bytes for file in files), sum(file.allocated_bytes for file in files)
    connection.execute(
        f"UPDATE {TABLES[kind]} SET files = ?, size_bytes = ?, allocated_bytes = ? WHERE {WHERE_KEY[kind]}",
        (len(files), *sizes, *cells),
    )


def as_name(entry: Cell) -> str | Cell:
    """A cell of `motoolsd_files.entry`, as it is bound: texts are read as bytes, and would not be equal as such.

    A text that is no UTF-8 cannot be bound: as bytes it equals nothing, and nothing of ours has such a name.
    """
    try:
        return entry.decode() if isinstance(entry, bytes) else entry
    except UnicodeDecodeError:
        return entry


def paths_of(connection: sqlite3.Connection, kind: Kind, entry: Cell) -> tuple[bytes, ...]:
    """The files of an entry, which is named as in motoolsd_files."""
    return tuple(bytes_of(path) for (path,) in connection.execute(_PATHS, (kind.value, as_name(entry))))


def guard_of(connection: sqlite3.Connection, kind: Kind, cells: Sequence[Cell]) -> Guard | None:
    """What an entry depends on; None if on nothing.

    Args:
        connection: inside the transaction that read the row.
        kind: its kind.
        cells: entry column, files, expires_at, version.
    """
    entry, files, expires, version = cells
    if not files and expires is None and version is None:
        return None
    paths = paths_of(connection, kind, entry) if files else ()
    guard = Guard(paths, unpacked(expires if isinstance(expires, bytes) else None), optional_text(version))
    return None if guard == Guard() else guard


GUARD_COLUMNS: Final[dict[Kind, str]] = {
    kind: f"{column}, files, expires_at, version" for kind, column in ENTRY_COLUMN.items()
}


class OwnedPath(NamedTuple):
    """A path and the entry that owns it, as the scan takes them."""

    kind: Kind
    key: str
    path: bytes
    size_bytes: int | None
    allocated_bytes: int | None
    void_reason: str | None
    value: bytes


class OwnedPage(NamedTuple):
    """Some of them, and after which the next begins; None after the last."""

    items: list[OwnedPath]
    next_after: tuple[object, bytes] | None


def select_owned(
    connection: sqlite3.Connection, kind: Kind, after: tuple[object, bytes] | None, limit: int
) -> OwnedPage:
    """Owned paths of one kind, in the order of their entries."""
    keys = ", ".join(f"t.{column}" for column in KEY_COLUMNS[kind])
    begins = "" if after is None else " AND (f.entry, f.path) > (?, ?)"
    rows = connection.execute(
        f"SELECT f.entry, f.path, f.size_bytes, f.allocated_bytes, t.void_reason, t.{VALUE_COLUMN[kind]}, {keys}"
        f" FROM motoolsd_files f JOIN {TABLES[kind]} t ON t.{ENTRY_COLUMN[kind]} = f.entry"
        f" WHERE f.kind = ? AND t.files > 0{begins} ORDER BY f.entry, f.path LIMIT ?",
        (kind.value, *(after or ()), limit),
    ).fetchall()
    items = [
        OwnedPath(
            kind,
            key_of(kind, cells),
            bytes_of(path),
            size,
            room,
            None if reason is None else bytes_of(reason).decode(errors="replace"),
            bytes_of(value),
        )
        for _, path, size, room, reason, value, *cells in rows
    ]
    if len(rows) < limit:
        return OwnedPage(items, None)
    last = rows[-1][0]
    return OwnedPage(items, (as_name(last), bytes_of(rows[-1][1])))


class OtherOwner(NamedTuple):
    """An entry that owns a path, or something above or below it."""

    kind: Kind
    entry: Cell
    path: bytes


# CASE, because SQLite would take an OR of kinds for the index to search by.
_COUNTS: Final = " ".join(
    f"WHEN '{kind.value}' THEN EXISTS (SELECT 1 FROM {TABLES[kind]} WHERE {column} = f.entry AND files > 0)"
    for kind, column in ENTRY_COLUMN.items()
)
_AT_OR_BELOW: Final = (
    "SELECT kind, entry, path FROM motoolsd_files f"
    f" WHERE (path = ?1 OR (path > ?2 AND path < ?3)) AND CASE kind {_COUNTS} END LIMIT ?4"
)
_ABOVE: Final = f"SELECT kind, entry, path FROM motoolsd_files f WHERE path = ? AND CASE kind {_COUNTS} END"
_LEFT_OVER: Final[dict[Kind, str]] = {
    kind: f"DELETE FROM motoolsd_files WHERE kind = ?"
    f" AND entry NOT IN (SELECT {column} FROM {TABLES[kind]} WHERE files > 0)"
    for kind, column in ENTRY_COLUMN.items()
}
OTHERS_MAX: Final = 1_000
"""Owners below one directory that are looked at: more keep it in any case."""


def select_owners(connection: sqlite3.Connection, paths: Sequence[bytes]) -> list[list[OtherOwner]]:
    """For each path the entries that own it or anything above or below it, itself included; at most `OTHERS_MAX`."""
    found = []
    for path in paths:
        bounds = (path, path + b"/", path + b"0", OTHERS_MAX)  # "0" follows "/"
        rows = connection.execute(_AT_OR_BELOW, bounds).fetchall()
        for ancestor in ancestors_of(path)[1:]:
            rows += connection.execute(_ABOVE, (ancestor,)).fetchall()
        found.append([OtherOwner(Kind(kind.decode()), entry, bytes_of(other)) for kind, entry, other in rows])
    return found


def select_recorded(connection: sqlite3.Connection, paths: Sequence[bytes]) -> dict[bytes, OwnedFile]:
    """Those of the paths that an entry owns, as they were measured last."""
    found = {}
    for path in paths:
        row = connection.execute(
            "SELECT size_bytes, allocated_bytes FROM motoolsd_files WHERE path = ? LIMIT 1", (path,)
        ).fetchone()
        if row is not None:
            found[path] = OwnedFile(path, row[0] or 0, row[1] or 0)
    return found


class ForgetUnowned(Change, frozen=True):
    """Drop what is left over of entries that somebody removed or changed by hand."""

    def apply(self, connection: sqlite3.Connection, _now: str, /) -> Outcome:
        """Look through all; how many rows went is the outcome's number."""
        rows = [connection.execute(statement, (kind.value,)).rowcount for kind, statement in _LEFT_OVER.items()]
        return Applied(number=sum(rows))


def disown_removed(connection: sqlite3.Connection, kind: Kind) -> None:
    """Drop the ownership of many entries that were removed just now; their files stay, and belong to nobody."""
    if connection.execute("SELECT 1 FROM motoolsd_files WHERE kind = ? LIMIT 1", (kind.value,)).fetchone() is not None:
        connection.execute(_LEFT_OVER[kind], (kind.value,))


def disown(connection: sqlite3.Connection, kind: Kind, entries: Iterable[Cell]) -> None:
    """The same of a few, named as in motoolsd_files."""
    connection.executemany(_DISOWN, [(kind.value, as_name(entry)) for entry in entries])
