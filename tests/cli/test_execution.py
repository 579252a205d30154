"""Running a command: its exit code, its result, its signals; real processes, and no daemon."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from motools.cache import DaemonNotRunning
from motools.cli import execution
from motools.cli.execution import CannotRun, Outcome, execute
from motools.cli.options import Result

# pytest's own watchdog is a thread; it takes no lock that a forked child would need.
pytestmark = [pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"), pytest.mark.alone]

Run = Callable[..., Outcome]
THREADS_LEFT_S = 20.0
SENT_SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2]


@pytest.fixture
def alone() -> None:
    """Wait until no thread of an earlier test is left (trio's idle ones live for ten seconds).

    A signal that is sent to us is for any thread that does not hold it back: it would end pytest.
    """
    assert "PYTEST_XDIST_WORKER" not in os.environ, "pytest-xdist keeps such a thread; run with -m alone and without -n"
    ends_s = time.monotonic() + THREADS_LEFT_S
    while takers := _threads_that_take_signals():
        assert time.monotonic() < ends_s, f"threads that would take our signals; gdb -p tells whose they are: {takers}"
        time.sleep(0.05)


def _threads_that_take_signals() -> list[str]:
    """The status of every other thread that does not hold back what these tests send."""
    takers = []
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) == threading.get_native_id():
            continue
        try:
            status = (task / "status").read_text()
        except OSError:
            continue  # it has ended
        (blocked,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk"))
        if not all(blocked >> (number - 1) & 1 for number in SENT_SIGNALS):
            takers.append(status)
    return takers


@pytest.fixture
def run(alone: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Runs a shell's script under a lease that can always be joined; no temporary directory may stay."""
    monkeypatch.setattr(execution, "join_lease", lambda _directory, _claim_id: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("SELF", str(os.getpid()))

    def run(script: str, result: Result = Result.FILE) -> Outcome:
        return execute(["sh", "-c", script], result, "/cache", bytes(16))

    yield run
    assert list(tmp_path.glob("motools-run-*")) == []


def test_result_is_what_stands_in_the_file(run: Run) -> None:
    """Without the line's end; any bytes."""
    assert run(r"printf ' evals/\377.eval\n' > $MOTOOLS_RESULT") == (0, "evals/\udcff.eval", run("true").reason, False)


def test_result_is_the_last_line_of_stdout(run: Run, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """The lines before it, and empty ones, are passed on as they come."""
    outcome = run("echo a; echo; printf 'file-1\n\n'", Result.STDOUT)
    assert outcome[:2] == (0, "file-1")
    assert capfdbinary.readouterr().out == b"a\n\n"


@pytest.mark.parametrize(
    ("result", "reason"), [(Result.FILE, "left nothing in $MOTOOLS_RESULT"), (Result.STDOUT, "printed nothing")]
)
def test_missing_result_has_a_reason(run: Run, result: Result, reason: str) -> None:
    """It is said where the result was looked for."""
    assert run("true", result) == (0, "", reason, False)


@pytest.mark.parametrize(
    ("script", "code", "was_interrupted"),
    [
        ("exit 7", 7, False),
        ("exit 255", 255, False),
        ("kill -KILL $$", 137, False),
        ("kill -SEGV $$", 139, False),
        ("kill -TERM $$", 143, True),
        ("kill -INT $$", 130, True),
        ("kill -QUIT $$", 131, True),
        ("kill -USR1 $$", 138, False),
        ("exit 143", 143, True),
    ],
)
def test_exit_code_is_a_shells(run: Run, script: str, code: int, was_interrupted: bool) -> None:  # noqa: FBT001
    """128 and the signal that it died of; whether somebody wanted it to end is told by which signal."""
    outcome = run(f"ulimit -c 0; {script}")
    assert (outcome.exit_code, outcome.was_interrupted) == (code, was_interrupted)


@pytest.mark.parametrize("number", SENT_SIGNALS)
def test_signal_reaches_the_command(run: Run, number: signal.Signals) -> None:
    """One that was sent to us; the command does with it what it likes."""
    name = number.name.removeprefix("SIG")
    assert run(f"trap 'exit 9' {name}; kill -{name} $SELF; sleep 5 & wait").exit_code == 9


@pytest.mark.parametrize("number", SENT_SIGNALS)
def test_checkpoint_signal_is_no_interruption(run: Run, number: signal.Signals) -> None:
    """SIGUSR1 and SIGUSR2 ask for something else: a command that fails after one has failed."""
    name = number.name.removeprefix("SIG")
    outcome = run(f"trap '' {name}; kill -{name} $SELF; exit 1")
    assert outcome.was_interrupted == (number not in (signal.SIGUSR1, signal.SIGUSR2))


def test_ignored_signal_is_no_interruption(run: Run) -> None:
    """Under nohup the terminal's end concerns neither us nor the command."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        outcome = run("kill -HUP $SELF; kill -HUP $$; exit 5")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (outcome.exit_code, outcome.was_interrupted) == (5, False)


@pytest.mark.parametrize(("line", "numbers"), [("SigBlk", {40}), ("SigIgn", set[int]())])
def test_command_finds_signals_as_they_were(run: Run, line: str, numbers: set[int]) -> None:
    """Nothing is blocked or ignored for it that was not before; nor for us afterwards."""
    before = signal.pthread_sigmask(signal.SIG_SETMASK, {40})
    try:
        value = execute(["grep", line, "/proc/self/status"], Result.STDOUT, "/cache", bytes(16)).value
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {40}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    found = int(value.split()[1], 16)
    assert {number for number in (40, signal.SIGCHLD, *SENT_SIGNALS) if found >> (number - 1) & 1} == numbers


def test_lease_that_cannot_be_joined_keeps_the_command_from_running(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The reason is said by the child that met it, once."""

    def refuse(directory: str, claim_id: bytes) -> None:
        raise DaemonNotRunning("no daemon")

    monkeypatch.setattr(execution, "join_lease", refuse)
    with pytest.raises(CannotRun, match=r"sh was not run, for the reason above") as end:
        run(f"echo on > {tmp_path}/ran")
    assert end.value.exit_code == 1
    assert capfd.readouterr().err == "motools: error: no daemon\n"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("program", "code", "complaint"),
    [
        ("no-such-program", 127, "cannot be found"),
        ("./no-such-program", 127, "cannot be found"),
        ("./data", 126, "cannot be run: Permission denied"),
        ("./script", 126, "the interpreter that its first line names is missing"),
        ("./garbage", 126, "cannot be run: Exec format error"),
        (".", 126, "cannot be run: Permission denied"),
    ],
)
def test_program_that_cannot_be_started_is_told_as_by_a_shell(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, code: int, complaint: str
) -> None:
    """127 where there is none, 126 where there is one."""
    monkeypatch.chdir(tmp_path)
    for name, content, mode in (("data", "", 0o644), ("script", "#!/no/such\n", 0o755), ("garbage", "\x7fELF", 0o755)):
        Path(name).write_text(content)
        Path(name).chmod(mode)
    with pytest.raises(CannotRun, match=complaint) as end:
        execute([program], Result.FILE, "/cache", bytes(16))
    assert end.value.exit_code == code


def test_what_the_command_puts_beside_its_result_is_not_removed(run: Run, tmp_path: Path) -> None:
    """It may be a checkpoint, and hours of work."""
    directory = Path(run("d=${MOTOOLS_RESULT%/*}; echo 1 > $d/checkpoint; echo $d > $MOTOOLS_RESULT").value)
    assert directory.parent == tmp_path
    assert [path.name for path in directory.iterdir()] == ["checkpoint"]
    (directory / "checkpoint").unlink()
    directory.rmdir()


def test_output_is_passed_on_while_the_command_runs(run: Run, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """As much as there is, without waiting for the end."""
    script = "import sys; sys.stdout.write('x' * 300_000 + '\\n' + 'y' * 70_000 + '\\nend')"
    assert run(f'{sys.executable} -c "{script}"', Result.STDOUT).value == "end"
    assert capfdbinary.readouterr().out == b"x" * 300_000 + b"\n" + b"y" * 70_000 + b"\n"
