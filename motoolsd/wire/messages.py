"""Every message of the protocol: one request and one reply struct an operation.

Layer: wire. Imports fields, keys and entries.
Invariant: fields are only ever added, with a default; a field never changes its meaning. Values and paths travel
as bytes, because a file name need not be UTF-8.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from motoolsd.wire.entries import DatasetRow, EvalRow, KeyState, LeaseRow, ModelRow
from motoolsd.wire.fields import KEYS_PER_REQUEST_MAX, ClaimId, Count, Json, Keys, Message, Text, Token, Value
from motoolsd.wire.keys import Kind

PROTOCOL = 1
"""Raised only when an older side would misread a message; additions are announced by feature names."""

FEATURES: tuple[str, ...] = ("lookup", "put", "clear", "list", "stats", "sizes", "status", "drain", "lease", "stamps")

OUTSTANDING_MAX = 128
"""Requests that one connection may have open: the daemon stops reading above it, a client does not send."""


class RequestKey(Struct, frozen=True, array_like=True, gc=False):
    """Names one write of one client, so that a retry is applied once and answered alike."""

    client: Annotated[bytes, Meta(min_length=16, max_length=16)]
    number: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    lowest_open: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    """The client's lowest number without an answer: what is stored for lower ones may go."""
    is_retry: bool = False


class Hello(Message, tag="hello", frozen=True, kw_only=True):
    """The first message of a client."""

    protocol: int
    version: str
    client: str = ""
    pid: int = 0
    start_time: int = 0
    features: tuple[str, ...] = ()


class Welcome(Message, tag="welcome", frozen=True, kw_only=True):
    """The daemon's answer to Hello."""

    protocol: int
    version: str
    pid: int
    start_time: int = 0
    features: tuple[str, ...] = ()
    outstanding_max: int = OUTSTANDING_MAX
    started_by: str = "command"
    """`client` when a client started the daemon by itself, `systemd` when a unit did, else `command`."""
    stamps: tuple[int, int] | None = None
    """Device and inode of the file of stamps; None where there is none, and every lookup is to be asked."""
    peer_pid: int | None = None
    """The client's process as the daemon sees it; 0: not at all, it lives in another PID namespace."""


class Write(Message, frozen=True, kw_only=True):
    """What every write carries beside its own fields."""

    request_key: RequestKey


class Put(Write, frozen=True, kw_only=True):
    """What every stored entry carries beside its key and value."""

    labels: dict[str, str] = msgspec.field(default_factory=dict)
    version: str | None = None
    token: Token = 0
    """The fencing token of the lease that this fulfils: stored only while it counts. 0: a plain put, which always wins.
    One with a token stores exactly one entry."""


class Lookup(Message, tag="lookup", frozen=True, kw_only=True):
    """Ask for the values of keys of one kind."""

    kind: Kind
    keys: Keys


class Used(Message, tag="used", frozen=True, kw_only=True):
    """Tell of hits that the client's own memory answered. A notice: nothing is the answer to it."""

    kind: Kind
    hits: Annotated[dict[Text, Count], Meta(max_length=KEYS_PER_REQUEST_MAX)]


class PutDataset(Put, tag="put_dataset", frozen=True, kw_only=True):
    """Remember the file id of a dataset."""

    dataset_hash: Text
    file_id: Value


class PutModel(Put, tag="put_model", frozen=True, kw_only=True):
    """Remember a trained model; the daemon makes the key from these inputs."""

    dataset_hash: Text
    config: Json
    backend_type: Text
    model_id: Value


class PutEvals(Put, tag="put_evals", frozen=True, kw_only=True):
    """Remember the logs of one model's evaluations, all or none of them."""

    model_id: Text
    backend_type: Text
    kwargs: Json | None = None
    logs: Annotated[dict[Text, Value], Meta(max_length=KEYS_PER_REQUEST_MAX)]


class Clear(Write, tag="clear", frozen=True, kw_only=True):
    """Remove the entries of one kind that match everything given; None matches all, an empty list nothing."""

    kind: Kind
    keys: list[str] | None = None
    model_ids: list[str] | None = None
    task_ids: list[str] | None = None


class ClearAll(Write, tag="clear_all", frozen=True, kw_only=True):
    """Remove every entry of every kind, in one transaction."""


class Claim(Message, tag="claim", frozen=True, kw_only=True):
    """Ask for values, and for the leases of those that are missing. Who asks is known from the socket."""

    claim_id: ClaimId
    context: Annotated[bytes, Meta(min_length=1, max_length=64)]
    """Names the thread or task, among all of all processes: what waits there cannot go on with what it holds."""
    kind: Kind
    keys: Annotated[list[Text], Meta(min_length=1, max_length=KEYS_PER_REQUEST_MAX)]
    wait: bool = False
    """Whether to answer only when at least one key has a value, a lease or a failure; such a request may stay open for
    hours, and does not count among the outstanding ones."""
    takes_over: bool = False
    """Whether to have the lease after a failure was recorded, instead of the failure."""


class Release(Message, tag="release", frozen=True, kw_only=True):
    """Give a claim up: it waits no more, and its leases go to the next. Harmless when repeated."""

    claim_id: ClaimId


