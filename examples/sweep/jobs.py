"""What a miss costs: a training, an evaluation, and the files they leave in the cache directory.

scikit-learn is loaded by the first job, so that a worker whose every question is a hit never pays for it.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from examples.sweep.files import write_durably
from examples.sweep.plan import SPLIT, Config

if TYPE_CHECKING:
    from examples.sweep.training import Digits

TASK = "digits-test"


class Jobs:
    """Trains and evaluates on one dataset.

    Args:
        directory: the cache directory, absolute: evaluation logs are stored under their whole path.
        dataset_hash: of the dataset whose file stands under `datasets/`.
    """

    def __init__(self, directory: Path, dataset_hash: str) -> None:
        self.directory = directory
        self.dataset_hash = dataset_hash

    @cached_property
    def parts(self) -> tuple[Digits, Digits]:
        """The dataset's training part and test part, read once."""
        from examples.sweep.training import parse_split

        return parse_split(dataset_path(self.directory, self.dataset_hash).read_text(encoding="utf-8"))

    def train(self, config: Config) -> str:
        """Train, and keep the fitted model under `runs/<job>/`.

        Returns:
            The model's id, which is the job's name too.
        """
        from examples.sweep.training import train

        job = f"{config.name}-{self.dataset_hash[:8]}"
        trained = train(config, self.parts[0])
        run = {"dataset_hash": self.dataset_hash, "config": config.as_dict(), "train_s": trained.train_s}
        write_durably(model_path(self.directory, job), trained.model)
        write_durably(run_path(self.directory, job), as_json(run))
        return job

    def evaluate(self, model_id: str) -> Path:
        """Measure a model on the test part, and write the evaluation log.

        Returns:
            The log's path, under `evals/<model>/`.
        """
        from examples.sweep.training import accuracy_of

        accuracy = accuracy_of(model_path(self.directory, model_id).read_bytes(), self.parts[1])
        run = json.loads(run_path(self.directory, model_id).read_text(encoding="utf-8"))
        log = {
            "model_id": model_id,
            "task_id": TASK,
            "accuracy": accuracy,
            "num_test": len(self.parts[1].labels),
            "config": run["config"],
            "train_s": run["train_s"],
            **SPLIT,
        }
        path = self.directory / "evals" / model_id / f"{TASK}.json"
        write_durably(path, as_json(log))
        return path


def dataset_path(directory: Path, dataset_hash: str) -> Path:
    """Where the dataset's file stands."""
    return directory / "datasets" / f"{dataset_hash}.jsonl"


def model_path(directory: Path, job: str) -> Path:
    """Where a job's fitted model stands."""
    return directory / "runs" / job / "model.joblib"


def run_path(directory: Path, job: str) -> Path:
    """Where it stands what a job was made from, and what it cost."""
    return directory / "runs" / job / "run.json"


def as_json(value: object) -> bytes:
    """As it goes into a file that people read."""
    return json.dumps(value, indent=2).encode() + b"\n"
