"""The sweep's use of the cache: nothing that is there is made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.sweep.asking import BACKEND, Answer, ask, ensure_dataset
from examples.sweep.plan import Config
from motools.cache import SyncCache, hash_content
from tests.examples.sweep.conftest import CountingJobs

pytestmark = pytest.mark.slow  # a real daemon is started

CONFIG = Config(32, 0.1, 0.01)


def test_first_to_ask_trains_and_evaluates(cache: SyncCache, jobs: CountingJobs) -> None:
    """A miss costs one training and one evaluation, and says so."""
    answer = ask(cache, jobs, CONFIG)
    assert answer == Answer(CONFIG.name, was_trained=True, accuracy=0.5, train_s=3.0)
    assert jobs.trained == [CONFIG]
    assert jobs.evaluated == [f"model-{CONFIG.name}"]


def test_second_to_ask_hits(cache: SyncCache, jobs: CountingJobs) -> None:
    """What one worker made answers the other, with the same numbers and without work."""
    first = ask(cache, jobs, CONFIG)
    second = ask(cache, jobs, CONFIG)
    assert (second.was_trained, second.accuracy, second.train_s) == (False, first.accuracy, first.train_s)
    assert jobs.trained == [CONFIG]


def test_other_configuration_is_no_hit(cache: SyncCache, jobs: CountingJobs) -> None:
    """One differing hyperparameter is another model."""
    ask(cache, jobs, CONFIG)
    assert ask(cache, jobs, Config(32, 0.1, 0.02)).was_trained


def test_model_without_evaluation_is_evaluated_and_not_trained(cache: SyncCache, jobs: CountingJobs) -> None:
    """A worker that died between training and evaluation costs one evaluation."""
    cache.set_model_id(jobs.dataset_hash, CONFIG.as_dict(), "model-x", backend_type=BACKEND)
    assert not ask(cache, jobs, CONFIG).was_trained
    assert (jobs.trained, jobs.evaluated) == ([], ["model-x"])


def test_dataset_file_is_named_after_its_content(cache: SyncCache, cache_dir: Path) -> None:
    """The dataset's entry and its file: the hash of the content is the key of one and the name of the other."""
    dataset_hash = ensure_dataset(cache, cache_dir)
    path = cache_dir / "datasets" / f"{dataset_hash}.jsonl"
    assert hash_content(path.read_text()) == dataset_hash
    assert cache.get_file_id(dataset_hash) is not None


def test_dataset_is_written_once(cache: SyncCache, cache_dir: Path) -> None:
    """The second sweep finds the file and leaves it alone."""
    path = cache_dir / "datasets" / f"{ensure_dataset(cache, cache_dir)}.jsonl"
    before = path.stat()
    ensure_dataset(cache, cache_dir)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
