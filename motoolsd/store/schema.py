"""The tables of cache.db, and how each version of them becomes the next.

Layer: store. Imports nearest, for the statements that signatures need.
Invariant: the three tables of the older, daemon-less package keep their names, columns and meaning. New columns stand
beside them and have a default, so that an INSERT or UPDATE that knows only the old ones works. A fresh file takes the
same steps as an old one: there is one schema, however it came about.
"""

from __future__ import annotations

from typing import Final

from motoolsd.store.nearest import SIGNATURE_STATEMENTS

SCHEMA_VERSION: Final = 4

OWNERS_SINCE: Final = 3
"""The version that first told which files belong to which entry."""

OLD_TABLES: Final[dict[str, frozenset[str]]] = {
    "dataset_files": frozenset({"dataset_hash", "file_id"}),
    "trained_models": frozenset({"cache_key", "model_id"}),
    "eval_results": frozenset(
        {"id", "model_id", "task_id", "backend_type", "log_file_path", "inspect_kwargs_hash", "created_at"}
    ),
}
"""Tables of the older package and the columns each must have to be taken over."""

VERSION_0: Final = (
    "CREATE TABLE IF NOT EXISTS dataset_files (dataset_hash TEXT PRIMARY KEY, file_id TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS trained_models (cache_key TEXT PRIMARY KEY, model_id TEXT NOT NULL)",
    (
        "CREATE TABLE IF NOT EXISTS eval_results (id INTEGER PRIMARY KEY AUTOINCREMENT, model_id TEXT NOT NULL,"
        " task_id TEXT NOT NULL, backend_type TEXT NOT NULL, log_file_path TEXT NOT NULL, inspect_kwargs_hash TEXT,"
        " created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,"
        " UNIQUE(model_id, task_id, backend_type, inspect_kwargs_hash))"
    ),
)
"""What the older package made; whatever of it is missing is added."""

_COMMON_COLUMNS: Final = (
    "last_used_at TIMESTAMP",
    "hits INTEGER NOT NULL DEFAULT 0",
    "size_bytes INTEGER",
    "version TEXT",
    "labels TEXT",
    "pinned INTEGER NOT NULL DEFAULT 0",
    "checksum INTEGER",
)
_NEW_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "dataset_files": ("created_at TIMESTAMP", *_COMMON_COLUMNS),
    "trained_models": (
        "dataset_hash TEXT",
        "config TEXT",
        "backend_type TEXT",
        "created_at TIMESTAMP",
        *_COMMON_COLUMNS,
    ),
    "eval_results": ("inspect_kwargs TEXT", *_COMMON_COLUMNS),
}
_COLUMNS_3: Final = (
    # How many rows of motoolsd_files count for this one. 0: none, whatever stands there.
    "files INTEGER NOT NULL DEFAULT 0",
    "allocated_bytes INTEGER",
    # Since when and why it misses though it is there.
    "void_since TIMESTAMP",
    "void_reason TEXT",
    "pin_reason TEXT",
    "pinned_until TEXT",
    "expires_at TEXT",
)
_COLUMNS_4: Final = (
    # The process that stored it, how long it took, and what else it said.
    "origin BLOB",
    "seconds REAL",
    "metadata TEXT",
    # What its inputs look like from afar, to find those that are near; NULL: not looked at yet.
    "signature BLOB",
    # In words, beside void_reason.
    "void_detail TEXT",
)
_REPLY_COLUMNS: Final = ("client BLOB NOT NULL", "number INTEGER NOT NULL", "reply BLOB NOT NULL")


def _names(columns: tuple[str, ...]) -> frozenset[str]:
    return frozenset(column.split()[0] for column in columns)


def _with_columns(tables: dict[str, frozenset[str]], columns: tuple[str, ...]) -> dict[str, frozenset[str]]:
    return {name: known | _names(columns) if name in OLD_TABLES else known for name, known in tables.items()}


