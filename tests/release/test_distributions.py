"""Wheel and sdist: built, installed into an environment that has nothing else, and used from outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 50.0
SWEEP = """
from motools.cache import CacheUtils, SyncCache, hash_content
with SyncCache() as cache:
    calls = []
    for _ in range(2):
        model = cache.get_or_train(hash_content("d"), {"lr": 0.1}, lambda: calls.append(1) or "ft-1", backend_type="b")
    print(model, len(calls), cache.get_status().started_by, CacheUtils().get_stats().num_models)
"""

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints; nothing of this environment reaches it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=cwd,
        env={**kept, **environment},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that is built from what it holds."""
    place = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", place, cwd=ROOT)
    (sdist,) = place.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(place / "unpacked", filter="data")
    (source,) = (place / "unpacked").iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place, cwd=source)
    return place


@pytest.fixture(scope="module")
def clean(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel and what it needs."""
    home = tmp_path_factory.mktemp("clean")
    venv.create(home, with_pip=True)
    (wheel,) = distributions.glob("*.whl")
    run(home / "bin" / "python", "-m", "pip", "install", "--quiet", wheel, cwd=home)
    return home / "bin"


def test_wheel_holds_both_packages_and_the_units(distributions: Path) -> None:
    """And nothing of tests, caches, or the checkout."""
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"motoolsd/app.py", "motools/cache/__init__.py", "motools/py.typed", "motoolsd/py.typed"} <= names
    assert {f"motools/cache/systemd/motoolsd@.{kind}" for kind in ("service", "socket")} <= names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"motoolsd", "motools"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_clean_environment_runs_a_sweep(clean: Path, short_dir: Path) -> None:
    """From a directory that knows nothing of the project: cache, daemon and commands."""
    environment = {"MOTOOLS_IDLE_TIMEOUT": "20", "HOME": str(short_dir)}
    assert run(clean / "python", "-c", SWEEP, cwd=short_dir, **environment).split() == ["ft-1", "1", "client", "1"]
    assert "ft-1" in run(clean / "motools", "cache", "list", "models", cwd=short_dir, **environment)
    assert '"num_models": 1' in run(clean / "motools", "cache", "stats", "--json", cwd=short_dir, **environment)
    assert "ok" in run(clean / "motools", "cache", "doctor", cwd=short_dir, **environment)
    run(clean / "motools", "daemon", "stop", cwd=short_dir, **environment)
    assert "motoolsd" in run(clean / "motoolsd", "--version", cwd=short_dir)
