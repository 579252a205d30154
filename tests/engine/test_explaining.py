"""Why a key hits or misses, in one word and with what is known of it; and the latest misses."""

from __future__ import annotations

import json
from typing import Any

import anyio
import msgspec
import pytest

from motoolsd.core.errors import RequestError
from motoolsd.core.guards import DAMAGED, EXPIRED, MISSING
from motoolsd.engine import explaining as explaining_module
from motoolsd.engine.explaining import NEAREST_SHOWN
from motoolsd.engine.usage import Audience
from motoolsd.store import clearing as clearing_module
from motoolsd.store.entries import SetVoid
from motoolsd.store.history import INVALIDATED
from motoolsd.wire.cleaning import Criteria
from motoolsd.wire.explaining import Explain, Explanation, Introduce, ListMisses, Missed, MissItem
from motoolsd.wire.fields import Outcome
from motoolsd.wire.filters import Filters
from motoolsd.wire.keys import Kind, eval_key, json_hash
from motoolsd.wire.leases import Claim, RecordFailure
from motoolsd.wire.listing import Invalidate
from motoolsd.wire.messages import Lookup
from motoolsd.wire.origins import Origin, origin_id
from motoolsd.wire.reasons import Reason
from tests.engine.bench import Bench
from tests.engine.cleaning import apply, plan, publish_model
from tests.engine.conftest import OpenBench
from tests.samples import clear, clear_all, put_dataset, put_evals, put_model
from tests.signing import key_of_model

STAMP = "2026-01-31T23:59:59.123Z"
ANN = Origin(user="ann", host="here", pid=42, command=("python", "clean.py"), job_id="slurm:7")
ANN_TEXT = "ann@here (pid 42, slurm:7: python clean.py)"
PID = 4711


async def explained(
    bench: Bench, key: str, kind: Kind = Kind.MODEL, *, inputs: dict[str, Any] | None = None, version: str | None = None
) -> Explanation:
    """Why a key hits or misses."""
    told = None if inputs is None else json.dumps(inputs).encode()
    return await bench.engine.explaining.explain(Explain(kind=kind, key=key, inputs=told, version=version))


async def why(bench: Bench, **config: object) -> Explanation:
    """The same for the model of a configuration."""
    inputs = {"dataset_hash": "d", "backend_type": "openai", "config": config}
    return await explained(bench, key_of_model(config), inputs=inputs)


async def misses(bench: Bench, limit: int = 100) -> list[MissItem]:
    """The latest misses."""
    pages = [page async for page in bench.engine.explaining.misses(ListMisses(limit=limit))]
    assert [page.is_last for page in pages] == [False] * (len(pages) - 1) + [True]
    return [item for page in pages for item in page.items]


async def claim(bench: Bench, key: str) -> int:
    """Have the lease of a model; its token."""
    request = Claim(claim_id=b"claim of a model", context=b"c", kind=Kind.MODEL, keys=[key])
    claimed = await bench.engine.claims.claim(request, PID, bench, bench.tally, lambda _: None)
    return claimed.states[0].token


def introduce(bench: Bench) -> bytes:
    """Say who Ann is."""
    bench.engine.notice(Introduce(origin=ANN), bench.tally)
    return origin_id(ANN)


async def test_hit_is_explained_and_not_counted(bench: Bench) -> None:
    """Asking why is no lookup."""
    await bench.write(put_model(epochs=3))
    found = await why(bench, epochs=3)
    assert (found.reason, found.value, found.nearest) == (Reason.HIT, b"model", [])
    assert (await explained(bench, "other")).reason is Reason.NEVER_COMPUTED
    assert bench.engine.usage.take() is None


async def test_what_nobody_computed_has_no_history(bench: Bench) -> None:
    """Nothing is near, nothing is remembered."""
    found = await why(bench, epochs=3)
    key = key_of_model({"epochs": 3})
    assert found == Explanation(kind=Kind.MODEL, key=key, reason=Reason.NEVER_COMPUTED, detail="no entry has this key")


async def test_nearest_entries_are_shown_field_by_field(bench: Bench) -> None:
    """The fewest differences first, so many and no more; one that misses itself says why."""
    await bench.write(put_model("d", b"near", epochs=3, lr=0.1))
    for number in range(NEAREST_SHOWN):
        await bench.write(put_model("d", b"far%d" % number, epochs=number + 10, lr=number + 10))
    await bench.writer.change(SetVoid(((Kind.MODEL, key_of_model({"epochs": 3, "lr": 0.1})),), MISSING))
    found = await why(bench, epochs=5, lr=0.1)
    assert (found.reason, found.detail) == (Reason.DIFFERENT_INPUTS, "the nearest entry differs in 1 field")
    assert len(found.nearest) == NEAREST_SHOWN
    nearest = found.nearest[0]
    assert (nearest.value, nearest.why_not, nearest.created_at) == (b"near", MISSING, STAMP)
    (one,) = nearest.differences
    assert (one.path, one.cached, one.asked) == ("config.epochs", b"3", b"5")
    assert {difference.path for difference in found.nearest[1].differences} == {"config.epochs", "config.lr"}


