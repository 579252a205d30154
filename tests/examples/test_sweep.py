"""The sweep from end to end: real processes, a real daemon, real trainings, in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOTOOLS = Path(sys.executable).with_name("motools")
TIMEOUT_S = 60

pytestmark = pytest.mark.slow


def run_sweep(cache_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the example as a user does."""
    command = [sys.executable, "-m", "examples.sweep", "--cache-dir", str(cache_dir), *options]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)


def test_second_sweep_on_the_same_directory_is_all_hits(cache_dir: Path) -> None:
    """Each configuration is trained once in the first sweep and never in the second."""
    first = run_sweep(cache_dir, "--workers", "3", "--configs", "4")
    second = run_sweep(cache_dir, "--workers", "3", "--configs", "4")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "8 trainings asked for, 4 distinct," in first.stdout
    assert "Trained: 4," in first.stdout
    assert "Nothing was trained twice." in first.stdout
    assert "Hits:    4," in first.stdout
    assert "Trained: 0," in second.stdout
    assert "Hits:    8," in second.stdout


def test_sweep_leaves_files_and_no_daemon(cache_dir: Path) -> None:
    """Dataset, models and evaluation logs stand where the layout says; the directory's daemon is gone."""
    sweep = run_sweep(cache_dir, "--workers", "2", "--configs", "2")
    assert sweep.returncode == 0, sweep.stderr
    logs = [json.loads(path.read_text()) for path in cache_dir.glob("evals/*/digits-test.json")]
    assert len(logs) == len(list(cache_dir.glob("runs/*/model.joblib"))) == 2
    assert all(log["accuracy"] > 0.9 for log in logs)
    assert len(list(cache_dir.glob("datasets/*.jsonl"))) == 1
    status = subprocess.run([MOTOOLS, "daemon", "status", "--cache-dir", cache_dir], check=False, capture_output=True)
    assert status.returncode == 69


def test_sweep_shows_the_real_commands(cache_dir: Path) -> None:
    """What `motools cache` says about the directory stands in the output."""
    sweep = run_sweep(cache_dir, "--workers", "2", "--configs", "1")
    assert f"$ motools cache stats --cache-dir {cache_dir}" in sweep.stdout
    assert f"$ motools cache size --breakdown --cache-dir {cache_dir}" in sweep.stdout


@pytest.mark.parametrize("options", [("--workers", "1"), ("--configs", "25"), ("--configs", "0")])
def test_sweep_that_cannot_be_planned_is_a_usage_error(cache_dir: Path, options: tuple[str, str]) -> None:
    """Exit code 2 and a sentence, before anything is made."""
    sweep = run_sweep(cache_dir, *options)
    assert sweep.returncode == 2
    assert "error:" in sweep.stderr
    assert not cache_dir.exists()
