"""The one pattern that uses the cache: claim, and compute only if nobody has or does; keep the file, then fulfil."""

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

    def upload() -> str:
        write_durably(dataset_path(directory, dataset_hash), content.encode())
        return f"file-{dataset_hash[:12]}"

    cache.get_or_upload(dataset_hash, upload)
    return dataset_hash


def ask(cache: SyncCache, jobs: Jobs, config: Config) -> Answer:
    """The model of a configuration and its accuracy: from the cache, from another worker, or made and put there.

    Files come first and entries second, so that an entry never names a file that is not there.

    Args:
        cache: the shared cache.
        jobs: what to do on a miss.
        config: the hyperparameters.
    """
    with cache.claim_model(jobs.dataset_hash, config.as_dict(), backend_type=BACKEND) as claim:
        was_trained = claim.is_owner
        if was_trained:
            claim.fulfil(jobs.train(config))
    model_id = claim.value
    assert model_id is not None, "a hit, or fulfilled"
    logs = cache.get_or_evaluate(model_id, [TASK], lambda _: {TASK: str(jobs.evaluate(model_id))}, BACKEND, SPLIT)
    log = json.loads(Path(logs[TASK]).read_text(encoding="utf-8"))
    return Answer(config.name, was_trained, accuracy=log["accuracy"], train_s=log["train_s"])
