"""What is asked for, and by whom: each configuration is wanted by two workers at the same time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import islice, product
from typing import Any

HIDDEN_UNITS = (32, 64, 128)
ALPHAS = (0.0001, 0.001, 0.01, 0.1)
LEARNING_RATES = (0.001, 0.01)
SPLIT = {"test_share": 0.25, "split_seed": 7}
"""How the training part and the test part are told apart; part of an evaluation's key."""

CONFIGS_MAX = len(HIDDEN_UNITS) * len(ALPHAS) * len(LEARNING_RATES)


@dataclass(frozen=True)
class Config:
    """The hyperparameters of one training of a multi-layer perceptron.

    Attributes:
        hidden_units: the size of its one hidden layer.
        alpha: the strength of the L2 penalty.
        learning_rate: the first step size of Adam.
        seed: of the weights and of the order of the batches, so that a training can be repeated.
    """

    hidden_units: int
    alpha: float
    learning_rate: float
    seed: int = 0

    @property
    def name(self) -> str:
        """A name that tells it from every other configuration of the sweep, fit for a file."""
        return f"mlp-h{self.hidden_units}-a{self.alpha}-lr{self.learning_rate}-s{self.seed}"

    def as_dict(self) -> dict[str, Any]:
        """As it goes into the key of the trained model."""
        return {"estimator": "MLPClassifier", **asdict(self)}


def distinct_configs(count: int = CONFIGS_MAX) -> list[Config]:
    """The first `count` points of the grid, all different.

    Raises:
        ValueError: the grid has no such number of points.
    """
    if not 1 <= count <= CONFIGS_MAX:
        raise ValueError(f"the grid has 1 to {CONFIGS_MAX} configurations, not {count}")
    return [Config(*point) for point in islice(product(HIDDEN_UNITS, ALPHAS, LEARNING_RATES), count)]


def plan_work(configs: list[Config], worker_count: int) -> list[list[Config]]:
    """Who asks for what: workers stand in pairs, and both of a pair want the same, in the same order.

    So two of them miss every configuration at the same moment, and one has to wait for the other's training.

    Returns:
        For each worker, the configurations it asks for, in order; of an odd number of workers, the last asks for none.

    Raises:
        ValueError: fewer than two workers, so that nobody could be the second.
    """
    if worker_count < 2:  # noqa: PLR2004 - a first and a second
        raise ValueError(f"a sweep takes at least 2 workers, not {worker_count}")
    pairs = worker_count // 2
    shares = [configs[pair::pairs] for pair in range(pairs)]
    return [*(shares[worker // 2] for worker in range(2 * pairs)), *([[]] if worker_count % 2 else [])]
