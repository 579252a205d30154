"""One of every message, every field filled: what golden bytes are made from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from motoolsd.wire import messages as m
from motoolsd.wire.backups import BackedUp, BackUp
from motoolsd.wire.cleaning import (
    ORPHAN,
    ApplyPlan,
    Cleaned,
    Criteria,
    EmptyTrash,
    EndUse,
    Finding,
    FindingPage,
    Kept,
    ListTrash,
    MakePlan,
    Pin,
    Pinned,
    PlanItem,
    PlanPage,
    Progress,
    Protected,
    TrashPage,
    TrashRow,
    Undo,
    Use,
    Verify,
)
from motoolsd.wire.entries import DatasetRow, EvalRow, KeyState, LeaseRow, ModelRow
from motoolsd.wire.fields import Message, Outcome
from motoolsd.wire.keys import Kind, eval_key
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
from motoolsd.wire.listing import DatasetPage, EvalPage, ListEntries, ModelPage
from motoolsd.wire.sizes import EntrySize, GetSizes, GetStats, Size, Sizes, Stats
from tests.wire.explaining_samples import FILTERS, HASH, ORDER, ORIGIN_ID, explaining_replies
from tests.wire.explaining_samples import REQUESTS as EXPLAINING_REQUESTS

KEY = m.RequestKey(bytes(range(16)), 7, 5, is_retry=True)
SIZE = Size(size_bytes=10, allocated_bytes=4096)
TIMES = {"created_at": "2026-01-31T23:59:59.123Z", "last_used_at": "2026-02-01T00:00:00.000Z"}
COMMON: dict[str, Any] = {
    **TIMES,
    "hits": 3,
    "size_bytes": 5,
    "version": "1.2",
    "labels": {"experiment": "e1"},
    "pinned": True,
    "allocated_bytes": 4096,
    "files": (b"runs/a", b"runs/\xff"),
    "missing_since": "2026-02-02T00:00:00.000Z",
    "pin_reason": "of the paper",
    "pinned_until": "2026-03-01T00:00:00Z",
    "expires_at": "2026-04-01T00:00:00Z",
    "void_since": "2026-02-03T00:00:00.000Z",
    "void_reason": "invalidated",
    "void_detail": "wrong prompt",
    "seconds": 7.5,
    "metadata": b'{"cost": 1}',
    "origin": ORIGIN_ID,
}
STAYS = Protected(kind="model", key=HASH, why="pinned: of the paper")
KEPT = Kept(path=b"runs/\xff", why="model k owns it, or part of it, too")

LEASE = LeaseRow(
    kind=Kind.MODEL,
    key="k",
    pid=42,
    host="here",
    command="python train.py",
    since="2026-01-31T23:59:59.123Z",
    token=7,
    waiters=3,
)
DATASET_ROW = DatasetRow(dataset_hash=HASH, value=b"file-1", **COMMON)
MODEL_ROW = ModelRow(cache_key=HASH, value=b"ft-1", dataset_hash=HASH, config=b"{}", backend_type="openai", **COMMON)
EVAL_ROW = EvalRow(
    id=9,
    model_id="ft-1",
    task_id="t",
    backend_type="inspect",
    value=b"\xff.eval",
    kwargs_hash=HASH,
    kwargs=b"{}",
    **COMMON,
)
RECORD: dict[str, Any] = {
    "origin": ORIGIN_ID,
    "seconds": 7.5,
    "metadata": b'{"cost": 1}',
    "outcome": Outcome.PARTIAL,
}
REQUESTS: tuple[m.Request, ...] = (
    m.Hello(
        protocol=1,
        version="0.1.0",
        client="motools.cache",
        pid=42,
        start_time=7,
        features=("lookup",),
        job="slurm:1",
        labels={"a": "b"},
    ),
    m.Lookup(
        kind=Kind.EVAL,
        keys=[eval_key("ft-1", "task", "inspect", None), eval_key("ft-1", "task", "inspect", HASH)],
        version="1.2",
        is_strict=True,
    ),
    m.Used(kind=Kind.DATASET, hits={HASH: 3}),
    m.PutDataset(
        request_key=KEY,
        token=7,
        labels={"a": "b"},
        version="v",
        ttl_s=1.5,
        **RECORD,
        dataset_hash=HASH,
        file_id=b"file-1",
        files=[b"datasets/\xff"],
        staged=b"\xfe",
    ),
    m.PutModel(
        request_key=KEY,
        token=7,
        labels={"a": "b"},
        version="v",
        ttl_s=1.5,
        **RECORD,
        dataset_hash=HASH,
        config=b'{"lr": 0.1}',
        backend_type="openai",
        model_id=b"ft-1",
        files=[b"runs/\xff"],
        masked_config=b'{"lr": "***"}',
    ),
    m.PutEvals(
        request_key=KEY,
        token=7,
        model_id="ft-1",
        backend_type="inspect",
        kwargs=b'{"limit": 3}',
        labels={"a": "b"},
        version="v",
        ttl_s=1.5,
        **RECORD,
        logs={"t": b"\xff.eval"},
        files={"t": b"evals/\xff.eval"},
        masked_kwargs=b'{"limit": "***"}',
    ),
    m.Clear(
        request_key=KEY,
        kind=Kind.EVAL,
        keys=["k"],
        model_ids=["ft-1"],
        task_ids=[],
        force=True,
        filters=FILTERS,
        downstream=True,
        origin=ORIGIN_ID,
    ),
    m.ClearAll(request_key=KEY, force=True, origin=ORIGIN_ID),
    Claim(
        claim_id=b"claim-id-of-ours",
        context=b"context",
        kind=Kind.MODEL,
        keys=["k"],
        wait=True,
        takes_over=True,
        work_dir=b"runs/\xff",
        dataset_hash=HASH,
        version="1.2",
        is_strict=True,
        inputs=[b"{}"],
    ),
    Release(claim_id=b"claim-id-of-ours"),
    RecordFailure(kind=Kind.MODEL, key="k", token=7, reason="out of memory", retry_after_s=1.5, is_retry=True),
    JoinLease(claim_id=b"claim-id-of-ours"),
    BreakLease(key="k", kind=Kind.MODEL),
    ListLeases(),
    ListEntries(kind=Kind.EVAL, model_id="ft-1", task_id="t", filters=FILTERS, order=ORDER, limit=50, after=b"\xff"),
    GetStats(),
    GetSizes(rescan=True, top=20),
    m.GetStatus(),
    m.Drain(reason="upgrade"),
    MakePlan(
        criteria=Criteria(
            kinds=(Kind.MODEL, Kind.EVAL),
            keys=[],
            model_ids=["ft-1"],
            task_ids=["t"],
            older_than_s=2_592_000.0,
            unused_for_s=1_209_600.5,
            to_bytes=50_000_000_000,
            orphans=True,
            orphan_age_s=3_600.0,
            dangling=True,
            force=True,
            filters=FILTERS,
            downstream=True,
        )
    ),
    ApplyPlan(plan_id="0123456789ab", to_trash=False, origin=ORIGIN_ID),
    Undo(removal_id=7),
    ListTrash(),
    EmptyTrash(removal_ids=[7, 8]),
    Pin(key=HASH, kind=Kind.MODEL, reason="of the paper", until_s=86_400.5, is_pinned=False),
    Use(use_id=b"use-id-of-ours..", kind=Kind.MODEL, keys=["k"]),
    EndUse(use_id=b"use-id-of-ours.."),
    Verify(deep=True, repair=True),
    BackUp(path=b"/b/\xff.db", force=True),
    *EXPLAINING_REQUESTS,
)
REPLIES: tuple[m.Reply, ...] = (
    m.Welcome(
        protocol=1,
        version="0.1.0",
        pid=42,
        start_time=7,
        features=("lookup",),
        outstanding_max=64,
        started_by="client",
        stamps=(2, 9),
        peer_pid=43,
    ),
    m.Found(values=[b"file-1", None], versions={0: "1.1"}, lasts=False),
    BackedUp(
        path=b"/b/\xff.db",
        size_bytes=4096,
        datasets=1,
        models=2,
        evals=3,
        schema_version=4,
        as_of="2026-01-31T23:59:59.123Z",
    ),
    m.Stored(),
    m.Cleared(datasets=1, models=2, evals=3, num_protected=1, protected=[STAYS]),
    DatasetPage(is_last=True, next_after=b"\xff", items=[DATASET_ROW]),
    ModelPage(is_last=True, next_after=b"\xff", items=[MODEL_ROW]),
    EvalPage(is_last=True, next_after=b"\xff", items=[EVAL_ROW]),
    *explaining_replies(DATASET_ROW, MODEL_ROW, EVAL_ROW),
    Claimed(
        states=[
            KeyState(value=b"ft-1", version="1.0"),
            KeyState(token=7),
            KeyState(failure="out of memory"),
            KeyState(holder=LEASE),
        ]
    ),
    Released(count=1),
    LeasePage(is_last=True, items=[LEASE]),
    Sizes(
        categories={"datasets": SIZE},
        as_of="2026-01-31T23:59:59.123Z",
        is_scanning=True,
        orphans=SIZE,
        num_orphans=2,
        num_dangling=3,
        top=(EntrySize(kind="model", key=HASH, value=b"ft-\xff", size_bytes=10, allocated_bytes=4096),),
    ),
    Stats(num_datasets=1, num_models=2, num_evals=3, total_size_bytes=4, as_of="2026-01-31T23:59:59.123Z"),
    m.Status(
        pid=42,
        version="0.1.0",
        socket=b"/c/motoolsd.sock",
        uptime_s=1.5,
        clients=2,
        entries=3,
        started_by="client",
        idle_timeout_s=900.0,
        durability="normal",
        sqlite_version="3.40.1",
    ),
    m.Draining(),
    Progress(is_last=True, done=3, total=9, unit="files", freed_bytes=4096),
    PlanPage(
        is_last=True,
        items=[
            PlanItem(
                kind=ORPHAN,
                key="runs/\\xff",
                value=b"ft-\xff",
                paths=(b"runs/\xff",),
                size_bytes=10,
                allocated_bytes=4096,
                reason="no entry names it",
            )
        ],
        protected=[STAYS],
        kept=[KEPT],
        plan_id="0123456789ab",
        freed_bytes=4096,
        size_bytes=10,
    ),
    Cleaned(removal_id=7, datasets=1, models=2, evals=3, orphans=4, freed_bytes=4096, is_complete=False, left=[KEPT]),
    TrashPage(
        is_last=True,
        items=[
            TrashRow(
                id=7,
                removed_at="2026-01-31T23:59:59.123Z",
                reason="models",
                state="purging",
                entries=2,
                paths=3,
                size_bytes=10,
                allocated_bytes=4096,
                expires_at="2026-02-07T23:59:59Z",
            )
        ],
    ),
    Pinned(count=2),
    FindingPage(
        is_last=True,
        items=[
            Finding(
                problem="missing",
                kind="model",
                key=HASH,
                path=b"runs/\xff",
                detail="missing since 2026-02-02",
                repaired=True,
            )
        ],
        entries=5,
        files=6,
    ),
    m.Failure(code="storage_failed", message="disk full", detail={"outcome_known": False}),
)


def name_of(message: Message) -> str:
    """The operation's name on the wire."""
    return str(type(message).__struct_config__.tag)


def structs_in(value: object) -> Iterator[msgspec.Struct]:
    """A message, and every struct in it."""
    if isinstance(value, msgspec.Struct):
        yield value
        for name in value.__struct_fields__:
            yield from structs_in(getattr(value, name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from structs_in(item)
    elif isinstance(value, dict):
        yield from structs_in(list(value.values()))
