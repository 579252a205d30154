"""The sweep's real work: the digits, the split, the perceptron."""

from __future__ import annotations

import numpy as np
import pytest

from examples.sweep.plan import Config
from examples.sweep.training import Digits, accuracy_of, digits_as_jsonl, parse_split, train


@pytest.fixture(scope="module")
def parts() -> tuple[Digits, Digits]:
    """The training part and the test part."""
    return parse_split(digits_as_jsonl())


def test_dataset_is_the_bundled_digits() -> None:
    """1,797 images, the same text every time: its hash is a key."""
    text = digits_as_jsonl()
    assert len(text.splitlines()) == 1797
    assert text == digits_as_jsonl()


def test_parts_share_no_image_and_lose_none(parts: tuple[Digits, Digits]) -> None:
    """A quarter is kept for the test, with every digit in it."""
    train_part, test_part = parts
    assert len(train_part.labels) + len(test_part.labels) == 1797
    assert len(test_part.labels) == 450
    assert set(test_part.labels.tolist()) == set(range(10))


def test_split_is_the_same_every_time(parts: tuple[Digits, Digits]) -> None:
    """Two workers measure on the same images."""
    again = parse_split(digits_as_jsonl())[1]
    assert np.array_equal(parts[1].pixels, again.pixels)


@pytest.mark.slow
def test_perceptron_learns_the_digits(parts: tuple[Digits, Digits]) -> None:
    """The estimator is real: far better than guessing on images that it has not seen."""
    trained = train(Config(32, 0.0001, 0.01), parts[0])
    assert trained.train_s > 0
    assert accuracy_of(trained.model, parts[1]) > 0.9


@pytest.mark.slow
def test_training_again_makes_the_same_model(parts: tuple[Digits, Digits]) -> None:
    """What the cache holds is what a second training would have made."""
    few = Digits(parts[0].pixels[:200], parts[0].labels[:200])
    first, second = (train(Config(32, 0.1, 0.01), few) for _ in range(2))
    assert accuracy_of(first.model, parts[1]) == accuracy_of(second.model, parts[1])
