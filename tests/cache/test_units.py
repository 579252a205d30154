"""Units on disk, and what is refused before any is written. What they do: tests/systemd."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from motools.cache import units
from motools.cache.errors import CacheDirectoryMissing, CacheError
from motools.cache.units import DROP_IN, SERVICE, SOCKET_UNIT, unit_instance, unit_name


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where units go; a user manager answers."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(units, "user_manager_answers", lambda: True)
    return tmp_path / "systemd" / "user"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What systemctl is asked for."""
    calls: list[tuple[str, ...]] = []

    def systemctl(*words: str, checks: bool = True) -> str:
        del checks
        calls.append(words)
        return "active\n" if words[0] == "is-active" else ""

    monkeypatch.setattr(units, "_systemctl", systemctl)
    return calls


PATHS = ["/", "/tmp", "/a/b/.motools", "/.hidden", "/a b", "/a-b_c:d.e", "/é", "/a\\b", "/-", "/x/..y"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="needs systemd-escape")
def test_instance_is_what_systemd_makes_of_the_path(path: str) -> None:
    """The program is the reference."""
    done = subprocess.run(["systemd-escape", "--path", path], capture_output=True, text=True, timeout=30, check=True)
    assert unit_instance(path) == done.stdout.strip()


def test_instances_are_known_without_the_program() -> None:
    """And a path has one name, however it is written."""
    assert unit_instance("/") == "-"
    assert unit_instance("/home/u/.motools") == "home-u-.motools"
    assert unit_instance("/.a-b//c/") == "\\x2ea\\x2db-c"
    assert unit_name("/a", SOCKET_UNIT) == "motoolsd@a.socket"


def test_units_are_written_and_enabled(home: Path, asked: list[tuple[str, ...]], cache_dir: Path) -> None:
    """Two templates, and a drop-in that names this interpreter."""
    cache_dir.mkdir()
    done = units.install(str(cache_dir), enable=True)
    assert units.is_installed(str(cache_dir))
    assert "ListenStream=%f/motoolsd.sock" in (home / SOCKET_UNIT).read_text()
    assert "Type=notify" in (home / SERVICE).read_text()
    drop_in = (home / f"{unit_name(str(cache_dir), SERVICE)}.d" / DROP_IN).read_text()
    assert 'ExecStart=\nExecStart="' in drop_in
    assert drop_in.endswith('"-P" "-m" "motoolsd" serve --cache-dir %f\n')
    assert asked == [("daemon-reload",), ("enable", "--now", done.unit)]


def test_command_is_quoted_as_systemd_wants_it(
    home: Path, asked: list[tuple[str, ...]], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Specifiers, variables, quotes and backslashes in an interpreter's path."""
    cache_dir.mkdir()
    monkeypatch.setattr(units, "interpreter_command", lambda: ['/a "b"/%h/$x/\\y', "-m"])
    units.install(str(cache_dir), enable=False)
    (drop_in,) = home.glob(f"*/{DROP_IN}")
    assert 'ExecStart="/a \\"b\\"/%%h/$$x/\\\\y" "-m" serve' in drop_in.read_text()
    assert asked == [("daemon-reload",)]


def test_last_directory_takes_the_templates_along(home: Path, asked: list[tuple[str, ...]], short_dir: Path) -> None:
    """Until then they serve the others."""
    one, other = short_dir / "one", short_dir / "other"
    for directory in (one, other):
        directory.mkdir()
        units.install(str(directory), enable=False)
    assert units.uninstall(str(one))
    assert (home / SERVICE).exists()
    assert not units.uninstall(str(one)), "it is gone already"
    assert units.uninstall(str(other))
    assert list(home.iterdir()) == []
    assert ("disable", "--now", unit_name(str(one), SOCKET_UNIT)) in asked


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 100, "too long for a socket unit"),
        ("é", "other characters than printable ASCII"),
        ("quo'te", "quotes"),
        ("back\\slash", "backslashes"),
    ],
)
def test_directory_that_systemd_cannot_have_is_refused(
    home: Path, asked: list[tuple[str, ...]], short_dir: Path, name: str, said: str
) -> None:
    """Before anything is written; jobs start the daemon by themselves all the same."""
    directory = short_dir / name
    directory.mkdir()
    with pytest.raises(CacheError, match=said) as caught:
        units.install(str(directory), enable=True)
    assert "jobs start the daemon by themselves" in str(caught.value)
    assert not home.exists()
    assert asked == []


def test_without_a_manager_or_a_directory_nothing_is_written(
    home: Path, asked: list[tuple[str, ...]], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is told."""
    with pytest.raises(CacheDirectoryMissing):
        units.install(str(cache_dir), enable=True)
    cache_dir.mkdir()
    monkeypatch.setattr(units, "user_manager_answers", lambda: False)
    with pytest.raises(CacheError, match="no systemd user manager answers"):
        units.install(str(cache_dir), enable=True)
    assert not home.exists()
    assert asked == []


def test_start_stop_and_restart_go_by_the_units(home: Path, asked: list[tuple[str, ...]], cache_dir: Path) -> None:
    """The socket listens in any case; only the service stops."""
    cache_dir.mkdir()
    units.install(str(cache_dir), enable=False)
    asked.clear()
    socket, service = (unit_name(str(cache_dir), template) for template in (SOCKET_UNIT, SERVICE))
    units.start(str(cache_dir))
    assert units.stop(str(cache_dir))
    units.restart(str(cache_dir))
    assert units.is_listening(str(cache_dir))
    assert units.is_managed(str(cache_dir))
    assert asked == [
        ("start", socket, service),
        ("is-active", service),
        ("stop", service),
        ("start", socket),
        ("restart", service),
        ("is-active", socket),
    ]


def test_failing_systemctl_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command to try by hand, and what it said."""
    program = tmp_path / "systemctl"
    program.write_text("#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(CacheError, match=r"`systemctl --user start .*` failed: Failed to connect to bus"):
        units.start("/c")
    assert not units.is_listening("/c")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(CacheError, match="there is no systemctl"):
        units.start("/c")