async def test_entry_itself_is_not_among_the_nearest(bench: Bench) -> None:
    """It has the very inputs that were asked for, and misses."""
    await bench.write(put_model("d", b"itself", epochs=3))
    await bench.write(put_model("d", b"other", epochs=4))
    await bench.writer.change(SetVoid(((Kind.MODEL, key_of_model({"epochs": 3})),), MISSING))
    found = await why(bench, epochs=3)
    assert (found.reason, [near.value for near in found.nearest]) == (Reason.FILE_GONE, [b"other"])


async def test_key_of_an_evaluation_tells_what_it_is_made_from(bench: Bench) -> None:
    """Without inputs the nearest is found all the same; its arguments are known by their hash only."""
    await bench.write(put_evals({"t": b"/log"}, model_id="m"))
    found = await explained(bench, eval_key("m", "other", "inspect", None), Kind.EVAL)
    assert found.reason is Reason.DIFFERENT_INPUTS
    assert [(one.path, one.cached, one.asked) for one in found.nearest[0].differences] == [
        ("task_id", b'"t"', b'"other"')
    ]
    hashed = await explained(bench, eval_key("m", "t", "inspect", json_hash("{}")), Kind.EVAL)
    assert [one.path for one in hashed.nearest[0].differences] == ["kwargs"]


async def test_key_of_nobody_and_inputs_of_another_kind_are_refused(bench: Bench) -> None:
    """Nothing is guessed."""
    with pytest.raises(RequestError, match="not the key of an evaluation"):
        await explained(bench, "no key", Kind.EVAL)
    with pytest.raises(RequestError, match="not those of a model: task_id is none of"):
        await explained(bench, "k", inputs={"task_id": "t"})
    with pytest.raises(RequestError, match="not those of a model: it is no mapping"):
        await bench.engine.explaining.explain(Explain(kind=Kind.MODEL, key="k", inputs=b"[]"))


async def test_inputs_that_were_told_with_a_miss_are_used(bench: Bench) -> None:
    """Whoever asks later by the key alone gets the nearest, too; what was not written down yet counts."""
    await bench.write(put_model(epochs=3))
    key = key_of_model({"epochs": 5})
    await bench.look_up(key, Kind.MODEL)
    assert (await explained(bench, key)).reason is Reason.NEVER_COMPUTED
    told = json.dumps({"dataset_hash": "d", "backend_type": "openai", "config": {"epochs": 5}}).encode()
    bench.engine.notice(Missed(kind=Kind.MODEL, inputs={key: told}), bench.tally)
    found = await explained(bench, key)
    assert found.reason is Reason.DIFFERENT_INPUTS
    assert [one.path for one in found.nearest[0].differences] == ["config.epochs"]


async def test_cleared_entry_names_who_did_it(bench: Bench) -> None:
    """And when; a value that is stored again ends it."""
    await bench.write(put_model(epochs=3))
    await bench.write(put_model("d", b"near", epochs=4))
    key = key_of_model({"epochs": 3})
    await bench.write(msgspec.structs.replace(clear(Kind.MODEL, keys=[key]), origin=introduce(bench)))
    found = await why(bench, epochs=3)
    assert (found.reason, found.since, found.by) == (Reason.CLEARED, STAMP, ANN)
    assert found.detail == f"cleared at {STAMP} by {ANN_TEXT}"
    assert [near.value for near in found.nearest] == [b"near"]
    await bench.write(put_model(epochs=3))
    assert (await why(bench, epochs=3)).reason is Reason.HIT


