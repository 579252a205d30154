"""The listening socket: private, reachable over long paths, removed only if it is ours."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from motoolsd.adapters.directory import CacheDirectory, open_directory
from motoolsd.adapters.socket import bindable_path, open_listener, peer_credentials
from motoolsd.core.errors import StartFailed
from motoolsd.wire.names import SOCKET, SOCKET_PATH_SIZE_MAX


def connect(path: str | Path) -> socket.socket:
    """A client."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    return client


def test_socket_is_private_and_listens(directory: CacheDirectory, cache_dir: Path) -> None:
    """Mode 0600; the kernel says who is at the other end; nothing is left but the socket, and at the end nothing."""
    with open_listener(directory, backlog=5) as listener:
        assert (cache_dir / SOCKET).stat().st_mode & 0o777 == 0o600
        with connect(cache_dir / SOCKET):
            connection, _ = listener.accept()
            with connection:
                assert peer_credentials(connection) == (os.getpid(), os.geteuid(), os.getegid())
        assert [path.name for path in cache_dir.glob("motoolsd.*")] == [SOCKET]
    assert list(cache_dir.glob("motoolsd.*")) == []


@pytest.mark.parametrize("extra", [0, 1, 300])
def test_long_path_works(short_dir: Path, extra: int) -> None:
    """A path that does not fit into an address is reached through the open directory."""
    length = SOCKET_PATH_SIZE_MAX - len(f"/{SOCKET}.{os.getpid()}") + extra
    path = short_dir
    while len(str(path)) < length:
        path /= "d" * max(1, min(100, length - len(str(path)) - 1))
    with open_directory(str(path)) as directory, open_listener(directory, backlog=5):
        with connect(f"/proc/self/fd/{directory.descriptor}/{SOCKET}"):
            pass
        is_long = len(os.fsencode(bindable_path(directory, f"{SOCKET}.{os.getpid()}"))) != len(
            str(path / f"{SOCKET}.{os.getpid()}")
        )
        assert is_long == (len(str(path / f"{SOCKET}.{os.getpid()}")) > SOCKET_PATH_SIZE_MAX)


def test_path_of_another_encoding_works(short_dir: Path) -> None:
    """A directory's name is bytes."""
    path = short_dir / os.fsdecode(b"\xff\xfe")
    with open_directory(str(path)) as directory, open_listener(directory, backlog=5), connect(path / SOCKET):
        pass


def test_stale_socket_is_replaced(directory: CacheDirectory, cache_dir: Path) -> None:
    """What a killed daemon left behind, also under its temporary name, is in nobody's way."""
    for name in (SOCKET, f"{SOCKET}.{os.getpid()}"):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(cache_dir / name))
    with open_listener(directory, backlog=5), connect(cache_dir / SOCKET):
        pass


def test_socket_of_somebody_else_is_not_removed(directory: CacheDirectory, cache_dir: Path) -> None:
    """A stopping daemon removes its own socket only; a successor's stays."""
    with open_listener(directory, backlog=5):
        (cache_dir / SOCKET).unlink()
        successor = socket.socket(socket.AF_UNIX)
        successor.bind(str(cache_dir / SOCKET))
        successor.listen()
    with successor, connect(cache_dir / SOCKET):
        pass


def test_socket_in_a_renamed_directory_is_removed_there(directory: CacheDirectory, cache_dir: Path) -> None:
    """Everything goes by the held directory, never by its path."""
    moved = cache_dir.with_name("moved")
    with open_listener(directory, backlog=5):
        cache_dir.rename(moved)
        cache_dir.mkdir()
        (cache_dir / SOCKET).write_text("not ours")
    assert (cache_dir / SOCKET).read_text() == "not ours"
    assert not (moved / SOCKET).exists()


def test_place_that_is_taken_is_refused(directory: CacheDirectory, cache_dir: Path) -> None:
    """A directory at the socket's path is nothing that we would remove."""
    (cache_dir / SOCKET).mkdir()
    with pytest.raises(StartFailed, match="cannot listen"), open_listener(directory, backlog=5):
        pass
    assert [path.name for path in cache_dir.glob("motoolsd.*")] == [SOCKET]
