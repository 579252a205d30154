"""The plan of the sweep: 48 askings of 24 configurations, each by two workers, one after the other."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.sweep.plan import CONFIGS_MAX, Config, distinct_configs, plan_work


def test_grid_has_24_distinct_configurations() -> None:
    """24 trainings are distinct, by their key and by the name of their job."""
    configs = distinct_configs()
    assert len(set(configs)) == 24
    assert len({config.name for config in configs}) == 24


@given(config_count=st.integers(1, CONFIGS_MAX), worker_count=st.integers(2, 12))
def test_each_configuration_is_wanted_by_two_workers_at_the_same_time(config_count: int, worker_count: int) -> None:
    """Whatever the numbers, both stand in the same place of their lists."""
    configs = distinct_configs(config_count)
    lists = plan_work(configs, worker_count)
    places = Counter((place, config) for wanted in lists for place, config in enumerate(wanted))
    assert len(lists) == worker_count
    assert {config for _, config in places} == set(configs)
    assert set(places.values()) == {2}


def test_eight_workers_share_the_work_evenly() -> None:
    """The demo's numbers: 8 workers, 6 askings each, 48 in all."""
    assert [len(wanted) for wanted in plan_work(distinct_configs(), 8)] == [6] * 8


@pytest.mark.parametrize("count", [0, CONFIGS_MAX + 1])
def test_grid_refuses_a_number_it_does_not_have(count: int) -> None:
    """No silent short sweep."""
    with pytest.raises(ValueError, match="1 to 24"):
        distinct_configs(count)


def test_one_worker_alone_is_refused() -> None:
    """Nobody could be the second to ask."""
    with pytest.raises(ValueError, match="at least 2"):
        plan_work(distinct_configs(2), 1)


def test_key_names_the_estimator() -> None:
    """Another estimator with the same hyperparameters is another training."""
    assert Config(32, 0.1, 0.01).as_dict() == {
        "estimator": "MLPClassifier",
        "hidden_units": 32,
        "alpha": 0.1,
        "learning_rate": 0.01,
        "seed": 0,
    }
