"""The way to the socket: who is there, and what is said if nobody is."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from motools.cache import SyncCache
from motools.cache.endpoint import check_directory, check_owner, open_socket
from motools.cache.errors import CacheDirectoryMissing, CacheUnavailable, DaemonBusy, DaemonNotRunning, PeerRefused
from motoolsd.wire.names import SOCKET
from tests.cache.scripted import scripted_daemon


@contextmanager
def running_as(monkeypatch: pytest.MonkeyPatch, uid: int) -> Iterator[None]:
    """This process believes that it runs as somebody else: everything on disk and on the wire is then a stranger's."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: uid)
        yield


def test_missing_directory_is_named(cache_dir: Path) -> None:
    """With what to type to make it."""
    with pytest.raises(CacheDirectoryMissing, match=r"no cache directory .*motools daemon start"):
        open_socket(str(cache_dir), timeout_s=1.0)


def test_nobody_listening_is_told_from_a_missing_directory(cache_dir: Path) -> None:
    """Without a socket, and with one that a killed daemon left."""
    cache_dir.mkdir()
    with pytest.raises(DaemonNotRunning):
        open_socket(str(cache_dir), timeout_s=1.0)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(cache_dir / SOCKET))
    with pytest.raises(DaemonNotRunning):
        open_socket(str(cache_dir), timeout_s=1.0)


def test_file_in_place_of_the_directory_is_refused(cache_dir: Path) -> None:
    """It cannot be used, and why."""
    cache_dir.write_text("")
    with pytest.raises(CacheDirectoryMissing, match="Not a directory"):
        open_socket(str(cache_dir), timeout_s=1.0)
    with pytest.raises(CacheDirectoryMissing, match="Not a directory"):
        check_directory(str(cache_dir))


def test_daemon_that_does_not_accept_is_busy(short_dir: Path) -> None:
    """A full backlog is a daemon that lives and has no time, never one that is gone."""
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(str(short_dir / SOCKET))
        listening.listen(0)
        first.connect(str(short_dir / SOCKET))
        with pytest.raises(DaemonBusy, match="does not accept"):
            open_socket(str(short_dir), timeout_s=0.05)


def test_daemon_of_another_user_is_refused_before_a_byte_is_sent(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever squats in the directory learns nothing."""
    with scripted_daemon(cache_dir) as daemon, running_as(monkeypatch, 20_001):
        with pytest.raises(PeerRefused, match="cannot be shared by a group"):
            open_socket(str(cache_dir), timeout_s=1.0)
        assert daemon.requests == []


def test_directory_of_another_user_is_refused_and_nothing_is_made_in_it(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a lock file, though the permissions would allow it."""
    cache_dir.mkdir()
    with running_as(monkeypatch, 20_001):
        for check in (check_owner, check_directory):
            with pytest.raises(PeerRefused, match="belongs to uid"):
                check(str(cache_dir))
        with SyncCache(cache_dir, timeout_s=5.0) as cache, pytest.raises(PeerRefused):
            cache.get_file_id("d")
    assert list(cache_dir.iterdir()) == []


def test_directory_without_a_database_is_no_cache(cache_dir: Path) -> None:
    """What only reads does not make one."""
    cache_dir.mkdir()
    with pytest.raises(CacheDirectoryMissing, match=r"no cache in .* cache\.db"):
        check_directory(str(cache_dir))
    (cache_dir / "cache.db").touch()
    check_directory(str(cache_dir))


@pytest.mark.parametrize("name", ["plain", "x" * 150, "caf\udce9"])
def test_socket_is_reached_whatever_the_path(name: str, short_dir: Path) -> None:
    """Paths over 107 bytes, and names that are no UTF-8."""
    directory = short_dir / name
    directory.mkdir()
    descriptor = os.open(directory, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{descriptor}/{SOCKET}")
        os.close(descriptor)
        listening.listen()
        with open_socket(str(directory), timeout_s=1.0) as connected:
            assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12) == struct.pack(
                "3i", os.getpid(), os.geteuid(), os.getegid()
            )


def test_descriptors_are_not_inherited(cache_dir: Path) -> None:
    """A program that the job starts does not keep the connection open."""
    with scripted_daemon(cache_dir), open_socket(str(cache_dir), timeout_s=1.0) as connected:
        assert not connected.get_inheritable()


def test_lack_of_descriptors_is_said_and_is_no_missing_directory(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of descriptors no socket can be made: no bare OSError reaches a user, and no retry helps."""

    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    cache_dir.mkdir()
    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(CacheUnavailable, match="ulimit") as caught:
        open_socket(str(cache_dir), timeout_s=1)
    assert caught.value.is_final


def test_disk_that_fails_is_no_mistake_of_the_callers(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that can do without the cache goes on; nobody is told to name another directory."""
    cache_dir.mkdir()

    def fail(_path: object, **_options: object) -> os.stat_result:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.stat", fail)
    with pytest.raises(DaemonNotRunning, match=r"cannot be read \(Input/output error\): see the kernel log"):
        open_socket(str(cache_dir), timeout_s=1.0)


def test_link_in_place_of_the_socket_leads_to_no_daemon_of_another_cache(cache_dir: Path, short_dir: Path) -> None:
    """Its uid would be ours: what is meant for one cache would be stored in another."""
    cache_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(short_dir / "other"))
        other.listen()
        (cache_dir / "motoolsd.sock").symlink_to(short_dir / "other")
        with pytest.raises(PeerRefused, match=r"is a link.*Remove it"):
            open_socket(str(cache_dir), timeout_s=1.0)
