"""The benchmark suite runs, proves its peers right, and judges what is required."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120


def run_suite(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`python -m bench`, with everything that it makes in `directory`."""
    environment = {**os.environ, "TMPDIR": str(directory)}
    command = [sys.executable, "-m", "bench", *options]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def workloads_of(report: dict[str, Any], peer: str) -> set[str]:
    """What a peer was measured with."""
    return {cell["workload"] for cell in report["cells"] if cell["peer"] == peer}


@pytest.mark.slow
def test_tiny_run_measures_every_peer_and_leaves_nothing_behind(short_dir: Path) -> None:
    """Each peer is measured or skipped with a reason; report, figures and plots are written, and all else is gone."""
    pytest.importorskip("numpy")
    out = short_dir / "out"
    done = run_suite(short_dir, "--tiny", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert list(short_dir.iterdir()) == [out], done.stderr

    report = json.loads((out / "benchmarks.json").read_text())
    measured = {cell["peer"] for cell in report["cells"]}
    assert all(peer in measured or report["skipped"][peer] for peer in report["durability"])
    assert workloads_of(report, "motoolsd, cold") >= {"hits", "misses", "mixed", "writes", "stampede"}
    assert workloads_of(report, "older way") >= {"hits", "misses", "mixed", "writes"}
    assert all(cell["median"] > 0 for cell in report["cells"])
    assert {line["verdict"] for line in report["required"]} <= {"pass", "below", "above", "not measured", ""}
    assert done.stdout.startswith("# Benchmarks")
    if find_spec("matplotlib"):
        assert (out / "bench-throughput.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_unknown_workload_is_refused(short_dir: Path) -> None:
    """A workload that does not exist is an error that names those that do."""
    pytest.importorskip("numpy")
    done = run_suite(short_dir, "--only", "hist")
    assert done.returncode == 2
    assert "hits" in done.stderr
