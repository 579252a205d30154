"""`motools run` and `motools cache leases`, with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from motools.cache import SyncCache
from motools.cli.guard import children_of
from tests.e2e.daemons import daemon_pid, end_daemon, is_alive
from tests.e2e.jobs import job

pytestmark = pytest.mark.slow
TIMEOUT_S = 30.0
MOTOOLS = str(Path(sys.executable).with_name("motools"))


@pytest.fixture
def here(shared_dir: Path, short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a dataset and configurations; the cache is named by the environment."""
    monkeypatch.setenv("MOTOOLS_CACHE_DIR", str(shared_dir))
    monkeypatch.setenv("TMPDIR", str(short_dir))
    monkeypatch.chdir(short_dir)
    (short_dir / "data.jsonl").write_text("one line\n")
    (short_dir / "config.json").write_text('{"lr": 0.1}')
    (short_dir / "config.yaml").write_text("lr: 0.1\n")
    return short_dir


DATASET = ("--kind", "dataset", "--dataset", "data.jsonl")
MODEL = ("--kind", "model", "--dataset", "data.jsonl", "--backend", "mine", "--config")


def motools(*words: str) -> subprocess.CompletedProcess[str]:
    """A command, to its end."""
    return subprocess.run([MOTOOLS, *words], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def run(*words: str) -> tuple[int, str]:
    """`motools run`: its exit code and what it printed."""
    done = motools("run", *words)
    return done.returncode, done.stdout


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[str]]:
    """`motools run` while it runs."""
    # In a process group of its own, as an interactive shell or a scheduler starts a job.
    with subprocess.Popen(
        [MOTOOLS, "run", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def storing(value: str) -> tuple[str, ...]:
    """A command that stores a result, and says that it ran."""
    return ("--", "sh", "-c", f"echo x >> ran; echo {value} > $MOTOOLS_RESULT")


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what others bring about."""
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for(path: Path) -> str:
    """The content of a file that somebody else writes."""
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    return path.read_text().strip()


def test_result_is_printed_and_the_command_run_once(here: Path) -> None:
    """JSON and YAML that say the same are the same configuration."""
    assert run(*MODEL, "config.json", *storing("ft-1")) == (0, "ft-1\n")
    assert run(*MODEL, "config.yaml", *storing("ft-2")) == (0, "ft-1\n")
    assert (here / "ran").read_text() == "x\n"
    with SyncCache(os.environ["MOTOOLS_CACHE_DIR"]) as cache:
        (entry,) = cache.list_models()
        assert (entry.model_id, entry.config, entry.backend_type) == ("ft-1", {"lr": 0.1}, "mine")


def test_two_at_once_run_the_command_once(here: Path) -> None:
    """The second waits for the first one's result."""
    command = ("--", "sh", "-c", "echo x >> ran; sleep 0.5; echo file-1 > $MOTOOLS_RESULT")
    with running(*DATASET, *command) as first, running(*DATASET, *command) as second:
        assert [first.communicate(timeout=TIMEOUT_S)[0], second.communicate(timeout=TIMEOUT_S)[0]] == ["file-1\n"] * 2
    assert (here / "ran").read_text() == "x\n"


def test_last_line_of_stdout_can_be_the_result(here: Path) -> None:
    """What stands before it is passed on."""
    assert here.exists()
    command = ("--", "sh", "-c", "echo working; echo; echo file-1; echo")
    assert run(*DATASET, "--result", "stdout", *command) == (0, "working\n\nfile-1\n")
    assert run(*DATASET, "--result", "stdout", *command) == (0, "file-1\n")


def test_evaluation_is_run_with_its_arguments(here: Path) -> None:
    """Other arguments are another evaluation."""
    assert here.exists()
    names = ("--kind", "eval", "--model-id", "m", "--task-id", "t", "--backend", "inspect")
    assert run(*names, *storing("/one")) == (0, "/one\n")
    assert run(*names, "--config", "config.json", *storing("/two")) == (0, "/two\n")
    assert run(*names, *storing("/three")) == (0, "/one\n")


@pytest.mark.parametrize(
    ("command", "code", "complaint"),
    [
        (("sh", "-c", "exit 7"), 7, ""),
        (("true",), 1, "left nothing in $MOTOOLS_RESULT"),
        (("no-such-program",), 127, "cannot be found"),
        (("./data.jsonl",), 126, "cannot be run"),
        (("sh", "-c", "kill -9 $$"), 137, ""),
        ((), 2, "no command to run"),
    ],
)
def test_what_does_not_succeed_caches_nothing(here: Path, command: tuple[str, ...], code: int, complaint: str) -> None:
    """The exit code is the command's, and the lease is free again."""
    assert here.exists()
    done = motools("run", *DATASET, "--", *command)
    assert (done.returncode, done.stdout) == (code, "")
    assert complaint in done.stderr
    assert run(*DATASET, *storing("file-1")) == (0, "file-1\n")


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("--kind", "model", "--dataset", "data.jsonl"), 2, "also needs --config, --backend"),
        ((*DATASET, "--task-id", "t"), 2, "does not take --task-id"),
        (("--kind", "dataset", "--dataset", "missing"), 3, "no file missing"),
        ((*MODEL, "data.jsonl"), 1, "no valid JSON"),
        (("--kind", "song"), 2, "'song' is not"),
        ((*DATASET, "--timeout", "soon"), 2, "number of seconds"),
    ],
)
def test_mistakes_are_named(here: Path, words: tuple[str, ...], code: int, complaint: str) -> None:
    """Before anything is run."""
    done = motools("run", *words, *storing("x"))
    assert (done.returncode, done.stdout) == (code, "")
    assert complaint in done.stderr
    assert not (here / "ran").exists()


