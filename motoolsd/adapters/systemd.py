"""The service manager that started us, if one did: its socket, its readiness protocol, its watchdog.

Sources: sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3) of systemd.

Layer: adapters. Imports core.
Invariant: what the manager said is taken out of the environment, so that it counts for this process alone. The
manager's socket is its own: it is never unlinked here.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final

from motoolsd.adapters.directory import CacheDirectory
from motoolsd.core.errors import StartFailed
from motoolsd.wire.names import SOCKET

FIRST_DESCRIPTOR: Final = 3
FEEDS_PER_TIMEOUT: Final = 3
"""How often the watchdog is fed within its timeout: one feed may be late, or two."""
_VARIABLES: Final = (
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "SYSTEMD_EXEC_PID",
)


class ServiceManager:
    """What systemd gave this process, and where to tell it how we are. Without systemd every method does nothing."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take over what is meant for this process.

        Args:
            environment: what is the manager's is removed from it, whomever it was meant for.

        Raises:
            StartFailed: the manager passed something else than one listening Unix socket.
        """
        given = {name: environment.pop(name, "") for name in _VARIABLES}
        is_ours = str(os.getpid()) in (given["LISTEN_PID"], given["SYSTEMD_EXEC_PID"])
        # A job that itself is a service hands its variables down: they name another process.
        self._address = given["NOTIFY_SOCKET"] if is_ours else ""
        self.listener = _listener(given["LISTEN_FDS"]) if given["LISTEN_PID"] == str(os.getpid()) else None
        """Bound and listening already; None: we make our own."""
        self.is_there = is_ours
        """Whether a service manager started this process."""
        meant = given["WATCHDOG_PID"] in ("", str(os.getpid()))
        timeout_us = int(given["WATCHDOG_USEC"]) if is_ours and meant and given["WATCHDOG_USEC"].isdecimal() else 0
        self.feed_interval_s = timeout_us / 1e6 / FEEDS_PER_TIMEOUT
        """How often it wants to hear that we are well; 0: never."""

    def say_ready(self, status: str) -> None:
        """Connections are accepted from now on, or again after a reload."""
        self._say("READY=1", f"STATUS={status}")

    def say_reloading(self) -> None:
        """Settings are being read; `say_ready` is to follow."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1_000}")

    def say_stopping(self, reason: str) -> None:
        """It ends, on purpose."""
        self._say("STOPPING=1", f"STATUS=stopping: {reason}")

    def say_alive(self, status: str) -> None:
        """Feed the watchdog; one line of status for `systemctl status`."""
        self._say("WATCHDOG=1", f"STATUS={status}")

    def say_failed(self, message: str) -> None:
        """Why it does not start."""
        self._say(f"STATUS=cannot start: {message}")

    def _say(self, *lines: str) -> None:
        if not self._address:
            return
        # "@" stands for the abstract namespace. A manager that is gone is nobody to tell; one that is busy hears it
        # the next time.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        text = "\n".join(line.replace("\n", " ") for line in lines)
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(text.encode("utf-8", "backslashreplace"), address)


def _listener(count: str) -> socket.socket:
    if count != "1":
        message = f"the service manager passed {count or 'no'} sockets instead of one: see the socket unit"
        raise StartFailed(message)
    try:
        is_socket = stat.S_ISSOCK(os.fstat(FIRST_DESCRIPTOR).st_mode)
        listener = socket.socket(fileno=FIRST_DESCRIPTOR) if is_socket else None
    except OSError as error:
        message = f"the service manager's socket cannot be used: {error.strerror}"
        raise StartFailed(message) from error
    is_fit = listener is not None and (listener.family, listener.type) == (socket.AF_UNIX, socket.SOCK_STREAM)
    if listener is None or not is_fit or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        message = "the service manager passed something else than a listening Unix socket: see the socket unit"
        raise StartFailed(message)
    listener.set_inheritable(False)
    listener.setblocking(False)
    return listener


def check_listener(listener: socket.socket, directory: CacheDirectory) -> None:
    """See that clients of the directory come by a socket that was made for us.

    Raises:
        StartFailed: it listens somewhere else, or others may connect to it.
    """
    wanted = os.path.join(directory.path, SOCKET)
    path = os.fsdecode(listener.getsockname())
    if os.path.realpath(os.path.dirname(path)) != os.path.realpath(directory.path) or os.path.basename(path) != SOCKET:
        message = f"the socket unit listens at {path or 'an unnamed address'}, not at {wanted}: set its ListenStream"
        raise StartFailed(message)
    # A mode that is too wide is taken away: peers are asked who they are all the same.
    with suppress(OSError):
        os.chmod(SOCKET, 0o600, dir_fd=directory.descriptor)