_TABLES_1: Final[dict[str, frozenset[str]]] = {
    **{table: columns | _names(_NEW_COLUMNS[table]) for table, columns in OLD_TABLES.items()},
    "motoolsd_replies": _names(_REPLY_COLUMNS) | {"applied_at"},
}
_LEASES: Final[dict[str, frozenset[str]]] = {"motoolsd_leases": frozenset({"token", "kind", "key", "lease"})}
_TABLES_3: Final[dict[str, frozenset[str]]] = {
    **_with_columns(_TABLES_1, _COLUMNS_3),
    **_LEASES,
    "motoolsd_files": frozenset({"kind", "entry", "path", "size_bytes", "allocated_bytes"}),
    "motoolsd_unowned": frozenset({"path"}),
    "motoolsd_uses": frozenset({"use_id", "kind", "key", "process"}),
    "motoolsd_facts": frozenset({"name", "value"}),
    "motoolsd_plans": frozenset({"id", "made_at", "plan", "outcome"}),
    "motoolsd_removals": frozenset({"id", "plan_id", "reason", "removed_at", "expires_at", "state"}),
    "motoolsd_removed_entries": frozenset({"removal", "number", "kind", "key", "entry"}),
    "motoolsd_removed_paths": frozenset({"removal", "number", "path", "seen", "size_bytes", "allocated_bytes"}),
}
_TABLES_4: Final[dict[str, frozenset[str]]] = {
    **_with_columns(_TABLES_3, _COLUMNS_4),
    "motoolsd_origins": frozenset({"id", "origin", "seen_at"}),
    "motoolsd_gone": frozenset({"number", "kind", "key", "reason", "detail", "origin", "gone_at"}),
    "motoolsd_misses": frozenset({"number", "kind", "key", "reason", "inputs", "audience", "missed_at"}),
    "motoolsd_audiences": frozenset({"id", "job", "labels"}),
    "motoolsd_counts": frozenset({"hour", "audience", "kind", "name", "value"}),
}
TABLES_OF: Final[dict[int, dict[str, frozenset[str]]]] = {
    1: _TABLES_1,
    2: {**_TABLES_1, **_LEASES},
    3: _TABLES_3,
    4: _TABLES_4,
}
"""Every table of each version, and the columns each must have: a version number alone proves nothing."""


def _add_columns(table: str) -> tuple[str, ...]:
    return tuple(f"ALTER TABLE {table} ADD COLUMN {column}" for column in _NEW_COLUMNS[table])


def _forget_checksum(table: str, *columns: str) -> str:
    """A trigger for rows that somebody changes by hand: their checksum becomes NULL, which means "not checked"."""
    changed = " OR ".join(f"NEW.{column} IS NOT OLD.{column}" for column in columns)
    return (
        f"CREATE TRIGGER {table}_forget_checksum AFTER UPDATE OF {', '.join(columns)} ON {table}"
        f" WHEN NEW.checksum IS OLD.checksum AND ({changed})"
        f" BEGIN UPDATE {table} SET checksum = NULL WHERE rowid = NEW.rowid; END"
    )


def _stamp_creation(table: str) -> str:
    """A trigger for rows that somebody inserts by hand: ALTER TABLE cannot add a default that is no constant."""
    return (
        f"CREATE TRIGGER {table}_stamp_creation AFTER INSERT ON {table} WHEN NEW.created_at IS NULL"
        f" BEGIN UPDATE {table} SET created_at = CURRENT_TIMESTAMP WHERE rowid = NEW.rowid; END"
    )


VERSION_1: Final = (
    # The old UNIQUE never conflicted over a NULL inspect_kwargs_hash, so the same evaluation may stand there several
    # times, and the oldest answered. The newest is what the user stored last. An empty hash is nobody's hash: it
    # counts as NULL, here as in every lookup.
    (
        "DELETE FROM eval_results WHERE id NOT IN (SELECT max(id) FROM eval_results"
        " GROUP BY model_id, task_id, backend_type, ifnull(inspect_kwargs_hash, ''))"
    ),
    (
        "CREATE UNIQUE INDEX eval_results_identity"
        " ON eval_results (model_id, task_id, backend_type, ifnull(inspect_kwargs_hash, ''))"
    ),
    *_add_columns("dataset_files"),
    *_add_columns("trained_models"),
    *_add_columns("eval_results"),
    _forget_checksum("dataset_files", "dataset_hash", "file_id"),
    _forget_checksum("trained_models", "cache_key", "model_id"),
    _forget_checksum("eval_results", "model_id", "task_id", "backend_type", "inspect_kwargs_hash", "log_file_path"),
    _stamp_creation("dataset_files"),
    _stamp_creation("trained_models"),
    _stamp_creation("eval_results"),
    # Replies to writes, so that a retry is applied once and answered alike.
    (
        f"CREATE TABLE motoolsd_replies ({', '.join(_REPLY_COLUMNS)}, applied_at TIMESTAMP NOT NULL,"
        " PRIMARY KEY (client, number)) WITHOUT ROWID"
    ),
)

VERSION_2: Final = (
    # Who computes what, over a restart of the daemon. AUTOINCREMENT remembers the largest token there ever was.
    (
        "CREATE TABLE motoolsd_leases (token INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, key TEXT NOT NULL,"
        " lease BLOB NOT NULL, UNIQUE (kind, key))"
    ),
)

