"""Requirements are judged by the medians of the rounds' ratios."""

from __future__ import annotations

import pytest

from bench.cells import Cell, Results, Sample
from bench.ratios import Requirement, judge

OURS, THEIRS, OTHERS = Cell("hits", 8, "ours"), Cell("hits", 8, "theirs"), Cell("hits", 8, "others")


def results(**values: list[float]) -> Results:
    """Samples by peer."""
    return {Cell("hits", 8, peer): [Sample(value) for value in rounds] for peer, rounds in values.items()}


@pytest.mark.parametrize(("least", "verdict"), [(2.0, "pass"), (2.1, "below")])
def test_ratio_is_the_median_of_the_rounds_ratios(least: float, verdict: str) -> None:
    """A round in which the whole machine was slow changes nothing: both sides of its ratio were."""
    requirement = Requirement(name="x", ours=OURS, theirs=(THEIRS,), at_least=least)
    (line,) = judge(results(ours=[20.0, 2.0, 40.0], theirs=[10.0, 1.0, 10.0]), [requirement])
    assert (line.measured, line.verdict) == (2.0, verdict)


def test_best_of_several_peers_is_the_one_to_beat() -> None:
    """Where a peer can be used in two ways, the faster one of each round counts."""
    requirement = Requirement(name="x", ours=OURS, theirs=(THEIRS, OTHERS), at_least=1)
    (line,) = judge(results(ours=[10.0, 10.0], theirs=[1.0, 10.0], others=[10.0, 1.0]), [requirement])
    assert (line.low, line.high) == (1.0, 1.0)


def test_limit_that_is_exceeded_is_told() -> None:
    """A figure that stands for itself is compared with its limit."""
    requirement = Requirement(name="memory", ours=OURS, at_most=450, unit="MiB")
    (line,) = judge(results(ours=[451.0]), [requirement])
    assert (line.required, line.verdict) == ("<= 450 MiB", "above")


def test_skipped_peer_is_no_verdict() -> None:
    """What was not measured neither passes nor fails."""
    requirement = Requirement(name="x", ours=OURS, theirs=(THEIRS,), at_least=1)
    (line,) = judge(results(ours=[1.0]), [requirement])
    assert (line.measured, line.verdict) == (None, "not measured")


def test_nothing_required_is_for_information() -> None:
    """A ratio without a limit has no verdict."""
    (line,) = judge(results(ours=[1.0], theirs=[2.0]), [Requirement(name="x", ours=OURS, theirs=(THEIRS,))])
    assert (line.measured, line.verdict) == (0.5, "")
