"""The real work: scikit-learn's handwritten digits, a perceptron trained on one part and measured on the other."""

from __future__ import annotations

import io
import json
import time
import warnings
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from examples.sweep.plan import SPLIT, Config

PIXEL_MAX = 16
EPOCHS_MAX = 120


@dataclass(frozen=True)
class Digits:
    """The images of one part, a row of 64 values in [0, 1] each, and the digits they show."""

    pixels: np.ndarray[Any, np.dtype[np.float64]]
    labels: np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Trained:
    """A fitted model as the bytes of its file, and what it took to make it."""

    model: bytes
    train_s: float


def digits_as_jsonl() -> str:
    """The bundled data set, one JSON object a line: what the dataset's hash is made of."""
    pixels, labels = load_digits(return_X_y=True)
    rows = zip(pixels.astype(int).tolist(), labels.tolist(), strict=True)
    return "".join(json.dumps({"pixels": row, "label": label}) + "\n" for row, label in rows)


def parse_split(jsonl: str) -> tuple[Digits, Digits]:
    """The training part and the test part of a dataset file, the same ones every time."""
    rows = [json.loads(line) for line in jsonl.splitlines()]
    pixels = np.array([row["pixels"] for row in rows], dtype=np.float64) / PIXEL_MAX
    labels = np.array([row["label"] for row in rows], dtype=np.int64)
    train_pixels, test_pixels, train_labels, test_labels = train_test_split(
        pixels, labels, test_size=SPLIT["test_share"], random_state=int(SPLIT["split_seed"]), stratify=labels
    )
    return Digits(train_pixels, train_labels), Digits(test_pixels, test_labels)


def train(config: Config, digits: Digits) -> Trained:
    """Fit one perceptron.

    Returns:
        The model's file, and the seconds of computing that fitting took: not those of waiting for a core, as eight
        workers on few cores do.
    """
    classifier = MLPClassifier(
        hidden_layer_sizes=(config.hidden_units,),
        alpha=config.alpha,
        learning_rate_init=config.learning_rate,
        max_iter=EPOCHS_MAX,
        random_state=config.seed,
    )
    started_s = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is what bounds a training here
        classifier.fit(digits.pixels, digits.labels)
    train_s = time.process_time() - started_s
    file = io.BytesIO()
    joblib.dump(classifier, file)
    return Trained(file.getvalue(), train_s)


def accuracy_of(model: bytes, digits: Digits) -> float:
    """The share of images whose digit a fitted model names rightly.

    Args:
        model: what `train` returned. Loading it runs code, so it must come from one's own cache directory.
        digits: images the model has not seen.
    """
    classifier = joblib.load(io.BytesIO(model))
    return float(classifier.score(digits.pixels, digits.labels))
