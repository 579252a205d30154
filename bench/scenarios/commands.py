"""How long a command takes, from its start to its end."""

from __future__ import annotations

import compileall
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import motools.cache
import motoolsd
from bench.cells import Cell, Sample, WrongAnswer
from bench.peers.motools import Daemon
from bench.scale import Scale
from motools.cache.control import start_daemon, stop_daemon

NAME: Final = "commands"
SAYS: Final = (
    "Whole processes, from start to end: `motools cache stats` with its daemon running and without (it is started"
    " then), beside an interpreter that does nothing. Milliseconds."
)
TIMEOUT_S: Final = 60.0
RUNNING, STARTING, FLOOR = "stats, daemon runs", "stats, daemon is started", "python -c pass"


def compile_sources() -> None:
    """Write the bytecode of daemon and client: the environment may keep commands from doing it, at each start anew."""
    for package in (Path(motoolsd.__file__).parent, Path(motools.cache.__file__).parents[1]):
        compileall.compile_dir(package, quiet=2)


def measure_commands(daemon: Daemon, scale: Scale) -> dict[Cell, Sample]:
    """All kinds, in turn.

    Raises:
        WrongAnswer: a command fails.
    """
    directory = str(daemon.directory)
    stats = [*_motools(), "cache", "stats", "--cache-dir", directory]
    times_ms: dict[str, list[float]] = {FLOOR: [], RUNNING: [], STARTING: []}
    for _ in range(scale.command_runs):
        times_ms[FLOOR].append(_time_ms([sys.executable, "-c", "pass"]))
        start_daemon(directory)
        times_ms[RUNNING].append(_time_ms(stats))
        stop_daemon(directory)
        times_ms[STARTING].append(_time_ms(stats))
    return {Cell(NAME, 1, name): Sample(statistics.median(times), "ms") for name, times in times_ms.items()}


def _motools() -> list[str]:
    script = shutil.which("motools", path=Path(sys.executable).parent)
    return [script] if script else [sys.executable, "-c", "from motools.cli import main; main()"]


def _time_ms(command: list[str]) -> float:
    begin_s = time.perf_counter()
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=_clean()
    )
    elapsed_s = time.perf_counter() - begin_s
    if done.returncode != 0:
        raise WrongAnswer("motools", f"failed: {' '.join(command)}\n{done.stderr}")
    return elapsed_s * 1e3


def _clean() -> dict[str, str]:
    """The environment without what makes Python slower or chatty."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
