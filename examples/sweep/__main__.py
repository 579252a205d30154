"""`python -m examples.sweep`: run the sweep, say what it saved, and look at the directory with the real commands."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from rich.console import Console

from examples.sweep.asking import ensure_dataset
from examples.sweep.plan import CONFIGS_MAX, distinct_configs, plan_work
from examples.sweep.report import open_progress, run_motools, summarise, summary_lines, table_of
from examples.sweep.workers import Event, WorkerDied, open_workers, run_work
from motools.cache import SyncCache

DEFAULT_DIR = Path("build/demo/.motools")
THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def parse_arguments(words: list[str]) -> argparse.Namespace:
    """Read the command line; what cannot be planned ends the program with exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m examples.sweep", description=__doc__)
    parser.add_argument("--cache-dir", type=Path, default=DEFAULT_DIR, help=f"default: {DEFAULT_DIR}")
    parser.add_argument("--workers", type=int, default=8, help="worker processes, at least 2 (default: 8)")
    parser.add_argument("--configs", type=int, default=CONFIGS_MAX, help=f"distinct ones (default: {CONFIGS_MAX})")
    arguments = parser.parse_args(words)
    try:
        plan_work(distinct_configs(arguments.configs), arguments.workers)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def run_sweep(directory: Path, *, worker_count: int, config_count: int) -> list[Event]:
    """Ask for every configuration twice, from two workers at the same time.

    Args:
        directory: the cache directory, absolute; made where it is missing.
        worker_count: processes that share it.
        config_count: distinct configurations; twice as many trainings are asked for.

    Returns:
        The answers, in the order in which they came.
    """
    lists = plan_work(distinct_configs(config_count), worker_count)
    with SyncCache(directory) as cache:
        dataset_hash = ensure_dataset(cache, directory)
    with (
        open_progress(2 * config_count) as progress,
        open_workers(worker_count, directory, dataset_hash) as workers,
    ):
        return run_work(workers, lists, progress.advance)


def main(words: list[str]) -> int:
    """Run the sweep, report, and leave no process behind.

    Returns:
        0, 1 when a worker died, or what a failing `motools` command returned.
    """
    arguments = parse_arguments(words)
    directory = arguments.cache_dir
    for name in THREAD_SETTINGS:
        os.environ[name] = "1"  # the workers are the parallelism
    started_s = time.perf_counter()
    try:
        events = run_sweep(directory.resolve(), worker_count=arguments.workers, config_count=arguments.configs)
        elapsed_s = time.perf_counter() - started_s
        Console().print(table_of(events))
        print("\n".join(summary_lines(summarise(events), elapsed_s)))
        return run_motools(directory, "cache", "stats") or run_motools(directory, "cache", "size", "--breakdown")
    except WorkerDied as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        run_motools(directory, "daemon", "stop")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
