"""The systemd user units of a cache directory: written, enabled, and asked to start and stop.

Units are two templates for all directories, and a drop-in for each directory, which names the interpreter that is to
run its daemon: two directories may belong to two environments.

Layer: motools.cache. Imports endpoint's names, spawn, errors and motoolsd.wire; loaded only by `motools daemon`.
Invariant: nothing is asked of a user manager for a directory that has no drop-in.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from motools.cache.errors import CacheDirectoryMissing, CacheError, DaemonBusy
from motools.cache.spawn import interpreter_command, user_manager_answers
from motoolsd.wire.names import SOCKET, SOCKET_PATH_SIZE_MAX

SERVICE: Final = "motoolsd@.service"
SOCKET_UNIT: Final = "motoolsd@.socket"
DROP_IN: Final = "interpreter.conf"
UNIT_NAME_SIZE_MAX: Final = 255
SYSTEMCTL_TIMEOUT_S: Final = 90.0
"""Longer than a start or a stop may take by the units."""
_FORGOTTEN: Final = re.compile(rb"""[^ -~]|["'\\]""")
"""Bytes in the path of a socket that systemd 252 does not know again after `daemon-reload`: it compares the path with
what it has written down with escapes, and leaves the socket to nobody."""
_PLAIN: Final = re.compile(rb"[A-Za-z0-9:_]")
_LEAVE_IT: Final = "leave it out: jobs start the daemon by themselves"


class Linger(NamedTuple):
    """Whether the user's manager, and the daemon with it, outlives their last session."""

    is_on: bool
    user: str


class Installation(NamedTuple):
    """What `install` has done."""

    unit: str
    """The socket unit's name."""
    directory: Path
    """Where the units lie."""
    linger: Linger


def unit_instance(directory: str) -> str:
    """A directory's path as systemd-escape(1) --path writes it.

    Args:
        directory: absolute.
    """
    path = os.fsencode(os.path.normpath(directory)).strip(b"/")
    if not path:
        return "-"
    escaped = []
    for at, byte in enumerate(path):
        one = bytes([byte])
        if one == b"/":
            escaped.append("-")
        elif _PLAIN.fullmatch(one) or (one == b"." and at):
            escaped.append(one.decode())
        else:
            escaped.append(f"\\x{byte:02x}")
    return "".join(escaped)


def unit_name(directory: str, template: str) -> str:
    """The name of a directory's unit."""
    return template.replace("@", f"@{unit_instance(directory)}")


def units_directory() -> Path:
    """Where a user's own units lie."""
    configuration = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(configuration, "systemd", "user")


def is_installed(directory: str) -> bool:
    """Whether a user unit serves a directory."""
    return _drop_in(directory).is_file()


def is_managed(directory: str) -> bool:
    """Whether a user manager can be asked to start and stop the daemon of a directory."""
    return is_installed(directory) and user_manager_answers()


def install(directory: str, *, enable: bool) -> Installation:
    """Write the units of a directory.

    Args:
        directory: absolute path of an existing directory.
        enable: whether its socket listens from now on, and after each login.

    Raises:
        CacheError: systemd cannot have this directory, or its user manager does not answer; nothing was written.
        CacheDirectoryMissing: there is no such directory.
    """
    _check(directory)
    place = units_directory()
    drop_in = _drop_in(directory)
    try:
        drop_in.parent.mkdir(parents=True, exist_ok=True)
        for template in (SERVICE, SOCKET_UNIT):
            _write(place / template, _template(template))
        _write(drop_in, _drop_in_text(interpreter_command()))
    except OSError as error:
        raise CacheError(f"{error.filename or place} cannot be written: {error.strerror}") from error
    _systemctl("daemon-reload")
    socket_unit = unit_name(directory, SOCKET_UNIT)
    if enable:
        _systemctl("enable", "--now", socket_unit)
    return Installation(socket_unit, place, linger())


def uninstall(directory: str) -> bool:
    """Stop and remove the units of a directory; whether there were any."""
    if not is_installed(directory):
        return False
    units = [unit_name(directory, template) for template in (SOCKET_UNIT, SERVICE)]
    if user_manager_answers():
        _systemctl("disable", "--now", units[0])
        _systemctl("stop", units[1])
    drop_in = _drop_in(directory)
    try:
        drop_in.unlink()
        if not any(drop_in.parent.iterdir()):
            drop_in.parent.rmdir()
        if not any(units_directory().glob(f"motoolsd@*.service.d/{DROP_IN}")):
            for template in (SERVICE, SOCKET_UNIT):
                (units_directory() / template).unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(f"{error.filename} cannot be removed: {error.strerror}") from error
    if user_manager_answers():
        _systemctl("daemon-reload")
    return True


