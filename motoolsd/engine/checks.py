"""What a request must keep to, beyond what its type says.

Layer: engine. Imports core and wire.
Invariant: pure. What passes here fails later only for reasons of the disk.
"""

from __future__ import annotations

import msgspec

from motoolsd.core.errors import RequestError
from motoolsd.core.files import check_path
from motoolsd.wire.keys import Kind, parse_eval_key
from motoolsd.wire.leases import Claim
from motoolsd.wire.listing import ListEntries
from motoolsd.wire.messages import Clear, Put, PutEvals, PutModel, WriteRequest

_CLEAR_FILTERS = {Kind.DATASET: {"keys"}, Kind.MODEL: {"keys", "model_ids"}, Kind.EVAL: {"model_ids", "task_ids"}}
_LIST_FILTERS = {Kind.DATASET: set[str](), Kind.MODEL: {"model_id"}, Kind.EVAL: {"model_id", "task_id"}}


def check_listing(request: ListEntries) -> None:
    """Make sure that a listing's filters fit its kind.

    Raises:
        RequestError: one does not.
    """
    given = {name for name in ("model_id", "task_id") if getattr(request, name) is not None}
    _check_filters(request.kind, given, _LIST_FILTERS)


def check_write(request: WriteRequest) -> None:
    """Make sure that a write makes sense before it waits for its turn.

    Raises:
        RequestError: it breaks a rule; the text names it.
    """
    if isinstance(request, PutEvals) and request.token and len(request.logs) != 1:
        message = "a lease is for one key: with a token, exactly one log is stored"
        raise RequestError(message)
    if request.request_key.lowest_open > request.request_key.number:
        message = "lowest_open is above the request's own number: its reply could not be kept for a retry"
        raise RequestError(message)
    if isinstance(request, Clear):
        given = {name for name in ("keys", "model_ids", "task_ids") if getattr(request, name) is not None}
        _check_filters(request.kind, given, _CLEAR_FILTERS)
        return
    if isinstance(request, Put) and request.metadata is not None:
        _check_mapping(request.metadata, "metadata")
    if isinstance(request, PutModel):
        _check_json(request.config, "config")
        _check_masked(request.masked_config, "masked_config")
    elif isinstance(request, PutEvals):
        if request.kwargs is not None:
            _check_json(request.kwargs, "kwargs")
        _check_masked(request.masked_kwargs, "masked_kwargs")


def check_claim(request: Claim) -> None:
    """Make sure that a claim can be fulfilled.

    Raises:
        RequestError: a key is none of ours, or a path none of the cache.
    """
    if request.kind is Kind.EVAL:
        for key in request.keys:
            try:
                parse_eval_key(key)
            except ValueError as error:
                raise RequestError(str(error)) from error
    if request.work_dir is not None:
        check_path(request.work_dir)
    if request.inputs and len(request.inputs) != len(request.keys):
        message = f"a claim tells the inputs of all its keys, or of none: {len(request.inputs)} of {len(request.keys)}"
        raise RequestError(message)


def _check_filters(kind: Kind, given: set[str], allowed: dict[Kind, set[str]]) -> None:
    if wrong := given - allowed[kind]:
        message = f"{kind.plural} cannot be chosen by {', '.join(sorted(wrong))}"
        raise RequestError(message)


def _check_masked(text: bytes | None, what: str) -> None:
    if text is not None:
        _check_json(text, what)


def _check_mapping(text: bytes, what: str) -> None:
    _check_json(text, what)
    if not text.lstrip().startswith(b"{"):
        message = f"{what} is no JSON object"
        raise RequestError(message)


def _check_json(text: bytes, what: str) -> None:
    try:
        text.decode()
        msgspec.json.decode(text, type=msgspec.Raw)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        message = f"{what} is no JSON text: {error}"
        raise RequestError(message) from error
