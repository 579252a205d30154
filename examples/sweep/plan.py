"""What is asked for, by whom, and when: each configuration is wanted by two workers, one after the other."""

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


def plan_passes(configs: list[Config], worker_count: int) -> list[list[list[Config]]]:
    """Who asks for what, in two passes: in the second, each worker wants what its neighbour wanted in the first.

    A pass begins when the one before is done, so that the second to ask finds what the first one made.

    Returns:
        For each pass, for each worker, the configurations it asks for, in order.

    Raises:
        ValueError: fewer than two workers, so that nobody could be the second.
    """
    if worker_count < 2:  # noqa: PLR2004 - a first and a second
        raise ValueError(f"a sweep takes at least 2 workers, not {worker_count}")
    first = [configs[worker::worker_count] for worker in range(worker_count)]
    second = first[1:] + first[:1]
    return [first, second]
