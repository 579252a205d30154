"""The vocabulary of `why` is a contract."""

from __future__ import annotations

import ast
import inspect

from motoolsd.wire import reasons
from motoolsd.wire.reasons import Reason

WORDS = {
    "hit",
    "never_computed",
    "different_inputs",
    "expired",
    "evicted",
    "cleared",
    "file_gone",
    "damaged",
    "other_version",
    "invalidated",
    "failed",
    "refused",
    "partial",
    "computing",
}


def test_no_word_is_lost_or_renamed() -> None:
    """Scripts compare with these words."""
    assert {reason.value for reason in Reason} == WORDS


def test_every_word_is_explained_in_one_line() -> None:
    """Under each member stands its text, for the reference that is made from them."""
    (definition,) = [node for node in ast.parse(inspect.getsource(reasons)).body if isinstance(node, ast.ClassDef)]
    # Behind the docstring of the class.
    constants = [one.value for one in definition.body[1:] if isinstance(one, ast.Expr)]
    texts = [one.value for one in constants if isinstance(one, ast.Constant)]
    assert len(texts) == len(WORDS)
    assert all(isinstance(text, str) and text.endswith(".") and "\n" not in text for text in texts)
