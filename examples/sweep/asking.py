"""The one pattern that uses the cache: look it up, and only on a miss compute, keep the file, and store the entry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from examples.sweep.files import write_durably
from examples.sweep.jobs import TASK, Jobs, dataset_path
from examples.sweep.plan import SPLIT, Config
from motools.cache import SyncCache, hash_content

BACKEND = "sklearn"


@dataclass(frozen=True)
class Answer:
    """What came back for one configuration.

    Attributes:
        config_name: the configuration asked for.
        was_trained: whether it had to be trained for this answer; otherwise the cache had it.
        accuracy: on the test part, from the evaluation log.
        train_s: what the training cost, whoever paid it.
    """

    config_name: str
    was_trained: bool
    accuracy: float
    train_s: float


def ensure_dataset(cache: SyncCache, directory: Path) -> str:
    """Put the digits into the cache where they are not there yet.

    Returns:
        The dataset's hash; its file stands under `datasets/`.
    """
    from examples.sweep.training import digits_as_jsonl

    content = digits_as_jsonl()
    dataset_hash = hash_content(content)
    if cache.get_file_id(dataset_hash) is None:
        write_durably(dataset_path(directory, dataset_hash), content.encode())
        cache.set_file_id(dataset_hash, f"file-{dataset_hash[:12]}")
    return dataset_hash


def ask(cache: SyncCache, jobs: Jobs, config: Config) -> Answer:
    """The model of a configuration and its accuracy: from the cache, or made and put there.

    Files come first and entries second, so that an entry never names a file that is not there.

    Args:
        cache: the shared cache.
        jobs: what to do on a miss.
        config: the hyperparameters.
    """
    model_id = cache.get_model_id(jobs.dataset_hash, config.as_dict(), backend_type=BACKEND)
    was_trained = model_id is None
    if model_id is None:
        model_id = jobs.train(config)
        cache.set_model_id(jobs.dataset_hash, config.as_dict(), model_id, backend_type=BACKEND)
    logs = cache.get_eval_log_paths(model_id, [TASK], BACKEND, SPLIT)
    if logs is None:
        logs = {TASK: str(jobs.evaluate(model_id))}
        cache.set_eval_log_paths(model_id, logs, BACKEND, SPLIT)
    log = json.loads(Path(logs[TASK]).read_text(encoding="utf-8"))
    return Answer(config.name, was_trained, accuracy=log["accuracy"], train_s=log["train_s"])
