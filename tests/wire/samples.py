"""One of every message, every field filled: what golden bytes are made from."""

from __future__ import annotations

from motoolsd.wire import messages as m
from motoolsd.wire.entries import DatasetRow, EvalRow, KeyState, LeaseRow, ModelRow
from motoolsd.wire.fields import Message
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
from motoolsd.wire.sizes import GetSizes, GetStats, Size, Sizes, Stats

KEY = m.RequestKey(bytes(range(16)), 7, 5, is_retry=True)
SIZE = Size(size_bytes=10, allocated_bytes=4096)
TIMES = {"created_at": "2026-01-31T23:59:59.123Z", "last_used_at": "2026-02-01T00:00:00.000Z"}
COMMON = {**TIMES, "hits": 3, "size_bytes": 5, "version": "1.2", "labels": {"experiment": "e1"}, "pinned": True}
HASH = "a" * 64

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
REQUESTS: tuple[m.Request, ...] = (
    m.Hello(protocol=1, version="0.1.0", client="motools.cache", pid=42, start_time=7, features=("lookup",)),
    m.Lookup(
        kind=Kind.EVAL, keys=[eval_key("ft-1", "task", "inspect", None), eval_key("ft-1", "task", "inspect", HASH)]
    ),
    m.Used(kind=Kind.DATASET, hits={HASH: 3}),
    m.PutDataset(request_key=KEY, token=7, labels={"a": "b"}, version="v", dataset_hash=HASH, file_id=b"file-1"),
    m.PutModel(
        request_key=KEY,
        token=7,
        labels={"a": "b"},
        version="v",
        dataset_hash=HASH,
        config=b'{"lr": 0.1}',
        backend_type="openai",
        model_id=b"ft-1",
    ),
    m.PutEvals(
        request_key=KEY,
        token=7,
        model_id="ft-1",
        backend_type="inspect",
        kwargs=b'{"limit": 3}',
        labels={"a": "b"},
        version="v",
        logs={"t": b"\xff.eval"},
    ),
    m.Clear(request_key=KEY, kind=Kind.EVAL, keys=["k"], model_ids=["ft-1"], task_ids=[]),
    m.ClearAll(request_key=KEY),
    Claim(claim_id=b"claim-id-of-ours", context=b"context", kind=Kind.MODEL, keys=["k"], wait=True, takes_over=True),
    Release(claim_id=b"claim-id-of-ours"),
    RecordFailure(kind=Kind.MODEL, key="k", token=7, reason="out of memory", retry_after_s=1.5, is_retry=True),
    JoinLease(claim_id=b"claim-id-of-ours"),
    BreakLease(key="k", kind=Kind.MODEL),
    ListLeases(),
    m.ListEntries(kind=Kind.EVAL, model_id="ft-1", task_id="t"),
    GetStats(),
    GetSizes(),
    m.GetStatus(),
    m.Drain(reason="upgrade"),
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
    m.Found(values=[b"file-1", None]),
    m.Stored(),
    m.Cleared(datasets=1, models=2, evals=3),
    m.DatasetPage(is_last=True, items=[DatasetRow(dataset_hash=HASH, value=b"file-1", **COMMON)]),  # type: ignore[arg-type]
    m.ModelPage(
        is_last=True,
        items=[
            ModelRow(cache_key=HASH, value=b"ft-1", dataset_hash=HASH, config=b"{}", backend_type="openai", **COMMON)  # type: ignore[arg-type]
        ],
    ),
    m.EvalPage(
        is_last=True,
        items=[
            EvalRow(
                id=9,
                model_id="ft-1",
                task_id="t",
                backend_type="inspect",
                value=b"\xff.eval",
                kwargs_hash=HASH,
                kwargs=b"{}",
                **COMMON,  # type: ignore[arg-type]
            )
        ],
    ),
    Claimed(
        states=[
            KeyState(value=b"ft-1"),
            KeyState(token=7),
            KeyState(failure="out of memory"),
            KeyState(holder=LEASE),
        ]
    ),
    Released(count=1),
    LeasePage(is_last=True, items=[LEASE]),
    Sizes(categories={"datasets": SIZE}),
    Stats(num_datasets=1, num_models=2, num_evals=3, total_size_bytes=4),
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
    m.Failure(code="storage_failed", message="disk full", detail={"outcome_known": False}),
)


def name_of(message: Message) -> str:
    """The operation's name on the wire."""
    return str(type(message).__struct_config__.tag)
