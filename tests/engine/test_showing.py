"""Entries are found by what somebody calls them, and shown with those that they were made from and for."""

from __future__ import annotations

import msgspec
import pytest

from motoolsd.core.errors import AmbiguousName, EntryNotFound, RequestError
from motoolsd.engine import showing as showing_module
from motoolsd.wire.explaining import (
    CANDIDATES_MAX,
    Compare,
    Comparison,
    Details,
    Difference,
    EntryName,
    GetLineage,
    Introduce,
    Lineage,
    LineageNode,
    Show,
)
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.leases import Claim
from motoolsd.wire.origins import Origin, origin_id
from tests.engine.bench import Bench
from tests.engine.cleaning import key_of, publish_model
from tests.samples import clear, execute, put_dataset, put_evals, put_model
from tests.signing import key_of_model

ANN = Origin(user="ann", host="here", pid=42)


async def shown(bench: Bench, name: str, kind: Kind | None = None) -> Details:
    """Everything about an entry."""
    return await bench.engine.showing.show(Show(name=name, kind=kind))


async def lineage(bench: Bench, name: str, *, up: bool = True, down: bool = True, kind: Kind | None = None) -> Lineage:
    """What it was made from and for."""
    return await bench.engine.showing.lineage(GetLineage(name=name, kind=kind, up=up, down=down))


async def family(bench: Bench) -> None:
    """A dataset, two models of it, evaluations of each; and a model of another dataset with its own."""
    await bench.write(put_dataset("d1", b"file-1"))
    for dataset, name in (("d1", "ft-1"), ("d1", "ft-2"), ("d2", "ft-3")):
        await bench.write(put_model(dataset, name.encode(), name=name))
        await bench.write(put_evals({f"task of {name}": b"/logs/" + name.encode()}, model_id=name))


def key_of_eval(name: str) -> str:
    """The key of the evaluation of a model of the family."""
    return eval_key(name, f"task of {name}", "inspect", None)


def edges(found: Lineage) -> dict[str, list[str]]:
    """The values of all nodes, each with those it was made from; the key of what is no entry."""
    names = [node.key if node.value is None else node.value.decode() for node in found.nodes]
    assert len(set(names)) == len(names)
    return {name: [names[place] for place in node.made_from] for name, node in zip(names, found.nodes, strict=True)}


async def test_entry_is_shown_with_all_that_is_known(bench: Bench) -> None:
    """Its row, its files, who stored it, who computes it anew, and its relatives."""
    await bench.write(put_dataset("d", b"file-1"))
    key = await publish_model(bench, "m1")
    await bench.write(put_evals({"t": b"/log"}, model_id="m1"))
    bench.engine.notice(Introduce(origin=ANN), bench.tally)
    put = put_model("d", b"m1", name="m1")
    await bench.write(msgspec.structs.replace(put, origin=origin_id(ANN), seconds=1.5, labels={"experiment": "e1"}))
    await bench.writer.wait_settled()
    found = await shown(bench, key)
    assert (found.kind, found.key, found.origin, found.holder) == (Kind.MODEL, key, ANN, None)
    assert found.model is not None
    assert (found.model.value, found.model.files) == (b"m1", (b"runs/m1",))
    assert (found.model.seconds, found.model.labels) == (1.5, {"experiment": "e1"})
    assert (found.dataset, found.evaluation, found.candidates) == (None, None, [])
    assert found.made_from == [EntryName(kind=Kind.DATASET, key="d", value=b"file-1")]
    assert found.made == [EntryName(kind=Kind.EVAL, key=eval_key("m1", "t", "inspect", None), value=b"/log")]
    assert found.num_made == 1


async def test_whoever_computes_it_anew_is_shown(bench: Bench) -> None:
    """A value that misses for its version or its file may have a holder beside it."""
    key = await publish_model(bench, "m1")
    (bench.directory / "runs/m1/weights").unlink()
    (bench.directory / "runs/m1").rmdir()
    request = Claim(claim_id=b"claim of a model", context=b"c", kind=Kind.MODEL, keys=[key])
    await bench.engine.claims.claim(request, 4711, bench, bench.tally, lambda _: None)
    found = await shown(bench, key)
    assert found.holder is not None
    assert found.holder.pid == 4711
    assert found.model is not None
    assert found.model.void_reason == "file gone"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ft-1", Kind.MODEL),
        (key_of_model({"name": "ft-1"}, "d1"), Kind.MODEL),
        (key_of_model({"name": "ft-1"}, "d1")[:12], Kind.MODEL),
        ("d1", Kind.DATASET),
        ("file-1", Kind.DATASET),
        ("fil", Kind.DATASET),
        ("1", Kind.EVAL),
        ("/logs/ft-1", Kind.EVAL),
        (key_of_eval("ft-1"), Kind.EVAL),
    ],
)
async def test_name_is_a_key_a_value_a_number_or_the_beginning_of_one(bench: Bench, name: str, kind: Kind) -> None:
    """Whatever somebody has at hand."""
    await family(bench)
    assert (await shown(bench, name)).kind is kind
    assert (await shown(bench, name, kind)).kind is kind


