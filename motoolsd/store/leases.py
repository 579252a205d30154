"""Leases on disk, so that they outlive the daemon.

Layer: store. Imports core.leases.
Invariant: a lease is on disk before its owner hears of it. A value that fulfils it is stored in the transaction that
removes its row, and only if the row was there: whatever memory says, a token counts at most once.
"""

from __future__ import annotations

import logging
import sqlite3
from typing import Final

import msgspec

from motoolsd.core.leases import Lease
from motoolsd.wire.keys import Kind

logger = logging.getLogger(__name__)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Lease)

_SAVE: Final = "INSERT OR REPLACE INTO motoolsd_leases (token, kind, key, lease) VALUES (?, ?, ?, ?)"
_DROP: Final = "DELETE FROM motoolsd_leases WHERE token = ?"
_TAKE: Final = "DELETE FROM motoolsd_leases WHERE token = ? AND kind = ? AND key = ?"
_ALL: Final = "SELECT token, lease FROM motoolsd_leases ORDER BY token"
_HIGHEST: Final = "SELECT seq FROM sqlite_sequence WHERE name = 'motoolsd_leases'"


class LeaseChange(msgspec.Struct, frozen=True):
    """Leases that were granted or changed, and tokens that count no more: an internal write without a client."""

    saved: tuple[Lease, ...] = ()
    dropped: tuple[int, ...] = ()


def apply_lease_change(connection: sqlite3.Connection, change: LeaseChange) -> None:
    """Carry it out inside an open transaction."""
    connection.executemany(_DROP, [(token,) for token in change.dropped])
    rows = [(lease.token, lease.key[0].value, lease.key[1], _encoder.encode(lease)) for lease in change.saved]
    connection.executemany(_SAVE, rows)


def take_lease(connection: sqlite3.Connection, kind: Kind, key: str, token: int) -> bool:
    """Remove a lease, inside an open transaction; False if it does not count any more."""
    return connection.execute(_TAKE, (token, kind.value, key)).rowcount == 1


def select_leases(connection: sqlite3.Connection) -> tuple[list[Lease], int]:
    """All leases, and the largest token there ever was. A damaged row is left out, and said."""
    leases = []
    for token, packed in connection.execute(_ALL).fetchall():
        try:
            lease = _decoder.decode(packed)
        except (msgspec.MsgspecError, TypeError) as error:
            logger.error("a damaged lease is ignored: token %s, %s", token, error)
            continue
        leases.append(lease)
    last = connection.execute(_HIGHEST).fetchone()
    return leases, 0 if last is None else int(last[0])
