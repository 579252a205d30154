"""Mending what needs no daemon: only what was left, only under the lock."""

from __future__ import annotations

import mmap
import socket
from pathlib import Path

import pytest

from motoolsd.adapters import lock as lock_module
from motoolsd.adapters.directory import CacheDirectory
from motoolsd.adapters.lock import hold_lock
from motoolsd.adapters.mending import remove_leftovers, remove_stamps, take_away_permissions, watched_files
from motoolsd.core.errors import AlreadyRunning, StartFailed
from motoolsd.wire.keys import STAMPS_SIZE_BYTES
from motoolsd.wire.names import LOCK, SOCKET, STAMPS


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse a held lock at once."""
    monkeypatch.setattr(lock_module, "PAUSE_S", 0)


def bind(path: Path) -> None:
    """A socket that nobody listens at any more."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def mode(path: Path) -> int:
    """Permission bits, links not followed."""
    return path.lstat().st_mode & 0o7777


def test_others_may_not_write_afterwards(directory: CacheDirectory, cache_dir: Path) -> None:
    """Directory, files and socket; reading stays allowed, and a link leads nobody out."""
    outside = cache_dir.parent / "outside"
    outside.write_bytes(b"")
    outside.chmod(0o666)
    cache_dir.chmod(0o775)
    (cache_dir / "cache.db").write_bytes(b"")
    (cache_dir / "cache.db").chmod(0o664)
    (cache_dir / "config.toml").symlink_to(outside)
    bind(cache_dir / SOCKET)
    (cache_dir / SOCKET).chmod(0o666)
    done = take_away_permissions(directory)
    assert len(done) == 3
    assert [mode(cache_dir), mode(cache_dir / "cache.db"), mode(cache_dir / SOCKET)] == [0o755, 0o644, 0o600]
    assert mode(outside) == 0o666
    assert take_away_permissions(directory) == []
    assert {file.name for file in watched_files(directory)} == {"cache.db", SOCKET, "config.toml"}


def test_leftovers_of_a_dead_daemon_go(directory: CacheDirectory, cache_dir: Path) -> None:
    """The socket and half-made files; what is no socket stays."""
    bind(cache_dir / SOCKET)
    (cache_dir / "stamps.new").write_bytes(b"")
    assert sorted(remove_leftovers(directory)) == [f"removed {SOCKET}", "removed stamps.new"]
    (cache_dir / SOCKET).write_bytes(b"somebody's")
    assert remove_leftovers(directory) == []
    assert (cache_dir / SOCKET).exists()


def test_nothing_goes_while_a_daemon_lives(directory: CacheDirectory, cache_dir: Path) -> None:
    """And its lock file says of it what it said."""
    bind(cache_dir / SOCKET)
    (cache_dir / STAMPS).write_bytes(b"short")
    with hold_lock(directory, now="noon"):
        said = (cache_dir / LOCK).read_bytes()
        for remove in (remove_leftovers, remove_stamps):
            with pytest.raises(AlreadyRunning):
                remove(directory)
    assert (cache_dir / SOCKET).exists()
    assert (cache_dir / STAMPS).exists()
    remove_leftovers(directory)
    assert (cache_dir / LOCK).read_bytes() == said


def test_stamps_go_only_if_no_daemon_could_use_them(directory: CacheDirectory, cache_dir: Path) -> None:
    """Whole ones stay; short ones go; a link goes, and not what it leads to."""
    stamps = cache_dir / STAMPS
    stamps.write_bytes(bytes(STAMPS_SIZE_BYTES))
    assert remove_stamps(directory) == []
    stamps.write_bytes(b"short")
    assert remove_stamps(directory) == [f"removed {STAMPS}"]
    assert remove_stamps(directory) == []
    kept = cache_dir.parent / "kept"
    kept.write_bytes(b"kept")
    stamps.symlink_to(kept)
    assert remove_stamps(directory) == [f"removed {STAMPS}"]
    assert kept.read_bytes() == b"kept"


def test_stamps_that_somebody_has_mapped_or_that_are_a_directory_stay(
    directory: CacheDirectory, cache_dir: Path
) -> None:
    """The refusal says why."""
    stamps = cache_dir / STAMPS
    stamps.write_bytes(bytes(4096))
    with (
        stamps.open("rb") as file,
        mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ),
        pytest.raises(StartFailed, match="mapped by jobs"),
    ):
        remove_stamps(directory)
    stamps.unlink()
    stamps.mkdir()
    with pytest.raises(StartFailed, match="directory"):
        remove_stamps(directory)
