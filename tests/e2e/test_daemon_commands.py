"""`motools daemon`, typed as a user types it, against a real daemon."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from motools.cache import SyncCache
from tests.e2e.daemons import daemon_pid, is_alive

TIMEOUT_S = 30.0
MOTOOLS = [sys.executable, "-m", "motools.cli"]

pytestmark = pytest.mark.slow


def motools(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Type a command, without a terminal, and wait for its end."""
    command = [*MOTOOLS, *map(str, arguments)]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def daemon(verb: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Type `motools daemon VERB --cache-dir DIRECTORY`; it must succeed."""
    done = motools("daemon", verb, "--cache-dir", directory, *arguments)
    assert done.returncode == 0, done.stderr
    return done


def status(directory: Path) -> dict[str, Any]:
    """What `motools daemon status --json` prints."""
    document: dict[str, Any] = json.loads(daemon("status", directory, "--json").stdout)
    return document


@contextmanager
def begun(verb: str, directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on until it is interrupted; stdout and stderr come through one pipe."""
    command = [*MOTOOLS, "daemon", verb, "--cache-dir", str(directory), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """What a process prints, up to where the pattern is found."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    said = ""
    while not re.search(pattern, said):
        assert select.select([descriptor], [], [], TIMEOUT_S)[0], f"{pattern!r} did not come after {said!r}"
        part = os.read(descriptor, 65_536).decode()
        assert part, f"ended without {pattern!r}: {said!r}"
        said += part
    return said


def interrupt(process: subprocess.Popen[str]) -> int:
    """What Ctrl-C does; the exit code."""
    process.send_signal(signal.SIGINT)
    return process.wait(TIMEOUT_S)


def test_start_makes_the_directory_and_what_belongs_into_it(shared_dir: Path) -> None:
    """`start` makes a private directory with its database and folders, and says which process serves it."""
    done = daemon("start", shared_dir)
    assert stat.S_IMODE(shared_dir.stat().st_mode) == 0o700
    assert {"cache.db", "datasets", "runs", "evals"} <= {path.name for path in shared_dir.iterdir()}
    assert done.stdout == ""
    assert f"pid {daemon_pid(shared_dir)}" in done.stderr
    assert str(shared_dir) in done.stderr


def test_a_second_start_finds_the_first_one_running(shared_dir: Path) -> None:
    """`start` where a daemon runs succeeds, says so, and starts nothing."""
    daemon("start", shared_dir)
    pid = daemon_pid(shared_dir)
    assert "already running" in daemon("start", shared_dir).stderr
    assert daemon_pid(shared_dir) == pid


def test_status_names_process_socket_and_what_it_holds(shared_dir: Path) -> None:
    """`status --json` has the documented fields with the documented types, under the usual head."""
    with SyncCache(shared_dir) as cache:
        cache.set_file_id("hash", "file")
        document = status(shared_dir)
    assert document["schema_version"] == 1
    assert document["as_of"].endswith("Z")
    assert document["pid"] == daemon_pid(shared_dir)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", document["version"])
    assert Path(document["socket"]).is_socket()
    assert 0 <= document["uptime_s"] < TIMEOUT_S
    assert document["clients"] >= 2, "the cache above, and the command itself"
    assert document["entries"] == 1


def test_status_for_people_shows_the_same(shared_dir: Path) -> None:
    """Without --json, `status` prints one line a field."""
    daemon("start", shared_dir)
    lines = dict(line.split(maxsplit=1) for line in daemon("status", shared_dir).stdout.splitlines())
    assert lines["pid"] == str(daemon_pid(shared_dir))
    assert lines["socket"] == str(shared_dir / "motoolsd.sock")


def test_status_of_nothing_exits_69_and_starts_nothing(shared_dir: Path) -> None:
    """Where a cache is but no daemon runs, `status` says how to start one, and changes nothing."""
    daemon("start", shared_dir)
    daemon("stop", shared_dir)
    before = sorted(path.name for path in shared_dir.iterdir())
    done = motools("daemon", "status", "-d", shared_dir)
    assert (done.returncode, done.stdout) == (69, "")
    assert "motools daemon start" in done.stderr
    assert daemon_pid(shared_dir) is None
    assert sorted(path.name for path in shared_dir.iterdir()) == before


def test_stop_returns_when_the_process_is_gone(shared_dir: Path) -> None:
    """As soon as `stop` returns, the process does not exist any more and its socket is removed; the rows stay."""
    with SyncCache(shared_dir) as cache:
        cache.set_file_id("hash", "file")
    pid = daemon_pid(shared_dir)
    assert pid is not None
    done = daemon("stop", shared_dir)
    assert not is_alive(pid)
    assert f"pid {pid}" in done.stderr
    assert not (shared_dir / "motoolsd.sock").exists()
    with SyncCache(shared_dir) as cache:
        assert cache.get_file_id("hash") == "file"


def test_stop_of_nothing_succeeds_and_says_so(shared_dir: Path) -> None:
    """`stop` twice: the second one finds nothing to stop, which is what was wanted."""
    daemon("start", shared_dir)
    daemon("stop", shared_dir)
    done = daemon("stop", shared_dir)
    assert "no daemon serves" in done.stderr
    assert daemon_pid(shared_dir) is None


def test_stop_ends_a_daemon_that_does_not_answer(shared_dir: Path) -> None:
    """A daemon that was suspended (SIGSTOP) is found through its lock file and ended; its socket goes with it."""
    daemon("start", shared_dir)
    pid = daemon_pid(shared_dir)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    assert f"pid {pid}" in daemon("stop", shared_dir).stderr
    assert not is_alive(pid)
    assert not (shared_dir / "motoolsd.sock").exists()


def test_stop_never_signals_a_process_that_only_has_the_number(shared_dir: Path) -> None:
    """After kill -9 the lock file still names a pid; whoever got that number since is left alone."""
    daemon("start", shared_dir)
    pid = daemon_pid(shared_dir)
    assert pid is not None
    lock = shared_dir / "motoolsd.lock"
    daemon("stop", shared_dir)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        lock.write_text(lock.read_text().replace(str(pid), str(stranger.pid)))
        assert "no daemon serves" in daemon("stop", shared_dir).stderr
        assert stranger.poll() is None
        stranger.communicate(b"\n", TIMEOUT_S)
    assert stranger.returncode == 0


def test_restart_gives_a_new_process_with_the_same_rows(shared_dir: Path) -> None:
    """`restart` ends one process and starts another; a client that was connected carries on."""
    with SyncCache(shared_dir) as cache:
        cache.set_file_id("hash", "file")
        before = daemon_pid(shared_dir)
        assert before is not None
        daemon("restart", shared_dir)
        after = daemon_pid(shared_dir)
        assert after is not None
        assert after != before
        assert not is_alive(before)
        assert cache.get_file_id("hash") == "file"


def test_restart_without_a_daemon_starts_one(shared_dir: Path) -> None:
    """`restart` after `stop` is a start."""
    daemon("start", shared_dir)
    daemon("stop", shared_dir)
    daemon("restart", shared_dir)
    assert daemon_pid(shared_dir) is not None


def test_logs_prints_as_many_of_the_last_lines_as_asked_for(shared_dir: Path) -> None:
    """`logs -n 1` is the last line of the log, `logs` has the start in it too."""
    daemon("start", shared_dir)
    daemon("stop", shared_dir)
    assert " serves " in daemon("logs", shared_dir).stdout
    last = daemon("logs", shared_dir, "-n", "1").stdout
    assert last == (shared_dir / "motoolsd.log").read_text().splitlines(keepends=True)[-1]
    assert "stopped" in last


def test_logs_follows_until_it_is_interrupted(shared_dir: Path) -> None:
    """`logs -f` shows what is added, also by the next daemon, and ends with 130 at Ctrl-C, without a traceback."""
    daemon("start", shared_dir)
    with begun("logs", shared_dir, "-n", "0", "-f") as following:
        daemon("restart", shared_dir)
        said = read_until(following, rf"pid {daemon_pid(shared_dir)}\b")
        assert interrupt(following) == 130
        assert following.stdout is not None
        assert "Traceback" not in said + following.stdout.read()


def test_run_serves_in_the_foreground_until_it_is_interrupted(shared_dir: Path) -> None:
    """`run` is the daemon itself: it logs to the terminal, never ends by itself, and drains at Ctrl-C."""
    with begun("run", shared_dir) as running:
        read_until(running, r" serves ")
        found = status(shared_dir)
        assert found["pid"] == running.pid
        assert found["idle_timeout_s"] == 0
        with SyncCache(shared_dir, autostart=False) as cache:
            cache.set_file_id("hash", "file")
        assert interrupt(running) == 0
        assert running.stdout is not None
        assert "Traceback" not in running.stdout.read()
    assert daemon_pid(shared_dir) is None


def test_run_refuses_where_a_daemon_runs_already(shared_dir: Path) -> None:
    """In the foreground, a second daemon is an error that names the first."""
    daemon("start", shared_dir)
    done = motools("daemon", "run", "-d", shared_dir)
    assert done.returncode == 1
    assert "already running" in done.stderr
    assert f"pid {daemon_pid(shared_dir)}" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "cache list datasets",
        "cache list models",
        "cache list evals",
        "cache stats",
        "cache size --breakdown",
        "cache clear all --yes",
        "daemon status",
        "daemon stop",
        "daemon logs",
    ],
)
def test_a_missing_directory_exits_3_and_is_not_made(shared_dir: Path, command: str) -> None:
    """What reads, or needs something to be there, makes no directory, starts no daemon, and names the directory."""
    done = motools(*command.split(), "--cache-dir", shared_dir)
    assert (done.returncode, done.stdout) == (3, "")
    assert str(shared_dir) in done.stderr
    assert "Traceback" not in done.stderr
    assert list(shared_dir.parent.iterdir()) == []


def test_a_directory_without_a_cache_is_not_made_one_by_looking(shared_dir: Path) -> None:
    """`stats` on a directory that holds no cache.db exits 3 and leaves it empty."""
    shared_dir.mkdir()
    done = motools("cache", "stats", "-d", shared_dir)
    assert done.returncode == 3
    assert "cache.db" in done.stderr
    assert list(shared_dir.iterdir()) == []
