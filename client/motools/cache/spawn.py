"""The process of a new daemon.

Layer: motools.cache. Imports endpoint, errors and motoolsd.wire; loaded only by a client that starts a daemon.
Invariant: nothing of the starting job reaches the daemon but a short list of variables: no working directory from
which modules would be imported, no PYTHON* or LD_PRELOAD, no open file, no signal setting.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import msgspec

from motools.cache.clock import monotonic_s
from motools.cache.endpoint import exhausted
from motools.cache.errors import CacheError, DaemonNotRunning, error_from
from motools.cache.recovery import no_answer
from motoolsd.wire.names import LOG
from motoolsd.wire.readiness import Readiness

KEPT_VARIABLES = frozenset(
    {"HOME", "PATH", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "DBUS_SESSION_BUS_ADDRESS", "LD_LIBRARY_PATH"}
)
KEPT_PREFIXES = ("LC_", "XDG_", "MOTOOLS_")
READINESS_SIZE_MAX_BYTES = 1024 * 1024
LOG_TAIL_BYTES = 2048
MANAGER_TIMEOUT_S = 0.2
ENDING_TIMEOUT_S = 0.2
STARTS_MAX = 3
STARTER_TIMEOUT_S = 60.0
"""After it, a process that was to become a daemon and nobody waits for any more is killed."""

_unfinished: dict[str, subprocess.Popen[bytes]] = {}
"""By directory, the last process that was to become its daemon, where nobody waited for it to the end."""


def clean_environment(environment: dict[str, str]) -> dict[str, str]:
    """What of a job's environment a daemon gets."""
    return {
        name: value for name, value in environment.items() if name in KEPT_VARIABLES or name.startswith(KEPT_PREFIXES)
    }


def daemon_command(directory: str, ready_descriptor: int) -> list[str]:
    """The command line of an auto-started daemon."""
    serve = ["serve", "--cache-dir", directory, "--background", "--ready-fd", str(ready_descriptor)]
    idle_timeout = os.environ.get("MOTOOLS_IDLE_TIMEOUT", "").strip()
    if idle_timeout:
        serve += ["--idle-timeout", idle_timeout]
    return [*interpreter_command(), *serve]


def interpreter_command() -> list[str]:
    """How motoolsd is run: by this very Python, with nothing imported from the working directory.

    Raises:
        DaemonNotRunning: this Python does not know where it lies.
    """
    if not sys.executable:
        raise _refused("this Python does not know its own path (sys.executable is empty)")
    return [sys.executable, "-P", "-m", "motoolsd"]


def spawn_daemon(directory: str, *, deadline_s: float) -> bool:
    """Start a daemon and wait until it accepts connections.

    Args:
        directory: absolute path of an existing cache directory.
        deadline_s: on the monotonic clock.

    Returns:
        Whether it is the one that serves now; False if another one was quicker.

    Raises:
        CacheError: it said why it does not start (final), or was not ready in time.
    """
    if (unfinished := _unfinished.get(directory)) is not None and unfinished.poll() is None:
        # An earlier call gave up waiting for it; a second one beside it would be no quicker.
        return False
    if user_manager_answers():
        # A scope of its own under the user's manager: the end of the job's cgroup does not take the daemon along.
        prefix = ["systemd-run", "--user", "--scope", "--quiet", "--collect", "--"]
        readiness = _run(prefix, directory, deadline_s)
        if readiness is not None:
            return _judge(readiness)
    for _ in range(STARTS_MAX):
        # One that ends without a word was killed, or cannot even import its code; only the latter happens every time.
        readiness = _run([], directory, deadline_s)
        if readiness is not None:
            return _judge(readiness)
    raise _refused(f"the daemon ended while starting. The end of its log:\n{_log_tail(directory)}")


def _judge(readiness: Readiness) -> bool:
    if readiness.failure is not None:
        error = error_from(readiness.failure)
        error.is_final = True
        raise error
    return not readiness.already_running


def _run(prefix: list[str], directory: str, deadline_s: float) -> Readiness | None:
    """Start the process and read what it says of itself; None if it ended without a word."""
    try:
        reading, writing = os.pipe()
    except OSError as error:
        raise exhausted(error) from error
    try:
        try:
            starter = _start([*prefix, *daemon_command(directory, writing)], directory, writing)
        except OSError as error:
            raise _refused(str(error)) from error
        finally:
            os.close(writing)
        try:
            text = _read_all(reading, deadline_s)
            # Who has spoken, or closed the pipe, has forked or is about to end.
            with suppress(subprocess.TimeoutExpired):
                starter.wait(ENDING_TIMEOUT_S)
        finally:
            if starter.poll() is None:
                # It may still become the daemon of the next call, so it is not killed; but nobody waits for it here.
                _unfinished[directory] = starter
                threading.Thread(target=_reap, args=(starter,), name="motools-reap", daemon=True).start()
    finally:
        os.close(reading)
    return _parse(text)


def _start(command: list[str], directory: str, writing: int) -> subprocess.Popen[bytes]:
    log = _open_log(directory)
    try:
        return subprocess.Popen(
            command,
            cwd="/",
            env=clean_environment(dict(os.environ)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writing,),
            start_new_session=True,
            umask=0o077,
        )
    finally:
        os.close(log)


def _parse(text: bytes) -> Readiness | None:
    """What a daemon said; None if it is not whole, or nothing."""
    try:
        return msgspec.json.decode(text, type=Readiness)
    except msgspec.MsgspecError:
        return None


def _read_all(reading: int, deadline_s: float) -> bytes:
    """What the daemon says, until it is whole or the daemon is gone."""
    text = b""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    begun_s = monotonic_s()
    # The end of the pipe is not waited for: a process that another thread forks meanwhile keeps it open.
    while _parse(text) is None:
        left_s = deadline_s - monotonic_s()
        if left_s <= 0 or not poll.poll(left_s * 1000):
            raise no_answer(monotonic_s() - begun_s, outcome_known=True)
        part = os.read(reading, READINESS_SIZE_MAX_BYTES)
        if not part:
            break
        text += part
    return text


def _reap(starter: subprocess.Popen[bytes]) -> None:
    try:
        starter.wait(STARTER_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        starter.kill()
        starter.wait()


def _open_log(directory: str) -> int:
    path = os.path.join(directory, LOG)
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refused(f"{path} is a link. Remove it") from error
        raise


def _log_tail(directory: str) -> str:
    try:
        with open(os.path.join(directory, LOG), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError as error:
        return f"(it cannot be read: {error.strerror})"


def _refused(reason: str) -> CacheError:
    error = DaemonNotRunning(f"no daemon runs, and none could be started: {reason}")
    error.is_final = True
    return error


def user_manager_answers() -> bool:
    """Whether a `systemd --user` manager listens."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if not runtime or shutil.which("systemd-run") is None:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(MANAGER_TIMEOUT_S)
        try:
            probe.connect(os.path.join(runtime, "systemd", "private"))
        except OSError:
            return False
    return True
