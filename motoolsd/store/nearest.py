"""Signatures of entries, to find those whose inputs are near to others, and the inputs themselves.

Layer: store. Imports core.inputs, core.signatures, outcomes and rows.
Invariant: a stored signature is that of the row's inputs: it is only set where they still are what it was made of, and
a trigger forgets it when somebody changes them. NULL: not looked at yet; empty: nothing is known of the row's inputs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from motoolsd.core.inputs import Inputs, inputs_of_eval, inputs_of_model
from motoolsd.core.signatures import SIGNATURE_SIZE_BYTES, nearest, signature
from motoolsd.store.outcomes import Applied, Change, Outcome
from motoolsd.store.ownership import WHERE_KEY, key_cells
from motoolsd.store.rows import KEY_COLUMNS, TABLES, VALUE_COLUMN, bytes_of, key_of, optional_text, timestamp
from motoolsd.wire.keys import EvalIdentity, Kind

SIGNED_KINDS: Final = (Kind.MODEL, Kind.EVAL)
"""A dataset is its content: two of them are the same or not, and nothing is near."""

INPUT_COLUMNS: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.MODEL: ("dataset_hash", "config", "backend_type"),
    Kind.EVAL: ("model_id", "task_id", "backend_type", "inspect_kwargs_hash", "inspect_kwargs"),
}
# As bytes whatever is there: so it can be compared with what it was.
_INPUTS: Final = {
    kind: ", ".join(f"CAST({column} AS BLOB)" for column in columns) for kind, columns in INPUT_COLUMNS.items()
}
_ARE_INPUTS: Final = {
    kind: " AND ".join(f"CAST({column} AS BLOB) IS ?" for column in columns) for kind, columns in INPUT_COLUMNS.items()
}
_INDEX: Final = {kind: f"{TABLES[kind]}_by_signature" for kind in SIGNED_KINDS}


def _forget_signature(kind: Kind) -> str:
    table, columns = TABLES[kind], INPUT_COLUMNS[kind]
    changed = " OR ".join(f"NEW.{column} IS NOT OLD.{column}" for column in columns)
    return (
        f"CREATE TRIGGER {table}_forget_signature AFTER UPDATE OF {', '.join(columns)} ON {table}"
        f" WHEN NEW.signature IS NOT NULL AND NEW.signature IS OLD.signature AND ({changed})"
        f" BEGIN UPDATE {table} SET signature = NULL WHERE rowid = NEW.rowid; END"
    )


SIGNATURE_STATEMENTS: Final = (
    # Read from end to end for each question: 4 MB for 100,000 entries, where the table has 90. In front stands what is
    # not signed yet.
    *(f"CREATE INDEX {_INDEX[kind]} ON {TABLES[kind]} (signature)" for kind in SIGNED_KINDS),
    *(_forget_signature(kind) for kind in SIGNED_KINDS),
)
"""What a schema with the column `signature` needs beside it."""

FROM_START: Final = b""
"""The first page of signatures begins behind this."""
ROWS_PER_SIGNATURE_MAX: Final = 64
"""Rows that look the same from afar; the latest."""


class UnsignedRow(NamedTuple):
    """A row that has no signature yet."""

    row_number: int
    cells: tuple[bytes | None, ...]
    """Its inputs as they stand there."""


class SignedRow(NamedTuple):
    """The same with its signature."""

    row_number: int
    cells: tuple[bytes | None, ...]
    signature: bytes


class NearPage(NamedTuple):
    """The nearest signatures so far."""

    near: list[bytes]
    """As `nearest` gives them."""
    next_after: bytes | None
    """The signature behind which the next page begins; None: it was the last one."""


class Candidate(NamedTuple):
    """An entry with its inputs."""

    row_number: int
    key: str
    value: bytes
    inputs: Inputs
    size_bytes: int
    """Of the inputs."""
    created_at: str | None
    void_reason: str | None
    """Why it misses; None if it counts."""


class SetSignatures(Change, frozen=True):
    """Write signatures down that were made outside of the transaction."""

    kind: Kind
    rows: tuple[SignedRow, ...]

    def apply(self, connection: sqlite3.Connection, _now: str, /) -> Outcome:
        """Sign those rows whose inputs are still the same; how many there were."""
        signed = connection.executemany(
            f"UPDATE {TABLES[self.kind]} SET signature = ?"
            f" WHERE rowid = ? AND signature IS NULL AND {_ARE_INPUTS[self.kind]}",
            [(row.signature, row.row_number, *row.cells) for row in self.rows],
        )
        return Applied(number=signed.rowcount)


def select_signatures(connection: sqlite3.Connection, kind: Kind, after: bytes, limit: int) -> list[bytes]:
    """The signatures behind another one, sorted; some stand there several times, or continue on the next page."""
    rows = connection.execute(
        f"SELECT signature FROM {TABLES[kind]} INDEXED BY {_INDEX[kind]}"
        f" WHERE signature > ? AND length(signature) = {SIGNATURE_SIZE_BYTES} ORDER BY signature LIMIT ?",
        (after, limit),
    ).fetchall()
    return [found for (found,) in rows]


def select_near(
    connection: sqlite3.Connection, kind: Kind, asked: bytes, so_far: NearPage, *, rows_max: int, near_max: int
) -> NearPage:
    """The nearest of those so far and the next page: measured here, because each would cost more to be handed on."""
    assert so_far.next_after is not None, "there is a next page"
    found = select_signatures(connection, kind, so_far.next_after, rows_max)
    next_after = found[-1] if len(found) == rows_max else None
    return NearPage(nearest([*so_far.near, *found], asked, near_max), next_after)


def select_row_numbers(
    connection: sqlite3.Connection, kind: Kind, signatures: Sequence[bytes]
) -> list[tuple[int, bytes]]:
    """The rows that have these signatures."""
    statement = (
        f"SELECT rowid FROM {TABLES[kind]} INDEXED BY {_INDEX[kind]} WHERE signature = ?"
        f" ORDER BY rowid DESC LIMIT {ROWS_PER_SIGNATURE_MAX}"
    )
    return [(row_number, one) for one in signatures for (row_number,) in connection.execute(statement, (one,))]


def select_unsigned(connection: sqlite3.Connection, kind: Kind, limit: int, size_bytes: int) -> list[UnsignedRow]:
    """The latest rows that have no signature; no more once their inputs have so many bytes."""
    found: list[UnsignedRow] = []
    for row_number, *cells in connection.execute(
        f"SELECT rowid, {_INPUTS[kind]} FROM {TABLES[kind]} INDEXED BY {_INDEX[kind]}"
        " WHERE signature IS NULL ORDER BY rowid DESC LIMIT ?",
        (limit,),
    ):
        found.append(UnsignedRow(row_number, tuple(cells)))
        size_bytes -= _size(cells)
        if size_bytes <= 0:
            break
    return found


def signed(kind: Kind, row: UnsignedRow) -> SignedRow:
    """A row with its signature: an empty one if nothing is known of its inputs."""
    inputs = _inputs_of(kind, row.cells)
    return SignedRow(row.row_number, row.cells, signature(inputs) if inputs.fields else b"")


def select_inputs(connection: sqlite3.Connection, kind: Kind, row_numbers: Sequence[int]) -> list[Candidate]:
    """Entries by their row numbers, in no order; without those that are gone."""
    keys = ", ".join(KEY_COLUMNS[kind])
    rows = connection.execute(
        f"SELECT rowid, {VALUE_COLUMN[kind]}, created_at, void_since, void_reason, {_INPUTS[kind]}, {keys}"
        f" FROM {TABLES[kind]} WHERE rowid IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode(list(row_numbers)).decode(),),
    )
    count = len(INPUT_COLUMNS[kind])
    found = []
    for row_number, value, created_at, void_since, void_reason, *others in rows:
        cells, key = others[:count], key_of(kind, others[count:])
        found.append(
            Candidate(
                row_number=row_number,
                key=key,
                value=bytes_of(value),
                inputs=_inputs_of(kind, cells),
                size_bytes=_size(cells),
                created_at=timestamp(created_at),
                void_reason=None if void_since is None else optional_text(void_reason) or "",
            )
        )
    return found


def select_inputs_of(connection: sqlite3.Connection, kind: Kind, key: str) -> Inputs | None:
    """What an entry was made from, as far as it is known; None if there is no such entry."""
    row = connection.execute(
        f"SELECT {_INPUTS[kind]} FROM {TABLES[kind]} WHERE {WHERE_KEY[kind]}", key_cells(kind, key)
    ).fetchone()
    return None if row is None else _inputs_of(kind, row)


def _size(cells: Sequence[bytes | None]) -> int:
    return sum(map(len, filter(None, cells)))


def _inputs_of(kind: Kind, cells: Sequence[bytes | None]) -> Inputs:
    if kind is Kind.MODEL:
        dataset_hash, config, backend_type = cells
        return inputs_of_model(optional_text(dataset_hash), config, optional_text(backend_type))
    model_id, task_id, backend_type, kwargs_hash, kwargs = cells
    identity = EvalIdentity(
        optional_text(model_id) or "",
        optional_text(task_id) or "",
        optional_text(backend_type) or "",
        optional_text(kwargs_hash) or None,
    )
    return inputs_of_eval(identity, kwargs)
