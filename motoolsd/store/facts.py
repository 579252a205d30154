"""Single facts that outlive the daemon, uses of entries, and what lay under runs/ before there was ownership.

Layer: store. Imports core and outcomes.
Invariant: what cannot be read any more counts as absent.
"""

from __future__ import annotations

import logging
import sqlite3
from typing import Final

import msgspec

from motoolsd.core.leases import Process
from motoolsd.core.protection import InUse
from motoolsd.store.outcomes import Applied, Change, Key, Outcome
from motoolsd.wire.keys import Kind

logger = logging.getLogger(__name__)

LAST_SCAN: Final = "last_scan"
LAST_BACKUP: Final = "last_backup"

_encoder = msgspec.msgpack.Encoder()
_process_decoder = msgspec.msgpack.Decoder(Process)


class SetFact(Change, frozen=True):
    """Remember one fact."""

    name: str
    value: bytes

    def apply(self, connection: sqlite3.Connection, _now: str, /) -> Outcome:
        """Replace what was known."""
        connection.execute("INSERT OR REPLACE INTO motoolsd_facts (name, value) VALUES (?, ?)", (self.name, self.value))
        return Applied()


class SaveUse(Change, frozen=True):
    """Remember that a process uses entries."""

    use: InUse

    def apply(self, connection: sqlite3.Connection, _now: str, /) -> Outcome:
        """Add it."""
        process = _encoder.encode(self.use.process)
        connection.executemany(
            "INSERT OR REPLACE INTO motoolsd_uses (use_id, kind, key, process) VALUES (?, ?, ?, ?)",
            [(self.use.use_id, kind.value, key, process) for kind, key in self.use.entries],
        )
        return Applied()


class DropUses(Change, frozen=True):
    """These uses are over."""

    use_ids: tuple[bytes, ...]

    def apply(self, connection: sqlite3.Connection, _now: str, /) -> Outcome:
        """Remove them."""
        connection.executemany("DELETE FROM motoolsd_uses WHERE use_id = ?", [(use_id,) for use_id in self.use_ids])
        return Applied()


def select_fact(connection: sqlite3.Connection, name: str) -> bytes | None:
    """What is known under a name."""
    row = connection.execute("SELECT value FROM motoolsd_facts WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]


def select_uses(connection: sqlite3.Connection) -> list[InUse]:
    """All uses; a damaged one is left out, and said."""
    entries: dict[bytes, list[Key]] = {}
    processes: dict[bytes, Process] = {}
    for use_id, kind, key, packed in connection.execute("SELECT use_id, kind, key, process FROM motoolsd_uses"):
        try:
            process, entry = _process_decoder.decode(packed), (Kind(kind.decode()), key.decode())
        except (msgspec.MsgspecError, ValueError, AttributeError, TypeError) as error:
            logger.error("a damaged use of an entry is ignored: %s", error)
            continue
        processes[use_id] = process
        entries.setdefault(use_id, []).append(entry)
    return [InUse(use_id, tuple(keys), processes[use_id]) for use_id, keys in entries.items()]


def select_unowned(connection: sqlite3.Connection) -> frozenset[bytes]:
    """What lay under runs/ before there was ownership."""
    return frozenset(path for (path,) in connection.execute("SELECT path FROM motoolsd_unowned"))
