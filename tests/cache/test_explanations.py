"""Explanations: what replies of the daemon become for users."""

from __future__ import annotations

import json
import os

import pytest

from motools.cache import DatasetEntry, EvalEntry, LeaseEntry, ModelEntry
from motools.cache.explanations import (
    Difference,
    EntryName,
    Explanation,
    LineageNode,
    Miss,
    NearEntry,
    Usage,
    difference,
    entry_details,
    entry_name,
    explanation,
    lineage,
    misses,
    usage,
)
from motoolsd.wire import explaining as wire
from motoolsd.wire.entries import DatasetRow, EvalRow, LeaseRow, ModelRow
from motoolsd.wire.keys import Kind
from motoolsd.wire.origins import Origin
from motoolsd.wire.reasons import Reason

ANN = Origin(user="ann", pid=7)
LEASE = LeaseRow(kind=Kind.MODEL, key="k", pid=8, host="h", command="train", since="then", token=3, waiters=2)
HELD = LeaseEntry(kind="model", key="k", pid=8, host="h", command="train", since="then", token=3, waiters=2)
ODD = b"/logs/caf\xe9"


@pytest.mark.parametrize("value", [None, False, 0, 0.0, -0.0, "", [], {}, {"a": [1, 2.5, None]}, "\ud800", 10**400])
def test_value_of_a_difference_is_told_from_none_at_all(value: object) -> None:
    """A field that holds null is there; one that is not there is not null."""
    text = json.dumps(value).encode()
    one = difference(wire.Difference(path="config.x", cached=text))
    assert (one.cached, one.asked, one.in_cached, one.in_asked) == (value, None, True, False)
    assert repr(one.cached) == repr(value)
    other = difference(wire.Difference(path="config.x", asked=text))
    assert (other.cached, other.asked, other.in_cached, other.in_asked) == (None, value, False, True)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_but_one_is_a_miss(reason: Reason) -> None:
    """In words that scripts compare."""
    found = explanation(wire.Explanation(kind=Kind.MODEL, key="k", reason=reason))
    assert (found.kind, found.key, found.reason) == ("model", "k", reason.value)
    assert type(found.reason) is type(found.kind) is str
    assert found.result == ("hit" if reason is Reason.HIT else "miss")
    assert (found.value, found.since, found.by, found.holder, found.nearest) == (None, None, None, None, [])


def test_explanation_has_everything_that_is_known() -> None:
    """Who, since when, who computes it now, and what is near."""
    near = wire.NearRow(
        key="n", value=ODD, created_at="then", why_not="expired", differences=[wire.Difference(path="p", cached=b"1")]
    )
    reply = wire.Explanation(
        kind=Kind.EVAL,
        key="k",
        reason=Reason.EXPIRED,
        detail="an hour ago",
        value=ODD,
        since="now",
        by=ANN,
        holder=LEASE,
        nearest=[near, wire.NearRow(key="o", value=b"v")],
    )
    assert explanation(reply) == Explanation(
        kind="eval",
        key="k",
        result="miss",
        reason="expired",
        detail="an hour ago",
        value=os.fsdecode(ODD),
        since="now",
        by=ANN,
        holder=HELD,
        nearest=[
            NearEntry(
                key="n",
                value=os.fsdecode(ODD),
                created_at="then",
                why_not="expired",
                differences=[Difference(path="p", cached=1, in_asked=False)],
            ),
            NearEntry(key="o", value="v"),
        ],
    )


def test_misses_of_all_pages_come_in_their_order() -> None:
    """What they were made from is decoded; what somebody wrote that cannot be read is left out."""
    first = wire.MissItem(
        kind=Kind.MODEL,
        key="a",
        missed_at="then",
        reason="evicted",
        inputs=b'{"x": 1}',
        job="slurm:1",
        labels={"l": "v"},
    )
    others = [
        wire.MissItem(kind=Kind.EVAL, key="b", missed_at="then", reason="of a newer daemon"),
        wire.MissItem(kind=Kind.MODEL, key="c", missed_at="then", reason="cleared", inputs=b"[" * 100_000),
    ]
    found = misses([wire.MissPage(items=[first]), wire.MissPage(items=others, is_last=True)])
    assert found == [
        Miss(
            kind="model",
            key="a",
            missed_at="then",
            reason="evicted",
            inputs={"x": 1},
            job="slurm:1",
            labels={"l": "v"},
        ),
        Miss(kind="eval", key="b", missed_at="then", reason="of a newer daemon"),
        Miss(kind="model", key="c", missed_at="then", reason="cleared"),
    ]


def test_details_hold_an_entry_of_their_kind() -> None:
    """And who made it, and what was made from it."""
    origin = wire.EntryName(kind=Kind.DATASET, key="d", value=b"file")
    gone = wire.EntryName(kind=Kind.DATASET, key="d", value=b"")
    model = entry_details(
        wire.Details(
            kind=Kind.MODEL,
            key="k",
            model=ModelRow(cache_key="k", value=b"m"),
            origin=ANN,
            holder=LEASE,
            made_from=[origin],
            made=[wire.EntryName(kind=Kind.EVAL, key="[]", value=ODD)],
            num_made=30,
        )
    )
    assert isinstance(model.entry, ModelEntry)
    assert (model.kind, model.key, model.entry.model_id, model.origin, model.holder) == ("model", "k", "m", ANN, HELD)
    assert model.made_from == [EntryName(kind="dataset", key="d", value="file")]
    assert model.made == [EntryName(kind="eval", key="[]", value=os.fsdecode(ODD))]
    assert model.num_made == 30
    assert entry_name(gone).value is None
    dataset = wire.Details(kind=Kind.DATASET, key="d", dataset=DatasetRow(dataset_hash="d", value=b"f"))
    assert isinstance(entry_details(dataset).entry, DatasetEntry)
    row = EvalRow(id=1, model_id="m", task_id="t", backend_type="b", value=b"/l")
    assert isinstance(entry_details(wire.Details(kind=Kind.EVAL, key="e", evaluation=row)).entry, EvalEntry)


def test_lineage_keeps_places_and_what_is_no_entry() -> None:
    """The dataset of an older model may never have been stored."""
    reply = wire.Lineage(
        nodes=[
            wire.LineageNode(kind=Kind.DATASET, key="d"),
            wire.LineageNode(kind=Kind.MODEL, key="k", value=b"m", made_from=(0,)),
            wire.LineageNode(kind=Kind.EVAL, key="e", value=ODD, made_from=(1,), detail="t"),
        ],
        root=1,
        is_cut=True,
    )
    found = lineage(reply)
    assert (found.root, found.is_cut) == (1, True)
    assert found.nodes == [
        LineageNode(kind="dataset", key="d"),
        LineageNode(kind="model", key="k", value="m", made_from=(0,)),
        LineageNode(kind="eval", key="e", value=os.fsdecode(ODD), made_from=(1,), detail="t"),
    ]


def test_usage_is_a_row_for_each_kind_and_group() -> None:
    """As the daemon counted."""
    row = wire.UsageRow(
        kind=Kind.EVAL, group="ann", hits=3, misses=2, reasons={"cleared": 1}, seconds_saved=1.5, cost_saved=0.25
    )
    assert usage(wire.UsageTable(items=[row])) == [
        Usage(kind="eval", group="ann", hits=3, misses=2, reasons={"cleared": 1}, seconds_saved=1.5, cost_saved=0.25)
    ]
