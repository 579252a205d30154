"""How rows look in SQL: the columns of each kind, and rows as the wire carries them.

Layer: store. Imports core.checksums and wire.
Invariant: whatever somebody wrote into a row by hand, reading it gives a row or a miss, never an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from motoolsd.core.checksums import row_checksum
from motoolsd.core.deadlines import Moment, unpacked
from motoolsd.core.guards import MISSING
from motoolsd.wire.entries import DatasetRow, EvalRow, ModelRow
from motoolsd.wire.keys import Kind, eval_key

TABLES: Final[dict[Kind, str]] = {
    Kind.DATASET: "dataset_files",
    Kind.MODEL: "trained_models",
    Kind.EVAL: "eval_results",
}
KEY_COLUMNS: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.DATASET: ("dataset_hash",),
    Kind.MODEL: ("cache_key",),
    Kind.EVAL: ("model_id", "task_id", "backend_type", "inspect_kwargs_hash"),
}
# Rows of the older package say neither when they were stored nor when they were used; known since the migration.
_SINCE: Final = "(SELECT value FROM motoolsd_facts WHERE name = 'since')"
STORED_AT: Final = f"coalesce(created_at, {_SINCE})"
USED_AT: Final = f"max({STORED_AT}, coalesce(last_used_at, {STORED_AT}))"
VALUE_COLUMN: Final[dict[Kind, str]] = {
    Kind.DATASET: "file_id",
    Kind.MODEL: "model_id",
    Kind.EVAL: "log_file_path",
}
_COMMON = (
    "created_at, last_used_at, hits, size_bytes, version, labels, pinned, allocated_bytes, void_since, void_reason,"
    " pin_reason, pinned_until, expires_at, void_detail, seconds, metadata, origin, files"
)
PAGE_COLUMNS: Final[dict[Kind, str]] = {
    Kind.DATASET: f"rowid, file_id, {_COMMON}, dataset_hash",
    Kind.MODEL: f"rowid, model_id, {_COMMON}, cache_key, dataset_hash, config, backend_type",
    Kind.EVAL: f"id, log_file_path, {_COMMON}, model_id, task_id, backend_type, inspect_kwargs_hash, inspect_kwargs",
}
_COMMON_COUNT = 2 + len(_COMMON.split(","))

_labels_decoder = msgspec.json.Decoder(dict[str, str])

Cell = bytes | int | float | None
"""What sqlite3 gives with text_factory = bytes."""


def text_of(cell: Cell) -> str:
    """A cell as text that can be encoded again, whatever type or bytes somebody put there."""
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    return "" if cell is None else str(cell)


def optional_text(cell: Cell) -> str | None:
    """The same, keeping NULL apart from the empty text."""
    return None if cell is None else text_of(cell)


def bytes_of(cell: Cell) -> bytes:
    """A value as bytes."""
    return cell if isinstance(cell, bytes) else text_of(cell).encode()


def key_of(kind: Kind, cells: Sequence[Cell]) -> str:
    """The key of a row from its key columns."""
    if kind is Kind.EVAL:
        model_id, task_id, backend_type, kwargs_hash = cells
        # An empty hash counts as NULL, as it does in the unique index and in every statement.
        return eval_key(text_of(model_id), text_of(task_id), text_of(backend_type), optional_text(kwargs_hash) or None)
    return text_of(cells[0])


def is_damaged(key: str, value: bytes, checksum: Cell) -> bool:
    """Whether a row's checksum contradicts it; NULL means that nobody vouches for it, as after an edit by hand."""
    return checksum is not None and checksum != row_checksum(key, value)


def timestamp(cell: Cell) -> str | None:
    """A time stamp of SQLite as RFC 3339 UTC; what is none is handed on as it stands."""
    text = optional_text(cell)
    if text and len(text) >= len("2026-01-31 23:59:59") and text[10] == " ":
        return f"{text[:10]}T{text[11:]}Z"
    return text


