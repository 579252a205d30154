"""`motools daemon`: what each command says; what it does is tested with `motools.cache.control`."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from motools.cache import DaemonNotRunning, control, units
from motools.cli import logs
from motoolsd.wire.messages import Status
from tests.cli.conftest import Motools

STATUS = Status(
    pid=123,
    version="1.2.3",
    socket=b"/cache/\xff/motoolsd.sock",
    uptime_s=3_725.5,
    clients=2,
    entries=40,
    started_by="client",
    idle_timeout_s=900.0,
)
FIELDS = ["pid", "version", "socket", "uptime_s", "clients", "entries", "started_by", "idle_timeout_s", "durability"]


def answering(answer: object) -> Callable[..., object]:
    """A function that knows one answer."""
    return lambda *_: answer


def test_start_says_which_daemon_serves_what(motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pid, the directory, and when the daemon goes by itself."""
    monkeypatch.setattr(control, "start_daemon", answering((STATUS, False)))
    done = motools("daemon", "start", "-d", "/cache")
    text = "started: motoolsd 1.2.3, pid 123, serves /cache; it ends by itself after 15 min without clients\n"
    assert done == (0, "", text)


def test_start_of_a_running_daemon_is_no_failure(motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """`start` twice is fine, and says so."""
    status = Status(pid=123, version="1.2.3", socket=b"s", uptime_s=1.0, clients=1, entries=0)
    monkeypatch.setattr(control, "start_daemon", answering((status, True)))
    done = motools("daemon", "start", "-d", "/cache")
    assert done == (0, "", "already running: motoolsd 1.2.3, pid 123, serves /cache\n")


def test_stop_says_which_process_is_gone(motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pid of what was stopped."""
    monkeypatch.setattr(control, "stop_daemon", answering(123))
    assert motools("daemon", "stop", "-d", "/cache") == (0, "", "stopped: pid 123 served /cache\n")


def test_stop_of_nothing_is_no_failure(motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wanted is so already."""
    monkeypatch.setattr(control, "stop_daemon", answering(None))
    assert motools("daemon", "stop", "-d", "/cache") == (0, "", "not running: no daemon serves /cache\n")


def test_restart_stops_and_starts(motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are said."""
    monkeypatch.setattr(control, "stop_daemon", answering(122))
    monkeypatch.setattr(control, "start_daemon", answering((STATUS, False)))
    done = motools("daemon", "restart", "-d", "/cache")
    assert done.code == 0
    assert [line.split(",")[0] for line in done.err.splitlines()] == [
        "stopped: pid 122 served /cache",
        "started: motoolsd 1.2.3",
    ]


def test_status_for_programs(motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status --json` has every field, defaults too, numbers as numbers; CSV has the same."""
    monkeypatch.setattr(control, "get_status", answering(STATUS))
    document = json.loads(motools("daemon", "status", "--json").out)
    assert list(document) == ["schema_version", "as_of", *FIELDS, "sqlite_version"]
    assert (document["pid"], document["uptime_s"], document["durability"]) == (123, 3_725.5, "full")
    assert os.fsencode(document["socket"]) == STATUS.socket
    (row,) = csv.DictReader(io.StringIO(motools("daemon", "status", "--format", "csv").out))
    assert (row["clients"], row["entries"]) == ("2", "40")


def test_status_for_people(motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """Durations are readable, and a path cannot trick the terminal."""
    monkeypatch.setattr(control, "get_status", answering(STATUS))
    lines = motools("daemon", "status").out.splitlines()
    shown = {name.strip(): value for name, value in (line.split("  ", 1) for line in lines)}
    assert {name: value.strip() for name, value in shown.items()} == {
        "pid": "123",
        "version": "1.2.3",
        "socket": r"/cache/\xff/motoolsd.sock",
        "uptime": "1 h 2 min",
        "clients": "2",
        "entries": "40",
        "started by": "client",
        "idle timeout": "15 min",
        "durability": "full",
        "sqlite version": "",
    }


def test_status_without_a_daemon_is_69(motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts can tell, and people are told what to type."""

    def fail(_directory: str) -> Status:
        raise DaemonNotRunning("start one with `motools daemon start`")

    monkeypatch.setattr(control, "get_status", fail)
    done = motools("daemon", "status", "--json")
    assert done == (69, "", "motools: error: start one with `motools daemon start`\n")


def test_logs_prints_the_last_lines_escaped(motools: Motools, tmp_path: Path) -> None:
    """The log is data, on stdout; what clients had written into it is not obeyed by a terminal."""
    control.log_path(str(tmp_path)).write_bytes(b"one\ntwo \xff\x1b[2J\nthree\n")
    assert motools("daemon", "logs", "-n", "2", "-d", str(tmp_path)) == (0, "two \\xff\\x1b[2J\nthree\n", "")


def test_logs_without_a_log_is_not_found(motools: Motools, tmp_path: Path) -> None:
    """A directory where no daemon ran is said to be one."""
    done = motools("daemon", "logs", "-d", str(tmp_path))
    assert (done.code, done.out) == (3, "")
    assert "no daemon has run there" in done.err


def test_logs_goes_on_until_interrupted(motools: Motools, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`-f` prints what is added, and Ctrl-C ends it with 130."""
    control.log_path(str(tmp_path)).write_text("one\n", encoding="utf-8")

    def follow(_path: Path, file: io.BufferedReader, _pause: object) -> object:
        assert file.read() == b"", "what was printed already is not printed again"
        yield "two\n"
        raise KeyboardInterrupt

    monkeypatch.setattr(logs, "follow", follow)
    assert motools("daemon", "logs", "-f", "-d", str(tmp_path)) == (130, "one\ntwo\n", "")


def test_run_becomes_the_daemon(motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` replaces the process, so that signals and exit code are the daemon's own."""
    calls: list[tuple[str, list[str]]] = []

    class ReplacedError(BaseException):
        pass

    def execv(program: str, command: list[str]) -> None:
        calls.append((program, command))
        raise ReplacedError

    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(ReplacedError):
        motools("daemon", "run", "-d", "/cache/./here")
    serve = ["-P", "-m", "motoolsd", "serve", "--cache-dir", "/cache/here"]
    assert calls == [(sys.executable, [sys.executable, *serve])]


def test_run_that_cannot_be_says_why(motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bare OSError reaches the user."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    done = motools("daemon", "run", "-d", "/cache")
    assert done == (1, "", "motools: error: /nowhere/python cannot be run: No such file or directory\n")


def test_stop_of_a_unit_says_that_its_socket_starts_it_again(motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """And how to end that."""
    for name in ("is_managed", "stop", "is_listening"):
        monkeypatch.setattr(units, name, answering(True))
    code, out, said = motools("daemon", "stop", "-d", "/a b")
    assert (code, out) == (0, "")
    assert said.splitlines()[0] == "stopped: the service that served /a b"
    assert "starts it again for the next job" in said
    assert "motools daemon uninstall --cache-dir '/a b'" in said


def test_start_and_restart_of_a_unit_ask_the_user_manager(motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the daemon itself, which is there by then."""
    asked: list[str] = []
    monkeypatch.setattr(units, "is_managed", answering(True))
    for name in ("start", "restart"):
        monkeypatch.setattr(units, name, lambda _directory, name=name: asked.append(name))
    monkeypatch.setattr(control, "start_daemon", answering((STATUS, True)))
    assert motools("daemon", "start", "-d", "/c")[0] == 0
    assert motools("daemon", "restart", "-d", "/c")[0] == 0
    assert asked == ["start", "restart", "start"]


@pytest.mark.parametrize(("enable", "lingers"), [(False, False), (True, True)])
def test_install_says_what_is_still_to_do(
    motools: Motools, monkeypatch: pytest.MonkeyPatch, *, enable: bool, lingers: bool
) -> None:
    """Enabling it, and lingering, each with the command to type."""
    linger = units.Linger(lingers, "u")
    done = units.Installation("motoolsd@c.socket", Path("/units"), linger)
    monkeypatch.setattr(units, "install", lambda _directory, *, enable: done if enable in (True, False) else None)
    code, out, said = motools("daemon", "install", "-d", "/c", *(["--enable"] if enable else []))
    assert (code, out) == (0, "")
    assert said.startswith("installed: motoolsd@c.socket in /units\n")
    assert ("systemctl --user enable --now 'motoolsd@c.socket'" in said) is not enable
    assert ("loginctl enable-linger u" in said) is not lingers


@pytest.mark.parametrize(("was_there", "said"), [(True, "uninstalled: "), (False, "not installed: ")])
def test_uninstall_says_whether_there_was_any(
    motools: Motools, monkeypatch: pytest.MonkeyPatch, *, was_there: bool, said: str
) -> None:
    """Both are done."""
    monkeypatch.setattr(units, "uninstall", answering(was_there))
    code, _, words = motools("daemon", "uninstall", "-d", "/c")
    assert code == 0
    assert words.startswith(said)
