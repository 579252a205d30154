"""A run as JSON for programs and as Markdown for people."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.cells import QUANTILES, Cell, Results, Sample
from bench.peers import PEERS
from bench.ratios import Verdict
from bench.scale import Scale
from bench.suite import NAMES

ABOUT = (
    "Every peer works once in every round, so that the machine's drift hits all alike; figures are medians of the"
    " rounds, with their quartiles. Ratios within one run mean something; absolute figures are the machine's. Servers"
    " are asked over Unix sockets, and every answer is checked."
)
WIDTH = 400
"""Characters: no cell of a table is ever wrapped."""
P50, P99, P999 = (QUANTILES.index(share) for share in (0.5, 0.99, 0.999))
LARGE, SMALL = 100, 1
"""Figures above the first have no decimals, those below the second have three."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that a report tells."""

    scale: Scale
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    skipped: Mapping[str, str]
    unable: Mapping[str, list[str]]
    results: Results
    verdicts: Sequence[Verdict]


class Summary(NamedTuple):
    """One cell over all rounds."""

    median: float
    low: float
    high: float
    """The quartiles."""
    unit: str
    latencies_us: tuple[float, ...]
    """Medians of the rounds, at `QUANTILES`."""


def summarize(samples: Sequence[Sample]) -> Summary:
    """Median and quartiles."""
    low, median, high = (float(value) for value in np.quantile([sample.value for sample in samples], (0.25, 0.5, 0.75)))
    spread = [sample.latencies_us for sample in samples if sample.latencies_us]
    latencies = tuple(float(value) for value in np.median(spread, axis=0)) if spread else ()
    return Summary(median, low, high, samples[0].unit, latencies)


def document(run: Run) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "machine": dict(run.machine),
        "versions": dict(run.versions),
        "scale": vars(run.scale),
        "durability": {name: peer.durability for name, peer in PEERS.items()},
        "skipped": dict(run.skipped),
        "unable": dict(run.unable),
        "quantiles": list(QUANTILES),
        "cells": [_cell_document(cell, samples) for cell, samples in run.results.items()],
        "required": [verdict._asdict() for verdict in run.verdicts],
    }


def _cell_document(cell: Cell, samples: Sequence[Sample]) -> dict[str, Any]:
    summary = summarize(samples)
    return {
        **cell._asdict(),
        "unit": summary.unit,
        "median": summary.median,
        "quartiles": [summary.low, summary.high],
        "latencies_us": list(summary.latencies_us),
        "rounds": [{"value": sample.value, "latencies_us": list(sample.latencies_us)} for sample in samples],
    }


def markdown(run: Run, plots: Sequence[str] = ()) -> str:
    """Everything, for people; `plots` are names of files beside the text."""
    scale = run.scale
    parts = [
        "# Benchmarks\n",
        f"Made by `make bench`: {scale.rounds} rounds, {scale.slice_s:g} s a peer and workload. {ABOUT}\n",
        *[f"![{name}]({name})\n" for name in plots],
        "## What is required\n",
        _required(run.verdicts),
        "## Who is measured\n",
        _peers(run.skipped),
        *[_workload(name, run) for name in NAMES if any(cell.workload == name for cell in run.results)],
        "## Where\n",
        _pairs({**run.machine, **run.versions}),
    ]
    return "\n".join(parts)


def _required(verdicts: Sequence[Verdict]) -> str:
    rows = [
        (
            verdict.name,
            verdict.required,
            "" if verdict.measured is None else f"{figure(verdict.measured)} {verdict.unit}",
            _spread(verdict.low, verdict.high),
            verdict.verdict,
        )
        for verdict in verdicts
    ]
    return _table(("what", "required", "measured", "quartiles", ""), rows, right={1, 2, 3})


def _peers(skipped: Mapping[str, str]) -> str:
    rows = [
        (name, peer.durability, f"skipped: {skipped[name]}" if name in skipped else "") for name, peer in PEERS.items()
    ]
    return _table(("peer", "what a write has reached when it is answered", ""), rows)


def _workload(name: str, run: Run) -> str:
    cells = [cell for cell in run.results if cell.workload == name]
    summaries = {cell: summarize(run.results[cell]) for cell in cells}
    # The fastest first, where they can be compared.
    cells.sort(key=lambda cell: (cell.processes, summaries[cell].unit, -summaries[cell].median))
    rows = [(str(cell.processes), cell.peer, *_figures(summaries[cell])) for cell in cells]
    headings = ("n", "", "median", "quartiles", "unit", "p50 us", "p99 us", "p99.9 us")
    table = _table(headings, rows, right={0, 2, 3, 5, 6, 7})
    unable = run.unable.get(name)
    note = f"\nNot offered by: {', '.join(unable)}.\n" if unable else ""
    return f"## {name}\n\n{NAMES[name]}\n\n{table}{note}"


def _figures(summary: Summary) -> tuple[str, ...]:
    latencies = summary.latencies_us
    tail = [figure(latencies[place]) for place in (P50, P99, P999)] if latencies else [""] * 3
    return (figure(summary.median), _spread(summary.low, summary.high), summary.unit, *tail)


def _spread(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{figure(low)} to {figure(high)}"


def figure(value: float) -> str:
    """With as many digits as mean something."""
    if abs(value) >= LARGE:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= SMALL else f"{value:.3f}"


def _pairs(pairs: Mapping[str, str]) -> str:
    return _table(("", ""), list(pairs.items()))


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: set[int] | None = None) -> str:
    table = Table(box=MARKDOWN)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place in (right or ()) else "left", no_wrap=True)
    for row in rows:
        table.add_row(*[Text(cell) for cell in row])
    output = io.StringIO()
    Console(file=output, width=WIDTH, color_system=None).print(table)
    # rich frames a table with empty lines of blanks.
    lines = [line.rstrip() for line in output.getvalue().splitlines()]
    return "\n".join([*[line for line in lines if line], ""])
