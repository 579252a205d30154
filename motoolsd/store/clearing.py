"""Clearing: entries go, their files stay.

Layer: store. Imports filtering, history, ownership and rows.
Invariant: what is pinned stays and is named, unless it is forced; so does what was made from it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from motoolsd.core.deadlines import Moment
from motoolsd.core.where import parse_where
from motoolsd.store.conditions import Term
from motoolsd.store.filtering import compiled, joined
from motoolsd.store.history import ALL_KEYS, bury
from motoolsd.store.outcomes import Applied, Key
from motoolsd.store.ownership import ENTRY_COLUMN, disown, disown_removed
from motoolsd.store.rows import KEY_COLUMNS, TABLES, key_of, one_of, text_of, wall_s_of
from motoolsd.wire.cleaning import Protected
from motoolsd.wire.filters import Filters
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import PROTECTED_NAMED_MAX, Clear, ClearAll, Cleared
from motoolsd.wire.reasons import Reason

REMOVED_MAX: Final = 2_000
"""Keys that one clear may name to be taken out of memory: all of that is done between two lookups."""

_CLEARED_FIELD: Final = {Kind.DATASET: "datasets", Kind.MODEL: "models", Kind.EVAL: "evals"}
_ALL: Final = Term("1")


class _Removed(NamedTuple):
    """What went from one table."""

    number: int = 0
    keys: Sequence[Key] = ()
    """None of them, if there are too many or it is the whole table."""
    is_large: bool = False
    is_whole: bool = False


def clear(connection: sqlite3.Connection, item: Clear, now: str) -> Applied:
    """Remove what a request asks for, inside an open transaction.

    Args:
        connection: the writer's.
        item: checked (`engine.checks`): filters and conditions fit the kind.
        now: the time stamp of its rows, and what ages are counted from.
    """
    fits = joined(_conditions(item, now))
    # What was made from entries is found by them: it goes first.
    return _applied(connection, item, [*_downstream(item, fits), (item.kind, fits)], now)


def _applied(
    connection: sqlite3.Connection, item: Clear | ClearAll, going: Sequence[tuple[Kind, Term]], now: str
) -> Applied:
    """Remove what fits, one table after the other."""
    stay: list[Protected] = []
    parts: dict[Kind, _Removed] = {}
    for kind, fits in going:
        pinned = [] if item.force else _pinned(connection, kind, fits)
        stay += pinned
        part = _remove(connection, kind, fits, spares_pinned=not item.force, has_pinned=bool(pinned))
        parts[kind] = part
        bury(connection, part.keys or [(kind, ALL_KEYS)] * bool(part.number), Reason.CLEARED, now, origin=item.origin)
    return Applied(
        reply=_cleared({_CLEARED_FIELD[kind]: part.number for kind, part in parts.items()}, stay),
        removed=[key for part in parts.values() for key in part.keys],
        emptied=tuple(kind for kind, part in parts.items() if part.is_whole),
        is_large=any(part.is_large for part in parts.values()),
    )


def _remove(
    connection: sqlite3.Connection, kind: Kind, fits: Term, *, spares_pinned: bool, has_pinned: bool
) -> _Removed:
    table = TABLES[kind]
    source = f"FROM {table} WHERE {fits.sql}{' AND pinned = 0' if spares_pinned else ''}"
    first = f"SELECT 1 {source} LIMIT {REMOVED_MAX + 1}"
    (count,) = connection.execute(f"SELECT count(*) FROM ({first})", fits.parameters).fetchone()
    if count > REMOVED_MAX:
        is_whole = fits == _ALL and not has_pinned
        # Without a condition SQLite empties the table at once.
        count = connection.execute(f"DELETE FROM {table}" if is_whole else f"DELETE {source}", fits.parameters).rowcount
        disown_removed(connection, kind)
        return _Removed(count, is_large=not is_whole, is_whole=is_whole)
    own = f"{ENTRY_COLUMN[kind]}, files, {', '.join(KEY_COLUMNS[kind])}"
    rows = connection.execute(f"DELETE {source} RETURNING {own}", fits.parameters).fetchall()
    disown(connection, kind, [entry for entry, files, *_ in rows if files])
    return _Removed(len(rows), [(kind, key_of(kind, cells)) for _, _, *cells in rows])


def _downstream(item: Clear, fits: Term) -> Iterable[tuple[Kind, Term]]:
    """What was made from the entries that go, the farthest first."""
    if not item.downstream or item.kind is Kind.EVAL:
        return ()
    going = Term(fits.sql if item.force else f"({fits.sql}) AND pinned = 0", fits.parameters)
    if item.kind is Kind.MODEL:
        return ((Kind.EVAL, _made_from_models(going)),)
    datasets = f"SELECT dataset_hash FROM {TABLES[Kind.DATASET]} WHERE {going.sql}"
    models = Term(f"dataset_hash IN ({datasets})", going.parameters)
    unpinned = Term(models.sql if item.force else f"{models.sql} AND pinned = 0", models.parameters)
    return ((Kind.EVAL, _made_from_models(unpinned)), (Kind.MODEL, models))


def _made_from_models(models: Term) -> Term:
    return Term(f"model_id IN (SELECT model_id FROM {TABLES[Kind.MODEL]} WHERE {models.sql})", models.parameters)


def _pinned(connection: sqlite3.Connection, kind: Kind, fits: Term) -> list[Protected]:
    """The pinned entries that match."""
    rows = connection.execute(
        f"SELECT pin_reason, {', '.join(KEY_COLUMNS[kind])} FROM {TABLES[kind]} WHERE pinned != 0 AND {fits.sql}",
        fits.parameters,
    ).fetchall()
    return [
        Protected(kind=kind.value, key=key_of(kind, cells), why=f"pinned: {text_of(reason)}" if reason else "pinned")
        for reason, *cells in rows
    ]


def _conditions(item: Clear, now: str) -> Iterable[Term]:
    """What rows must match."""
    key_column = "dataset_hash" if item.kind is Kind.DATASET else "cache_key"
    for column, wanted in ((key_column, item.keys), ("model_id", item.model_ids), ("task_id", item.task_ids)):
        if wanted is not None:
            condition, parameter = one_of(column, wanted)
            yield Term(condition, (parameter,))
    if item.filters is not None and item.filters != Filters():
        wall_s = wall_s_of(now)
        conditions = [parse_where(text, item.kind, wall_s) for text in item.filters.where]
        sql, parameters = compiled(item.kind, item.filters, conditions, Moment("", 0.0, wall_s))
        yield Term(f"({sql})", tuple(parameters))


def clear_all(connection: sqlite3.Connection, item: ClearAll, now: str) -> Applied:
    """Remove every entry, inside an open transaction."""
    return _applied(connection, item, [(kind, _ALL) for kind in TABLES], now)


def _cleared(counts: Mapping[str, int], stay: Sequence[Protected] = ()) -> Cleared:
    return Cleared(**counts, num_protected=len(stay), protected=list(stay[:PROTECTED_NAMED_MAX]))
