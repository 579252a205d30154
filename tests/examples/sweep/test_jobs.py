"""The files that a job of the sweep leaves in the cache directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.sweep.jobs import Jobs, dataset_path
from examples.sweep.plan import Config
from examples.sweep.training import digits_as_jsonl

pytestmark = pytest.mark.slow  # a real training

DATASET_HASH = "0123456789abcdef" * 4
CONFIG = Config(32, 0.1, 0.01)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    """Real jobs on every sixth digit."""
    path = dataset_path(tmp_path, DATASET_HASH)
    path.parent.mkdir()
    path.write_text("".join(digits_as_jsonl().splitlines(keepends=True)[::6]))
    return Jobs(tmp_path, DATASET_HASH)


def test_training_leaves_model_and_what_it_was_made_from(jobs: Jobs, tmp_path: Path) -> None:
    """The fitted model stands under runs/<job>/, and beside it what explains it."""
    job = jobs.train(CONFIG)
    run = json.loads((tmp_path / "runs" / job / "run.json").read_text())
    assert (tmp_path / "runs" / job / "model.joblib").stat().st_size > 0
    assert (run["dataset_hash"], run["config"]) == (DATASET_HASH, CONFIG.as_dict())


def test_evaluation_log_is_json_under_the_model(jobs: Jobs, tmp_path: Path) -> None:
    """The accuracy of the loaded model is in the log, with what measuring it again would need."""
    job = jobs.train(CONFIG)
    path = jobs.evaluate(job)
    log = json.loads(path.read_text())
    assert path == tmp_path / "evals" / job / "digits-test.json"
    assert 0.5 < log["accuracy"] <= 1
    assert (log["model_id"], log["num_test"], log["split_seed"]) == (job, 75, 7)
