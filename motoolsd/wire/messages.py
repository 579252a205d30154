"""Every message of the protocol: one request and one reply struct an operation.

Layer: wire. Imports fields, keys and entries.
Invariant: fields are only ever added, with a default; a field never changes its meaning. Values and paths travel
as bytes, because a file name need not be UTF-8.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from motoolsd.wire.backups import BackedUp, BackUp
from motoolsd.wire.cleaning import (
    ApplyPlan,
    Cleaned,
    EmptyTrash,
    EndUse,
    FindingPage,
    ListTrash,
    MakePlan,
    Pin,
    Pinned,
    PlanPage,
    Progress,
    Protected,
    TrashPage,
    Undo,
    Use,
    Verify,
)
from motoolsd.wire.explaining import (
    Compare,
    Comparison,
    Details,
    Explain,
    Explanation,
    GetLineage,
    GetUsage,
    Introduce,
    Lineage,
    ListMisses,
    Missed,
    MissPage,
    Show,
    UsageTable,
)
from motoolsd.wire.fields import (
    KEYS_PER_REQUEST_MAX,
    Count,
    Files,
    Json,
    Keys,
    Message,
    OriginId,
    Outcome,
    Seconds,
    Text,
    Token,
    Value,
)
from motoolsd.wire.filters import Filters
from motoolsd.wire.keys import Kind
from motoolsd.wire.leases import (
    BreakLease,
    Claim,
    Claimed,
    JoinLease,
    LeasePage,
    ListLeases,
    RecordFailure,
    Release,
    Released,
)
from motoolsd.wire.listing import DatasetPage, EvalPage, Invalidate, Invalidated, ListEntries, ModelPage
from motoolsd.wire.sizes import GetSizes, GetStats, Sizes, Stats

PROTOCOL = 1
"""Raised only when an older side would misread a message; additions are announced by feature names."""

FEATURES: tuple[str, ...] = (
    "lookup",
    "put",
    "clear",
    "list",
    "stats",
    "sizes",
    "status",
    "drain",
    "lease",
    "stamps",
    "files",
    "explain",
    "filters",
)

PROTECTED_NAMED_MAX = 100

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
    job: str = ""
    """The scheduler's job that it belongs to: its lookups are counted for that."""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    """Its lookups are counted for these, too."""


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
    origin: OriginId | None = None
    """Who writes: an `Introduce` came before."""


class Put(Write, frozen=True, kw_only=True):
    """What every stored entry carries beside its key and value."""

    labels: dict[str, str] = msgspec.field(default_factory=dict)
    version: str | None = None
    token: Token = 0
    """The fencing token of the lease that this fulfils: stored only while it counts. 0: a plain put, which always wins.
    One with a token stores exactly one entry."""
    ttl_s: Seconds | None = None
    """It misses after so long; None: it lasts."""
    seconds: Seconds | None = None
    """How long it took to compute."""
    metadata: Json | None = None
    """What else is known of it: a mapping."""
    outcome: Outcome = Outcome.SUCCESS
    """What is no success is kept and explained, but never a hit, and takes no success away."""


class Lookup(Message, tag="lookup", frozen=True, kw_only=True):
    """Ask for the values of keys of one kind."""

    kind: Kind
    keys: Keys
    version: Text | None = None
    """Values that were computed under another version are named, or miss."""
    is_strict: bool = False
    """Whether they miss."""


class Used(Message, tag="used", frozen=True, kw_only=True):
    """Tell of hits that the client's own memory answered. A notice: nothing is the answer to it."""

    kind: Kind
    hits: Annotated[dict[Text, Count], Meta(max_length=KEYS_PER_REQUEST_MAX)]


class PutDataset(Put, tag="put_dataset", frozen=True, kw_only=True):
    """Remember the file id of a dataset."""

    dataset_hash: Text
    file_id: Value
    files: Files = msgspec.field(default_factory=list)
    staged: Value | None = None
    """The content's name below `staging/`, on disk already: it becomes the dataset's file together with the row."""


class PutModel(Put, tag="put_model", frozen=True, kw_only=True):
    """Remember a trained model; the daemon makes the key from these inputs."""

    dataset_hash: Text
    config: Json
    backend_type: Text
    model_id: Value
    files: Files = msgspec.field(default_factory=list)
    masked_config: Json | None = None
    """What is kept instead of the configuration, where that holds credentials; the key is made from the whole."""


class PutEvals(Put, tag="put_evals", frozen=True, kw_only=True):
    """Remember the logs of one model's evaluations, all or none of them."""

    model_id: Text
    backend_type: Text
    kwargs: Json | None = None
    logs: Annotated[dict[Text, Value], Meta(max_length=KEYS_PER_REQUEST_MAX)]
    masked_kwargs: Json | None = None
    """As `PutModel.masked_config`."""
    files: dict[Text, Value] = msgspec.field(default_factory=dict)
    """Of those tasks whose log lies in the cache directory: its path relative to that."""


class Clear(Write, tag="clear", frozen=True, kw_only=True):
    """Remove the entries of one kind that match everything given; None matches all, an empty list nothing."""

    kind: Kind
    keys: list[str] | None = None
    model_ids: list[str] | None = None
    task_ids: list[str] | None = None
    force: bool = False
    """Whether pinned ones go, too."""
    filters: Filters | None = None
    """These must be passed, too."""
    downstream: bool = False
    """Also what was made from them."""


class ClearAll(Write, tag="clear_all", frozen=True, kw_only=True):
    """Remove every entry of every kind, in one transaction."""

    force: bool = False
    """Whether pinned ones go, too."""


class GetStatus(Message, tag="get_status", frozen=True, kw_only=True):
    """Ask the daemon about itself."""


class Drain(Message, tag="drain", frozen=True, kw_only=True):
    """Ask the daemon to finish what is in flight and end."""

    reason: str = ""


class Found(Message, tag="found", frozen=True, kw_only=True):
    """A value, or None for a miss, for each key of a Lookup, in its order."""

    values: list[bytes | None]
    versions: dict[int, str] = msgspec.field(default_factory=dict)
    """By place among the keys, of those values whose version does not go with the asked one."""
    lasts: bool = True
    """Whether the answer may be remembered: one that expires by itself is to be asked for each time."""


class Stored(Message, tag="stored", frozen=True, kw_only=True):
    """A Put is committed."""


class Cleared(Message, tag="cleared", frozen=True, kw_only=True):
    """How many entries of each kind a Clear removed."""

    datasets: int = 0
    models: int = 0
    evals: int = 0
    num_protected: int = 0
    protected: list[Protected] = msgspec.field(default_factory=list)
    """The first of those that would have gone, but are pinned; at most `PROTECTED_NAMED_MAX`."""


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
    | MakePlan
    | ApplyPlan
    | Undo
    | ListTrash
    | EmptyTrash
    | Pin
    | Use
    | EndUse
    | Verify
    | Introduce
    | Missed
    | Explain
    | ListMisses
    | Show
    | GetLineage
    | GetUsage
    | Invalidate
    | Compare
    | BackUp
)
NOTICES = (Used, Missed, Introduce)
"""Requests that nothing is the answer to."""
Notice = Used | Missed | Introduce
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
    | Progress
    | PlanPage
    | Cleaned
    | TrashPage
    | Pinned
    | FindingPage
    | Explanation
    | MissPage
    | Details
    | Lineage
    | UsageTable
    | Invalidated
    | Comparison
    | BackedUp
    | Failure
)
