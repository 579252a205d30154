"""What a frame holds: a number, and a message.

Layer: wire. Imports messages.
Invariant: what can be read at all can be answered by its number, also where the message is not understood.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from motoolsd.wire.messages import Reply, Request


class RequestEnvelope(Struct, frozen=True, array_like=True, gc=False):
    """What a frame from a client holds."""

    id: Annotated[int, Meta(ge=0)]
    body: Request


class ReplyEnvelope(Struct, frozen=True, array_like=True, gc=False):
    """What a frame from the daemon holds; `id` is the request's."""

    id: Annotated[int, Meta(ge=0)]
    body: Reply


class RawEnvelope(Struct, frozen=True, array_like=True, gc=False):
    """A frame whose body is not understood: enough to answer by its id."""

    id: Annotated[int, Meta(ge=0)]
    body: msgspec.Raw


class OperationName(Struct, gc=False):
    """The one field that every body has."""

    op: str


OPERATIONS: frozenset[object] = frozenset(operation.__struct_config__.tag for operation in Request.__args__)
"""The names of all requests of this version."""
