"""What a clear takes beside entries: keys that are being computed.

Layer: core. Imports leases and wire.
Invariant: pure. A key that has no entry yet is matched by what the key itself says, never by what a value would decide.
"""

from __future__ import annotations

from motoolsd.core.leases import Key
from motoolsd.wire.keys import Kind, parse_eval_key
from motoolsd.wire.messages import Clear, ClearAll


def is_cleared(request: Clear | ClearAll, key: Key) -> bool:
    """Whether a clear takes a key that has no entry yet; what an entry's value decides, it does not."""
    kind, name = key
    if isinstance(request, ClearAll):
        return True
    if request.filters is not None:
        return False
    if request.kind is not kind or (kind is Kind.MODEL and request.model_ids is not None):
        return False
    if request.keys is not None and name not in request.keys:
        return False
    if kind is not Kind.EVAL:
        return True
    identity = parse_eval_key(name)
    return (request.model_ids is None or identity.model_id in request.model_ids) and (
        request.task_ids is None or identity.task_id in request.task_ids
    )
