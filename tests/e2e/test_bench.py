"""The benchmark suite runs, proves its peers right, and prints their ratios."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_tiny_run_measures_every_peer(short_dir: Path) -> None:
    """Every workload is run against every peer, and the figures are written for programs too."""
    report = short_dir / "report.json"
    sizes = ["--rounds", "1", "--seconds", "0.1", "--processes", "2", "--entries", "5"]
    command = [sys.executable, "-m", "bench", *sizes, "--json", str(report)]
    environment = {**os.environ, "TMPDIR": str(short_dir), "MOTOOLS_IDLE_TIMEOUT": "20"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(report.read_text())["results"]
    measured = {(result["workload"], result["peer"]) for result in results}
    peers = ("older way", "older, WAL", "motoolsd")
    assert measured == {(workload, peer) for workload in ("hits", "misses", "writes") for peer in peers}
    assert all(result["samples"][0]["operations_per_s"] > 0 for result in results)
