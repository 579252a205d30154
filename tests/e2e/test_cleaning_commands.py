"""Freeing room, typed as users type it, against a real daemon and real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from motools.cache import SyncCache
from motools.cache.cleaning import Progress
from tests.e2e.test_cleaning import check_whole, fill, fill_many, tree
from tests.e2e.test_commands import MOTOOLS, TIMEOUT_S, at_terminal, motools

pytestmark = pytest.mark.slow


def answered(directory: Path, *words: str) -> dict[str, Any]:
    """What a command prints with `--json`."""
    done = motools("cache", *words, "--json", "-d", directory)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture
def filled_dir(shared_dir: Path) -> Path:
    """A dataset, a model trained from it, and its evaluations, one with a log elsewhere."""
    fill(shared_dir)
    return shared_dir


def test_room_is_shown_by_category_and_entry(filled_dir: Path) -> None:
    """Figures are those of the files, orphans apart."""
    (filled_dir / "runs/left").write_bytes(b"x" * 10_000)
    report = answered(filled_dir, "size", "--rescan", "--top", "2")
    in_runs = [path for path in (filled_dir / "runs").rglob("*") if path.is_file()]
    assert report["categories"]["runs"]["size_bytes"] == sum(path.stat().st_size for path in in_runs)
    assert report["categories"]["runs"]["allocated_bytes"] == sum(path.stat().st_blocks * 512 for path in in_runs)
    assert report["total_size_bytes"] == sum(size["size_bytes"] for size in report["categories"].values())
    assert report["orphans"] == {"size_bytes": 10_000, "allocated_bytes": 12_288, "count": 1}
    sizes = [entry["allocated_bytes"] for entry in report["top"]]
    assert len(sizes) == 2
    assert sizes == sorted(sizes, reverse=True)
    assert answered(filled_dir, "stats")["scanned_at"] >= report["scanned_at"]


def test_plan_is_shown_then_carried_out_then_undone(filled_dir: Path) -> None:
    """Exactly what was shown goes, and comes back."""
    before = tree(filled_dir)
    plan = answered(filled_dir, "clear", "models", "--delete-files", "--dry-run")
    assert [(item["kind"], item["paths"]) for item in plan["items"]] == [("model", ["runs/j"])]
    assert tree(filled_dir) == before
    result = answered(filled_dir, "prune", "--plan", plan["plan_id"], "--yes")
    assert (result["models"], result["freed_bytes"]) == (1, plan["freed_bytes"])
    assert tree(filled_dir) == {path for path in before if not path.startswith("runs/")}
    assert answered(filled_dir, "list", "models")["items"] == []
    (item,) = answered(filled_dir, "trash", "list")["items"]
    assert (item["id"], item["entries"]) == (result["removal_id"], 1)
    done = motools("cache", "undo", "--yes", "-d", filled_dir)
    assert done.returncode == 0, done.stderr
    assert tree(filled_dir) == before
    assert len(answered(filled_dir, "list", "models")["items"]) == 1
    assert motools("cache", "undo", "--yes", "-d", filled_dir).returncode == 3


def test_plan_that_was_overtaken_is_refused_by_name(filled_dir: Path) -> None:
    """Exit 4, what changed, and nothing is removed."""
    plan = answered(filled_dir, "clear", "models", "--delete-files", "--dry-run")
    with SyncCache(filled_dir) as cache:
        (model,) = cache.list_models()
        cache.set_model_id(str(model.dataset_hash), {"lr": 1}, "another", run_dir=filled_dir / "runs/j")
    before = tree(filled_dir)
    done = motools("cache", "prune", "--plan", plan["plan_id"], "--yes", "-d", filled_dir)
    assert done.returncode == 4
    assert model.cache_key in done.stderr
    assert tree(filled_dir) == before


def test_pins_spare_until_they_are_forced(filled_dir: Path) -> None:
    """The pinned model stays with what it was made from, and both are named; so does a clear without files."""
    assert motools("cache", "pin", "model", "--reason", "paper", "-d", filled_dir).returncode == 0
    done = motools("cache", "clear", "all", "--delete-files", "--yes", "-d", filled_dir)
    assert done.returncode == 0
    assert done.stderr.count("paper") == 2
    assert len(answered(filled_dir, "list", "models")["items"]) == 1
    done = motools("cache", "clear", "models", "--yes", "-d", filled_dir)
    assert (done.returncode, "pinned" in done.stderr) == (4, True)
    done = motools("cache", "prune", "--older-than", "0s", "--yes", "-d", filled_dir)
    assert done.returncode == 4, "all that is left is protected"
    result = answered(filled_dir, "clear", "all", "--delete-files", "--no-trash", "--force", "--yes")
    assert (result["removal_id"], result["models"], result["datasets"]) == (None, 1, 1)
    assert tree(filled_dir) == set()
    assert motools("cache", "pin", "model", "-d", filled_dir).returncode == 3


def test_entry_in_use_by_another_process_stays(filled_dir: Path) -> None:
    """Until the block ends."""
    with SyncCache(filled_dir) as cache, cache.using(*cache.list_models()):
        done = motools("cache", "clear", "models", "--delete-files", "--force", "--yes", "-d", filled_dir)
        assert done.returncode == 4
        assert f"in use by pid {os.getpid()}" in done.stderr
    assert answered(filled_dir, "clear", "models", "--delete-files", "--yes")["models"] == 1


def test_verify_adds_up_what_is_wrong_and_repairs(filled_dir: Path) -> None:
    """1 corrupt, 2 missing, 8 orphan; after a repair only what nobody asked to remove is left."""
    assert motools("cache", "verify", "--deep", "-d", filled_dir).returncode == 0
    (dataset,) = (filled_dir / "datasets").iterdir()
    dataset.write_bytes(b"D" + dataset.read_bytes()[1:])
    (filled_dir / "evals/t.json").unlink()
    (filled_dir / "runs/left").write_bytes(b"x")
    assert motools("cache", "verify", "-d", filled_dir).returncode == 2 + 8
    done = motools("cache", "verify", "--deep", "-d", filled_dir)
    assert done.returncode == 1 + 2 + 8
    assert "its content has the hash" in done.stdout
    assert motools("cache", "verify", "--deep", "--repair", "--yes", "-d", filled_dir).returncode == 1 + 2 + 8
    assert motools("cache", "verify", "--deep", "-d", filled_dir).returncode == 8
    with SyncCache(filled_dir) as cache:
        assert cache.get_evals("model", ["t", "s"], "b").missing == ["t"]
    assert answered(filled_dir, "trash", "list")["items"][0]["reason"] == "verify --repair"


def test_prompt_and_bar_at_a_terminal(filled_dir: Path) -> None:
    """What would go is shown before the question."""
    code, screen = at_terminal(["cache", "clear", "models", "--delete-files", "-d", str(filled_dir)], b"y\n")
    assert code == 0, screen
    assert "model model (asked for)" in screen
    assert "Remove 1 model, " in screen
    assert "to put it back: `motools cache undo 1`" in screen
    assert answered(filled_dir, "list", "models")["items"] == []


def test_sizes_that_cannot_be_read_are_mistakes_of_usage(filled_dir: Path) -> None:
    """With an example of one that can; nothing is removed."""
    before = tree(filled_dir)
    for words in (["--to", "5 apples"], ["--older-than", "soon"], ["--orphans", "--orphan-age", "-1h"]):
        done = motools("cache", "prune", *words, "--yes", "-d", filled_dir)
        assert done.returncode == 2, done.stderr
        assert "as in " in done.stderr
    assert tree(filled_dir) == before


def test_interrupted_clean_up_leaves_each_entry_whole(shared_dir: Path) -> None:
    """Ctrl-C: exit 130, and how to have back what has gone by then."""
    fill_many(shared_dir, 450)
    words = [*MOTOOLS, "cache", "clear", "datasets", "--delete-files", "--yes", "-d", str(shared_dir)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            with SyncCache(shared_dir) as cache:
                while not any(item.entries for item in cache.list_trash()):
                    assert process.poll() is None, "it was too quick"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "`motools cache undo` puts it back" in err
    with SyncCache(shared_dir) as cache:
        told: list[Progress] = []
        # One clean-up at a time: when this has its turn, the interrupted one is over.
        cache.empty_trash([], on_progress=told.append)
    check_whole(shared_dir, 450, lambda cache: cache.undo())