async def test_large_clear_says_that_it_may_have_been_one_of_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keys are not remembered one by one: no more is claimed than is known."""
    monkeypatch.setattr(clearing_module, "REMOVED_MAX", 1)
    for number in range(3):
        await bench.write(put_model(number=number))
    await bench.write(clear_all())
    found = await why(bench, number=1)
    assert (found.reason, found.since) == (Reason.NEVER_COMPUTED, None)
    assert (
        found.detail == f"no entry has this key; all models were cleared at {STAMP}, and it may have been one of them"
    )
    assert (await explained(bench, "d", Kind.DATASET)).detail == "no entry has this key"


async def test_evicted_entry_says_for_what(bench: Bench) -> None:
    """The limit that it had to go for."""
    key = await publish_model(bench, "m1")
    await bench.engine.cleaner.remove(Criteria(kinds=(Kind.MODEL,)), "to keep within 50 GB")
    found = await explained(bench, key)
    assert (found.reason, found.since, found.by) == (Reason.EVICTED, STAMP, None)
    assert found.detail == f"evicted at {STAMP} (to keep within 50 GB)"


async def test_cleaned_up_entry_was_cleared(bench: Bench) -> None:
    """Somebody asked for it; after an undo it hits."""
    key = await publish_model(bench, "m1")
    made = await plan(bench, Kind.MODEL)
    await apply(bench, made.plan_id)
    found = await explained(bench, key)
    assert found.reason is Reason.CLEARED
    assert found.detail.startswith(f"cleared at {STAMP} (clean-up: ")


@pytest.mark.parametrize(
    ("void", "detail", "reason", "text"),
    [
        (EXPIRED, None, Reason.EXPIRED, "it has expired since {}"),
        (MISSING, "runs/m1", Reason.FILE_GONE, "its file is gone since {}: runs/m1"),
        (DAMAGED, None, Reason.DAMAGED, "it is damaged since {}"),
        (INVALIDATED, "wrong data", Reason.INVALIDATED, "it is invalidated since {}: wrong data"),
    ],
)
async def test_entry_that_is_there_and_misses_says_why(
    bench: Bench, void: str, detail: str | None, reason: Reason, text: str
) -> None:
    """With its value; who stored it has done nothing of it."""
    await bench.write(msgspec.structs.replace(put_model(epochs=3), origin=introduce(bench)))
    await bench.writer.change(SetVoid(((Kind.MODEL, key_of_model({"epochs": 3})),), void, detail))
    found = await why(bench, epochs=3)
    assert (found.reason, found.detail, found.since) == (reason, text.format(STAMP), STAMP)
    assert (found.value, found.by) == (b"model", None)


async def test_file_that_is_gone_is_noticed_by_the_question(bench: Bench) -> None:
    """It need not have been looked up before."""
    key = await publish_model(bench, "m1")
    (bench.directory / "runs/m1/weights").unlink()
    (bench.directory / "runs/m1").rmdir()
    assert (await explained(bench, key)).reason is Reason.FILE_GONE


async def test_time_that_is_over_is_noticed_by_the_question(bench: Bench) -> None:
    """As with its files."""
    key = await publish_model(bench, "m1", ttl_s=60)
    assert (await explained(bench, key)).reason is Reason.HIT
    await bench.clock.advance(61)
    assert (await explained(bench, key)).reason is Reason.EXPIRED


async def test_invalidated_entry_tells_the_reason_and_who_gave_it(bench: Bench) -> None:
    """Until it counts again."""
    await bench.write(put_model(epochs=3))
    request = Invalidate(kinds=(Kind.MODEL,), filters=Filters(), reason="the split leaked", origin=introduce(bench))
    await bench.engine.invalidating.invalidate(request)
    found = await why(bench, epochs=3)
    assert (found.reason, found.detail) == (
        Reason.INVALIDATED,
        f"it is invalidated since {STAMP}: the split leaked, by {ANN_TEXT}",
    )
    await bench.engine.invalidating.invalidate(Invalidate(kinds=(Kind.MODEL,), filters=Filters(), restore=True))
    assert (await why(bench, epochs=3)).reason is Reason.HIT


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [(Outcome.FAILED, Reason.FAILED), (Outcome.REFUSED, Reason.REFUSED), (Outcome.PARTIAL, Reason.PARTIAL)],
)
async def test_result_that_is_no_success_is_named(bench: Bench, outcome: Outcome, reason: Reason) -> None:
    """It is kept with its value and who stored it, and never a hit."""
    put = msgspec.structs.replace(put_model(epochs=3), outcome=outcome, origin=introduce(bench))
    await bench.engine.publishing.publish(put)
    found = await why(bench, epochs=3)
    assert (found.reason, found.value, found.since, found.by) == (reason, b"model", STAMP, ANN)
    assert await bench.look_up(key_of_model({"epochs": 3}), Kind.MODEL) is None


@pytest.mark.parametrize("retry_after_s", [None, 60.0])
async def test_failed_computation_is_remembered(open_bench: OpenBench, retry_after_s: float | None) -> None:
    """With its reason, also after the time for which it kept others from trying, and after a restart."""
    key = key_of_model({"epochs": 3})
    async with open_bench() as bench:
        request = RecordFailure(
            kind=Kind.MODEL, key=key, token=await claim(bench, key), reason="out of memory", retry_after_s=retry_after_s
        )
        await bench.engine.claims.fail(request)
        first = await why(bench, epochs=3)
        assert first.reason is Reason.FAILED
        assert "out of memory" in first.detail
        await bench.clock.advance(61)
        later = await why(bench, epochs=3)
    async with open_bench() as bench:
        assert await why(bench, epochs=3) == later
    assert (later.reason, later.since) == (Reason.FAILED, STAMP)
    assert later.detail == f"failed at {STAMP} (out of memory)"


async def test_key_that_is_computed_names_who_computes(bench: Bench) -> None:
    """Even where it was cleared before; its value ends it."""
    await bench.write(put_model(epochs=3))
    key = key_of_model({"epochs": 3})
    await bench.write(clear(Kind.MODEL, keys=[key]))
    await claim(bench, key)
    found = await why(bench, epochs=3)
    assert found.reason is Reason.COMPUTING
    assert found.holder is not None
    assert (found.holder.pid, found.holder.key) == (PID, key)
    assert found.since == found.holder.since
    assert found.detail == f"pid {PID} on here computes it since {found.since}: job {PID}"
    await bench.write(put_model(epochs=3))
    assert (await why(bench, epochs=3)).reason is Reason.HIT


async def test_value_of_another_version_is_told(bench: Bench) -> None:
    """It is there for those who ask under its own version, or under none."""
    await bench.write(msgspec.structs.replace(put_model(epochs=3), version="1.0"))
    key = key_of_model({"epochs": 3})
    found = await explained(bench, key, version="2.0")
    assert (found.reason, found.value) == (Reason.OTHER_VERSION, b"model")
    assert found.detail == "computed under version 1.0, asked for under 2.0"
    for version in (None, "1.0", "2.0.dev1"):
        assert (await explained(bench, key, version=version)).reason is Reason.HIT


async def test_latest_misses_come_first_with_who_asked(bench: Bench) -> None:
    """Each with its reason, as it was then."""
    await bench.write(put_dataset("cleared"))
    await bench.write(clear(Kind.DATASET, keys=["cleared"]))
    tally = bench.engine.usage.tally(Audience("slurm:1", '{"owner":"ann"}'))
    for key in ("never", "cleared"):
        bench.engine.lookups.nowait(Lookup(kind=Kind.DATASET, keys=[key]), tally)
    latest, first = await misses(bench)
    assert (latest.key, latest.reason, latest.kind) == ("cleared", "cleared", Kind.DATASET)
    assert (first.key, first.reason) == ("never", "never_computed")
    assert {(one.job, one.labels["owner"], one.missed_at) for one in (latest, first)} == {("slurm:1", "ann", STAMP)}
    await bench.write(put_dataset("never"))
    assert [one.reason for one in await misses(bench)] == ["cleared", "never_computed"]


async def test_misses_of_a_version_and_inputs_are_listed(bench: Bench) -> None:
    """What was told of them beside."""
    await bench.write(msgspec.structs.replace(put_dataset("d"), version="1.0"))
    request = Lookup(kind=Kind.DATASET, keys=["d"], version="2.0", is_strict=True)
    tally = bench.tally
    await bench.engine.lookups.find(request, tally)
    bench.engine.notice(Missed(kind=Kind.DATASET, inputs={"d": b'{"dataset_hash":"d"}'}), tally)
    (miss,) = await misses(bench)
    assert (miss.reason, miss.inputs) == ("other_version", b'{"dataset_hash":"d"}')


async def test_misses_come_in_pages_and_no_more_than_asked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """None at all is one empty page."""
    monkeypatch.setattr(explaining_module, "PAGE_ITEMS", 2)
    assert await misses(bench) == []
    for number in range(5):
        bench.peek(f"d{number}")
    assert [one.key for one in await misses(bench)] == ["d4", "d3", "d2", "d1", "d0"]
    assert [one.key for one in await misses(bench, 3)] == ["d4", "d3", "d2"]


async def test_misses_outlive_the_daemon(open_bench: OpenBench) -> None:
    """Those that were written down."""
    async with open_bench() as bench:
        bench.peek("d")
        await bench.engine.reporting.flush()
    async with open_bench() as bench:
        with anyio.fail_after(5):
            assert [one.key for one in await misses(bench)] == ["d"]
