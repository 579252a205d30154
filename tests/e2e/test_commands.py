"""`motools cache`, typed as users type it, against a real daemon."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from motools.cache import SyncCache
from tests.e2e.daemons import daemon_pid, end_daemon

TIMEOUT_S = 60.0
MOTOOLS = [sys.executable, "-m", "motools.cli"]
CONFIG = {"model": "gpt-4o-mini", "hyperparameters": {"lr": 1e-4}}

pytestmark = pytest.mark.slow


def motools(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Type a command, without a terminal, and wait for its end."""
    return subprocess.run(
        [*MOTOOLS, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, **environment},
    )


def listed(kind: str, directory: Path) -> list[dict[str, Any]]:
    """What `motools cache list KIND --json` lists."""
    done = motools("cache", "list", kind, "--json", "-d", directory)
    assert done.returncode == 0, done.stderr
    items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return items


@pytest.fixture
def filled_dir(shared_dir: Path) -> Path:
    """A cache with a daemon, a dataset, a model and three evaluations."""
    with SyncCache(shared_dir) as cache:
        cache.set_file_id("hash1", "file-1")
        cache.set_model_id("hash1", CONFIG, "ft-abc123")
        cache.set_eval_log_paths("ft-abc123", {"task_1": "evals/1.eval", "task_2": "evals/2.eval"}, "inspect")
        cache.set_eval_log_paths("ft-other", {"task_1": "evals/3.eval"}, "inspect", {"limit": 3})
    return shared_dir


def test_models_are_listed_with_what_they_were_trained_from(filled_dir: Path) -> None:
    """Configuration, dataset and backend travel the whole way."""
    (model,) = listed("models", filled_dir)
    assert (model["model_id"], model["config"], model["dataset_hash"], model["backend_type"]) == (
        "ft-abc123",
        CONFIG,
        "hash1",
        "openai",
    )


def test_reading_starts_a_daemon_where_a_cache_is(filled_dir: Path) -> None:
    """After the daemon has gone, a reading command finds everything, and a daemon runs again."""
    end_daemon(filled_dir)
    assert daemon_pid(filled_dir) is None
    assert [item["log_file_path"] for item in listed("evals", filled_dir)] == [f"evals/{n}.eval" for n in (1, 2, 3)]
    assert daemon_pid(filled_dir) is not None


def test_directory_comes_from_the_environment(filled_dir: Path) -> None:
    """`$MOTOOLS_CACHE_DIR` stands in for `--cache-dir`."""
    done = motools("cache", "stats", "--json", MOTOOLS_CACHE_DIR=str(filled_dir))
    assert json.loads(done.stdout)["num_evals"] == 3


@pytest.mark.parametrize(
    "words",
    [["list", "models"], ["stats"], ["size", "--breakdown"], ["clear", "all", "--yes"], ["clear", "evals", "-y"]],
)
def test_missing_directory_is_not_found_and_not_made(cache_dir: Path, words: list[str]) -> None:
    """A misspelled directory is said by its path, with what to type; nothing is made or started."""
    done = motools("cache", *words, "-d", cache_dir)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"motools: error: no cache directory {cache_dir}")
    assert f"motools daemon start --cache-dir {cache_dir}" in done.stderr
    assert not cache_dir.exists()


def test_directory_without_a_cache_stays_empty(short_dir: Path) -> None:
    """A directory that holds no cache.db is not turned into a cache by looking at it."""
    done = motools("cache", "stats", "-d", short_dir)
    assert done.returncode == 3
    assert str(short_dir) in done.stderr
    assert list(short_dir.iterdir()) == []


def test_no_daemon_where_none_may_be_started(filled_dir: Path) -> None:
    """`MOTOOLS_AUTOSTART=0` is honoured: exit code 69, and what to type."""
    end_daemon(filled_dir)
    done = motools("cache", "stats", "-d", filled_dir, MOTOOLS_AUTOSTART="0")
    assert (done.returncode, done.stdout) == (69, "")
    assert "motools daemon start" in done.stderr
    assert daemon_pid(filled_dir) is None


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 8176])
def test_file_that_is_no_database_is_refused_and_kept(short_dir: Path, content: bytes) -> None:
    """A damaged or foreign cache.db ends a command with words, and is the same afterwards."""
    database = short_dir / "cache.db"
    database.write_bytes(content)
    done = motools("cache", "stats", "-d", short_dir)
    assert (done.returncode, done.stdout) == (1, "")
    assert str(database) in done.stderr
    assert "Traceback" not in done.stderr
    assert database.read_bytes() == content