def start(directory: str) -> None:
    """Have the user manager listen, and start the daemon now."""
    _systemctl("start", unit_name(directory, SOCKET_UNIT), unit_name(directory, SERVICE))


def stop(directory: str) -> bool:
    """Have the user manager stop the daemon; its socket stays. Whether one ran."""
    service = unit_name(directory, SERVICE)
    was_active = _systemctl("is-active", service, checks=False).strip() in ("active", "activating", "reloading")
    _systemctl("stop", service)
    return was_active


def restart(directory: str) -> None:
    """Have the user manager start the daemon anew; clients wait meanwhile."""
    _systemctl("start", unit_name(directory, SOCKET_UNIT))
    _systemctl("restart", unit_name(directory, SERVICE))


def is_listening(directory: str) -> bool:
    """Whether the socket unit is active: the next connection starts the daemon."""
    return _systemctl("is-active", unit_name(directory, SOCKET_UNIT), checks=False).strip() == "active"


def linger() -> Linger:
    """Whether the user's manager stays when nobody is logged in."""
    import pwd

    user = pwd.getpwuid(os.geteuid()).pw_name
    return Linger(os.path.exists(f"/var/lib/systemd/linger/{user}"), user)


def _check(directory: str) -> None:
    if not os.path.isdir(directory):
        raise CacheDirectoryMissing(directory)
    socket = os.fsencode(os.path.join(directory, SOCKET))
    name = unit_name(directory, SERVICE)
    if len(socket) > SOCKET_PATH_SIZE_MAX or len(name) > UNIT_NAME_SIZE_MAX:
        message = (
            f"{directory} is too long for a socket unit: its socket's path has {len(socket)} bytes of at most"
            f" {SOCKET_PATH_SIZE_MAX}, its unit's name {len(name)} of {UNIT_NAME_SIZE_MAX}. Use a shorter path, or"
            f" {_LEAVE_IT}"
        )
        raise CacheError(message)
    if _FORGOTTEN.search(socket):
        message = (
            f"{directory} holds quotes, backslashes or other characters than printable ASCII, and systemd loses sockets"
            f" of such paths when units are reloaded. Use another path, or {_LEAVE_IT}"
        )
        raise CacheError(message)
    if not user_manager_answers():
        message = f"no systemd user manager answers here (`systemctl --user status`): {_LEAVE_IT}"
        raise CacheError(message)


def _drop_in(directory: str) -> Path:
    return units_directory() / f"{unit_name(directory, SERVICE)}.d" / DROP_IN


def _drop_in_text(command: Sequence[str]) -> str:
    """The command that runs the daemon, quoted as systemd.service(5) wants it."""
    quoted = " ".join(f'"{_QUOTED.sub(_quote, word)}"' for word in command)
    return f"# Written by `motools daemon install`.\n[Service]\nExecStart=\nExecStart={quoted} serve --cache-dir %f\n"


_QUOTED: Final = re.compile(r'[%$"\\]')


def _quote(found: re.Match[str]) -> str:
    """Specifiers and variables are written twice; quotes and backslashes are escaped."""
    character = found[0]
    return character * 2 if character in "%$" else f"\\{character}"


def _template(name: str) -> str:
    """The text of a unit, which lies beside this module in a wheel, and in `systemd/` in a checkout."""
    for place in (Path(__file__).parent / "systemd", Path(__file__).parents[3] / "systemd"):
        if (place / name).is_file():
            return (place / name).read_text(encoding="utf-8")
    raise CacheError(f"this installation of motoolsd has no {name}: install it again")


def _write(path: Path, text: str) -> None:
    """Whole, or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _systemctl(*words: str, checks: bool = True) -> str:
    program = shutil.which("systemctl")
    if program is None:
        raise CacheError(f"there is no systemctl on this machine: {_LEAVE_IT}")
    command = [program, "--user", *words]
    shown = " ".join(["systemctl", "--user", *words])
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SYSTEMCTL_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DaemonBusy(f"`{shown}` did not end within {SYSTEMCTL_TIMEOUT_S:g} s") from error
    if checks and done.returncode:
        raise CacheError(f"`{shown}` failed: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
