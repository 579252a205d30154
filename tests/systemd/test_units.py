"""The systemd units, under a real user manager."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NO_MANAGER = 77
TIMEOUT_S = 240.0

pytestmark = pytest.mark.slow


def under_manager(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command beside a user manager; skip where there can be none."""
    done = subprocess.run(
        [str(HERE / "user_manager.sh"), str(home), *command],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": os.defpath},
        check=False,
    )
    if done.returncode == NO_MANAGER:
        pytest.skip(done.stderr.strip())
    return done


def test_scenarios(short_dir: Path) -> None:
    """Each of scenarios.py, beside one manager."""
    scenarios = [sys.executable, "-m", "pytest", "-q", "--override-ini=cache_dir=.cache/pytest-systemd"]
    done = under_manager(short_dir, *scenarios, str(HERE / "scenarios.py"))
    assert done.returncode == 0, done.stdout + done.stderr
