"""Reports hold medians, quartiles, and who was left out."""

from __future__ import annotations

import json

from bench.cells import QUANTILES, Cell, Sample
from bench.ratios import judge
from bench.report import Run, document, figure, markdown, summarize
from bench.scale import TINY

CELL = Cell("hits", 8, "redis")
LATENCIES = tuple(float(place) for place in range(len(QUANTILES)))


def a_run() -> Run:
    """One cell, three rounds."""
    results = {CELL: [Sample(value, "op/s", LATENCIES) for value in (100.0, 300.0, 200.0)]}
    return Run(
        scale=TINY,
        machine={"cores": "2"},
        versions={"python": "3"},
        skipped={"lmdb": "not installed"},
        unable={},
        results=results,
        verdicts=judge(results),
    )


def test_summary_is_median_and_quartiles() -> None:
    """One round that was disturbed does not decide."""
    summary = summarize(a_run().results[CELL])
    assert (summary.low, summary.median, summary.high) == (150.0, 200.0, 250.0)
    assert summary.latencies_us == LATENCIES


def test_document_holds_every_round() -> None:
    """Programs get all there is, as JSON."""
    report = json.loads(json.dumps(document(a_run())))
    (cell,) = report["cells"]
    assert [each["value"] for each in cell["rounds"]] == [100.0, 300.0, 200.0]
    assert report["skipped"] == {"lmdb": "not installed"}


def test_skipped_peers_are_reported() -> None:
    """The Markdown says who was not measured, and why."""
    text = markdown(a_run(), ["bench-writes.svg"])
    assert "skipped: not installed" in text
    assert "![bench-writes.svg](bench-writes.svg)" in text
    assert "## hits" in text
    assert "## writes" not in text


def test_figures_have_the_digits_that_mean_something() -> None:
    """Large figures have no decimals, small ones do."""
    assert [figure(value) for value in (12_345.6, 12.345, 0.12345)] == ["12,346", "12.35", "0.123"]
