"""What the sweep's tests share: a real cache with its daemon, and jobs that cost nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.sweep.files import write_durably
from examples.sweep.jobs import TASK, Jobs, as_json
from examples.sweep.plan import Config
from motools.cache import SyncCache


class CountingJobs(Jobs):
    """Stands for the real trainings: makes the evaluation log, and remembers what it was asked to do."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "d" * 64)
        self.trained: list[Config] = []
        self.evaluated: list[str] = []

    def train(self, config: Config) -> str:
        """Name the model after its configuration."""
        self.trained.append(config)
        return f"model-{config.name}"

    def evaluate(self, model_id: str) -> Path:
        """Every model is half right and took three seconds."""
        self.evaluated.append(model_id)
        path = self.directory / "evals" / model_id / f"{TASK}.json"
        write_durably(path, as_json({"accuracy": 0.5, "train_s": 3.0}))
        return path


@pytest.fixture
def cache(cache_dir: Path) -> Iterator[SyncCache]:
    """A real cache; its daemon is stopped afterwards."""
    try:
        with SyncCache(cache_dir) as cache:
            yield cache
    finally:
        motools = Path(sys.executable).with_name("motools")
        subprocess.run([motools, "daemon", "stop", "--cache-dir", cache_dir], check=False, capture_output=True)


@pytest.fixture
def jobs(cache_dir: Path) -> CountingJobs:
    """Jobs that cost nothing."""
    return CountingJobs(cache_dir)
