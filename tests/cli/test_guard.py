"""The guard: whose exit code it ends with, what it cleans up, which processes it finds and which it spares."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from motools.cli.guard import NAME, Guard, children_of, is_daemon

# pytest's own watchdog is a thread; it takes no lock that a forked child would need.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

TIMEOUT_S = 30.0
SLEEP = "import time; time.sleep(60)"


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process, killed when the block is left."""
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def guarded(script: str, notes: Path) -> int:
    """Run a shell's script under a guard that notes what it calls; the exit code."""

    def note(word: str) -> None:
        with notes.open("a") as file:
            file.write(f"{word} {os.getpid()}\n")

    guard = Guard(mask=set(), join=lambda: note("join"), clean=lambda: note("clean"))
    with subprocess.Popen(["sh", "-c", script], preexec_fn=guard.prepare) as process:  # noqa: PLW1509 - as above
        code = process.wait(TIMEOUT_S)
    note(f"ended as {process.pid}, seen by")
    return code


def test_lease_is_joined_by_the_guard_and_by_the_command(tmp_path: Path) -> None:
    """Whichever of them is killed, it lasts until the other has ended, too."""
    notes = tmp_path / "notes"
    assert guarded(f"echo command $$ >> {notes}; echo parent $PPID >> {notes}", notes) == 0
    told = [line.split() for line in notes.read_text().splitlines()]
    assert [words[0] for words in told] == ["join", "join", "command", "parent", "ended"]
    (_, guard), (_, command) = told[:2]
    assert (told[2][1], told[3][1], told[4][2]) == (command, guard, f"{guard},")


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", 137), ("exit 255", 255)])
def test_guard_ends_as_the_command_and_cleans_up_after_a_failure(tmp_path: Path, script: str, code: int) -> None:
    """What a failed command leaves is nobody's; that of one which succeeded is still to be read."""
    notes = tmp_path / "notes"
    assert guarded(script, notes) == code
    assert ("clean" in notes.read_text()) == (code != 0)


@pytest.mark.slow
def test_rest_of_a_command_that_died_of_a_signal_is_told_to_end(tmp_path: Path) -> None:
    """A shell hands no signal on; what it ran ends in its own way, and is waited for."""
    trainer = "trap 'echo saved > saved; exit' TERM; echo on > on; sleep 60 & wait"
    script = f'cd {tmp_path}; sh -c "{trainer}" & while [ ! -s on ]; do sleep 0.01; done; kill -KILL $$'
    assert guarded(script, tmp_path / "notes") == 137
    assert (tmp_path / "saved").read_text() == "saved\n"


def test_guard_has_a_name_and_a_process_group_of_its_own_and_holds_only_stderr(tmp_path: Path) -> None:
    """`kill -9` of the job's group or of everything called motools leaves it, and no pipe stays open by it."""
    look = "cat /proc/$PPID/comm; ls /proc/$PPID/fd | tr '\\n' ' '; echo; cut -d ' ' -f 5 /proc/$PPID/stat; echo $PPID"
    # The command may be quicker than the guard.
    script = f"while [ $(cat /proc/$PPID/comm) != {NAME} ]; do sleep 0.01; done; ({look}) > {tmp_path}/seen"
    assert guarded(script, tmp_path / "notes") == 0
    name, descriptors, group, guard = (tmp_path / "seen").read_text().splitlines()
    assert (name, descriptors.split()[:3], group) == (NAME, ["0", "1", "2"], guard)
    assert len(descriptors.split()) == 3


def test_children_are_found_whatever_they_are_called(tmp_path: Path) -> None:
    """A program's name may hold blanks and brackets; those that have ended count until they are waited for."""
    odd = tmp_path / ") R 1 ("
    odd.symlink_to("/bin/sleep")
    with running(str(odd), "60") as first, running(sys.executable, "-c", SLEEP) as second:
        assert {first.pid, second.pid} <= set(children_of(os.getpid()))
        first.kill()
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
        assert first.pid in children_of(os.getpid())
        first.wait(TIMEOUT_S)
        assert first.pid not in children_of(os.getpid())
    assert children_of(first.pid) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("-m", "motoolsd", "serve", "--background"), True),
        (("/venv/bin/motoolsd", "serve"), True),
        (("/venv/bin/motoolsd", "--version"), False),
        (("serve", "about-motoolsd.txt"), False),
    ],
)
def test_daemon_is_told_from_other_processes(words: tuple[str, ...], expected: bool) -> None:  # noqa: FBT001
    """By its command line; the command may have started it, but others use it."""
    script = f"print(flush=True); {SLEEP}"
    with running(sys.executable, "-c", script, *words) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert is_daemon(process.pid) == expected
    assert not is_daemon(process.pid)
