"""What a service manager gives, and what it is told: over real sockets. The manager itself: tests/systemd."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from motoolsd.adapters.directory import CacheDirectory
from motoolsd.adapters.systemd import ServiceManager, check_listener
from motoolsd.core.errors import StartFailed
from motoolsd.wire.names import SOCKET

US = str(os.getpid())


@pytest.fixture
def told(short_dir: Path) -> Iterator[socket.socket]:
    """Where a manager listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short_dir / "notify"))
        manager.settimeout(5)
        yield manager


def environment_of(told: socket.socket, **variables: str) -> dict[str, str]:
    """As a service has it."""
    return {"NOTIFY_SOCKET": told.getsockname(), "SYSTEMD_EXEC_PID": US, "HOME": "/home", **variables}


def test_manager_is_told_how_we_are(told: socket.socket) -> None:
    """Ready, alive, reloading, stopping, and why we do not start: each in one datagram, a line for each thing."""
    manager = ServiceManager(environment_of(told))
    assert manager.is_there
    manager.say_ready("3 clients")
    assert told.recv(1000) == b"READY=1\nSTATUS=3 clients"
    manager.say_alive("4 clients")
    assert told.recv(1000) == b"WATCHDOG=1\nSTATUS=4 clients"
    manager.say_reloading()
    reloading, monotonic = told.recv(1000).split(b"\n")
    assert reloading == b"RELOADING=1"
    assert int(monotonic.removeprefix(b"MONOTONIC_USEC=")) > 0
    manager.say_stopping("idle\nfor long")
    assert told.recv(1000) == b"STOPPING=1\nSTATUS=stopping: idle for long"
    manager.say_failed("no disk")
    assert told.recv(1000) == b"STATUS=cannot start: no disk"


def test_variables_count_for_one_process_and_are_taken_away(told: socket.socket) -> None:
    """A job that is a service itself hands its own down: they name another process, and mean nothing to us."""
    environment = {"NOTIFY_SOCKET": told.getsockname(), "SYSTEMD_EXEC_PID": "1", "WATCHDOG_USEC": "1000", "HOME": "/"}
    manager = ServiceManager(environment)
    assert not manager.is_there
    assert manager.feed_interval_s == 0
    assert environment == {"HOME": "/"}
    manager.say_ready("")
    told.setblocking(False)
    with pytest.raises(BlockingIOError):
        told.recv(1000)


def test_without_a_manager_nothing_happens() -> None:
    """No variable, no socket, no word."""
    manager = ServiceManager({})
    assert not manager.is_there
    assert manager.listener is None
    manager.say_ready("")


def test_manager_that_is_gone_is_no_error(short_dir: Path) -> None:
    """Nor one that is busy."""
    manager = ServiceManager({"NOTIFY_SOCKET": str(short_dir / "gone"), "SYSTEMD_EXEC_PID": US})
    manager.say_alive("")


@pytest.mark.parametrize(
    ("variables", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": US}, 10.0),
        ({"WATCHDOG_USEC": "30000000"}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon", "WATCHDOG_PID": US}, 0.0),
        ({}, 0.0),
    ],
)
def test_watchdog_is_fed_three_times_within_its_timeout(
    told: socket.socket, variables: dict[str, str], interval_s: float
) -> None:
    """If it is meant for us."""
    assert ServiceManager(environment_of(told, **variables)).feed_interval_s == interval_s


TAKE = """
import os, socket, sys
sys.path.insert(0, sys.argv[2])
kind = sys.argv[1]
if kind == "listening":
    given = socket.socket(socket.AF_UNIX); given.bind(sys.argv[3]); given.listen()
elif kind == "bound":
    given = socket.socket(socket.AF_UNIX); given.bind(sys.argv[3])
elif kind == "datagrams":
    given = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
else:
    given = open(os.devnull)
os.dup2(given.fileno(), 3)
from motoolsd.adapters.systemd import ServiceManager
from motoolsd.core.errors import StartFailed
try:
    count = "2" if kind == "two" else "1"
    manager = ServiceManager({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})
except StartFailed as error:
    print(error.message)
else:
    taken = manager.listener
    print(manager.is_there, taken.getsockname() == sys.argv[3], os.get_inheritable(3), taken.getblocking())
"""


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("listening", "True True False False"),
        ("bound", "something else than a listening Unix socket"),
        ("datagrams", "something else than a listening Unix socket"),
        ("file", "something else than a listening Unix socket"),
        ("two", "passed 2 sockets instead of one"),
    ],
)
def test_only_one_listening_socket_is_taken(kind: str, said: str, short_dir: Path) -> None:
    """In a process of its own: it is always descriptor 3."""
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", TAKE, kind, root, str(short_dir / "s")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL)
    assert said in done.stdout, done.stdout + done.stderr


def test_socket_of_another_directory_is_refused(directory: CacheDirectory, short_dir: Path) -> None:
    """Clients of ours would never come by it; the unit's setting is named."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_dir / SOCKET))
        with pytest.raises(StartFailed, match="ListenStream"):
            check_listener(listener, directory)


def test_socket_that_others_may_connect_to_is_closed_to_them(directory: CacheDirectory, cache_dir: Path) -> None:
    """Whatever the unit's SocketMode says."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(cache_dir / SOCKET))
        (cache_dir / SOCKET).chmod(0o777)
        check_listener(listener, directory)
        assert (cache_dir / SOCKET).stat().st_mode & 0o777 == 0o600
