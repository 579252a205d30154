"""File names are part of the contract with the user and with other versions."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from motoolsd.wire import names


def test_names_are_those_of_the_documents() -> None:
    """People look at these files, and daemons of other versions lock them."""
    assert (names.DATABASE, names.SOCKET, names.LOG, names.CONFIG) == (
        "cache.db",
        "motoolsd.sock",
        "motoolsd.log",
        "config.toml",
    )
    assert (names.LOCK, names.START_LOCK) == ("motoolsd.lock", "motoolsd.start")
    assert names.FILE_CATEGORIES == ("datasets", "runs", "evals")


def test_longest_socket_path_is_the_kernel_s(short_dir: Path) -> None:
    """A path of that many bytes can be bound, one more cannot."""
    room = names.SOCKET_PATH_SIZE_MAX - len(str(short_dir)) - 1
    with socket.socket(socket.AF_UNIX) as listening:
        with pytest.raises(OSError, match="too long"):
            listening.bind(str(short_dir / ("x" * (room + 1))))
        listening.bind(str(short_dir / ("x" * room)))
