"""Rounds: every step once, then every step again, so that the machine's drift hits all alike."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.cells import Results, Step


def run_rounds(steps: Sequence[Step], rounds: int, console: Console) -> Results:
    """What every step gave in every round."""
    results: Results = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Refreshed by hand: workers are forked from a process without threads.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        bar = progress.add_task("", total=rounds * len(steps))
        for number in range(rounds):
            if not console.is_terminal:
                console.print(f"round {number + 1} of {rounds}", highlight=False)
            for step in steps:
                progress.update(bar, description=f"round {number + 1} of {rounds}: {step.label}", refresh=True)
                for cell, sample in step.run(number).items():
                    results.setdefault(cell, []).append(sample)
                progress.advance(bar)
    return results