def test_config_that_json_cannot_hold_is_refused(here: Path) -> None:
    """A date of YAML's, for example."""
    (here / "date.yaml").write_text("day: 2026-01-31\n")
    done = motools("run", *MODEL, "date.yaml", *storing("x"))
    assert done.returncode == 2
    assert "config.day" in done.stderr


def test_wait_is_bounded_and_failure_is_told(here: Path) -> None:
    """Exit 75 after the time; what waits for a command that fails hears of it, or takes over."""
    assert here.exists()
    script = "echo on > started; until [ -e go ]; do sleep 0.05; done; exit 3"
    with running(*DATASET, "--", "sh", "-c", script) as first, SyncCache(os.environ["MOTOOLS_CACHE_DIR"]) as cache:
        wait_for(here / "started")
        late = motools("run", *DATASET, "--timeout", "0.2", *storing("x"))
        assert (late.returncode, "still computes" in late.stderr) == (75, True)
        with (
            running(*DATASET, *storing("x")) as told,
            running(*DATASET, "--on-failure", "take-over", *storing("y")) as heir,
        ):
            until(lambda: any(lease.waiters >= 2 for lease in cache.list_leases()))
            (here / "go").touch()
            assert first.wait(TIMEOUT_S) == 3
            assert "ended with 3" in told.communicate(timeout=TIMEOUT_S)[1]
            assert told.returncode == 1
            assert heir.communicate(timeout=TIMEOUT_S)[0] == "y\n"


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2]
)
def test_signals_are_passed_on(here: Path, number: signal.Signals) -> None:
    """The command ends in its own way, and that is how we end."""
    handler = f"signal.signal({number}, lambda *_: sys.exit(9))"
    script = f"import signal, sys, time; {handler}; print('on', flush=True); time.sleep(60)"
    with running(*DATASET, "--", sys.executable, "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        process.send_signal(number)
        assert process.wait(TIMEOUT_S) == 9
    assert run(*DATASET, *storing("file-1")) == (0, "file-1\n")


LEFT_BEHIND = "setsid sh -c 'echo $$ > session; sleep 60; true' & sleep 60 & echo $! > background"
TRAINER = f"{sys.executable} -c \"import os, time; print(os.getpid(), file=open('trainer', 'w')); time.sleep(60)\""
MANY = ("--", "sh", "-c", f"{LEFT_BEHIND}; {TRAINER}; true")
"""A shell that waits for one process, has one in the background and one in a session of its own."""


def pids_of_many(here: Path) -> list[int]:
    """Of the processes above."""
    return [int(wait_for(here / name)) for name in ("session", "background", "trainer")]


@pytest.mark.parametrize("whole_group", [False, True])
def test_kill_9_takes_all_of_the_command_along(here: Path, whole_group: bool) -> None:  # noqa: FBT001
    """Motools alone is killed, or its job: the next has the lease only when nothing computes on, and no file stays."""
    with running(*DATASET, *MANY) as process, job(Path(os.environ["MOTOOLS_CACHE_DIR"])) as heir:
        pids = pids_of_many(here)
        (guard,) = children_of(process.pid)
        key = json.loads(motools("cache", "leases", "--json").stdout)["items"][0]["key"]
        heir.tell(f"claim {key}")
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
        assert heir.hear() == "owner"
        assert [pid for pid in (*pids, guard) if is_alive(pid)] == []
        assert list(here.glob("motools-run-*")) == []


def test_kill_9_of_the_guard_takes_the_command_along(here: Path) -> None:
    """The exit code says how."""
    with running(*DATASET, "--", "sh", "-c", "echo $$ > pid; exec sleep 60") as process:
        pid = int(wait_for(here / "pid"))
        (guard,) = children_of(process.pid)
        os.kill(guard, signal.SIGKILL)
        assert process.wait(TIMEOUT_S) == 137
        until(lambda: not is_alive(pid))


def test_shell_that_dies_of_a_signal_leaves_no_trainer_behind(here: Path) -> None:
    """It hands nothing on; what it ran is told to end, and is waited for while it saves its state."""
    save = "lambda *_: (time.sleep(0.3), print('saved', file=open('saved', 'w')), sys.exit(0))"
    trainer = f"import signal, sys, time; signal.signal(15, {save}); print('on', flush=True); time.sleep(60)"
    with running(*DATASET, "--", "sh", "-c", f'{sys.executable} -c "{trainer}"; true') as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        process.terminate()
        assert process.wait(TIMEOUT_S) == 143
        assert (here / "saved").read_text() == "saved\n"
    assert run(*DATASET, *storing("file-1")) == (0, "file-1\n")


def test_daemon_that_the_command_has_started_is_spared(here: Path) -> None:
    """Others use it."""
    other = here / "other"
    command = f"{MOTOOLS} daemon start -d {other}; echo on > started; sleep 60; true"
    try:
        with running(*DATASET, "--", "sh", "-c", command) as process:
            wait_for(here / "started")
            (guard,) = children_of(process.pid)
            process.kill()
            until(lambda: not is_alive(guard))
        assert daemon_pid(other) is not None
    finally:
        end_daemon(other)


def test_leases_are_listed_and_broken(here: Path) -> None:
    """All formats; --break needs a yes, a lease that is there, and is told to the owner."""
    with job(Path(os.environ["MOTOOLS_CACHE_DIR"])) as owner:
        assert here.exists()
        assert owner.ask("claim key-of-mine") == "owner"
        table = motools("cache", "leases").stdout
        assert "key-of-mine" in table
        assert str(owner.pid) in table
        (item,) = json.loads(motools("cache", "leases", "--json").stdout)["items"]
        assert {"kind", "key", "pid", "host", "command", "since", "token", "waiters"} == item.keys()
        assert motools("cache", "leases", "--format", "csv").stdout.startswith(
            "kind,key,pid,host,command,since,token,waiters\n"
        )
        assert json.loads(motools("cache", "leases", "--format", "jsonl").stdout) == item
        assert motools("cache", "leases", "--break", "key-of-mine").returncode == 2
        assert motools("cache", "leases", "--break", "other", "--yes").returncode == 3
        assert motools("cache", "leases", "--break", "key-of-mine", "--kind", "model", "--yes").returncode == 3
        assert "broke 1 lease" in motools("cache", "leases", "--break", "key-of-mine", "--yes").stderr
        assert owner.ask("fulfil v") == "stale None"
    assert "nobody computes" in motools("cache", "leases").stderr


def test_last_line_of_a_failed_command_is_passed_on(here: Path) -> None:
    """It is no result, and most often says what went wrong."""
    assert here.exists()
    assert run(*DATASET, "--result", "stdout", "--", "sh", "-c", "echo on; echo why; exit 3") == (3, "on\nwhy\n")


def test_what_is_left_in_the_background_is_not_waited_for(here: Path) -> None:
    """It holds stdout open; the result is there."""
    command = ("--", "sh", "-c", "sleep 60 2> err & echo $! > pid; echo file-1")
    try:
        assert run(*DATASET, "--result", "stdout", *command) == (0, "file-1\n")
    finally:
        os.kill(int(wait_for(here / "pid")), signal.SIGKILL)


def test_exit_code_is_known_where_the_ends_of_children_are_ignored(here: Path) -> None:
    """Some supervisors hand that down; a failed command must not pass for one that succeeded."""
    script = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = (*DATASET, "--", "sh", "-c", "echo half > $MOTOOLS_RESULT; exit 7")
    words = [sys.executable, "-c", script, MOTOOLS, "run", *command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stdout) == (7, "")
    assert run(*DATASET, *storing("file-1")) == (0, "file-1\n")


def test_signal_that_comes_after_the_result_does_not_undo_it(here: Path) -> None:
    """The command has ended well; there is nothing left to end."""
    assert here.exists()
    # The command's parent is the guard, and that one's parent is whom somebody would signal.
    find = "read -r _ _ _ runner _ < /proc/$PPID/stat"
    command = ("--", "sh", "-c", f"{find}; echo file-1 > $MOTOOLS_RESULT; kill -TERM $runner")
    # 143: it reached the command in time, all the same.
    assert run(*DATASET, *command) in ((0, "file-1\n"), (143, ""))


def test_result_that_is_no_file_is_no_result(here: Path) -> None:
    """A directory, for example; without a traceback."""
    assert here.exists()
    done = motools("run", *DATASET, "--", "sh", "-c", "mkdir $MOTOOLS_RESULT")
    assert done.returncode == 1
    assert done.stderr.startswith("motools: error: sh ended well but left nothing")


def test_script_without_its_interpreter_is_126(here: Path) -> None:
    """The script itself is there."""
    (here / "script").write_text("#!/no/such/interpreter\n")
    (here / "script").chmod(0o755)
    done = motools("run", *DATASET, "--", "./script")
    assert done.returncode == 126
    assert "interpreter" in done.stderr