def wall_s_of(stored: str) -> float:
    """A time stamp of SQLite as seconds since the epoch.

    Raises:
        ValueError: it is none.
    """
    return datetime.fromisoformat(stored).replace(tzinfo=UTC).timestamp()


def _labels(cell: Cell) -> dict[str, str]:
    if cell is None:
        return {}
    try:
        return _labels_decoder.decode(bytes_of(cell))
    except msgspec.MsgspecError:
        return {}


def _integer(cell: Cell) -> int:
    return cell if isinstance(cell, int) else 0


def _common(cells: Sequence[Cell]) -> dict[str, Any]:
    value, created_at, last_used_at, hits, size_bytes, version, labels, pinned, *newer = cells
    allocated_bytes, void_since, void_reason, pin_reason, pinned_until, expires_at, *newest, _ = newer
    void_detail, seconds, metadata, origin = newest
    until, expires = _deadline(pinned_until), _deadline(expires_at)
    return {
        "value": bytes_of(value),
        "created_at": timestamp(created_at),
        "last_used_at": timestamp(last_used_at),
        "hits": _integer(hits),
        "size_bytes": size_bytes if isinstance(size_bytes, int) else None,
        "version": optional_text(version),
        "labels": _labels(labels),
        "pinned": bool(pinned),
        "allocated_bytes": allocated_bytes if isinstance(allocated_bytes, int) else None,
        "missing_since": timestamp(void_since) if optional_text(void_reason) == MISSING else None,
        "pin_reason": optional_text(pin_reason),
        "pinned_until": None if until is None else until.text,
        "expires_at": None if expires is None else expires.text,
        "void_since": timestamp(void_since),
        "void_reason": optional_text(void_reason),
        "void_detail": optional_text(void_detail),
        "seconds": float(seconds) if isinstance(seconds, int | float) else None,
        "metadata": None if metadata is None else bytes_of(metadata),
        "origin": origin if isinstance(origin, bytes) else None,
    }


def _deadline(cell: Cell) -> Moment | None:
    return unpacked(cell) if isinstance(cell, bytes) else None


def one_of(column: str, wanted: Sequence[str]) -> tuple[str, str]:
    """The condition that a column is one of some texts, and its parameter."""
    texts = list(wanted)
    if any("\0" in text for text in texts):
        # In hexadecimal: json_each would cut a text at a NUL, and match another row.
        column, texts = f"hex({column})", [text.encode().hex().upper() for text in texts]
    return f"{column} IN (SELECT value FROM json_each(?))", msgspec.json.encode(texts).decode()


def entry_cell(kind: Kind, cells: Sequence[Cell]) -> Cell:
    """How motoolsd_files names the entry of a row of `PAGE_COLUMNS`."""
    return cells[0] if kind is Kind.EVAL else cells[_COMMON_COUNT]


def has_files(cells: Sequence[Cell]) -> bool:
    """Whether a row of `PAGE_COLUMNS` has files."""
    return bool(cells[_COMMON_COUNT - 1])


def listed_row(kind: Kind, cells: Sequence[Cell]) -> DatasetRow | ModelRow | EvalRow:
    """A row of `PAGE_COLUMNS` as the wire carries it."""
    common = _common(cells[1:_COMMON_COUNT])
    own = cells[_COMMON_COUNT:]
    if kind is Kind.DATASET:
        return DatasetRow(dataset_hash=text_of(own[0]), **common)
    if kind is Kind.MODEL:
        return ModelRow(
            cache_key=text_of(own[0]),
            dataset_hash=optional_text(own[1]),
            config=None if own[2] is None else bytes_of(own[2]),
            backend_type=optional_text(own[3]),
            **common,
        )
    return EvalRow(
        id=_integer(cells[0]),
        model_id=text_of(own[0]),
        task_id=text_of(own[1]),
        backend_type=text_of(own[2]),
        kwargs_hash=optional_text(own[3]),
        kwargs=None if own[4] is None else bytes_of(own[4]),
        **common,
    )