class RecordFailure(Message, tag="fail", frozen=True, kw_only=True):
    """Give a lease up because the computation failed, and say why to those who wait."""

    kind: Kind
    key: Text
    token: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    reason: Text
    retry_after_s: Annotated[float, Meta(ge=0)] | None = None
    """For how long later claims get the failure too; None: only those that wait now."""
    is_retry: bool = False


class JoinLease(Message, tag="join", frozen=True, kw_only=True):
    """Let the leases of a claim last until the asking process has ended too."""

    claim_id: ClaimId


class BreakLease(Message, tag="break_lease", frozen=True, kw_only=True):
    """Take the lease of a key away from whoever holds it."""

    key: Text
    kind: Kind | None = None


class ListLeases(Message, tag="list_leases", frozen=True, kw_only=True):
    """Stream all leases, the oldest first."""


class ListEntries(Message, tag="list", frozen=True, kw_only=True):
    """Stream the entries of one kind in the order in which they were first stored."""

    kind: Kind
    model_id: str | None = None
    task_id: str | None = None


class GetStats(Message, tag="get_stats", frozen=True, kw_only=True):
    """Ask how many entries there are and how much room everything takes."""


class GetSizes(Message, tag="get_sizes", frozen=True, kw_only=True):
    """Ask how much room each category takes."""


class GetStatus(Message, tag="get_status", frozen=True, kw_only=True):
    """Ask the daemon about itself."""


class Drain(Message, tag="drain", frozen=True, kw_only=True):
    """Ask the daemon to finish what is in flight and end."""

    reason: str = ""


class Found(Message, tag="found", frozen=True, kw_only=True):
    """A value, or None for a miss, for each key of a Lookup, in its order."""

    values: list[bytes | None]


class Stored(Message, tag="stored", frozen=True, kw_only=True):
    """A Put is committed."""


class Cleared(Message, tag="cleared", frozen=True, kw_only=True):
    """How many entries of each kind a Clear removed."""

    datasets: int = 0
    models: int = 0
    evals: int = 0


class Claimed(Message, tag="claimed", frozen=True, kw_only=True):
    """The state of each key of a Claim, in its order."""

    states: list[KeyState]


class Released(Message, tag="released", frozen=True, kw_only=True):
    """How many leases were given up, joined or broken."""

    count: int = 0


class Page(Message, frozen=True, kw_only=True):
    """A part of a stream; `is_last` ends it."""

    is_last: bool = False


class DatasetPage(Page, tag="dataset_page", frozen=True, kw_only=True):
    """Some datasets."""

    items: list[DatasetRow]


class ModelPage(Page, tag="model_page", frozen=True, kw_only=True):
    """Some models."""

    items: list[ModelRow]


class EvalPage(Page, tag="eval_page", frozen=True, kw_only=True):
    """Some evaluations."""

    items: list[EvalRow]


class LeasePage(Page, tag="lease_page", frozen=True, kw_only=True):
    """Some leases."""

    items: list[LeaseRow]


class Size(Struct, frozen=True, gc=False):
    """Room taken by regular files: the sum of their lengths, and of the blocks they occupy."""

    size_bytes: int = 0
    allocated_bytes: int = 0


class Sizes(Message, tag="sizes", frozen=True, kw_only=True):
    """Room taken by each category: `datasets`, `runs`, `evals`, `database`."""

    categories: dict[str, Size]


class Stats(Message, tag="stats", frozen=True, kw_only=True):
    """Counts of entries, and the room that all categories take together."""

    num_datasets: int
    num_models: int
    num_evals: int
    total_size_bytes: int


class Status(Message, tag="status", frozen=True, kw_only=True):
    """What a daemon says of itself."""

    pid: int
    version: str
    socket: bytes
    uptime_s: float
    clients: int
    entries: int
    started_by: str = "command"
    idle_timeout_s: float = 0.0
    durability: str = "full"
    sqlite_version: str = ""


class Draining(Message, tag="draining", frozen=True, kw_only=True):
    """The daemon takes no more connections and ends soon."""


class Failure(Message, tag="failure", frozen=True, kw_only=True):
    """A request failed; `code` is one of `errors.ErrorCode`, newer ones included."""

    code: str
    message: str
    detail: dict[str, str | int | bool | None] = msgspec.field(default_factory=dict)


WriteRequest = PutDataset | PutModel | PutEvals | Clear | ClearAll
Request = (
    Hello
    | Lookup
    | Used
    | PutDataset
    | PutModel
    | PutEvals
    | Clear
    | ClearAll
    | Claim
    | Release
    | RecordFailure
    | JoinLease
    | BreakLease
    | ListLeases
    | ListEntries
    | GetStats
    | GetSizes
    | GetStatus
    | Drain
)
EntryPage = DatasetPage | ModelPage | EvalPage
WriteReply = Stored | Cleared
Reply = (
    Welcome
    | Found
    | Stored
    | Cleared
    | DatasetPage
    | ModelPage
    | EvalPage
    | Claimed
    | Released
    | LeasePage
    | Sizes
    | Stats
    | Status
    | Draining
    | Failure
)


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
