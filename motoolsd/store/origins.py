"""Who stored entries, and who made keys lose theirs.

Layer: store. Imports outcomes, rows and wire.
Invariant: an origin stands under its own id, which the daemon makes of what it was told, so that nobody can put other
words under the id of another. What a row, the trash or the history names stays; what cannot be read counts as absent.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from typing import Final

import msgspec

from motoolsd.store.outcomes import Applied, Change, Outcome
from motoolsd.store.rows import TABLES
from motoolsd.wire.origins import Origin, origin_id

logger = logging.getLogger(__name__)

ORIGINS_KEPT: Final = 1_000
"""So many may be idle before anybody looks which of them are still named."""
FORGOTTEN_MAX: Final = 10_000
"""Origins that go at once: the rest has time until the next look."""

_SAVE: Final = (
    # Once more by the same process: it is alive, and what was damaged is mended.
    "INSERT INTO motoolsd_origins (id, origin, seen_at) VALUES (?, ?, ?)"
    " ON CONFLICT (id) DO UPDATE SET origin = excluded.origin, seen_at = excluded.seen_at"
)
_IDLE: Final = "seen_at < datetime(?, '-1 day')"
_NAMED_AT_LAST_LOOK: Final = "origins_named"
_NAMED: Final = " UNION ".join(
    f"SELECT origin FROM {table} WHERE origin IS NOT NULL" for table in (*TABLES.values(), "motoolsd_gone")
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Origin)


class _SavedRow(msgspec.Struct):
    origin: bytes | None = None


class _SavedEntry(msgspec.Struct):
    """The one field of an entry in the trash that matters here."""

    row: _SavedRow


_saved_decoder = msgspec.msgpack.Decoder(_SavedEntry)


class SaveOrigin(Change, frozen=True):
    """Remember who a process is, before its first write."""

    origin: Origin

    def apply(self, connection: sqlite3.Connection, now: str, /) -> Outcome:
        """Keep it under its id."""
        connection.execute(_SAVE, (origin_id(self.origin), _encoder.encode(self.origin), now))
        return Applied()


class ForgetOrigins(Change, frozen=True):
    """Drop those that nothing names any more and that have not been heard of for a day; see `Applied.number`.

    To see what is named, all rows are read. As a garbage collector does, it looks only when there are twice as many
    idle ones as were in use at the last look, and more than `kept`: what it reads is in proportion to what was stored
    since, however often it is asked.
    """

    kept: int = ORIGINS_KEPT

    def apply(self, connection: sqlite3.Connection, now: str, /) -> Outcome:
        """Drop at most `FORGOTTEN_MAX`."""
        (idle,) = connection.execute(f"SELECT count(*) FROM motoolsd_origins WHERE {_IDLE}", (now,)).fetchone()
        if idle <= max(self.kept, 2 * _named_at_last_look(connection)):
            return Applied()
        named = {cell for (cell,) in connection.execute(_NAMED) if isinstance(cell, bytes)}
        named.update(_in_trash(connection))
        rows = connection.execute(f"SELECT id FROM motoolsd_origins WHERE {_IDLE}", (now,)).fetchall()
        unnamed = [row for row in rows if row[0] not in named]
        connection.executemany("DELETE FROM motoolsd_origins WHERE id = ?", unnamed[:FORGOTTEN_MAX])
        if len(unnamed) <= FORGOTTEN_MAX:
            connection.execute(
                "INSERT OR REPLACE INTO motoolsd_facts (name, value) VALUES (?, ?)",
                (_NAMED_AT_LAST_LOOK, len(rows) - len(unnamed)),
            )
        return Applied(number=min(len(unnamed), FORGOTTEN_MAX))


def _named_at_last_look(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT value FROM motoolsd_facts WHERE name = ?", (_NAMED_AT_LAST_LOOK,)).fetchone()
    return row[0] if row is not None and isinstance(row[0], int) else 0


def _in_trash(connection: sqlite3.Connection) -> Iterator[bytes]:
    """Origins of entries that can still be put back."""
    for (packed,) in connection.execute("SELECT entry FROM motoolsd_removed_entries"):
        try:
            origin = _saved_decoder.decode(packed).row.origin
        except (msgspec.MsgspecError, TypeError):
            continue  # what cannot be read cannot be put back
        if origin is not None:
            yield origin


def select_origin(connection: sqlite3.Connection, wanted: bytes) -> Origin | None:
    """Who it was; None if it is not known, or what is known is damaged."""
    row = connection.execute("SELECT origin FROM motoolsd_origins WHERE id = ?", (wanted,)).fetchone()
    if row is None:
        return None
    try:
        return _decoder.decode(row[0])
    except (msgspec.MsgspecError, TypeError) as error:
        logger.error("a damaged origin is ignored: %s", error)
        return None
