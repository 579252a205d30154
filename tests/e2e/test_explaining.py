"""Who stored what, why something missed, what lookups came to: over a real daemon, as jobs and people see it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from motools.cache import AmbiguousName, CachePolicy, CacheUtils, EntryNotFound, SyncCache
from motools.cache.recording import OnMismatch
from tests.e2e.daemons import end_daemon

MOTOOLS = [sys.executable, "-m", "motools.cli"]
CONFIG = {"hyperparameters": {"epochs": 3, "lr": 0.1}, "api_key": "sk-proj-abcdefghijklmnopqrstuvwx"}
SECRET = "sk-proj-abcdefghijklmnopqrstuvwx"
HOSTILE = "\x1b[2Jfine\nnot \u202ereversed\t\x07"

pytestmark = pytest.mark.slow


@pytest.fixture
def utils(shared_dir: Path) -> CacheUtils:
    """A cache with a dataset, two models trained from it and an evaluation, of experiment e1."""
    with SyncCache(shared_dir, labels={"experiment": "e1"}, version="1.0") as cache:
        cache.set_file_id("hash-a", "file-a", metadata={"cost": 2.5})
        with cache.claim_model("hash-a", CONFIG) as claim:
            claim.fulfil("ft-one", metadata={"cost": 40, "loss": 0.1}, seconds=3_600.0)
        cache.set_model_id("hash-a", {"hyperparameters": {"epochs": 5, "lr": 0.1}}, "ft-two")
        cache.set_eval_log_paths("ft-one", {"task": "/logs/one.eval"}, "inspect", {"limit": 10})
    return CacheUtils(shared_dir)


def motools(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Type a command of `motools cache`."""
    return subprocess.run(
        [*MOTOOLS, "cache", *words, "-d", str(directory)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        errors="surrogateescape",
    )


def shown_json(directory: Path, *words: str) -> dict[str, Any]:
    """What a command prints for programs."""
    done = motools(directory, *words, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_entry_knows_who_made_it_and_from_what(utils: CacheUtils, shared_dir: Path) -> None:
    """Without asking for it; credentials are nowhere on the disk."""
    found = utils.show("ft-one")
    assert found.origin is not None
    assert (found.origin.pid, found.origin.uid) == (os.getpid(), os.getuid())
    entry = found.entry
    assert (entry.version, entry.labels, entry.metadata) == ("1.0", {"experiment": "e1"}, {"cost": 40, "loss": 0.1})
    assert entry.seconds == 3_600.0
    assert [one.value for one in found.made_from] == ["file-a"]
    assert [one.value for one in found.made] == ["/logs/one.eval"]
    end_daemon(shared_dir)
    assert not [path for path in shared_dir.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_claim_measures_how_long_it_took(shared_dir: Path) -> None:
    """From the grant of the lease to the value, and for a group each task its share."""
    with SyncCache(shared_dir) as cache:
        with cache.claim_dataset("h") as claim:
            threading.Event().wait(0.05)
            claim.fulfil("f")
        cache.get_or_evaluate("m", ["a", "b"], lambda tasks: {task: f"/{task}.eval" for task in tasks}, "inspect")
        assert (cache.list_datasets()[0].seconds or 0) >= 0.05
        assert [entry.seconds is not None for entry in cache.list_evals()] == [True, True]


def test_why_names_the_nearest_entry_before_the_hours_are_spent(utils: CacheUtils) -> None:
    """Field by field; asking is no lookup."""
    asked = {"hyperparameters": {"epochs": 5, "lr": 0.2}}
    found = utils.explain_model("hash-a", asked)
    assert (found.result, found.reason) == ("miss", "different_inputs")
    near = found.nearest[0]
    assert near.value == "ft-two"
    assert [(one.path, one.cached, one.asked) for one in near.differences] == [("config.hyperparameters.lr", 0.1, 0.2)]
    assert utils.explain_model("hash-a", CONFIG).result == "hit"
    assert utils.list_misses() == [miss for miss in utils.list_misses() if miss.key != found.key]


def test_latest_misses_are_told_with_their_inputs(utils: CacheUtils, shared_dir: Path) -> None:
    """Over a restart of the daemon; what the jobs asked for, without its credentials."""
    with SyncCache(shared_dir, labels={"experiment": "e2"}) as cache:
        assert cache.get_model_id("hash-a", {**CONFIG, "seed": 7}) is None
        end_daemon(shared_dir)
    (miss,) = utils.list_misses()
    assert (miss.kind, miss.reason, miss.labels) == ("model", "never_computed", {"experiment": "e2"})
    assert miss.inputs is not None
    assert miss.inputs["config"]["seed"] == 7
    assert SECRET not in json.dumps(miss.inputs)
    found = utils.explain(miss.key)
    assert [one.path for one in found.nearest[0].differences] == ["config.seed"]


def test_what_became_of_an_entry_is_remembered(utils: CacheUtils, shared_dir: Path) -> None:
    """Cleared by whom, invalidated why, expired, failed, computed now: each in a word of the vocabulary."""
    assert utils.invalidate(reason="wrong prompt", where="config.hyperparameters.epochs=5") == {
        "datasets": 0,
        "models": 1,
        "evals": 0,
    }
    found = utils.explain_model("hash-a", {"hyperparameters": {"epochs": 5, "lr": 0.1}})
    assert (found.reason, "wrong prompt" in found.detail, f"pid {os.getpid()}" in found.detail) == (
        "invalidated",
        True,
        True,
    )
    assert utils.restore(labels={"experiment": "e1"}) == {"datasets": 0, "models": 1, "evals": 0}
    assert utils.clear_datasets(["hash-a"]) == 1
    found = utils.explain_dataset("hash-a")
    assert found.by is not None
    assert (found.reason, found.by.pid) == ("cleared", os.getpid())
    with SyncCache(shared_dir) as cache:
        cache.set_file_id("hash-b", "f", outcome="failed", metadata={"why": "quota"})
        assert cache.get_file_id("hash-b") is None
        assert cache.explain_dataset("hash-b").reason == "failed"
        cache.set_file_id("hash-c", "f")
        cache.set_file_id("hash-c", "bad", outcome="partial")
        assert cache.get_file_id("hash-c") == "f", "what is no success replaces none"
        with cache.claim_dataset("hash-d"):
            assert utils.explain_dataset("hash-d").reason == "computing"


def test_who_waits_computes_after_a_result_that_is_no_success(shared_dir: Path) -> None:
    """The lease ends with it, and goes to the next."""
    began, results = threading.Event(), []

    def wait() -> None:
        with SyncCache(shared_dir) as other:
            began.set()
            with other.claim_dataset("h", timeout_s=30) as claim:
                results.append((claim.is_owner, claim.value))
                claim.fulfil("good")

    with SyncCache(shared_dir) as cache:
        with cache.claim_dataset("h") as claim:
            thread = threading.Thread(target=wait)
            thread.start()
            assert began.wait(30)
            while not any(lease.waiters for lease in cache.list_leases()):
                threading.Event().wait(0.01)
            claim.fulfil("bad", outcome="failed")
        thread.join(30)
        assert results == [(True, None)]
        assert cache.get_file_id("h") == "good"


@pytest.mark.parametrize(("on_mismatch", "value"), [("miss", None), ("warn", "file-a"), ("ignore", "file-a")])
def test_another_version_misses_warns_or_is_ignored(
    utils: CacheUtils, shared_dir: Path, caplog: pytest.LogCaptureFixture, on_mismatch: OnMismatch, value: str | None
) -> None:
    """By the client's policy; remembered answers follow it too."""
    policy = CachePolicy(on_mismatch=on_mismatch)
    with SyncCache(shared_dir, version="2.0", policy=policy) as cache, caplog.at_level(logging.WARNING):
        assert [cache.get_file_id("hash-a") for _ in range(3)] == [value] * 3
        with cache.claim_dataset("hash-a", wait=False) as claim:
            assert claim.value == value
        assert cache.explain_dataset("hash-a").reason == ("other_version" if value is None else "hit")
    said = [record.getMessage() for record in caplog.records if "computed under version 1.0" in record.getMessage()]
    assert len(said) == (2 if on_mismatch == "warn" else 0), "for the lookup that asked, and for the claim"
    with SyncCache(shared_dir, version="1.1.dev3+dirty") as developer:
        assert developer.get_file_id("hash-a") == "file-a", "a development version goes with every other"


def test_statistics_last_over_restarts(utils: CacheUtils, shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By job and label; what the hits took to compute, and what they cost, is saved."""
    monkeypatch.setenv("MOTOOLS_LABELS", "owner=ann")
    monkeypatch.setenv("MOTOOLS_JOB_ID", "job-7")
    with SyncCache(shared_dir, labels={"experiment": "e2"}) as cache:
        for _ in range(3):
            assert cache.get_model_id("hash-a", CONFIG) == "ft-one"
        cache.get_file_id("nobody")
    end_daemon(shared_dir)
    rows = {row.kind: row for row in utils.get_usage(job="job-7", labels={"owner": "ann"}, since="24h")}
    assert (rows["model"].hits, rows["model"].seconds_saved, rows["model"].cost_saved) == (3, 10_800.0, 120.0)
    assert (rows["dataset"].misses, rows["dataset"].reasons) == (1, {"never_computed": 1})
    assert {row.group for row in utils.get_usage(by_label="experiment") if row.hits} == {"e2"}
    assert utils.get_usage(job="job-8") == []


def test_pages_of_a_filtered_listing_give_everything_once(shared_dir: Path) -> None:
    """Sorted by something that many share."""
    with SyncCache(shared_dir) as cache:
        for number in range(25):
            cache.set_model_id("h", {"n": number, "even": number % 2 == 0}, f"m{number:02}", labels={"a": "b"})
        seen: list[str] = []
        cursor = None
        while True:
            page = cache.list_entries("model", where="config.even=true", sort="hits:desc", limit=4, cursor=cursor)
            seen += [entry.model_id for entry in page.items if hasattr(entry, "model_id")]
            cursor = page.cursor
            if cursor is None:
                break
    assert sorted(seen) == [f"m{number:02}" for number in range(0, 25, 2)]


def test_downstream_takes_what_was_made_with_its_files(utils: CacheUtils, shared_dir: Path) -> None:
    """By a plan that shows all of it, and an undo that brings all of it back."""
    plan = utils.clear_datasets(labels={"experiment": "e1"}, downstream=True, delete_files=True, dry_run=True)
    assert sorted(item.kind for item in plan.items) == ["dataset", "eval", "model", "model"]
    assert {item.reason for item in plan.items} == {"asked for", "made from what goes"}
    utils.apply_plan(plan.plan_id)
    assert utils.get_stats().num_models == 0
    utils.undo()
    stats = utils.get_stats()
    assert (stats.num_datasets, stats.num_models, stats.num_evals) == (1, 2, 1)
    assert utils.prune(labels={"experiment": "other"}).models == 0


def test_names_that_mean_several_or_nothing(utils: CacheUtils, shared_dir: Path) -> None:
    """Candidates are named, on stderr for people; both end with 3."""
    with pytest.raises(AmbiguousName) as error:
        utils.show("ft-")
    assert {one.value for one in error.value.candidates} == {"ft-one", "ft-two"}
    with pytest.raises(EntryNotFound):
        utils.show("nothing")
    done = motools(shared_dir, "show", "ft-")
    assert (done.returncode, done.stdout) == (3, "")
    assert len([line for line in done.stderr.splitlines() if "  model " in line]) == 2
    assert motools(shared_dir, "show", "nothing").returncode == 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["list", "models", "--where", "confg.lr>1"], 2, "Did you mean config?"),
        (["list", "models", "--created-after", "yesterday"], 2, "is no instant"),
        (["list", "datasets", "--older-than", "30d", "--created-after", "1d"], 2, "exclude each other"),
        (["list", "models", "--sort", "sise"], 2, "Did you mean size"),
        (["list", "models", "--limit", "0"], 2, "no whole number from 1"),
        (["list", "models", "--limit", "9" * 30], 2, "no whole number from 1"),
        (["list", "models", "--older-than", "30"], 2, "write it with units"),
        (["list", "models", "--where", "labels.seed>7"], 2, "labels are texts"),
        (["list", "models", "--cursor", "xyz", "--limit", "3"], 2, "cursor"),
        (["list", "models", "--label", "experiment"], 2, "write it as experiment=e1"),
        (["list", "models", "--dataset", "./missing.jsonl"], 3, "no file"),
        (["invalidate", "--reason", "x", "--yes"], 2, "say what is meant"),
        (["invalidate", "models", "--yes"], 2, "say why"),
        (["why"], 2, "say what is asked for"),
        (["why", "--dataset-hash", "h", "--config", "/nowhere.yaml", "--backend", "b"], 3, "no file"),
        (["why", "--last", "many"], 2, "no whole number from 1 to 1000"),
        (["why", "--last", "00000000019"], 2, "no whole number"),
        (["lineage", "ft-"], 3, "several entries"),
        (["diff", "ft-one", "hash-a"], 2, "of kind"),
        (["prune"], 2, "say what is to go"),
    ],
)
def test_bad_input_says_what_can_be_written(
    utils: CacheUtils, shared_dir: Path, words: list[str], code: int, said: str
) -> None:
    """And costs nothing that was there before."""
    done = motools(shared_dir, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert utils.get_stats().num_models == 2


def test_commands_tell_the_same_as_the_api(utils: CacheUtils, shared_dir: Path, tmp_path: Path) -> None:
    """`why`, `diff`, `lineage`, `list`, `stats` for programs: the documented fields."""
    config = tmp_path / "new.json"
    config.write_text(json.dumps({"hyperparameters": {"epochs": 5, "lr": 0.2}}))
    found = shown_json(shared_dir, "why", "--dataset-hash", "hash-a", "--config", str(config), "--backend", "openai")
    assert (found["result"], found["reason"]) == ("miss", "different_inputs")
    assert found["nearest"][0]["differences"] == [{"path": "config.hyperparameters.lr", "cached": 0.1, "asked": 0.2}]
    differences = shown_json(shared_dir, "diff", "ft-one", "ft-two")["differences"]
    assert {"path": "config.hyperparameters.epochs", "first": 3, "second": 5} in differences
    nodes = shown_json(shared_dir, "lineage", "ft-one", "--up")["nodes"]
    assert [node["value"] for node in nodes] == ["ft-one", "file-a"]
    assert shown_json(shared_dir, "list", "models", "--where", "config.hyperparameters.epochs>3")["items"][0][
        "model_id"
    ] == ("ft-two")
    assert shown_json(shared_dir, "why", "--last")["items"][0]["kind"] == "model"
    assert {row["kind"] for row in shown_json(shared_dir, "stats", "--label", "experiment=e1")["lookups"]} == {"model"}
    dot = motools(shared_dir, "lineage", "hash-a", "--format", "dot").stdout
    assert (dot.count("label="), dot.count("->")) == (4, 3)


def test_clear_with_filters_counts_and_asks(utils: CacheUtils, shared_dir: Path) -> None:
    """Without a terminal nothing is asked and nothing goes; with --yes exactly what fits."""
    words = ["clear", "all", "--label", "experiment=e1", "--where", "config.hyperparameters.epochs=5"]
    assert motools(shared_dir, *words).returncode == 2
    done = motools(shared_dir, *words, "--yes")
    assert (done.returncode, "removed 1 model from" in done.stderr) == (0, True), done.stderr
    assert [entry.model_id for entry in utils.list_models()] == ["ft-one"]
    done = motools(shared_dir, "clear", "datasets", "--dataset", "hash-a", "--downstream", "--yes")
    assert "removed 1 dataset, 1 model and 1 eval from" in done.stderr


def test_hostile_text_is_harmless_in_tables_and_whole_in_json(shared_dir: Path) -> None:
    """Escapes, line ends, right-to-left marks, a megabyte, and bytes that are no UTF-8."""
    with SyncCache(shared_dir, labels={HOSTILE.strip(): HOSTILE}) as cache:
        cache.set_model_id(HOSTILE, {HOSTILE: "x" * 1_000_000}, HOSTILE, metadata={HOSTILE: HOSTILE})
        cache.set_eval_log_paths(HOSTILE, {HOSTILE: "/logs/\udcff.eval"}, HOSTILE)
        assert cache.get_model_id(HOSTILE, {HOSTILE: "y"}) is None
    for words in (
        ["list", "models"],
        ["list", "evals"],
        ["show", HOSTILE],
        ["why", "--last"],
        ["lineage", HOSTILE],
        ["lineage", HOSTILE, "--format", "dot"],
        ["stats", "--by", HOSTILE.strip()],
    ):
        done = motools(shared_dir, *words)
        assert done.returncode == 0, (words, done.stderr)
        assert not {"\x1b", "\u202e", "\x07"} & set(done.stdout + done.stderr), words
        assert max(map(len, done.stdout.splitlines())) < 40_000, words
    (item,) = shown_json(shared_dir, "list", "models")["items"]
    assert (item["model_id"], len(item["config"][HOSTILE])) == (HOSTILE, 1_000_000)
    (item,) = shown_json(shared_dir, "list", "evals")["items"]
    assert item["log_file_path"] == "/logs/\udcff.eval"
