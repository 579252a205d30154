"""Plans of clean-ups on disk, and what came of each.

Layer: store. Imports core.retention and outcomes.
Invariant: the latest plans are kept, carried out or not, so that a plan whose reply was lost can be asked for again.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from motoolsd.core.errors import EntryNotFound
from motoolsd.core.retention import Plan
from motoolsd.store.outcomes import Applied, Change, Outcome
from motoolsd.wire.cleaning import Cleaned

PLANS_MAX: Final = 8
"""Plans that are kept; the oldest goes for a new one."""

_encoder = msgspec.msgpack.Encoder()
_plan_decoder = msgspec.msgpack.Decoder(Plan)
_outcome_decoder = msgspec.msgpack.Decoder(Cleaned)


class KeptPlan(msgspec.Struct, frozen=True):
    """A plan, and what came of it."""

    plan: Plan
    outcome: Cleaned | None
    """None: it was not carried out, or was interrupted, or was undone."""


class SavePlan(Change, frozen=True):
    """Keep a plan for `ApplyPlan`."""

    plan: Plan

    def apply(self, connection: sqlite3.Connection, now: str, /) -> Outcome:
        """Store it; the oldest go."""
        packed = _encoder.encode(self.plan)
        connection.execute(
            "INSERT INTO motoolsd_plans (id, made_at, plan) VALUES (?, ?, ?)", (self.plan.plan_id, now, packed)
        )
        connection.execute(
            "DELETE FROM motoolsd_plans"
            " WHERE rowid NOT IN (SELECT rowid FROM motoolsd_plans ORDER BY rowid DESC LIMIT ?)",
            (PLANS_MAX,),
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
        raise EntryNotFound(f"there is no plan {plan_id}: the last {PLANS_MAX} are kept. Make a new one with --dry-run")
    plan, outcome = row
    try:
        return KeptPlan(_plan_decoder.decode(plan), None if outcome is None else _outcome_decoder.decode(outcome))
    except msgspec.MsgspecError as error:
        raise EntryNotFound(f"plan {plan_id} cannot be read: make a new one with --dry-run") from error
