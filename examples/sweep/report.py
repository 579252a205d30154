"""What came out of a sweep: the summary, the table, the progress bar, and the real commands on its directory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.sweep.workers import Event


@dataclass(frozen=True)
class Summary:
    """A sweep in numbers; times in seconds of training, added up over all workers."""

    asked: int
    distinct: int
    trained: int
    hits: int
    spent_s: float
    saved_s: float
    once: bool
    """Whether no configuration was trained more than once."""


def summarise(events: list[Event]) -> Summary:
    """Count what was trained and what the cache had, and what that saved."""
    answers = [event.answer for event in events]
    trained = [answer for answer in answers if answer.was_trained]
    hits = [answer for answer in answers if not answer.was_trained]
    return Summary(
        asked=len(answers),
        distinct=len({answer.config_name for answer in answers}),
        trained=len(trained),
        hits=len(hits),
        spent_s=sum(answer.train_s for answer in trained),
        saved_s=sum(answer.train_s for answer in hits),
        once=len({answer.config_name for answer in trained}) == len(trained),
    )


def summary_lines(summary: Summary, elapsed_s: float) -> list[str]:
    """The summary in sentences."""
    return [
        f"{summary.asked} trainings asked for, {summary.distinct} distinct, each by two workers at the same time.",
        f"Trained: {summary.trained}, which took {summary.spent_s:.1f} s of computing.",
        f"Hits:    {summary.hits}, which saved {summary.saved_s:.1f} s of computing.",
        "Nothing was trained twice." if summary.once else "Something was trained twice: that is a bug.",
        f"The sweep took {elapsed_s:.1f} s.",
    ]


def table_of(events: list[Event]) -> Table:
    """One row for each configuration: its accuracy, its cost, which worker trained it and whom the cache answered."""
    table = Table("configuration", "accuracy", "training", "trained by", "hit by")
    table.columns[0].no_wrap = True
    for name in sorted({event.answer.config_name for event in events}):
        mine = [event for event in events if event.answer.config_name == name]
        table.add_row(
            name,
            f"{mine[0].answer.accuracy:.4f}",
            f"{mine[0].answer.train_s:.2f} s",
            ", ".join(str(event.worker) for event in mine if event.answer.was_trained),
            ", ".join(str(event.worker) for event in mine if not event.answer.was_trained),
        )
    return table


class SweepProgress:
    """A progress bar that counts what was trained and what was a hit."""

    def __init__(self, progress: Progress, *, total: int) -> None:
        self._progress = progress
        self._trained = 0
        self._hits = 0
        self._task = progress.add_task("sweep", total=total, trained=0, hits=0)

    def advance(self, event: Event) -> None:
        """Count one answer."""
        self._trained += event.answer.was_trained
        self._hits += not event.answer.was_trained
        self._progress.update(self._task, advance=1, trained=self._trained, hits=self._hits)


@contextmanager
def open_progress(total: int) -> Iterator[SweepProgress]:
    """Show a progress bar on stderr while the block runs."""
    columns = (
        TextColumn("sweep"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[trained]} trained, {task.fields[hits]} hits"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield SweepProgress(progress, total=total)


def run_motools(directory: Path, *words: str) -> int:
    """Type a `motools` command on the sweep's directory, visibly.

    Args:
        directory: goes into `--cache-dir` as it is.
        words: the command, for example "cache", "stats".

    Returns:
        Its exit code.
    """
    print(f"\n$ motools {' '.join(words)} --cache-dir {directory}", flush=True)
    command = [str(Path(sys.executable).with_name("motools")), *words, "--cache-dir", str(directory)]
    return subprocess.run(command, check=False).returncode