VERSION_3: Final = (
    *(f"ALTER TABLE {table} ADD COLUMN {column}" for table in OLD_TABLES for column in _COLUMNS_3),
    # Which files belong to which entry: `entry` is the dataset's hash, the model's key, or the evaluation's id.
    (
        "CREATE TABLE motoolsd_files (kind TEXT NOT NULL, entry NOT NULL, path BLOB NOT NULL, size_bytes INTEGER,"
        " allocated_bytes INTEGER, PRIMARY KEY (kind, entry, path)) WITHOUT ROWID"
    ),
    "CREATE INDEX motoolsd_files_by_path ON motoolsd_files (path)",
    *(f"CREATE INDEX {table}_pinned ON {table} (pinned) WHERE pinned != 0" for table in OLD_TABLES),
    # What lay under runs/ before there was ownership: nobody's, and no orphan.
    "CREATE TABLE motoolsd_unowned (path BLOB PRIMARY KEY) WITHOUT ROWID",
    # Which entries are in use by which process, over a restart of the daemon.
    (
        "CREATE TABLE motoolsd_uses (use_id BLOB NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, process BLOB NOT"
        " NULL, PRIMARY KEY (use_id, kind, key)) WITHOUT ROWID"
    ),
    "CREATE TABLE motoolsd_facts (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
    # Of older rows it is not known when they were stored or used: not before this.
    "INSERT INTO motoolsd_facts (name, value) VALUES ('since', CURRENT_TIMESTAMP)",
    "CREATE TABLE motoolsd_plans (id TEXT PRIMARY KEY, made_at TIMESTAMP NOT NULL, plan BLOB NOT NULL, outcome BLOB)",
    # Each clean-up: the entries and the paths that it took. What lies in trash/<removal>/<number> was at `path`.
    (
        "CREATE TABLE motoolsd_removals (id INTEGER PRIMARY KEY AUTOINCREMENT, plan_id TEXT, reason TEXT NOT NULL,"
        " removed_at TIMESTAMP NOT NULL, expires_at TEXT, state TEXT NOT NULL)"
    ),
    (
        "CREATE TABLE motoolsd_removed_entries (removal INTEGER NOT NULL, number INTEGER NOT NULL, kind TEXT NOT NULL,"
        " key TEXT NOT NULL, entry BLOB NOT NULL, PRIMARY KEY (removal, number)) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE motoolsd_removed_paths (removal INTEGER NOT NULL, number INTEGER NOT NULL, path BLOB NOT NULL,"
        " seen BLOB NOT NULL, size_bytes INTEGER NOT NULL, allocated_bytes INTEGER NOT NULL,"
        " PRIMARY KEY (removal, number)) WITHOUT ROWID"
    ),
    # Rows are put back by key: without this, each would be looked for among all of its removal.
    "CREATE INDEX motoolsd_removed_entries_by_key ON motoolsd_removed_entries (removal, kind, key)",
)

VERSION_4: Final = (
    *(f"ALTER TABLE {table} ADD COLUMN {column}" for table in OLD_TABLES for column in _COLUMNS_4),
    # Processes that stored or removed something: what is the same for all of that stands here once.
    (
        "CREATE TABLE motoolsd_origins (id BLOB PRIMARY KEY, origin BLOB NOT NULL, seen_at TIMESTAMP NOT NULL)"
        " WITHOUT ROWID"
    ),
    # Why keys that had an entry have none any more, or never got one; the latest.
    (
        "CREATE TABLE motoolsd_gone (number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, key TEXT NOT NULL,"
        " reason TEXT NOT NULL, detail TEXT, origin BLOB, gone_at TIMESTAMP NOT NULL, UNIQUE (kind, key))"
    ),
    # The latest misses.
    (
        "CREATE TABLE motoolsd_misses (number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, key TEXT NOT NULL,"
        " reason TEXT NOT NULL, inputs BLOB, audience INTEGER, missed_at TIMESTAMP NOT NULL)"
    ),
    # Who asked: a scheduler's job, and labels.
    (
        "CREATE TABLE motoolsd_audiences (id INTEGER PRIMARY KEY, job TEXT NOT NULL, labels TEXT NOT NULL,"
        " UNIQUE (job, labels))"
    ),
    # Hits, misses and what hits saved, by hour.
    (
        "CREATE TABLE motoolsd_counts (hour INTEGER NOT NULL, audience INTEGER NOT NULL, kind TEXT NOT NULL,"
        " name TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (hour, audience, kind, name)) WITHOUT ROWID"
    ),
    *SIGNATURE_STATEMENTS,
    # What lineage follows.
    "CREATE INDEX trained_models_by_model ON trained_models (model_id)",
    "CREATE INDEX trained_models_by_dataset ON trained_models (dataset_hash)",
)

MIGRATIONS: Final[dict[int, tuple[str, ...]]] = {1: VERSION_1, 2: VERSION_2, 3: VERSION_3, 4: VERSION_4}
"""Statements that lead to a version from the one before."""
