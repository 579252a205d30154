"""Plans of clean-ups on disk, and what came of each.

Layer: store. Imports core.retention and outcomes.
Invariant: the latest plans are kept, carried out or not, so that a plan whose reply was lost can be asked for again.
They are packed in parts: msgspec holds the interpreter's lock for as long as a call takes, and a hundred thousand items
at once would hold up lookups for a tenth of a second.
"""

from __future__ import annotations

import sqlite3
from typing import ClassVar, Final

import msgspec

from motoolsd.core.errors import EntryNotFound
from motoolsd.core.retention import Plan, PlannedItem
from motoolsd.store.outcomes import Applied, Change, Outcome
from motoolsd.wire.cleaning import Cleaned

PLANS_MIN: Final = 8
"""The latest plans that are kept, however old they are."""

YOUNG: Final = "-10 minutes"
"""Plans of this age are kept as well: each of many jobs that clean up at once carries out its own."""

PLANS_MAX: Final = 256

ITEMS_PER_PART: Final = 500

_encoder = msgspec.msgpack.Encoder()
_parts_decoder = msgspec.msgpack.Decoder(list[bytes])
_plan_decoder = msgspec.msgpack.Decoder(Plan)
_items_decoder = msgspec.msgpack.Decoder(list[PlannedItem])
_outcome_decoder = msgspec.msgpack.Decoder(Cleaned)


def _packed(plan: Plan) -> bytes:
    """Everything but the items, then these."""
    head = _encoder.encode(msgspec.structs.replace(plan, items=[]))
    starts = range(0, len(plan.items), ITEMS_PER_PART)
    return _encoder.encode([head, *(_encoder.encode(plan.items[start : start + ITEMS_PER_PART]) for start in starts)])


def _unpacked(packed: bytes) -> Plan:
    head, *parts = _parts_decoder.decode(packed)
    return msgspec.structs.replace(
        _plan_decoder.decode(head), items=[item for part in parts for item in _items_decoder.decode(part)]
    )


class KeptPlan(msgspec.Struct, frozen=True):
    """A plan, and what came of it."""

    plan: Plan
    outcome: Cleaned | None
    """None: it was not carried out, or was interrupted, or was undone."""


class SavePlan(Change, frozen=True):
    """Keep a plan for `ApplyPlan`."""

    frees_room: ClassVar[bool] = True

    plan: Plan

    def apply(self, connection: sqlite3.Connection, now: str, /) -> Outcome:
        """Store it; the oldest go."""
        packed = _packed(self.plan)
        connection.execute(
            "INSERT INTO motoolsd_plans (id, made_at, plan) VALUES (?, ?, ?)", (self.plan.plan_id, now, packed)
        )
        connection.execute(
            "DELETE FROM motoolsd_plans"
            " WHERE rowid NOT IN (SELECT rowid FROM motoolsd_plans ORDER BY rowid DESC LIMIT ?)"
            " AND (made_at <= datetime(?, ?)"
            " OR rowid NOT IN (SELECT rowid FROM motoolsd_plans ORDER BY rowid DESC LIMIT ?))",
            (PLANS_MIN, now, YOUNG, PLANS_MAX),
        )
        return Applied()


def packed_outcome(outcome: Cleaned) -> bytes:
    """As `SetRemovalState` takes it."""
    return _encoder.encode(outcome)


def select_plan(connection: sqlite3.Connection, plan_id: str) -> KeptPlan:
    """A plan that is kept.

    Raises:
        EntryNotFound: there is none of that name.
    """
    row = connection.execute("SELECT plan, outcome FROM motoolsd_plans WHERE id = ?", (plan_id,)).fetchone()
    if row is None:
        raise EntryNotFound(
            f"there is no plan {plan_id}: the last {PLANS_MIN} and those of ten minutes are kept. "
            "Make a new one with --dry-run"
        )
    plan, outcome = row
    try:
        return KeptPlan(_unpacked(plan), None if outcome is None else _outcome_decoder.decode(outcome))
    except (msgspec.MsgspecError, ValueError) as error:
        raise EntryNotFound(f"plan {plan_id} cannot be read: make a new one with --dry-run") from error