async def test_beginning_of_several_names_them(bench: Bench) -> None:
    """The latest first; nothing is chosen for anybody. A kind leaves fewer."""
    await family(bench)
    found = await shown(bench, "ft-")
    assert (found.kind, found.model) == (None, None)
    assert [one.value for one in found.candidates] == [b"ft-3", b"ft-2", b"ft-1"]
    await bench.write(put_dataset("d3", b"ft-of-a-dataset"))
    assert len((await shown(bench, "ft-")).candidates) == 4
    assert (await shown(bench, "ft-", Kind.DATASET)).key == "d3"


async def test_exact_name_is_not_the_beginning_of_others(bench: Bench) -> None:
    """Whoever gives it whole means it."""
    for name in ("ft-1", "ft-10", "ft-11"):
        await bench.write(put_model("d", name.encode(), name=name))
    await bench.write(put_dataset("d", b"ft-1 of a dataset"))
    assert (await shown(bench, "ft-1")).key == await key_of(bench, "ft-1")


async def test_candidates_are_bounded(bench: Bench) -> None:
    """However many have the beginning."""
    for number in range(CANDIDATES_MAX + 3):
        await bench.write(put_dataset(f"d{number}", b"f%d" % number))
    found = await shown(bench, "d")
    assert [one.key for one in found.candidates[:2]] == [f"d{CANDIDATES_MAX + 2}", f"d{CANDIDATES_MAX + 1}"]
    assert len(found.candidates) == CANDIDATES_MAX


@pytest.mark.parametrize("name", ["", "none", "ft%", "ft_", "*", "[", "'", '["m"', "\N{SNOWMAN}"])
async def test_name_of_nothing_is_said(bench: Bench, name: str) -> None:
    """No character has a meaning of its own; the empty name begins every one."""
    await family(bench)
    if not name:
        assert len((await shown(bench, name)).candidates) > 1
        return
    for ask in (shown, lineage):
        with pytest.raises(EntryNotFound, match="no entry has the key or value"):
            await ask(bench, name)


async def test_products_are_counted_beyond_those_shown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of them, and how many there are."""
    monkeypatch.setattr(showing_module, "CANDIDATES_MAX", 2)
    for number in range(5):
        await bench.write(put_model("d", b"m%d" % number, number=number))
    await bench.write(put_dataset("d"))
    found = await shown(bench, "d", Kind.DATASET)
    assert ([one.value for one in found.made], found.num_made) == ([b"m0", b"m1"], 5)


async def test_lineage_goes_up_and_down(bench: Bench) -> None:
    """From a dataset all that was made from it; from an evaluation all that it was made from."""
    await family(bench)
    whole = {
        "file-1": [],
        "ft-1": ["file-1"],
        "ft-2": ["file-1"],
        "/logs/ft-1": ["ft-1"],
        "/logs/ft-2": ["ft-2"],
    }
    assert edges(await lineage(bench, "d1")) == edges(await lineage(bench, "d1", up=False)) == whole
    assert edges(await lineage(bench, "d1", down=False)) == {"file-1": []}
    assert edges(await lineage(bench, "/logs/ft-2")) == {"/logs/ft-2": ["ft-2"], "ft-2": ["file-1"], "file-1": []}
    assert edges(await lineage(bench, "/logs/ft-2", up=False)) == {"/logs/ft-2": []}
    middle = {"ft-1": ["file-1"], "file-1": [], "/logs/ft-1": ["ft-1"]}
    assert edges(await lineage(bench, "ft-1")) == middle
    assert edges(await lineage(bench, "ft-1", up=False)) == {"ft-1": [], "/logs/ft-1": ["ft-1"]}
    assert edges(await lineage(bench, "ft-1", down=False)) == {"ft-1": ["file-1"], "file-1": []}


async def test_root_comes_first_and_evaluations_tell_their_task(bench: Bench) -> None:
    """Whatever else there is."""
    await family(bench)
    found = await lineage(bench, "ft-1")
    assert (found.root, found.is_cut) == (0, False)
    assert found.nodes[0].key == key_of_model({"name": "ft-1"}, "d1")
    (evaluation,) = (node for node in found.nodes if node.kind is Kind.EVAL)
    assert (evaluation.key, evaluation.detail) == (key_of_eval("ft-1"), "task of ft-1")


async def test_source_that_is_no_entry_is_named(bench: Bench) -> None:
    """It was cleared, or never stored: the key is known all the same."""
    await family(bench)
    found = await lineage(bench, "ft-3")
    assert LineageNode(kind=Kind.DATASET, key="d2") in found.nodes
    assert edges(found) == {"ft-3": ["d2"], "d2": [], "/logs/ft-3": ["ft-3"]}
    await bench.write(clear(Kind.MODEL, model_ids=["ft-1"]))
    assert edges(await lineage(bench, "/logs/ft-1")) == {"/logs/ft-1": []}


async def test_models_with_one_value_are_all_sources(bench: Bench) -> None:
    """The same model came of two datasets: an evaluation of it was made from both; its name means the latest."""
    for dataset in ("d1", "d2"):
        await bench.write(put_model(dataset, b"ft-1", epochs=1))
    await bench.write(put_evals({"t": b"/log"}, model_id="ft-1"))
    found = await lineage(bench, "/log")
    keys = {node.key: [found.nodes[place].key for place in node.made_from] for node in found.nodes}
    first, second = (key_of_model({"epochs": 1}, dataset) for dataset in ("d1", "d2"))
    assert keys == {
        eval_key("ft-1", "t", "inspect", None): [first, second],
        first: ["d1"],
        second: ["d2"],
        "d1": [],
        "d2": [],
    }
    assert (await lineage(bench, "ft-1")).nodes[0].key == second


async def test_name_of_several_has_no_lineage(bench: Bench) -> None:
    """They are named."""
    await family(bench)
    with pytest.raises(
        AmbiguousName, match=r"ft- means several entries: .*; give more of the name, or its kind"
    ) as raised:
        await lineage(bench, "ft-")
    assert " ..." not in raised.value.message, "all are named"


async def test_exact_name_of_one_kind_comes_before_beginnings_of_others(bench: Bench) -> None:
    """The number of an evaluation, though a dataset's hash begins with it."""
    await bench.write(put_dataset("1a"))
    await bench.write(put_evals({"t": b"/log"}))
    details = await bench.engine.showing.show(Show(name="1"))
    assert (details.kind, details.candidates) == (Kind.EVAL, [])
    details = await bench.engine.showing.show(Show(name="1a"))
    assert details.kind is Kind.DATASET


