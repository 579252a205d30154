"""`python -m bench`: run every workload against every peer, round by round, and report."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from bench import plots
from bench.cells import WrongAnswer
from bench.machine import describe_machine, describe_versions
from bench.peers.servers import temporary_directory
from bench.processes import WorkerFailed
from bench.ratios import judge
from bench.report import Run, document, markdown
from bench.rounds import run_rounds
from bench.scale import FULL, QUICK, TINY, Scale
from bench.suite import NAMES, Suite

IDLE_TIMEOUT_S = 600
"""Should this process be killed, its daemons end so long after their last client."""


def run(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="One short round: whether it works, not how fast.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"One of: {', '.join(NAMES)}. May be repeated.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, max=100, help="Each round runs everything once.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where benchmarks.md, benchmarks.json and plots go.")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", hidden=True, help="A few operations of everything.")] = False,
) -> None:
    """Measure motoolsd against its peers, and say whether it is as fast as it has to be.

    Peers that are not installed are reported as skipped. Progress goes to stderr, the report to stdout and to --out.

    Example: python -m bench --only hits --only writes --rounds 3
    """
    if unknown := set(only or ()) - NAMES.keys():
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: choose from {', '.join(NAMES)}", param_hint="--only")
    scale = TINY if tiny else QUICK if quick else FULL
    if rounds is not None:
        scale = replace(scale, rounds=rounds)
    signal.signal(signal.SIGTERM, _end)
    console = Console(stderr=True)
    try:
        measured = _measure(scale, only or list(NAMES), console)
    except (WorkerFailed, WrongAnswer, RuntimeError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    _publish(measured, out, console)


def _measure(scale: Scale, names: list[str], console: Console) -> Run:
    # The machine is looked at before there is any load of ours on it.
    machine, versions = describe_machine(), describe_versions()
    with ExitStack() as stack:
        _clear_settings(stack)
        suite = Suite(scale=scale, stack=stack, say=lambda text: console.print(text, markup=False, highlight=False))
        suite.prepare(names)
        results = run_rounds(suite.steps, scale.rounds, console)
    return Run(
        scale=scale,
        machine=machine,
        versions=versions,
        skipped=suite.skipped,
        unable=suite.unable,
        results=results,
        verdicts=judge(results),
    )


def _clear_settings(stack: ExitStack) -> None:
    """No setting of whoever runs this reaches a daemon or a client, until the stack ends."""
    before = dict(os.environ)
    stack.callback(os.environ.update, before)
    for name in [name for name in os.environ if name.startswith("MOTOOLS_")]:
        del os.environ[name]
    os.environ["XDG_CONFIG_HOME"] = str(stack.enter_context(temporary_directory()))
    os.environ["MOTOOLS_IDLE_TIMEOUT"] = str(IDLE_TIMEOUT_S)


def _publish(measured: Run, out: Path | None, console: Console) -> None:
    names: list[str] = []
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        # First: a plot that cannot be drawn must not cost a run of a quarter of an hour.
        (out / "benchmarks.json").write_text(json.dumps(document(measured), indent=1) + "\n")
        (out / "benchmarks.md").write_text(markdown(measured))
        reason = plots.available()
        if reason is None:
            names = plots.draw_all(measured.results, out)
        else:
            console.print(f"no plots: {reason}", markup=False, highlight=False)
        (out / "benchmarks.md").write_text(markdown(measured, names))
    sys.stdout.write(markdown(measured))


def _end(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM: everything that was started is stopped on the way out."""
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(run)
    app()
