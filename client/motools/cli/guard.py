"""The process between `motools run` and its command: when either is killed, it ends what is left of the command.

Layer: motools.cli. Imports motools.cache.clock.
Invariant: the guard ends after all that it has to end. What it holds (a lease) lasts until then.

Why a process: PR_SET_PDEATHSIG reaches one child and not its children; a process group and a session can be left; a
cgroup and a PID namespace need rights that a job does not have. A process that survives `motools` and adopts orphans
(PR_SET_CHILD_SUBREAPER) needs none. It stands in a process group of its own, so that `kill -9` of the whole job, as
`timeout -s KILL` does it, does not end it too. Should somebody kill it by its id, the kernel kills the command, but
not what that has started.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

from motools.cache.clock import monotonic_s

ENDING: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
"""Whoever sends one wants the command to end."""
PASSED_ON: Final = ENDING | {signal.SIGUSR1, signal.SIGUSR2}
"""The last two ask for a checkpoint, for example (SLURM's `--signal`)."""
SIGNALLED: Final = 128
"""Added to the number of the signal that the command died of, as a shell does it."""
GRACE_S: Final = 10.0
"""For what a command has left behind that died of a signal: between SIGTERM and SIGKILL."""
NAME: Final = "run-guard"
"""In `ps`. Without "motools" in it: `pkill -9 motools` is what it is there for."""

_PARENT_DIED: Final = signal.SIGRTMIN
"""What the kernel sends to the guard. Standard signals could come from anybody, and are delivered first."""
_RESCAN_S: Final = 0.5
"""What becomes ours without a sign, because its parent has ended, is found after so long."""
_FAILED: Final = 1
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


class Guard:
    """Made by `motools run`, before it forks."""

    def __init__(self, *, mask: set[int], join: Callable[[], None], clean: Callable[[], None]) -> None:
        """Remember whom to outlive.

        Args:
            mask: the signals that the command is to find blocked.
            join: has the lease last for the calling process, too; what it raises keeps the command from running.
            clean: removes what only `motools run` had a use for; called where that cannot do it itself any more.
        """
        self._parent = os.getpid()
        self._mask = mask
        self._join = join
        self._clean = clean
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl

    def prepare(self) -> None:
        """For Popen's `preexec_fn`: fork once more, and return in the process that is to become the command.

        The process that Popen knows never returns: it is the guard, and ends with the command's exit code.
        """
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        self._die_with(self._parent, _PARENT_DIED)
        self._join()
        self._prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        guard = os.getpid()
        command = os.fork()
        if command:
            self._stand(command)
        self._die_with(guard, signal.SIGKILL)
        # For itself, too: were the guard killed, the lease would end while the kernel still ends the command.
        self._join()
        for number in PASSED_ON:
            # Python's handlers would swallow what comes before the program replaces them.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _die_with(self, parent: int, number: int) -> None:
        self._prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            self._clean()
            os._exit(SIGNALLED + signal.SIGKILL)

    def _stand(self, command: int) -> NoReturn:
        code = None
        try:
            os.setpgid(0, 0)
            _let_go()
            code = self._watch(command)
        finally:
            # Nothing above may go on in a second process; a defect of ours is shown all the same.
            if code is None:
                sys.excepthook(*sys.exc_info())
            os._exit(_FAILED if code is None else code)

    def _watch(self, command: int) -> int:
        """Stand by until the command has ended, or whoever started it; the exit code."""
        status = None
        while status is None and self._is_wanted():
            number = signal.sigwaitinfo(PASSED_ON | {signal.SIGCHLD, _PARENT_DIED}).si_signo
            if number == signal.SIGCHLD:
                status = _status_of(command)
            elif number != _PARENT_DIED:
                with suppress(PermissionError):  # it has become another user's (sudo): it is not ours to signal
                    os.kill(command, number)
        if status is None or os.WIFSIGNALED(status):
            self._end_rest()
        code = SIGNALLED + signal.SIGKILL if status is None else os.waitstatus_to_exitcode(status)
        if code or not self._is_wanted():
            self._clean()
        return code if code >= 0 else SIGNALLED - code

    def _is_wanted(self) -> bool:
        return os.getppid() == self._parent

    def _end_rest(self) -> None:
        """End all children and whatever becomes ours by that, kindly while `motools run` lives; wait for their end.

        A command that died of a signal leaves orphans: a shell, for example, hands no signal on. One that ended by
        itself may leave what it likes in the background, and is not seen here.

        Each round either ends a child or takes its time, so that this does not spin; it goes on until there is none, as
        a lease must not end before that.
        """
        told: set[int] = set()
        deadline_s = monotonic_s() + GRACE_S
        while _reap():
            children = children_of(os.getpid())
            left = [pid for pid in children if not is_daemon(pid)]
            if children and not left:
                return
            is_kind = self._is_wanted() and monotonic_s() < deadline_s
            for pid in left:
                if is_kind and pid in told:
                    continue
                with suppress(PermissionError):  # another user's: it is waited for
                    os.kill(pid, signal.SIGTERM if is_kind else signal.SIGKILL)
            told.update(left)
            signal.sigtimedwait({signal.SIGCHLD, _PARENT_DIED}, _RESCAN_S)


def children_of(parent: int) -> list[int]:
    """The processes whose parent this is; those that have ended and were not waited for included.

    Complete for our own: whoever starts or adopts others is one of them, and stays in /proc until we wait for it.
    """
    names = [path.name for path in Path("/proc").iterdir()]
    return [int(name) for name in names if name.isdecimal() and _parent_of(name) == parent]


def is_daemon(pid: int) -> bool:
    """Whether a process is a motoolsd, which the command has started for all: it ends when it is idle."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"serve" in words and any(word.rpartition(b"/")[2] == b"motoolsd" for word in words)


def _parent_of(name: str) -> int | None:
    try:
        text = Path(f"/proc/{name}/stat").read_bytes()
    except OSError:
        return None  # it has ended meanwhile
    # The program's name stands in brackets, and may hold anything.
    return int(text.rpartition(b")")[2].split()[1])


def _reap() -> bool:
    """Take notice of children that have ended; whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _status_of(command: int) -> int | None:
    """Take notice of children that have ended until it is the command; its status, or None while it runs."""
    pid, status = os.waitpid(-1, os.WNOHANG)
    while pid not in (0, command):
        pid, status = os.waitpid(-1, os.WNOHANG)
    return status if pid else None


def _let_go() -> None:
    """Keep nothing open but stderr: others wait for the end of pipes, and Popen for that of its own."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nowhere, descriptor)
    for path in list(Path("/proc/self/fd").iterdir()):
        if (descriptor := int(path.name)) > 2:  # noqa: PLR2004 - stderr
            with suppress(OSError):  # the one by which they were listed
                os.close(descriptor)
    Path("/proc/self/comm").write_text(NAME, encoding="ascii")