async def test_long_lineage_is_cut(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says so; exactly as many as fit are whole."""
    for number in range(4):
        await bench.write(put_model("d", b"m%d" % number, number=number))
    await bench.write(put_dataset("d"))
    for most, is_cut in ((5, False), (4, True)):
        monkeypatch.setattr(showing_module, "LINEAGE_MAX", most)
        found = await lineage(bench, "d", kind=Kind.DATASET)
        assert (len(found.nodes), found.is_cut) == (most, is_cut)


async def test_row_of_the_older_package_has_no_source(bench: Bench, database: str) -> None:
    """Only its key is known; its evaluations are found."""
    execute(database, "INSERT INTO trained_models (cache_key, model_id) VALUES ('k', 'ft-old')")
    await bench.write(put_evals({"t": b"/log"}, model_id="ft-old"))
    assert edges(await lineage(bench, "k")) == {"ft-old": [], "/log": ["ft-old"]}
    assert (await shown(bench, "k")).made_from == []


async def test_two_entries_are_compared_field_by_field(bench: Bench) -> None:
    """`cached` is the first one's."""
    await bench.write(put_model("d", b"ft-1", epochs=1, lr=0.1))
    await bench.write(put_model("d", b"ft-2", epochs=2, seed=7))
    found = await bench.engine.showing.compare(Compare(name="ft-1", other="ft-2"))
    assert (found.first.value, found.second.value) == (b"ft-1", b"ft-2")
    assert found.differences == [
        Difference(path="config.epochs", cached=b"1", asked=b"2"),
        Difference(path="config.lr", cached=b"0.1"),
        Difference(path="config.seed", asked=b"7"),
    ]


async def test_entry_does_not_differ_from_itself(bench: Bench) -> None:
    """By whatever names."""
    await family(bench)
    found = await bench.engine.showing.compare(Compare(name="d1", other="file-1"))
    name = EntryName(kind=Kind.DATASET, key="d1", value=b"file-1")
    assert found == Comparison(first=name, second=name)


@pytest.mark.parametrize(
    ("name", "other", "kind", "message"),
    [
        ("ft-1", "file-1", None, "ft-1 is of kind model, file-1 of kind dataset"),
        ("ft-1", "ft-", None, "ft- means several entries"),
        ("ft-", "ft-1", None, "ft- means several entries"),
        ("ft-1", "none", None, "no entry has the key or value none"),
        ("ft-1", "file-1", Kind.MODEL, "no entry has the key or value file-1"),
    ],
)
async def test_what_cannot_be_compared_is_said(
    bench: Bench, name: str, other: str, kind: Kind | None, message: str
) -> None:
    """Two kinds have nothing in common; several are not chosen from."""
    await family(bench)
    with pytest.raises(RequestError, match=message):
        await bench.engine.showing.compare(Compare(name=name, other=other, kind=kind))
