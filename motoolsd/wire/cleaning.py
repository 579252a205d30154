"""Messages about clean-up: plans and what comes of them, the trash, protection, and verifying.

Layer: wire. Imports fields, filters and keys.
Invariant: as in messages: fields are only ever added, with a default. Paths are relative to the cache directory and
travel as bytes; durations are seconds, sizes bytes.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from motoolsd.wire.fields import KEYS_PER_REQUEST_MAX, ClaimId, Message, OriginId, Page, Seconds, Text
from motoolsd.wire.filters import Filters
from motoolsd.wire.keys import Kind

ORPHAN = "orphan"
"""What stands in place of a kind where files belong to no entry."""
ORPHAN_AGE_S = 86_400.0

Bytes = Annotated[int, Meta(ge=0, le=2**63 - 1)]
PlanId = Annotated[str, Meta(min_length=1, max_length=64)]
RemovalId = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class Criteria(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to go. Entries must match every filter and age that is given; `kinds=()` takes no entries."""

    kinds: tuple[Kind, ...] = ()
    keys: list[str] | None = None
    """Keys of datasets, as `Clear` takes them."""
    model_ids: list[str] | None = None
    task_ids: list[str] | None = None
    older_than_s: Seconds | None = None
    """Only entries stored at least so long ago."""
    unused_for_s: Seconds | None = None
    """Only entries neither stored nor used for so long."""
    to_bytes: Bytes | None = None
    """Only as many, the least recently used first, as bring the total down to this."""
    orphans: bool = False
    orphan_age_s: Seconds = ORPHAN_AGE_S
    dangling: bool = False
    """Also entries whose files are gone."""
    force: bool = False
    """Whether pins protect nothing."""
    filters: Filters | None = None
    """These must be passed, too."""
    downstream: bool = False
    """Also what was made from entries that go, whatever its kind and age."""


class PlanItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry that goes with its files, or one orphan."""

    kind: str
    key: str
    value: bytes = b""
    paths: tuple[bytes, ...] = ()
    """Those that go with it; one that something else owns too is among the plan's `kept`."""
    size_bytes: int = 0
    allocated_bytes: int = 0
    reason: str = ""


class Protected(Struct, frozen=True, kw_only=True):
    """What would have gone, and why it stays."""

    kind: str
    key: str
    why: str


class Kept(Struct, frozen=True, kw_only=True):
    """A path that stays though an entry that owns it goes."""

    path: bytes
    why: str


class MakePlan(Message, tag="make_plan", frozen=True, kw_only=True):
    """Ask what would go. Nothing is changed; the plan is kept for `ApplyPlan`."""

    criteria: Criteria


class PlanPage(Page, tag="plan_page", frozen=True, kw_only=True):
    """Some of a plan; the sums stand in the last page."""

    items: list[PlanItem] = msgspec.field(default_factory=list)
    protected: list[Protected] = msgspec.field(default_factory=list)
    kept: list[Kept] = msgspec.field(default_factory=list)
    plan_id: str = ""
    freed_bytes: int = 0
    """Allocated bytes that the disk gets back."""
    size_bytes: int = 0


class ApplyPlan(Message, tag="apply_plan", frozen=True, kw_only=True):
    """Carry out exactly a plan, or refuse. Repeating it tells what came of the first time."""

    plan_id: PlanId
    to_trash: bool = True
    """Whether it can be undone; else the room is freed at once."""
    origin: OriginId | None = None
    """Who does it: as in `Write`."""


class Progress(Page, tag="progress", frozen=True, kw_only=True):
    """How far something long has come. A stream of these ends with another message."""

    done: int = 0
    total: int = 0
    """0: not known."""
    unit: str = "items"
    freed_bytes: int = 0


class Cleaned(Message, tag="cleaned", frozen=True, kw_only=True):
    """What a clean-up, an undo or a purge did."""

    removal_id: int = 0
    """For undo; 0: there is nothing to undo."""
    datasets: int = 0
    models: int = 0
    evals: int = 0
    orphans: int = 0
    freed_bytes: int = 0
    """Allocated bytes of the files."""
    is_complete: bool = True
    """Whether it came to its end; else it was cancelled, and what it did so far can be undone."""
    left: list[Kept] = msgspec.field(default_factory=list)
    """Files that stayed though they were to go, and why."""


class Undo(Message, tag="undo", frozen=True, kw_only=True):
    """Put back what a clean-up took: rows and files, all of it or nothing."""

    removal_id: RemovalId | None = None
    """None: the latest that was not undone."""


class ListTrash(Message, tag="list_trash", frozen=True, kw_only=True):
    """Stream what lies in the trash, the latest first."""


class TrashRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One clean-up whose files and rows lie in the trash."""

    id: int
    removed_at: str
    reason: str = ""
    state: str = "trashed"
    entries: int = 0
    paths: int = 0
    size_bytes: int = 0
    allocated_bytes: int = 0
    expires_at: str | None = None
    """When it goes by itself."""


class TrashPage(Page, tag="trash_page", frozen=True, kw_only=True):
    """Some of the trash."""

    items: list[TrashRow]


class EmptyTrash(Message, tag="empty_trash", frozen=True, kw_only=True):
    """Free the room of what lies in the trash, for ever."""

    removal_ids: list[RemovalId] | None = None
    """None: all of it."""


class Pin(Message, tag="pin", frozen=True, kw_only=True):
    """Protect entries until somebody unpins them."""

    key: Text
    """A key or a value: all entries that have it."""
    kind: Kind | None = None
    reason: str = ""
    until_s: Seconds | None = None
    """From now; None: for good."""
    is_pinned: bool = True
    """False takes the protection away."""


class Pinned(Message, tag="pinned", frozen=True, kw_only=True):
    """How many entries were pinned or unpinned."""

    count: int


class Use(Message, tag="use", frozen=True, kw_only=True):
    """Protect entries while the asking process lives, or until `EndUse`."""

    use_id: ClaimId
    kind: Kind
    keys: Annotated[list[Text], Meta(min_length=1, max_length=KEYS_PER_REQUEST_MAX)]


class EndUse(Message, tag="end_use", frozen=True, kw_only=True):
    """The entries are not in use any more. Harmless when repeated."""

    use_id: ClaimId


class Verify(Message, tag="verify", frozen=True, kw_only=True):
    """Stream what is wrong with rows, files and the database; `Progress` in between."""

    deep: bool = False
    """Whether to read the content of files."""
    repair: bool = False
    """Whether entries whose files are missing or damaged become misses, and rows of no use go."""


class Finding(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong."""

    problem: str
    """`corrupt`, `missing`, `unreadable` or `orphan`."""
    kind: str
    key: str
    path: bytes = b""
    detail: str = ""
    repaired: bool = False


class FindingPage(Page, tag="finding_page", frozen=True, kw_only=True):
    """Some findings; the last page counts what was looked at."""

    items: list[Finding] = msgspec.field(default_factory=list)
    entries: int = 0
    files: int = 0
