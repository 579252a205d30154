"""Launch: who starts a daemon, and when nobody does."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from motools.cache import launch, spawn
from motools.cache.errors import CacheDirectoryMissing, DaemonBusy, DaemonNotRunning, UnsupportedFilesystem
from motools.cache.launch import Launch, autostart_is_on, connect, is_locked, start
from tests.cache.scripted import scripted_daemon


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directories in which a daemon was to be started; none is."""
    directories: list[str] = []

    def spawn_daemon(directory: str, *, deadline_s: float) -> bool:
        directories.append(directory)
        message = "not in this test"
        error = DaemonNotRunning(message)
        error.is_final = True
        raise error

    monkeypatch.setattr(spawn, "spawn_daemon", spawn_daemon)
    return directories


@pytest.mark.parametrize(
    ("text", "is_on"), [(None, True), ("1", True), ("", True), ("0", False), (" FALSE ", False), ("no", False)]
)
def test_environment_turns_autostart_off(text: str | None, monkeypatch: pytest.MonkeyPatch, *, is_on: bool) -> None:
    """`MOTOOLS_AUTOSTART=0`, however it is spelled."""
    if text is not None:
        monkeypatch.setenv("MOTOOLS_AUTOSTART", text)
    assert autostart_is_on() is is_on


def test_running_daemon_is_used_and_none_is_started(cache_dir: Path, spawned: list[str]) -> None:
    """The usual case touches no lock."""
    with scripted_daemon(cache_dir):
        connect(str(cache_dir), timeout_s=5.0, autostart=True, create=True).close()
        assert not (cache_dir / "motoolsd.start").exists()
    assert spawned == []


def test_first_call_makes_the_directory_private(cache_dir: Path, spawned: list[str]) -> None:
    """With its parents, and mode 0700 whatever the umask."""
    with pytest.raises(DaemonNotRunning):
        connect(str(cache_dir), timeout_s=5.0, autostart=True, create=True)
    assert spawned == [str(cache_dir)]
    assert cache_dir.stat().st_mode & 0o777 == 0o700


def test_reader_makes_nothing(cache_dir: Path, spawned: list[str]) -> None:
    """Without `create` a directory without a cache is an error."""
    with pytest.raises(CacheDirectoryMissing):
        connect(str(cache_dir), timeout_s=5.0, autostart=True, create=False)
    assert not cache_dir.exists()
    assert spawned == []


def test_without_autostart_the_error_is_final(cache_dir: Path, spawned: list[str]) -> None:
    """Nobody will start one: trying again would say the same."""
    cache_dir.mkdir()
    with pytest.raises(DaemonNotRunning) as caught:
        connect(str(cache_dir), timeout_s=5.0, autostart=False, create=True)
    assert caught.value.is_final
    assert spawned == []


def test_file_in_place_of_the_directory_is_named(cache_dir: Path, spawned: list[str]) -> None:
    """It is left as it is."""
    cache_dir.write_text("precious")
    with pytest.raises(CacheDirectoryMissing, match="Not a directory"):
        start(str(cache_dir), 5.0)
    assert cache_dir.read_text() == "precious"


def test_directory_that_cannot_be_made_is_named(short_dir: Path, spawned: list[str]) -> None:
    """With the reason, and how to name another one."""
    (short_dir / "file").write_text("")
    with pytest.raises(CacheDirectoryMissing, match=r"Not a directory.*--cache-dir"):
        start(str(short_dir / "file" / ".motools"), 5.0)


def holding(path: Path) -> int:
    """A lock file held by somebody; the descriptor that holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


@pytest.mark.parametrize("name", ["motoolsd.start", "motoolsd.lock"])
def test_who_finds_somebody_starting_waits_and_gives_up_in_time(name: str, short_dir: Path, spawned: list[str]) -> None:
    """A client that starts one, or a daemon that is coming up: one interpreter is enough."""
    descriptor = holding(short_dir / name)
    begun_s = time.monotonic()
    with pytest.raises(DaemonBusy):
        start(str(short_dir), 0.2)
    assert 0.2 <= time.monotonic() - begun_s < 0.3
    assert spawned == []
    os.close(descriptor)


def test_lock_is_told_without_being_kept(short_dir: Path) -> None:
    """Looking leaves the lock to be had."""
    assert not is_locked(str(short_dir), "motoolsd.lock")
    descriptor = holding(short_dir / "motoolsd.lock")
    assert is_locked(str(short_dir), "motoolsd.lock")
    os.close(descriptor)
    assert not is_locked(str(short_dir), "motoolsd.lock")


@pytest.mark.parametrize("order", ["before", "after"])
def test_socket_that_came_too_late_is_closed(order: str, cache_dir: Path) -> None:
    """A caller that stopped waiting leaves no descriptor behind."""
    with scripted_daemon(cache_dir):
        late = Launch(str(cache_dir), timeout_s=5.0, autostart=False, create=True)
        steps: list[Callable[[], object]] = [late.abandon, late.run]
        if order == "after":
            steps.reverse()
        results = [step() for step in steps]
    connected = next(result for result in results if result is not None)
    assert getattr(connected, "fileno")() == -1  # noqa: B009 - the list knows it as an object
    assert launch.PAUSE_FIRST_S < launch.PAUSE_LAST_S


def test_file_system_that_does_not_lock_is_refused(
    cache_dir: Path, spawned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without locks there would be several daemons: said with the way out, and none is started."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UnsupportedFilesystem, match="local disk"):
        start(str(cache_dir), 1)
    assert spawned == []


def test_looking_at_a_lock_keeps_nothing_in_a_child_forked_meanwhile(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the descriptor, as a fork makes one, does not hold the lock that was only looked at."""
    path = short_dir / "lock"
    path.touch()
    copies: list[int] = []
    flock = fcntl.flock

    def flock_and_copy(descriptor: int, operation: int) -> None:
        copies.append(os.dup(descriptor))
        flock(descriptor, operation)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock_and_copy)
        assert not is_locked(str(short_dir), path.name)
    with path.open("rb") as file:
        flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for copy in copies:
        os.close(copy)
