"""The keys of entries: how a key is made from what a caller knows, and which stamp slot it belongs to.

Layer: wire. Imports nothing of motoolsd.
Invariant: a key is one printable string per kind. Model keys equal those of the older, daemon-less package, so
that its entries still hit.
"""

from __future__ import annotations

import json
from enum import StrEnum
from hashlib import sha256
from zlib import crc32

import msgspec

SLOT_COUNT = 65_536
STAMPS_SIZE_BYTES = 8 * SLOT_COUNT
"""The file of stamps: one unsigned 64-bit number a slot, in the machine's byte order."""


class Kind(StrEnum):
    """What an entry is: it names the table, the key's form and the value's meaning."""

    DATASET = "dataset"
    MODEL = "model"
    EVAL = "eval"

    @property
    def plural(self) -> str:
        """The kind as commands and statistics spell it: `datasets`, `models`, `evals`."""
        return f"{self.value}s"


class EvalIdentity(msgspec.Struct, frozen=True, array_like=True):
    """The four columns that identify an evaluation."""

    model_id: str
    task_id: str
    backend_type: str
    kwargs_hash: str | None = None


_eval_encoder = msgspec.json.Encoder()
_eval_decoder = msgspec.json.Decoder(EvalIdentity)


def model_key(dataset_hash: str, config_json: str, backend_type: str) -> str:
    """The key of a trained model: 64 hexadecimal digits.

    Args:
        dataset_hash: the dataset's key.
        config_json: the configuration as `json.dumps(config, sort_keys=True)` writes it.
        backend_type: the training backend's name.
    """
    # Written out, because dumping the parsed configuration again would cost more than the digest. The three names
    # stand in the order that sort_keys gives them.
    text = f'{{"backend": {json.dumps(backend_type)}, "config": {config_json}, "dataset": {json.dumps(dataset_hash)}}}'
    return sha256(text.encode()).hexdigest()


def eval_key(model_id: str, task_id: str, backend_type: str, kwargs_hash: str | None) -> str:
    """The key of an evaluation: its four identifying columns as a JSON array, unambiguous whatever they hold."""
    return _eval_encoder.encode((model_id, task_id, backend_type, kwargs_hash)).decode()


def parse_eval_key(key: str) -> EvalIdentity:
    """The columns behind an evaluation's key.

    Raises:
        ValueError: the key is not one that `eval_key` makes.
    """
    message = f"not the key of an evaluation: {key[:80]!r}"
    try:
        identity = _eval_decoder.decode(key)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ValueError(message) from error
    # The same columns, spelled otherwise, would live in another slot than the entry they name.
    if eval_key(identity.model_id, identity.task_id, identity.backend_type, identity.kwargs_hash) != key:
        raise ValueError(message)
    return identity


def json_hash(canonical_json: str) -> str:
    """SHA-256 of a canonical JSON text: 64 hexadecimal digits."""
    return sha256(canonical_json.encode()).hexdigest()


def slot_of(kind: Kind, key: str) -> int:
    """The stamp slot of a key: CRC-32 of its bytes, folded to `SLOT_COUNT`.

    Keys that share a slot cost each other a round trip, never a wrong answer (design: versioned slots instead of
    invalidation messages).
    """
    return crc32(key.encode(), crc32(kind.value.encode())) % SLOT_COUNT
