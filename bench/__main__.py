"""`python -m bench`: run every workload against every peer, round by round, and print the ratios."""

from __future__ import annotations

import json
import platform
import sqlite3
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.measure import WORKLOADS, Sample, key_of, run_round, value_of
from bench.peers import PEERS, Peer, prove_right

BASELINES = {"older way": "x older", "older, WAL": "x WAL"}
"""Peers that the others are compared with, and the heading of that."""
Case = tuple[str, int]
"""A workload and a number of processes."""
Results = dict[Case, dict[str, list[Sample]]]


def run(
    *,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Rounds; each runs every peer once.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.05, max=60, help="How long one peer works in one round.")] = 1.5,
    entries: Annotated[int, typer.Option(min=1, max=1_000_000, help="Entries before the start.")] = 1_000,
    processes: Annotated[list[int] | None, typer.Option(help="Process counts (8 and 32).")] = None,
    workloads: Annotated[list[str] | None, typer.Option("--workload", help="hits, misses, writes (all).")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two short rounds: whether it works, not how fast.")] = False,
    output: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
) -> None:
    """Concurrent lookups and durable writes, motoolsd against the older ways.

    Example: python -m bench --rounds 3 --processes 8
    """
    if quick:
        rounds, seconds = 2, min(seconds, 0.5)
    if unknown := set(workloads or ()) - WORKLOADS.keys():
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: choose from {', '.join(WORKLOADS)}")
    cases = [(workload, count) for count in processes or [8, 32] for workload in workloads or WORKLOADS]
    with ExitStack() as stack:
        places = {peer.name: _prepare(peer, stack, entries) for peer in (make() for make in PEERS.values())}
        results = _run_rounds(cases, places, rounds=rounds, seconds=seconds, entries=entries)
    Console().print(_table(results))
    if output is not None:
        output.write_text(json.dumps(_document(results, rounds, seconds, entries), indent=2) + "\n")


def _prepare(peer: Peer, stack: ExitStack, entries: int) -> Path:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mt-bench-")))
    stack.callback(peer.finish, directory)
    peer.prepare(directory, {key_of(number): value_of(number) for number in range(entries)})
    prove_right(peer, directory)
    return directory


def _run_rounds(cases: list[Case], places: dict[str, Path], *, rounds: int, seconds: float, entries: int) -> Results:
    results: Results = {case: {name: [] for name in places} for case in cases}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("measuring", total=rounds * len(cases) * len(places))
        for _ in range(rounds):
            for workload, count in cases:
                for name, directory in places.items():
                    progress.update(bar, description=f"{workload}, {count} processes, {name}")
                    sample = run_round(name, workload, directory, processes=count, seconds=seconds, entries=entries)
                    results[workload, count][name].append(sample)
                    progress.advance(bar)
    return results


def _ratios(samples: dict[str, list[Sample]], name: str, baseline: str) -> list[float]:
    """Round by round, so that drift of the machine cancels out."""
    pairs = zip(samples[name], samples[baseline], strict=True)
    return [ours.operations_per_s / theirs.operations_per_s for ours, theirs in pairs]


def _table(results: Results) -> Table:
    table = Table(title="Medians of the rounds, and of their ratios to the two older ways", box=SIMPLE)
    table.add_column("workload", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("peer", no_wrap=True)
    for heading in ("op/s", "p50 us", "p99 us", *BASELINES.values()):
        table.add_column(heading, justify="right", no_wrap=True)
    for (workload, count), samples in results.items():
        for name, rounds in samples.items():
            ratios = [f"{statistics.median(_ratios(samples, name, baseline)):.1f}" for baseline in BASELINES]
            median = Sample(*(statistics.median(values) for values in zip(*rounds, strict=True)))
            table.add_row(
                workload,
                str(count),
                name,
                f"{median.operations_per_s:,.0f}",
                f"{median.p50_us:,.0f}",
                f"{median.p99_us:,.0f}",
                *ratios,
            )
    return table


def _document(results: Results, rounds: int, seconds: float, entries: int) -> dict[str, Any]:
    return {
        "machine": {"platform": platform.platform(), "python": sys.version.split()[0]},
        "versions": {"sqlite": sqlite3.sqlite_version},
        "durability": {name: make().durability for name, make in PEERS.items()},
        "rounds": rounds,
        "seconds": seconds,
        "entries": entries,
        "results": [
            {
                "workload": workload,
                "processes": count,
                "peer": name,
                "samples": [sample._asdict() for sample in samples[name]],
                "ratios": {baseline: statistics.median(_ratios(samples, name, baseline)) for baseline in BASELINES},
            }
            for (workload, count), samples in results.items()
            for name in samples
        ],
    }


if __name__ == "__main__":
    typer.run(run)
