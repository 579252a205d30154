"""One of every message that explains, every field filled: see `samples`."""

from __future__ import annotations

from motoolsd.wire.entries import DatasetRow, EvalRow, LeaseRow, ModelRow
from motoolsd.wire.explaining import (
    Compare,
    Comparison,
    Details,
    Difference,
    EntryName,
    Explain,
    Explanation,
    GetLineage,
    GetUsage,
    Introduce,
    Lineage,
    LineageNode,
    ListMisses,
    Missed,
    MissItem,
    MissPage,
    NearRow,
    Show,
    UsageRow,
    UsageTable,
)
from motoolsd.wire.filters import Filters, Order
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import Invalidate, Invalidated
from motoolsd.wire.messages import Reply, Request
from motoolsd.wire.origins import Origin
from motoolsd.wire.reasons import Reason

STAMP = "2026-01-31T23:59:59.123Z"
HASH = "a" * 64
ORIGIN_ID = b"origin-of-ours.."
ORIGIN = Origin(
    user="ann",
    uid=1000,
    host="here",
    pid=42,
    started_at=STAMP,
    command=("python", "train.py"),
    cwd="/work",
    git_commit="b" * 40,
    git_branch="main",
    git_dirty=True,
    scheduler="slurm",
    job_id="slurm:1234_5",
    package="0.1.0",
)
FILTERS = Filters(
    keys=[HASH],
    model_ids=["ft-1"],
    task_ids=["t"],
    datasets=[HASH],
    backends=["openai"],
    labels={"experiment": "e1"},
    key_prefix="aa",
    version="1.2",
    created_after_s=1.5,
    created_before_s=2.5,
    used_after_s=1.5,
    used_before_s=2.5,
    older_than_s=86_400.0,
    unused_for_s=3_600.5,
    larger_than_bytes=10**9,
    where=["config.lr>0.1"],
)
ORDER = Order(field="size_bytes", is_descending=True)
HOLDER = LeaseRow(
    kind=Kind.MODEL, key="k", pid=42, host="here", command="python train.py", since=STAMP, token=7, waiters=3
)
NAME = EntryName(kind=Kind.MODEL, key=HASH, value=b"ft-\xff")
DIFFERENCE = Difference(path="config.lr", cached=b"0.1", asked=b"0.2")

REQUESTS: tuple[Request, ...] = (
    Introduce(origin=ORIGIN),
    Missed(kind=Kind.MODEL, inputs={HASH: b"{}"}),
    Explain(kind=Kind.MODEL, key=HASH, inputs=b"{}", version="1.2"),
    ListMisses(limit=5),
    Show(name="ft-1", kind=Kind.MODEL),
    GetLineage(name="ft-1", kind=Kind.MODEL, up=False, down=False),
    Compare(name="ft-1", other="ft-2", kind=Kind.MODEL),
    GetUsage(since_s=86_400.0, job="slurm:1", labels={"a": "b"}, by_label="experiment", by_job=True),
    Invalidate(
        kinds=(Kind.MODEL, Kind.EVAL),
        filters=FILTERS,
        downstream=True,
        reason="oops",
        restore=True,
        dry_run=True,
        origin=ORIGIN_ID,
    ),
)


EXPLANATION = Explanation(
    kind=Kind.MODEL,
    key=HASH,
    reason=Reason.EVICTED,
    detail="to keep within 50 GB",
    value=b"ft-\xff",
    since=STAMP,
    by=ORIGIN,
    holder=HOLDER,
    nearest=[NearRow(key=HASH, value=b"ft-\xff", created_at=STAMP, why_not="expired", differences=[DIFFERENCE])],
)


LINEAGE = Lineage(
    nodes=[LineageNode(kind=Kind.EVAL, key="k", value=b"x.eval", made_from=(1,), detail="t")],
    root=1,
    is_cut=True,
)


def explaining_replies(dataset: DatasetRow, model: ModelRow, evaluation: EvalRow) -> tuple[Reply, ...]:
    """Replies, some with these rows in them."""
    return (
        EXPLANATION,
        MissPage(
            is_last=True,
            items=[
                MissItem(
                    kind=Kind.MODEL,
                    key=HASH,
                    missed_at=STAMP,
                    reason="cleared",
                    inputs=b"{}",
                    job="slurm:1",
                    labels={"a": "b"},
                )
            ],
        ),
        Details(
            kind=Kind.MODEL,
            key=HASH,
            dataset=dataset,
            model=model,
            evaluation=evaluation,
            origin=ORIGIN,
            holder=HOLDER,
            made_from=[NAME],
            made=[NAME],
            num_made=7,
            candidates=[NAME],
        ),
        LINEAGE,
        Comparison(first=NAME, second=NAME, differences=[DIFFERENCE]),
        UsageTable(
            items=[
                UsageRow(
                    kind=Kind.MODEL,
                    group="e1",
                    hits=1,
                    misses=2,
                    reasons={"cleared": 2},
                    seconds_saved=1.5,
                    cost_saved=2.5,
                )
            ],
            since=STAMP,
        ),
        Invalidated(datasets=1, models=2, evals=3),
    )
