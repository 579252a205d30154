"""What happens under a real `systemd --user` manager. Run by test_units.py, inside the manager's namespace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Final

import pytest

from motools.cache import SyncCache
from motools.cache.errors import CacheError, DaemonBusy, DaemonNotRunning
from motools.cache.units import DROP_IN, SERVICE, SOCKET_UNIT, unit_name, units_directory

WAIT_S: Final = 20.0
WRITERS: Final = 4
IDLE_S: Final = 0.3


def motools(*words: str) -> subprocess.CompletedProcess[str]:
    """A command, by this environment's interpreter."""
    command = [sys.executable, "-P", "-m", "motools.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def systemctl(*words: str) -> str:
    """What it prints."""
    done = subprocess.run(["systemctl", "--user", *words], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip()


class Unit:
    """The units of one directory."""

    def __init__(self, directory: Path) -> None:
        """Not installed yet."""
        self.directory = directory
        self.service = unit_name(str(directory), SERVICE)
        self.socket = unit_name(str(directory), SOCKET_UNIT)

    def show(self, name: str) -> str:
        """A property of the service."""
        return systemctl("show", self.service, "--property", name, "--value")

    @property
    def pid(self) -> int:
        """Of the daemon; 0: none runs."""
        return int(self.show("MainPID"))

    def install(self, *settings: str) -> None:
        """With settings of the service beside those of the template."""
        place = units_directory() / f"{self.service}.d"
        place.mkdir(parents=True, exist_ok=True)
        (place / "test.conf").write_text("\n".join(["[Service]", *settings, ""]))
        done = motools("daemon", "install", "--enable", "-d", str(self.directory))
        assert done.returncode == 0, done.stderr

    def client(self, timeout_s: float = WAIT_S) -> SyncCache:
        """A client that starts no daemon itself."""
        return SyncCache(self.directory, autostart=False, memory_entries=0, timeout_s=timeout_s)


@pytest.fixture(autouse=True)
def managers_home(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Units are written where the manager, which knows no variable of ours, looks for them."""
    monkeypatch.delenv("XDG_CONFIG_HOME")


@pytest.fixture
def unit(short_dir: Path) -> Iterator[Unit]:
    """Of a directory that is there; uninstalled afterwards."""
    directory = short_dir / "a cache-%%h" / ".motools"
    directory.mkdir(parents=True)
    unit = Unit(directory)
    yield unit
    (units_directory() / f"{unit.service}.d" / "test.conf").unlink(missing_ok=True)
    assert motools("daemon", "uninstall", "-d", str(directory)).returncode == 0
    assert unit.pid == 0


def wait_for(is_so: Callable[[], bool]) -> None:
    """Until something is so."""
    ends_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < ends_s
        time.sleep(0.02)


class Writing:
    """Threads that write until they are told to end."""

    def __init__(self, directory: Path, *, autostart: bool) -> None:
        """Nothing is written yet."""
        self._directory = directory
        self._autostart = autostart
        self._ended = threading.Event()
        self.acknowledged: dict[str, str] = {}
        self.failures: list[str] = []

    def _write(self, number: int) -> None:
        step = 0
        with SyncCache(self._directory, autostart=self._autostart, timeout_s=WAIT_S) as cache:
            while not self._ended.is_set():
                step += 1
                try:
                    cache.set_file_id(f"{number}.{step}", f"file {step}")
                except CacheError as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                    return
                self.acknowledged[f"{number}.{step}"] = f"file {step}"

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Some have been written when the block begins, and more when it is left."""
        threads = [threading.Thread(target=self._write, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        try:
            self.wait_for_more()
            yield
            self.wait_for_more()
        finally:
            self._ended.set()
            for thread in threads:
                thread.join(WAIT_S)

    def wait_for_more(self) -> None:
        """Until some more were acknowledged."""
        before = len(self.acknowledged)
        wait_for(lambda: len(self.acknowledged) > before + 20 or bool(self.failures))

    def judge(self, unit: Unit) -> None:
        """No call failed, and everything that was answered is there."""
        assert self.failures == []
        with unit.client() as cache:
            assert {key: cache.get_file_id(key) for key in self.acknowledged} == self.acknowledged


def test_first_connection_starts_the_daemon(unit: Unit) -> None:
    """Nothing runs before; then it says who started it, and how it is."""
    unit.install()
    assert unit.pid == 0
    with unit.client() as cache:
        status = cache.get_status()
        assert (status.started_by, status.pid) == ("systemd", unit.pid)
        assert status.idle_timeout_s > 0
        cache.set_file_id("d", "file")
    assert "clients" in unit.show("StatusText")
    assert (unit.directory / "motoolsd.sock").stat().st_mode & 0o777 == 0o600


def test_units_are_verified_without_a_word(unit: Unit) -> None:
    """Systemd knows every line."""
    unit.install()
    for name in (unit.socket, unit.service):
        done = subprocess.run(
            ["systemd-analyze", "--user", "verify", name], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_hardening_is_in_force(unit: Unit) -> None:
    """A user namespace of its own, /usr read-only, no new privileges, a filter of system calls."""
    unit.install()
    with unit.client() as cache:
        process = Path(f"/proc/{cache.get_status().pid}")
        assert (process / "ns/user").readlink() != Path("/proc/self/ns/user").readlink()
        mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
        assert any(fields[4] == "/usr" and "ro" in fields[5].split(",") for fields in mounts)
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_killed_daemon_is_followed_by_another(unit: Unit) -> None:
    """At once, and nothing is lost."""
    unit.install()
    with unit.client() as cache:
        for number in range(3):
            cache.set_file_id(f"d{number}", "file")
            before = unit.pid
            os.kill(before, signal.SIGKILL)
            assert cache.get_file_id(f"d{number}") == "file"
            assert unit.pid not in (0, before)


def test_stopped_process_is_ended_by_the_watchdog(unit: Unit) -> None:
    """Until then a client is told that the daemon is busy; the next daemon answers, and nothing is lost."""
    unit.install("WatchdogSec=2s", "TimeoutAbortSec=1s")
    with unit.client() as cache:
        cache.set_file_id("d", "file")
        before = unit.pid
        os.kill(before, signal.SIGSTOP)
        with unit.client(timeout_s=0.5) as hasty, pytest.raises(DaemonBusy, match="did not answer"):
            hasty.get_file_id("d")
        assert cache.get_file_id("d") == "file"
        assert unit.pid not in (0, before)
    assert int(unit.show("NRestarts")) >= 1


def test_auto_started_daemon_is_taken_over_under_load(unit: Unit) -> None:
    """Its clients notice nothing; there is one daemon, and it is the unit's."""
    writing = Writing(unit.directory, autostart=True)
    with writing.under_way():
        with unit.client() as cache:
            status = cache.get_status()
            assert status.started_by == "client"
            first = status.pid
        unit.install()
        with unit.client() as cache:
            assert cache.get_status().started_by == "systemd"
        writing.wait_for_more()
        wait_for(lambda: not Path(f"/proc/{first}").exists())
    writing.judge(unit)


def test_auto_start_leaves_the_units_socket_in_its_place(unit: Unit) -> None:
    """A daemon that somebody starts beside it sees that another is to serve."""
    unit.install()
    before = (unit.directory / "motoolsd.sock").stat().st_ino
    command = [sys.executable, "-P", "-m", "motoolsd", "serve", "-d", str(unit.directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "systemd socket unit" in done.stderr
    assert (unit.directory / "motoolsd.sock").stat().st_ino == before
    with unit.client() as cache:
        assert cache.get_status().started_by == "systemd"


def test_stop_under_load_loses_nothing(unit: Unit) -> None:
    """Whoever writes goes on with the next daemon, which the socket starts."""
    unit.install()
    writing = Writing(unit.directory, autostart=False)
    with writing.under_way():
        for _ in range(3):
            before = unit.pid
            done = motools("daemon", "stop", "-d", str(unit.directory))
            assert done.returncode == 0, done.stderr
            assert "socket unit starts it again" in done.stderr
            writing.wait_for_more()
            assert unit.pid not in (0, before)
    writing.judge(unit)


def test_idle_exit_loses_no_request(unit: Unit) -> None:
    """Requests come just when the daemon is about to go, and each is answered."""
    (unit.directory / "config.toml").write_text(f"idle_timeout_s = {IDLE_S}\nwatch_interval_s = 0.05\n")
    unit.install()
    random, pids = Random(1), set()
    for number in range(20):
        with unit.client() as cache:
            cache.set_file_id(f"d{number}", "file")
            pids.add(cache.get_status().pid)
        time.sleep(IDLE_S + random.uniform(-0.05, 0.15))
    with unit.client() as cache:
        assert all(cache.get_file_id(f"d{number}") == "file" for number in range(20))
    assert len(pids) > 3, "it was never idle"
    assert unit.show("Result") == "success"


def test_reload_applies_the_settings(unit: Unit) -> None:
    """Without a restart, and the manager hears of it."""
    unit.install()
    with unit.client() as cache:
        before = cache.get_status()
        (unit.directory / "config.toml").write_text('durability = "normal"\n')
        systemctl("reload", unit.service)
        wait_for(lambda: cache.get_status().durability == "normal")
        assert cache.get_status().pid == before.pid
    assert systemctl("is-active", unit.service) == "active"


def test_unknown_setting_is_a_failed_start_that_says_so(unit: Unit) -> None:
    """In the status of the unit; once it is mended, the next connection is served."""
    (unit.directory / "config.toml").write_text("durabilty = 1\n")
    unit.install()
    with unit.client(timeout_s=1.0) as cache, pytest.raises((DaemonBusy, DaemonNotRunning)):
        cache.get_status()
    wait_for(lambda: "durability" in unit.show("StatusText"))
    (unit.directory / "config.toml").unlink()
    with unit.client() as cache:
        assert cache.get_status().started_by == "systemd"


def test_uninstall_leaves_nothing(unit: Unit) -> None:
    """No unit, no process, no socket; a job starts a daemon by itself, as before."""
    unit.install()
    with unit.client() as cache:
        cache.set_file_id("d", "file")
    (units_directory() / f"{unit.service}.d" / "test.conf").unlink()
    assert motools("daemon", "uninstall", "-d", str(unit.directory)).returncode == 0
    assert [path for path in units_directory().rglob("*") if path.is_file()] == []
    assert not (unit.directory / "motoolsd.sock").exists()
    with closing(SyncCache(unit.directory)) as cache:
        assert cache.get_file_id("d") == "file"
        assert cache.get_status().started_by == "client"
    assert motools("daemon", "stop", "-d", str(unit.directory)).returncode == 0


def test_two_directories_have_two_daemons(unit: Unit, short_dir: Path) -> None:
    """Taking the units of one away leaves the other's."""
    other = Unit(short_dir / "other")
    other.directory.mkdir()
    unit.install()
    other.install()
    with unit.client() as one, other.client() as two:
        assert one.get_status().pid != two.get_status().pid
    (units_directory() / f"{other.service}.d" / "test.conf").unlink()
    assert motools("daemon", "uninstall", "-d", str(other.directory)).returncode == 0
    assert (units_directory() / f"{unit.service}.d" / DROP_IN).is_file()
    with unit.client() as one:
        assert one.get_status().started_by == "systemd"