def test_path_that_only_bytes_can_hold_is_listed_in_every_format(shared_dir: Path) -> None:
    """A log whose name is no UTF-8: escaped for people, exact for programs."""
    path = b"evals/\xff.eval"
    with SyncCache(shared_dir) as cache:
        cache.set_eval_log_paths("m", {"t": os.fsdecode(path)}, "inspect")
    assert os.fsencode(listed("evals", shared_dir)[0]["log_file_path"]) == path
    assert r"evals/\xff.eval" in motools("cache", "list", "evals", "-d", shared_dir).stdout
    command = [*MOTOOLS, "cache", "list", "evals", "--format", "csv", "-d", str(shared_dir)]
    assert b"," + path + b"," in subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=True).stdout


def test_long_list_into_a_closed_pipe_ends_quietly(shared_dir: Path) -> None:
    """`motools cache list evals | head -1` leaves no error behind."""
    with SyncCache(shared_dir) as cache:
        cache.set_eval_log_paths("m", {f"task-{number}": "x" * 100 for number in range(3000)}, "inspect")
    command = [*MOTOOLS, "cache", "list", "evals", "-d", str(shared_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split()[0] == "id"
        process.stdout.close()
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_clear_without_a_terminal_removes_nothing(filled_dir: Path) -> None:
    """A script must say `--yes`."""
    done = motools("cache", "clear", "all", "-d", filled_dir)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--yes" in done.stderr
    assert len(listed("evals", filled_dir)) == 3


def test_clear_keeps_files(filled_dir: Path) -> None:
    """Entries go, the files that they name stay."""
    log = filled_dir / "evals" / "1.eval"
    log.write_text("log")
    assert motools("cache", "clear", "all", "--yes", "-d", filled_dir).returncode == 0
    assert listed("evals", filled_dir) == []
    assert log.read_text() == "log"


def at_terminal(words: list[str], typed: bytes) -> tuple[int, str]:
    """Type a command at a terminal of 80 columns, then the answer to its question; exit code and screen."""
    pid, descriptor = pty.fork()
    if pid == 0:
        os.environ.update(COLUMNS="80", TERM="xterm")
        os.execv(sys.executable, [*MOTOOLS, *words])
    screen = b""
    deadline_s = time.monotonic() + TIMEOUT_S
    try:
        while select.select([descriptor], [], [], deadline_s - time.monotonic())[0]:
            part = os.read(descriptor, 65_536)
            screen += part
            if screen.endswith(b"[y/N] "):
                os.write(descriptor, typed)
    except OSError:
        # The other side has closed the terminal.
        pass
    finally:
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), screen.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("typed", "code", "left"), [(b"y\n", 0, 1), (b"n\n", 1, 3), (b"\x04", 1, 3), (b"\x03", 130, 3)]
)
def test_clear_asks_at_a_terminal(filled_dir: Path, typed: bytes, code: int, left: int) -> None:
    """Yes, no, Ctrl-D and Ctrl-C each do what somebody at a terminal means by them."""
    words = ["cache", "clear", "evals", "--model-id", "ft-abc123", "-d", str(filled_dir)]
    ended, screen = at_terminal(words, typed)
    assert f"Remove 2 evals from {filled_dir}? [y/N] " in screen
    assert ended == code, screen
    assert len(listed("evals", filled_dir)) == left


def test_ids_are_whole_at_a_terminal_of_80_columns(filled_dir: Path) -> None:
    """A model's key of 64 digits stands on one line, so that it can be copied."""
    code, screen = at_terminal(["cache", "list", "models", "-d", str(filled_dir)], b"")
    assert code == 0
    (model,) = listed("models", filled_dir)
    assert any(line.split() == ["cache", "key", model["cache_key"]] for line in screen.splitlines())
    assert max(map(len, screen.splitlines())) <= 80


@pytest.mark.skipif(shutil.which("motools", path=str(Path(sys.executable).parent)) is None, reason="not installed")
def test_script_is_installed(filled_dir: Path) -> None:
    """The distribution's own script runs the same commands."""
    script = str(Path(sys.executable).with_name("motools"))
    command = [script, "cache", "stats", "--json", "--cache-dir", str(filled_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert json.loads(done.stdout)["num_models"] == 1
