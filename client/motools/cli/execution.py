"""Running a command in the place of its caller: its signals, its output, its end.

Layer: motools.cli. Imports guard, options and motools.cache.claims.
Invariant: the command never outlives us (`guard`), and the lease never ends before the command (`join_lease`).
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from motools.cache.claims import join_lease
from motools.cache.errors import CacheError
from motools.cli.guard import ENDING, PASSED_ON, SIGNALLED, Guard
from motools.cli.options import Result

RESULT_VARIABLE: Final = "MOTOOLS_RESULT"
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
_SENT_BY_KERNEL: Final = 0x80
"""si_code of a signal that came from the terminal: the command, in the same group, has got it too."""
_READ_SIZE_BYTES: Final = 65_536


class CannotRun(Exception):
    """The command could not be started."""

    def __init__(self, message: str, exit_code: int) -> None:
        """Keep what a shell would end with."""
        super().__init__(message)
        self.exit_code = exit_code


class Outcome(NamedTuple):
    """How a command ended."""

    exit_code: int
    """128 and the signal's number, if it died of one, or told so as shells do."""
    value: str
    reason: str
    """Why there is no value, if it ended well."""
    was_interrupted: bool
    """Whether somebody ended it, instead of it failing."""


def execute(command: list[str], result: Result, directory: str, claim_id: bytes) -> Outcome:
    """Run a command to its end.

    Args:
        command: program and arguments.
        result: where it leaves its result.
        directory: the cache directory.
        claim_id: the claim whose lease is to last as long as the command.

    Raises:
        CannotRun: it could not be started.
    """
    with _result_file() as path, _signals_held() as mask:
        guard = Guard(mask=mask, join=partial(join_lease, directory, claim_id), clean=partial(_remove, path))
        try:
            process = subprocess.Popen(
                command,
                env={**os.environ, RESULT_VARIABLE: str(path)},
                stdout=subprocess.PIPE if result is Result.STDOUT else None,
                # There is no other thread yet.
                preexec_fn=partial(_prepare, guard),  # noqa: PLW1509
            )
        except OSError as error:
            raise _cannot_run(command[0], error) from error
        except subprocess.SubprocessError as error:
            raise CannotRun(f"{command[0]} was not run, for the reason above; see `motools daemon logs`", 1) from error
        with process:
            last_line = None if process.stdout is None else _LastLine(process.stdout.fileno())
            got = _wait(process)
            code = process.returncode
            printed = "" if last_line is None else last_line.finish(is_result=code == 0)
        if result is Result.STDOUT:
            value, reason = printed, "printed nothing"
        else:
            value, reason = _read_result(path), f"left nothing in ${RESULT_VARIABLE}"
    if code < 0:  # the guard itself was killed
        code = SIGNALLED - code
    return Outcome(code, value, reason, bool(got) or code - SIGNALLED in ENDING)


def _prepare(guard: Guard) -> None:
    """As `Guard.prepare`; a forked child has nothing but stderr to say why not."""
    try:
        guard.prepare()
    except (CacheError, OSError) as error:
        sys.stderr.write(f"motools: error: {error}\n")
        sys.stderr.flush()
        raise


@contextmanager
def _signals_held() -> Iterator[set[int]]:
    """Hold signals back, so that each is either waited for or kept for the end; gives what was held before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON | {signal.SIGCHLD})
    # Whoever started us may have had it ignored: then the kernel tells neither of the end nor of the exit code.
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield set(before)
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(process: subprocess.Popen[bytes]) -> list[int]:
    """Wait for the end, passing signals on; those that came to end it."""
    got: list[int] = []
    while process.poll() is None:
        info = signal.sigwaitinfo(PASSED_ON | {signal.SIGCHLD})
        if info.si_signo == signal.SIGCHLD:
            continue
        got.append(info.si_signo)
        if info.si_code != _SENT_BY_KERNEL:
            process.send_signal(info.si_signo)
    # Those that came too late for the command: it has ended, and what it computed is not thrown away. No more than one
    # of each is kept by the kernel; whoever sends more meanwhile is not waited for.
    late = [signal.sigtimedwait(PASSED_ON, 0) for _ in PASSED_ON]
    got += [info.si_signo for info in late if info is not None]
    # What was ignored when we were started (nohup), the command ignores as well.
    return [number for number in got if number in ENDING and signal.getsignal(number) is not signal.SIG_IGN]


class _LastLine:
    """Passes the command's output on, but for its last line that is not empty."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._partial = bytearray()
        self._held: list[bytes] = []
        self._ended = os.eventfd(0)
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def finish(self, *, is_result: bool) -> str:
        """The line, after the command has ended; passed on too, unless it is the result, which is printed anyway.

        What the command has left behind in the background may hold its stdout open: that is not waited for.
        """
        os.eventfd_write(self._ended, 1)
        self._thread.join()
        os.close(self._ended)
        if self._partial:
            self._take(bytes(self._partial))
        if not is_result:
            _pass_on(self._held)
        return self._held[0].decode("utf-8", "surrogateescape").strip() if self._held else ""

    def _copy(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.register(self._ended, select.POLLIN)
        while self._ended not in [ready for ready, _ in poll.poll()]:
            part = os.read(self._descriptor, _READ_SIZE_BYTES)
            if not part:
                return
            self._split(part)
        # All that the command itself has written is in the pipe now.
        left = int.from_bytes(fcntl.ioctl(self._descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)
        while left and (part := os.read(self._descriptor, left)):
            left -= len(part)
            self._split(part)

    def _split(self, part: bytes) -> None:
        *lines, rest = part.split(b"\n")
        for line in lines:
            self._take(bytes(self._partial) + line + b"\n")
            self._partial.clear()
        self._partial += rest

    def _take(self, line: bytes) -> None:
        if line.strip():
            _pass_on(self._held)
            self._held = [line]
        elif self._held:
            self._held.append(line)
        else:
            _pass_on([line])


def _pass_on(lines: list[bytes]) -> None:
    with suppress(OSError, ValueError):  # nobody reads it; the command goes on all the same
        sys.stdout.buffer.write(b"".join(lines))
        sys.stdout.buffer.flush()


@contextmanager
def _result_file() -> Iterator[Path]:
    """The name of a file that is not there yet, in a directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="motools-run-"))
    path = directory / "result"
    try:
        yield path
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    """Remove the result and its directory, unless it is gone already."""
    with suppress(OSError):  # the command left something else there: it is not ours to remove
        path.unlink(missing_ok=True)
        path.parent.rmdir()


def _read_result(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape").strip()
    except OSError:
        return ""


def _cannot_run(program: str, error: OSError) -> CannotRun:
    if isinstance(error, FileNotFoundError) and shutil.which(program) is not None:
        return CannotRun(
            f"{program} cannot be run: the interpreter that its first line names is missing", NOT_EXECUTABLE
        )
    if isinstance(error, FileNotFoundError):
        return CannotRun(f"{program} cannot be found: name it by its path, or look at $PATH", NOT_FOUND)
    return CannotRun(f"{program} cannot be run: {error.strerror}", NOT_EXECUTABLE)
