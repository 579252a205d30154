"""What the sweep says about itself."""

from __future__ import annotations

import io

from rich.console import Console

from examples.sweep.asking import Answer
from examples.sweep.report import summarise, summary_lines, table_of
from examples.sweep.workers import Event

EVENTS = [
    Event(0, Answer("mlp-a", was_trained=True, accuracy=0.97, train_s=2.0)),
    Event(1, Answer("mlp-b", was_trained=True, accuracy=0.95, train_s=3.0)),
    Event(1, Answer("mlp-a", was_trained=False, accuracy=0.97, train_s=2.0)),
]


def test_summary_counts_trainings_and_hits() -> None:
    """Time saved is what the hits' trainings had cost."""
    summary = summarise(EVENTS)
    assert (summary.asked, summary.distinct, summary.trained, summary.hits) == (3, 2, 2, 1)
    assert (summary.spent_s, summary.saved_s) == (5.0, 2.0)


def test_sweep_of_hits_alone_spends_nothing() -> None:
    """The second run on a directory trains nothing."""
    summary = summarise(EVENTS[2:])
    assert (summary.trained, summary.spent_s) == (0, 0)


def test_sentences_name_what_was_trained_and_saved() -> None:
    """The numbers that a reader looks for."""
    text = "\n".join(summary_lines(summarise(EVENTS), elapsed_s=4.0))
    assert "3 trainings asked for, 2 distinct" in text
    assert "Trained: 2, which took 5.0 s" in text
    assert "Hits:    1, which saved 2.0 s" in text


def test_table_names_who_trained_and_who_hit() -> None:
    """One row a configuration."""
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as capture:
        console.print(table_of(EVENTS))
    rows = [line.split("│") for line in capture.get().splitlines() if "mlp-" in line]
    assert [[cell.strip() for cell in row[1:-1]] for row in rows] == [
        ["mlp-a", "0.9700", "2.00 s", "0", "1"],
        ["mlp-b", "0.9500", "3.00 s", "1", ""],
    ]
