"""A clear takes keys that are being computed, as far as the keys themselves tell."""

from __future__ import annotations

import pytest

from motoolsd.core.clearing import is_cleared
from motoolsd.core.leases import Key
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.messages import Clear, ClearAll
from tests.samples import clear, clear_all

DATASET: Key = (Kind.DATASET, "d")
MODEL: Key = (Kind.MODEL, "k")
EVAL: Key = (Kind.EVAL, eval_key("m", "t", "inspect", None))


@pytest.mark.parametrize(
    ("request_", "key", "is_taken"),
    [
        (clear_all(), DATASET, True),
        (clear(Kind.DATASET), DATASET, True),
        (clear(Kind.DATASET, keys=["d"]), DATASET, True),
        (clear(Kind.DATASET, keys=["e"]), DATASET, False),
        (clear(Kind.DATASET), MODEL, False),
        (clear(Kind.MODEL), MODEL, True),
        (clear(Kind.MODEL, keys=["k"]), MODEL, True),
        (clear(Kind.MODEL, model_ids=["m"]), MODEL, False),
        (clear(Kind.EVAL), EVAL, True),
        (clear(Kind.EVAL, model_ids=["m"]), EVAL, True),
        (clear(Kind.EVAL, model_ids=["m"], task_ids=["u"]), EVAL, False),
        (clear(Kind.EVAL, model_ids=["n"]), EVAL, False),
    ],
)
def test_what_a_clear_takes(request_: Clear | ClearAll, key: Key, is_taken: bool) -> None:  # noqa: FBT001
    """By kind, by key, by the parts of an evaluation's key; a model's id is not known before there is one."""
    assert is_cleared(request_, key) is is_taken
